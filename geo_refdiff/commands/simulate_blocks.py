"""The blocks of a simulated scene: each a pure function of the scene, the sensor and its window."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from odc.geo.geobox import GeoBox
from torch import Tensor

from geo_refdiff import __version__
from geo_refdiff.diffusion.noise import lattice_noise
from geo_refdiff.engine.finish import delivered
from geo_refdiff.engine.writer import BlockPixels, BlockProgress, BlockRaster, FinishedBlock
from geo_refdiff.errors import GridError
from geo_refdiff.plan.layout import BlockLayout, plan_blocks
from geo_refdiff.plan.records import Output
from geo_refdiff.raster.geobox import coarse_geobox, lattice_origin, scene_geobox
from geo_refdiff.raster.info import RasterInfo
from geo_refdiff.raster.reader import RasterReader
from geo_refdiff.raster.vrt import VirtualRaster, with_bands_of
from geo_refdiff.raster.window import Window
from geo_refdiff.sensor.fill import fill_missing
from geo_refdiff.sensor.jpeg import MCU, jpeg
from geo_refdiff.sensor.kernels import Factors
from geo_refdiff.sensor.resize import cell_means
from geo_refdiff.sensor.sensor import observe_valid, reach_of
from geo_refdiff.sensor.units import BYTES

_NOISE_STEP = 0x53494D
"""Keeps this noise apart from the samplers', which count their steps from 0."""
_FILL = 16
_LEAST_VALID = 0.5


@dataclass(frozen=True)
class SimulatedSensor:
    """What is done to every block.

    Attributes:
        name: preset or recipe.
        scale: output pixels along a scene pixel.
        kernels: one for each band.
        noise: standard deviation, digital numbers of the file.
        quality: JPEG quality, 0 = none.
        span: digital numbers that JPEG takes for 0 and 255.
        seed: of the noise.
        parameters: for people and tags.
    """

    name: str
    scale: int
    kernels: tuple[Factors, ...]
    noise: float
    quality: int
    span: tuple[float, float]
    seed: int
    parameters: dict[str, Any]

    @property
    def reach(self) -> int:
        """output pixels beyond a scene pixel's own area that it sees, on each side."""
        return max(reach_of(kernel, self.scale) for kernel in self.kernels)


