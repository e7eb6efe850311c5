"""What benchmarks share: real scenes and indexes, which a checkout does not have, small rasters, Markdown tables."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import rasterio
import torch
from affine import Affine
from numpy.typing import NDArray

from geo_refdiff.evaluate.figures import mean_and_error
from geo_refdiff.evaluate.report import markdown
from geo_refdiff.sensor.sensor import SensorModel

DATA = Path(os.environ.get("GEO_REFDIFF_DATA", Path(__file__).parents[2] / "shared" / "data"))
BANDS = ("red", "green", "blue", "nir")
INDEX = "build/naip-santa-monica.csv"
"""Pairs of a city that nothing was trained on."""


def skip(reason: str) -> click.exceptions.Exit:
    """Says why a benchmark is left out; to be raised, which ends it with 0."""
    click.echo(f"skipped: {reason}")
    return click.exceptions.Exit(0)


def lacking(*names: str) -> str | None:
    """Which real scenes (folders below `DATA`) are not there, in words; None where all are."""
    missing = [str(DATA / name) for name in names if not (DATA / name).is_dir()]
    return f"no real scenes at {missing[0]}; name their folder with GEO_REFDIFF_DATA" if missing else None


def need_scenes(*names: str) -> None:
    """Leave the benchmark out where the real scenes `names` are not there.

    Raises:
        Exit: with 0.
    """
    if reason := lacking(*names):
        raise skip(reason)


def need_city(city: str) -> None:
    """The same for the places of a city.

    Raises:
        Exit: with 0, where there is no city at all.
        UsageError: there is no such one.
    """
    need_scenes("naip-ca")
    if not (DATA / "naip-ca" / city).is_dir():
        raise click.UsageError(f"{DATA / 'naip-ca' / city}: no such folder; give another --city")


def need_index(data: str, default: str = INDEX) -> None:
    """Leave the benchmark out where its own index is not there.

    Raises:
        Exit: with 0.
        UsageError: another one was asked for, and is not there.
    """
    if Path(data).exists():
        return
    if data == default:
        raise skip(f"there is no index {data}; make it (benchmarks/README.md says how), or name another one")
    raise click.UsageError(f"there is no index {data}: make it, or name another one")


def read_float(path: Path) -> NDArray[np.float32]:
    """All bands, (C, H, W)."""
    with rasterio.open(path) as dataset:
        return np.asarray(dataset.read(), dtype=np.float32)


def write_raster(path: Path, image: NDArray[np.generic], transform: Affine, crs: Any) -> Path:
    """(C, H, W) as a GeoTIFF, its bands named."""
    count, height, width = image.shape
    profile = {"count": count, "height": height, "width": width, "dtype": image.dtype.name, "crs": crs}
    with rasterio.open(
        path, "w", driver="GTiff", transform=transform, photometric="minisblack", alpha="no", **profile
    ) as to:
        to.write(image)
        to.descriptions = BANDS[:count]
    return path


def observed(image: NDArray[np.generic], sensor: SensorModel) -> NDArray[np.float32]:
    """What the sensor sees of (C, H, W) output pixels: (C, H / scale, W / scale)."""
    fine = torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))
    return np.array(sensor.observe(fine[None])[0].numpy())


__all__ = ["markdown", "paired", "plus_minus", "verdict"]


def paired(one: Sequence[float], other: Sequence[float]) -> tuple[float, float]:
    """Mean over the tiles of (one - other) and its standard error; tiles that lack a figure (NaN) are left out."""
    mean, error, _ = mean_and_error([a - b for a, b in zip(one, other, strict=True)])
    return mean, error


def plus_minus(mean: float, error: float, digits: int = 4, signed: bool = True) -> str:
    """ "+0.0123 ± 0.0012"."""
    return f"{mean:{'+' if signed else ''}.{digits}f} ± {error:.{digits}f}"


def verdict(mean: float, error: float) -> str:
    """Whether a difference is above 0: "yes" or "no" where two standard errors leave no doubt."""
    if abs(mean) > 2.0 * error:
        return "yes" if mean > 0 else "no"
    return f"{'yes' if mean >= 0 else 'no'} by the mean, not settled by two standard errors"
