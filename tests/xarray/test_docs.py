"""docs/xarray.md: its code runs as it stands, from top to bottom."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import rasterio

PAGE = Path(__file__).parents[2] / "docs" / "xarray.md"


def test_the_code_of_the_page_runs(make_pair: Any, make_raster: Any, make_texture: Any, tmp_path: Path) -> None:
    make_pair(40, 48)
    make_raster("cd.tif", (make_texture((1, 80, 96)) * 2).astype("uint8"), pixel=20.0)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 3
    code = "import warnings\nwarnings.simplefilter('ignore')\n" + "\n".join(blocks)
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("(3, 320, 384) uint8 ((3,), (256, 64), (256, 128)) ")
    with rasterio.open(tmp_path / "sharp.tif") as dataset:
        assert dataset.shape == (320, 384)
        assert dataset.descriptions == ("red", "green", "blue")
    assert list((tmp_path / "work").iterdir()) == []
