"""Figures and pictures of a model in training, on tiles that it does not learn from."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from geo_refdiff.data.dataset import PairDataset
from geo_refdiff.diffusion.denoiser import Denoiser, wrap_network
from geo_refdiff.errors import GeoRefDiffError, InputError, OutputError
from geo_refdiff.evaluate import metrics
from geo_refdiff.evaluate.pictures import rgb
from geo_refdiff.options import SamplingOptions
from geo_refdiff.raster.gdal import one_line
from geo_refdiff.raster.picture import Panel, write_panels
from geo_refdiff.raster.window import Window
from geo_refdiff.restore.diffusion import DiffusionRestorer, sampler_settings
from geo_refdiff.restore.restorers import LR_MARGIN, Conditions
from geo_refdiff.sensor.inverse import back_project
from geo_refdiff.sensor.resize import upsample
from geo_refdiff.sensor.sensor import SensorModel
from geo_refdiff.sensor.units import BYTES
from geo_refdiff.train.augment import Sample
from geo_refdiff.train.pixels import Planes
from geo_refdiff.train.samples import reason

_SIDE = 256
_FULL_STEPS = 8
"""Of a sample of networks without a start."""
_FIGURES = {"psnr": metrics.psnr, "haarpsi": metrics.haarpsi, "energy": metrics.gradient_energy_ratio}


@dataclass(frozen=True, slots=True)
class ValidationPlan:
    """What is validated on.

    Attributes:
        scale: the factor.
        tiles: how many tiles.
        pictures: rows of the picture grid, 0 = none.
        folder: where the grids are written.
    """

    scale: int
    tiles: int
    pictures: int
    folder: Path


class TileValidation:
    """The same tiles each time: one factor, the default sensor, no mask; the middle of evenly chosen pairs.

    Args:
        datasets: where tiles come from.
        denoiser: the network as it is trained: its config and its window multiple.
        plan: what is wanted.
        device: where the network is.
        log: takes a line for the terminal: tiles that cannot be used, pictures that cannot be written.

    Raises:
        InputError: no tile can be used.
    """

    def __init__(
        self,
        datasets: Sequence[PairDataset],
        denoiser: Denoiser,
        plan: ValidationPlan,
        device: str,
        log: Callable[[str], None],
    ) -> None:
        self.config, self.plan, self.device, self.log = denoiser.config, plan, device, log
        self.sensor = SensorModel(plan.scale)
        step = math.lcm(plan.scale, denoiser.multiple)
        pairs = [(data, index) for data in datasets for index in range(len(data))]
        chosen = [pairs[int(k)] for k in np.linspace(0, len(pairs) - 1, min(plan.tiles, len(pairs)))]
        self.tiles = [tile for data, index in chosen if (tile := self._tile(data, index, step)) is not None]
        if not self.tiles:
            raise InputError(f"no validation tile can be used: {len(chosen)} pairs are too small or cannot be read")

    def _tile(self, data: PairDataset, index: int, step: int) -> tuple[Tensor, Tensor] | None:
        """Truth and reference (1, C, h, w), DN, NaN = missing in the reference."""
        height, width = data.shape(index)
        side = min(_SIDE, height, width) // step * step
        if side == 0:
            self.log(f"not validated on: {data.name(index)}: {height} x {width} px, smaller than {step}")
            return None
        try:
            crop = data.read(index, (height - side) // 2, (width - side) // 2, side, side)
        except GeoRefDiffError as error:
            self.log(f"not validated on: {data.name(index)}: {reason(data.name(index), error)}")
            return None
        sample = Sample.of(Planes.of(crop, torch.device("cpu")))
        return sample.truth[None], sample.ref[None]

    @torch.no_grad()
    def __call__(self, network: nn.Module, step: int) -> dict[str, float]:
        """Means over the tiles: PSNR, HaarPSI and gradient energy ("energy") of the mean, the start and a sample."""
        denoiser = wrap_network(network, self.config).eval()
        sums: dict[str, list[float]] = {}
        rows: list[list[Panel]] = []
        for truth, ref in self.tiles:
            lr = self.sensor.observe(truth)
            images = {"bicubic-ibp": back_project(upsample(lr, self.plan.scale), lr, self.sensor)}
            images |= self._images(denoiser, lr, ref)
            for name, image in images.items():
                for figure, measure in _FIGURES.items():
                    sums.setdefault(f"{name} {figure}", []).append(float(measure(image, truth)))
            if len(rows) < self.plan.pictures:
                shown = {"LR": lr, "Ref": ref, **images, "truth": truth}
                rows.append(
                    [Panel(name, rgb(image).clip(0, 255).round().astype(np.uint8)) for name, image in shown.items()]
                )
        if rows:
            self._draw(rows, step)
        return {name: float(np.mean(values)) for name, values in sums.items()}

    def _draw(self, rows: list[list[Panel]], step: int) -> None:
        path = self.plan.folder / f"step-{step:07d}.png"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_panels(path, rows, _SIDE)
        except (OSError, OutputError) as error:
            self.log(f"warning: the pictures of step {step} are lost: {one_line(error)}")

    def _images(self, denoiser: Denoiser, lr: Tensor, ref: Tensor) -> dict[str, Tensor]:
        """DN, on the CPU, as the product makes them."""
        asked = {"sample": SamplingOptions(sampler="heun", steps=_FULL_STEPS)}
        if getattr(denoiser, "has_start", False):
            start = SamplingOptions(steps=0, detail=0.5)
            asked = {"mean": SamplingOptions(detail=0.0), "start": start, "sample": SamplingOptions()}
        window = Window(0, 0, *ref.shape[-2:])
        padded = F.pad(BYTES.to_model(lr), (LR_MARGIN,) * 4, mode="replicate")
        given = Conditions((window,), padded, BYTES.to_model(ref)).to(self.device)
        channels, images = tuple(range(lr.shape[1])), {}
        for name, sampling in asked.items():
            restorer = DiffusionRestorer(denoiser, sampler_settings(denoiser, sampling), self.sensor, channels, name)
            images[name] = BYTES.to_numbers(restorer.restore(given).cpu())
        return images
