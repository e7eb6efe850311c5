"""The blocks of a simulated scene: each a pure function of the scene, the sensor and its window."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from geo_refdiff import __version__
from geo_refdiff.diffusion.noise import lattice_noise
from geo_refdiff.engine.finish import EMPTY, BandSums, apply_missing, keep_valid, rounded
from geo_refdiff.engine.publish import statistics
from geo_refdiff.errors import GridError
from geo_refdiff.plan.records import Output
from geo_refdiff.raster.block_file import write_block
from geo_refdiff.raster.fill import fill_missing
from geo_refdiff.raster.geobox import coarse_geobox, crop, scene_geobox
from geo_refdiff.raster.lattice import lattice_origin
from geo_refdiff.raster.reader import RasterInfo, RasterReader, equals_nodata
from geo_refdiff.raster.vrt import Mosaic, with_bands_of
from geo_refdiff.raster.window import Window
from geo_refdiff.sensor.jpeg import MCU, jpeg
from geo_refdiff.sensor.reduce import Factors
from geo_refdiff.sensor.strided import ValidConvolution, reach_of

_NOISE_STEP = 0x53494D
"""Keeps this noise apart from the samplers', which count their steps from 0."""
_FILL = 16
_GREY = 127.5


class Progress(Protocol):
    """Called after each block with the number of finished blocks and of all."""

    def __call__(self, done: int, total: int) -> None: ...


@dataclass(frozen=True)
class SimulatedSensor:
    """What is done to every block.

    Attributes:
        name: preset or recipe.
        scale: HR pixels along an LR pixel.
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
        """HR pixels beyond an LR pixel's own area that it sees, on each side."""
        return max(reach_of(kernel, self.scale) for kernel in self.kernels)


@dataclass(frozen=True)
class Simulation:
    """A simulation, decided.

    Attributes:
        info: the fine raster.
        sensor: what is done to it.
        block: LR pixels along a block, a multiple of 16.
        output: how the output tells its pixels.
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
        """All LR pixels."""
        return Window(0, 0, self.info.height // self.sensor.scale, self.info.width // self.sensor.scale)

    def windows(self) -> list[Window]:
        """The blocks, row by row, in LR pixels from the corner."""
        return list(self.whole.tiles(self.block))


def write_blocks(reader: RasterReader, scene: Simulation, folder: Path, progress: Progress | None) -> Mosaic:
    """Writes all blocks that hold a valid pixel."""
    info, output = scene.info, scene.output
    geobox = scene.geobox
    windows = scene.windows()
    sums: list[BandSums] = [EMPTY] * len(info.data_bands)
    sources = []
    for number, window in enumerate(windows):
        pixels, valid = _computed(reader, scene, window)
        if valid.any():
            sums = [s.plus(BandSums.of(p, v)) for s, p, v in zip(sums, pixels, valid, strict=True)]
            name = f"{number:06d}.tif"
            mask = np.where(valid.any(axis=0), np.uint8(255), np.uint8(0)) if output.mask else None
            write_block(folder / name, pixels, mask, crop(geobox, window).affine, info.crs_wkt, output.nodata)
            sources.append((name, window))
        if progress:
            progress(number + 1, len(windows))
    mosaic = Mosaic(
        geobox=geobox,
        dtype=output.dtype,
        count=len(info.data_bands),
        sources=tuple(sources),
        nodata=output.nodata,
        with_mask=output.mask,
        statistics=tuple(statistics(s, scene.whole.area) for s in sums) if all(s.count for s in sums) else (),
        tags=_tags(scene.sensor),
        crs_wkt=info.crs_wkt,
    )
    return with_bands_of(mosaic, info, info.data_bands)


def _tags(sensor: SimulatedSensor) -> dict[str, str]:
    return {
        "AREA_OR_POINT": "Area",
        "GEO_REFDIFF_VERSION": __version__,
        "GEO_REFDIFF_SIMULATED": sensor.name,
        "GEO_REFDIFF_SCALE": str(sensor.scale),
        "GEO_REFDIFF_PARAMETERS": json.dumps(sensor.parameters),
        "GEO_REFDIFF_SEED": str(sensor.seed),
    }


def _computed(reader: RasterReader, scene: Simulation, window: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """The pixels of a block in the output's dtype, and valid; both (C, height, width)."""
    sensor, output = scene.sensor, scene.output
    if sensor.quality:
        values, valid = _compressed(reader, scene, window)
    else:
        values, valid = _noisy(reader, scene, window)
    pixels = rounded(values, np.dtype(output.dtype))
    if output.nodata is not None and np.isfinite(output.nodata):
        taken = equals_nodata(pixels, output.nodata).all(axis=0)
        keep_valid(pixels, valid, np.broadcast_to(~taken, valid.shape), output.nodata)
    if not valid.all():
        apply_missing(pixels, valid, output.nodata)
    return pixels, valid


