"""What computes pixels, as the plan says it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from geo_refdiff import upscale
from geo_refdiff.restore.restorers import BicubicBackProjected, Conditions


class Asks(BicubicBackProjected):
    """Notes whether convolutions and matrix products on a GPU would be rounded to TF32."""

    seen: ClassVar[set[tuple[bool, bool]]] = set()

    def restore(self, batch: Conditions) -> torch.Tensor:
        self.seen.add((torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32))
        return super().restore(batch)


def test_float32_is_float32_and_the_plan_says_so(make_raster: Any, tmp_path: Path) -> None:
    scene = make_raster("scene.tif", np.arange(1600, dtype="uint16").reshape(1, 40, 40))
    result = upscale(scene, out=tmp_path / "o.tif", scale=4, model=Asks, keep=True, device="cpu")
    assert Asks.seen == {(False, False)}
    plan = json.loads((result.out.with_name("o.tif.parts") / "plan.json").read_text())
    assert plan["software"]["torch_tf32"] == "off"
