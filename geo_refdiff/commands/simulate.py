"""Simulate one scene: a fine raster becomes the coarse one that a sensor would have taken, block by block."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from odc.geo.geobox import GeoBox
from torch import Tensor

from geo_refdiff import __version__
from geo_refdiff.diffusion.noise import lattice_noise
from geo_refdiff.engine.finish import delivered
from geo_refdiff.engine.workdir import check_geotiff
from geo_refdiff.engine.writer import BlockPixels, BlockRaster, FinishedBlock, write_rasters
from geo_refdiff.errors import GridError, InputError, OptionError
from geo_refdiff.options import CountCallback, SimulateOptions, fields_of, takes_options
from geo_refdiff.plan.bands import choose_bands
from geo_refdiff.plan.layout import BlockLayout, plan_blocks
from geo_refdiff.plan.records import Output
from geo_refdiff.raster.crs import unit_of
from geo_refdiff.raster.gdal import gdal_env
from geo_refdiff.raster.geobox import coarse_geobox, lattice_origin, scene_geobox
from geo_refdiff.raster.info import RasterInfo, inspect
from geo_refdiff.raster.location import Raster, name_of
from geo_refdiff.raster.reader import RasterReader
from geo_refdiff.raster.vrt import VirtualRaster, with_bands_of
from geo_refdiff.raster.window import Window
from geo_refdiff.sensor.fill import fill_missing
from geo_refdiff.sensor.jpeg import MCU, jpeg
from geo_refdiff.sensor.kernels import Factors
from geo_refdiff.sensor.presets import PRESETS
from geo_refdiff.sensor.recipe import RECIPES, Degradation, DegradationRecipe, draw
from geo_refdiff.sensor.resize import cell_means
from geo_refdiff.sensor.sensor import observe_valid, reach_of
from geo_refdiff.sensor.units import BYTES

_HR_SIDE = 1536
"""output pixels along a block, about; what is held in memory follows from it."""


@dataclass(frozen=True)
class SimulateResult:
    """A simulated scene.

    Attributes:
        out: the GeoTIFF.
        shape: (height, width), scene pixels.
        scale: output pixels along a scene pixel.
        pixel: side of a scene pixel along its row, CRS units.
        unit: of the CRS, in the plural: "metres".
        bands: names.
        sensor: what was simulated, in words.
        parameters: what was drawn or declared, JSON-ready; also a tag of the file.
        notes: what deserves a look.
    """

    out: Path
    shape: tuple[int, int]
    scale: int
    pixel: float
    unit: str
    bands: tuple[str, ...]
    sensor: str
    parameters: dict[str, Any]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "out": str(self.out),
            "shape": list(self.shape),
            "scale": self.scale,
            "pixel": self.pixel,
            "bands": list(self.bands),
            "sensor": self.sensor,
            "parameters": self.parameters,
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        height, width = self.shape
        head = (
            f"{self.out}: {width} x {height} pixels of {self.pixel:.6g} {self.unit}, {len(self.bands)} "
            f"band{'s' * (len(self.bands) > 1)} ({', '.join(self.bands)}), 1/{self.scale}, sensor {self.sensor}"
        )
        return "\n".join([head, *(f"  note: {note}" for note in self.notes)])


@takes_options(fields_of(SimulateOptions))
def simulate(
    fine: Raster,
    out: Path,
    scale: int,
    *,
    block_size: int | None = None,
    overwrite: bool = False,
    progress: CountCallback | None = None,
    **options: Any,
) -> SimulateResult:
    """Write the coarse scene that a sensor would have taken of `fine`.

    The output has the same corner in the same CRS, its pixels `scale` times larger; rows and columns of `fine` that
    do not fill a scene pixel are left out of it. It keeps data type, scale, offset, units, band names and nodata value;
    alpha and mask bands become an internal mask. A scene px is valid where at least half of its own area is, and made
    of valid pixels only. Memory depends on the scale and the number of bands, not on the size.

    Args:
        fine: raster with affine and CRS, of any size, type and number of bands.
        out: GeoTIFF (COG) to write.
        scale: input pixels along an output pixel, 1 to 64.
        block_size: scene pixels along a block, a multiple of 16; changes no pixel.
        overwrite: replace a file that is there.
        progress: called after each block.
        options: as listed below; noise is in digital numbers of the file, a recipe may also be a
            `DegradationRecipe`.

    Raises:
        GeoRefDiffError: one line that says what is wrong and what to do; nothing half-written remains as `out`.
    """
    chosen = SimulateOptions(scale=scale, **options)
    fine, out = name_of(fine), Path(out).absolute()
    check_geotiff(out, overwrite, (fine,))
    with gdal_env():
        info = inspect(fine, "scene")
        if info.height < scale or info.width < scale:
            raise InputError(
                f"{info.path}: {info.width} x {info.height} pixels are less than one of the scale {scale}; "
                f"give a larger raster or a smaller --scale"
            )
        names = choose_bands(info, None, None, (), ()).names
        sensor = _sensor(info, names, chosen)
        block = _block(block_size, scale)
        simulation = Simulation(info, sensor, block, Output.of(info, more=False))
        with RasterReader(info, info.data_bands) as reader:
            finished = blocks(reader, simulation, progress)
            write_rasters([simulation.raster], [out], simulation.layout, finished, overwrite=overwrite)
    height, width = simulation.geobox.shape
    a, _, _, d = simulation.geobox.affine[:4]
    return SimulateResult(
        out=out,
        shape=(height, width),
        scale=scale,
        pixel=float((a * a + d * d) ** 0.5),
        unit=unit_of(info.crs_wkt),
        bands=names,
        sensor=sensor.name,
        parameters=sensor.parameters,
        notes=tuple(_notes(info, sensor, names)),
    )


def _sensor(info: RasterInfo, names: tuple[str, ...], chosen: SimulateOptions) -> SimulatedSensor:
    scale, seed, noise = chosen.scale, chosen.seed, chosen.noise
    low, high = chosen.value_range or (0.0, 255.0)
    if chosen.recipe is None:
        name = chosen.preset or "default"
        if name not in PRESETS:
            raise OptionError(f"unknown preset {name!r}; choose from {', '.join(PRESETS)}")
        bands = [PRESETS[name].sensor(scale, band) for band in names]
        kernels = tuple(b.factors for b in bands)
        parameters = {
            "kernel": bands[0].kernel,
            "psf_sigma": {n: round(b.psf_sigma, 4) for n, b in zip(names, bands, strict=True)},
            "noise": noise or 0.0,
        }
        return SimulatedSensor(name, scale, kernels, noise or 0.0, 0, (low, high), seed, parameters)
    name, recipe = _recipe(chosen.recipe)
    drawn = draw(recipe, np.random.default_rng(seed), 1, scale)
    if (
        chosen.value_range is None
        and info.dtype != "uint8"
        and ((drawn.noise[0] and noise is None) or drawn.quality[0])
    ):
        raise OptionError(
            f"recipe {name!r} draws noise or JPEG in 8-bit digital numbers, but {info.path} is {info.dtype}: "
            f"say with --range LOW HIGH which of its values stand for 0 and 255"
        )
    amount = drawn.noise[0] * (high - low) / 255.0 if noise is None else noise
    return SimulatedSensor(
        name, scale, (drawn.kernel(0),) * len(names), amount, drawn.quality[0], (low, high), seed,
        _drawn(drawn, amount),
    )  # fmt: skip


def _recipe(recipe: str | DegradationRecipe) -> tuple[str, DegradationRecipe]:
    if isinstance(recipe, DegradationRecipe):
        return "a recipe", recipe
    if recipe in RECIPES:
        return recipe, RECIPES[recipe]
    path = Path(recipe)
    if not path.is_file():
        raise OptionError(f"unknown recipe {recipe!r}: choose from {', '.join(RECIPES)}, or give a JSON file")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({error}); give a recipe like DegradationRecipe's") from error
    if not isinstance(data, dict):
        raise InputError(f"{path}: holds no JSON object; give a recipe like DegradationRecipe's")
    return path.name, DegradationRecipe.from_dict(data)


def _drawn(drawn: Degradation, noise: float) -> dict[str, Any]:
    return {
        "resize": drawn.resize[0],
        "sigma": [round(v, 6) for v in drawn.sigma[0]],
        "motion": round(drawn.motion[0], 6),
        "angle": round(drawn.angle[0], 6),
        "noise": noise,
        "jpeg_quality": drawn.quality[0],
    }


def _block(size: int | None, scale: int) -> int:
    if size is None:
        return max(MCU, _HR_SIDE // scale // MCU * MCU)
    if size < MCU or size % MCU:
        raise OptionError(f"block size {size}: give a multiple of {MCU}")
    return size


def _notes(info: RasterInfo, sensor: SimulatedSensor, names: tuple[str, ...]) -> Iterator[str]:
    sides = ((info.height % sensor.scale, "row", "bottom"), (info.width % sensor.scale, "column", "right"))
    leftover = [f"{n} {what}{'s' * (n > 1)} at the {side}" for n, what, side in sides if n]
    if leftover:
        yield f"left out of the input: {' and '.join(leftover)}, too few to fill a pixel of the output"
    widths = PRESETS[sensor.name].bands if sensor.name in PRESETS and "psf_sigma" in sensor.parameters else {}
    unknown = [n for n in names if n.strip().lower() not in widths]
    if widths and unknown:
        yield f"{sensor.name} knows no band called {', '.join(unknown)}: the mean width of its sharpest bands was taken"


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


def blocks(reader: RasterReader, scene: Simulation, progress: CountCallback | None) -> Iterator[FinishedBlock]:
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
