"""Figures and pictures of a model in training, on tiles that it does not learn from."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from geo_refdiff.classes import UNKNOWN_CLASS
from geo_refdiff.data.dataset import PairDataset
from geo_refdiff.diffusion.denoiser import Denoiser, GuidedDenoiser, wrap_network
from geo_refdiff.diffusion.samplers import heun, noisy_start
from geo_refdiff.diffusion.schedule import karras_sigmas
from geo_refdiff.errors import GeoRefDiffError, InputError, OutputError
from geo_refdiff.evaluate import metrics
from geo_refdiff.raster.picture import Panel, write_panels
from geo_refdiff.sensor.inverse import back_project
from geo_refdiff.sensor.resize import upsample
from geo_refdiff.sensor.sensor import SensorModel
from geo_refdiff.sensor.units import BYTES
from geo_refdiff.train.augment import Sample
from geo_refdiff.train.pixels import Planes
from geo_refdiff.train.samples import reason

_SIDE = 256
_FULL_STEPS, _FULL_SIGMA = 8, 10.0
"""Steps and first noise level, model units, of a sample of networks without a start."""
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


class Validation:
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
            for name, image in self._images(denoiser, lr, ref).items():
                images[name] = back_project(image, lr, self.sensor)
            for name, image in images.items():
                for figure, measure in _FIGURES.items():
                    sums.setdefault(f"{name} {figure}", []).append(float(measure(image, truth)))
            if len(rows) < self.plan.pictures:
                shown = {"LR": lr, "Ref": ref, **images, "truth": truth}
                rows.append([Panel(name, _rgb(image)) for name, image in shown.items()])
        if rows:
            self._draw(rows, step)
        return {name: float(np.mean(values)) for name, values in sums.items()}

    def _draw(self, rows: list[list[Panel]], step: int) -> None:
        path = self.plan.folder / f"step-{step:07d}.png"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_panels(path, rows, _SIDE)
        except (OSError, OutputError) as error:
            self.log(f"warning: the pictures of step {step} are lost: {' '.join(str(error).split())}")

    def _images(self, denoiser: Denoiser, lr: Tensor, ref: Tensor) -> dict[str, Tensor]:
        """DN, on the CPU."""
        up, reference = (BYTES.to_model(x).to(self.device) for x in (upsample(lr, self.plan.scale), ref))
        mask = torch.full_like(up[:, :1], UNKNOWN_CLASS, dtype=torch.uint8)
        noise = torch.randn(up.shape, generator=torch.Generator().manual_seed(0)).to(self.device)
        images: dict[str, Tensor] = {}
        options = {}
        base, sigma, steps = up, _FULL_SIGMA, _FULL_STEPS
        if isinstance(denoiser, GuidedDenoiser) and denoiser.has_start:
            guidance = denoiser.guidance(up, reference, mask)
            options = {"guidance": guidance}
            images = {"mean": denoiser.mean(guidance, up), "start": denoiser.start(guidance)}
            base, sigma = images["start"], denoiser.config.sampler.sigma_start
            steps = denoiser.config.sampler.steps or 0
        images["sample"] = base
        if steps > 0:
            images["sample"] = heun(
                lambda x, s: denoiser(x, s, up, reference, mask, **options),
                noisy_start(base, sigma, noise),
                karras_sigmas(steps, min(0.01, sigma), sigma, 7.0, up.device),
            )
        return {name: BYTES.to_numbers(image.float().cpu()) for name, image in images.items()}


def _rgb(image: Tensor) -> NDArray[np.uint8]:
    bands = image[0, :3] if image.shape[1] >= 3 else image[0, :1].expand(3, -1, -1)
    pixels: NDArray[np.uint8] = bands.nan_to_num().clamp(0, 255).round().to(torch.uint8).numpy()
    return pixels