@dataclass(frozen=True)
class Simulation:
    """A simulation, decided.

    Attributes:
        info: the fine raster.
        sensor: what is done to it.
        block: scene pixels along a block, a multiple of 16.
        output: data type, nodata value and mask of the output.
    """

    info: RasterInfo
    sensor: SimulatedSensor
    block: int
    output: Output

    @property
    def geobox(self) -> GeoBox:
        """The output's grid."""
        return coarse_geobox(scene_geobox(self.info), self.sensor.scale)

    @property
    def whole(self) -> Window:
        """All scene pixels."""
        return Window(0, 0, self.info.height // self.sensor.scale, self.info.width // self.sensor.scale)

    @property
    def layout(self) -> BlockLayout:
        """The blocks."""
        return plan_blocks(self.block, self.whole.shape)

    @property
    def raster(self) -> BlockRaster:
        """What is written."""
        info, output = self.info, self.output
        profile = VirtualRaster(
            geobox=self.geobox,
            dtype=output.dtype,
            count=len(info.data_bands),
            sources=(),
            nodata=output.nodata,
            with_mask=output.mask,
            tags=_tags(self.sensor),
            crs_wkt=info.crs_wkt,
        )
        return BlockRaster(with_bands_of(profile, info, info.data_bands))


def blocks(reader: RasterReader, scene: Simulation, progress: BlockProgress | None) -> Iterator[FinishedBlock]:
    """All blocks, row by row."""
    layout = scene.layout
    for index in range(layout.count):
        yield index, [_computed(reader, scene, layout.window(index, scene.whole.shape))]
        if progress:
            progress(index + 1, layout.count)


def _tags(sensor: SimulatedSensor) -> dict[str, str]:
    return {
        "AREA_OR_POINT": "Area",
        "GEO_REFDIFF_VERSION": __version__,
        "GEO_REFDIFF_SIMULATED": sensor.name,
        "GEO_REFDIFF_SCALE": str(sensor.scale),
        "GEO_REFDIFF_PARAMETERS": json.dumps(sensor.parameters),
        "GEO_REFDIFF_SEED": str(sensor.seed),
    }


def _computed(reader: RasterReader, scene: Simulation, window: Window) -> BlockPixels:
    """The pixels of a block."""
    values, valid = (_compressed if scene.sensor.quality else _noisy)(reader, scene, window)
    pixels = delivered(values, valid, np.dtype(scene.output.dtype), scene.output.nodata)
    return BlockPixels(pixels, valid.numpy())


def _noisy(reader: RasterReader, scene: Simulation, window: Window) -> tuple[Tensor, Tensor]:
    """What the sensor sees of a window, with its noise: (C, height, width)."""
    sensor = scene.sensor
    values, valid = _observed(reader, scene, window)
    if sensor.noise:
        row, col = lattice_origin(scene.geobox.affine)
        values += sensor.noise * lattice_noise(window.shift(row, col), len(values), sensor.seed, _NOISE_STEP)
    return values, valid


def _observed(reader: RasterReader, scene: Simulation, window: Window) -> tuple[Tensor, Tensor]:
    """What the sensor sees of a window; the scene's border is replicated. A scene pixel is valid where at least half of
    its own area is."""
    sensor, info = scene.sensor, scene.info
    wanted = window.multiply(sensor.scale).pad(sensor.reach)
    inside = wanted.intersect(Window(0, 0, info.height, info.width))
    if inside is None:
        raise GridError(f"{window} is outside of {info.path}")
    hr, hr_valid = reader.read(inside)
    sides = (
        (inside.row - wanted.row, wanted.stop_row - inside.stop_row),
        (inside.col - wanted.col, wanted.stop_col - inside.stop_col),
    )
    fine = torch.from_numpy(np.pad(hr, ((0, 0), *sides), mode="edge").astype(np.float64))
    fine_valid = torch.from_numpy(np.pad(hr_valid, ((0, 0), *sides), mode="edge"))
    observed, _ = observe_valid(fine[:, None], fine_valid[:, None], sensor.kernels, sensor.scale, sensor.reach)
    own = fine_valid[:, sensor.reach : fine.shape[1] - sensor.reach, sensor.reach : fine.shape[2] - sensor.reach]
    valid = cell_means(own, sensor.scale) >= _LEAST_VALID
    return torch.where(valid, observed[:, 0], 0.0), valid


def _compressed(reader: RasterReader, scene: Simulation, window: Window) -> tuple[Tensor, Tensor]:
    """A window as it comes back from a JPEG file of the whole scene: its coding squares count from the corner."""
    low, high = scene.sensor.span
    coded = window.pad(MCU).intersect(scene.whole)
    if coded is None:
        raise GridError(f"{window} is outside of {scene.info.path}")
    around = coded.pad(_FILL)
    part = around.intersect(scene.whole) or coded
    values, valid = _noisy(reader, scene, part)
    rows, cols = part.within(around)
    levels = torch.zeros(len(values), *around.shape, dtype=torch.float64)
    levels_valid = torch.zeros(levels.shape, dtype=torch.bool)
    levels[:, rows, cols] = (values - low) * (255.0 / (high - low))
    levels_valid[:, rows, cols] = valid
    # else holes would ring into their neighbours
    filled = fill_missing(levels, levels_valid, _FILL, [BYTES.centre] * len(levels))
    done = jpeg(filled[None], [scene.sensor.quality])[0]
    rows, cols = window.within(coded)
    at = (slice(None), *window.within(part))
    return low + done[:, rows, cols] * ((high - low) / 255.0), valid[at]