def _noisy(reader: RasterReader, scene: Simulation, window: Window) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """What the sensor sees of a window, with its noise: (C, height, width)."""
    sensor = scene.sensor
    values, valid = _observed(reader, scene, window)
    if sensor.noise:
        row, col = lattice_origin(scene.geobox.affine)
        values += sensor.noise * lattice_noise(window.shift(row, col), len(values), sensor.seed, _NOISE_STEP)
    return values, valid


def _observed(reader: RasterReader, scene: Simulation, window: Window) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """What the sensor sees of a window that starts at multiples of 16 LR pixels; the scene's border is replicated."""
    sensor, info = scene.sensor, scene.info
    wanted = window.multiply(sensor.scale).pad(sensor.reach)
    inside = wanted.intersect(Window(0, 0, info.height, info.width))
    if inside is None:
        raise GridError(f"{window} lies outside of {info.path}")
    hr, hr_valid = reader.read(inside)
    sides = (
        (inside.row - wanted.row, wanted.stop_row - inside.stop_row),
        (inside.col - wanted.col, wanted.stop_col - inside.stop_col),
    )
    values = np.empty((len(hr), *window.shape))
    valid = np.empty(values.shape, dtype=np.bool_)
    convolution: ValidConvolution | None = None
    for band, kernel in enumerate(sensor.kernels):
        # bands mostly share their holes, and a preset's bands their kernel
        same = band > 0 and kernel is sensor.kernels[band - 1] and np.array_equal(hr_valid[band], hr_valid[band - 1])
        spare = sensor.reach - reach_of(kernel, sensor.scale)
        own = (slice(spare, wanted.height - spare), slice(spare, wanted.width - spare))
        if convolution is None or not same:
            convolution = ValidConvolution(np.pad(hr_valid[band], sides, mode="edge")[own], kernel, sensor.scale)
        valid[band] = convolution.ok
        values[band] = convolution.observe(np.pad(hr[band], sides, mode="edge")[own])
    return values, valid


def _compressed(
    reader: RasterReader, scene: Simulation, window: Window
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """A window as it comes back from a JPEG file of the whole scene: its coding squares count from the corner."""
    low, high = scene.sensor.span
    coded = window.pad(MCU).intersect(scene.whole)
    if coded is None:
        raise GridError(f"{window} lies outside of {scene.info.path}")
    around = coded.pad(_FILL)
    part = around.intersect(scene.whole) or coded
    values, valid = _noisy(reader, scene, part)
    rows, cols = part.within(around)
    levels = np.zeros((len(values), *around.shape), dtype=np.float32)
    known = np.zeros(levels.shape, dtype=np.bool_)
    levels[:, rows, cols] = (values - low) * (255.0 / (high - low))
    known[:, rows, cols] = valid
    filled = fill_missing(levels, known, _FILL, [_GREY] * len(levels))  # else holes would ring into their neighbours
    done = jpeg(torch.from_numpy(filled.astype(np.float64))[None], [scene.sensor.quality])[0].numpy()
    rows, cols = window.within(coded)
    at = (slice(None), *window.within(part))
    return low + done[:, rows, cols] * ((high - low) / 255.0), np.ascontiguousarray(valid[at])
