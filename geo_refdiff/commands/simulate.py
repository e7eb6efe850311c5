"""Simulate one scene: a fine raster becomes the coarse one that a sensor would have taken, block by block."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from geo_refdiff.commands.simulate_blocks import SimulatedSensor, Simulation, blocks
from geo_refdiff.engine.workdir import check_geotiff
from geo_refdiff.engine.writer import BlockProgress, write_rasters
from geo_refdiff.errors import InputError, OptionError
from geo_refdiff.options import SimulateOptions, fields_of, takes_options
from geo_refdiff.plan.bands import choose_bands
from geo_refdiff.plan.records import Output
from geo_refdiff.raster.crs import unit_of
from geo_refdiff.raster.gdal import gdal_env
from geo_refdiff.raster.info import RasterInfo, inspect
from geo_refdiff.raster.location import Raster, name_of
from geo_refdiff.raster.reader import RasterReader
from geo_refdiff.sensor.jpeg import MCU
from geo_refdiff.sensor.presets import PRESETS
from geo_refdiff.sensor.recipe import RECIPES, Degradation, DegradationRecipe, draw

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
    progress: BlockProgress | None = None,
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
        options: see `options.SimulateOptions`; noise is in digital numbers of the file, a recipe may also be a
            `DegradationRecipe`.

    Raises:
        GeoRefDiffError: one line that says what is wrong and what to do; nothing half-written remains as `out`.
    """
    chosen = SimulateOptions.of({"scale": scale, **options})
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
