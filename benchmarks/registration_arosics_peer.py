"""AROSICS and scikit-image on pairs of files; run by `registration_arosics` in an environment that has both.

It knows nothing of geo_refdiff: it reads `ID/scene.tif` and `ID/reference.tif` of a folder, which lie on one pixel
grid, the reference reaching further on each side, and prints a line of JSON for each pair and method: whether it claims
to have found a shift, and which: (rows, columns) in pixels, what the scene shows at p the reference shows at p + shift.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

MAX_SHIFT = 5
"""Pixels; AROSICS's own default."""

UNUSED = -9999.0
"""Left open, geoarray guesses a nodata value from the corners."""

RELIABLE = 60.0
"""Percent that AROSICS's COREG_LOCAL asks of a match by default, together with a better structural similarity."""


def by_arosics(scene: Any, reference: Any) -> Any:
    """COREG over the whole scene; None where it ends in an error of its own.

    The images' outlines are taken for footprints: derived from nodata, they come out empty for a scene with many holes.
    """
    from arosics import COREG  # here, or benchmarks could not be listed without it

    sides = scene.shape[1], scene.shape[0]
    settings = {"calc_corners": False, "nodata": (scene.nodata, reference.nodata), "max_shift": MAX_SHIFT}
    quiet = {"q": True, "progress": False, "CPUs": 1, "ignore_errors": True}
    try:
        found = COREG(scene, reference, ws=sides, **settings, **quiet)
        found.calculate_spatial_shifts()
    except (RuntimeError, ValueError, AssertionError, IndexError, TypeError) as error:
        print(f"arosics: {type(error).__name__}: {error}", file=sys.stderr)
        return None
    return found


def answers(folder: Path) -> Iterator[dict[str, Any]]:
    """What every method says of one pair."""
    from geoarray import GeoArray
    from skimage.registration import phase_cross_correlation

    scene, reference = (GeoArray(str(folder / name)) for name in ("scene.tif", "reference.tif"))
    filled = [without_holes(x) for x in (scene, reference)]
    for name, pair in (("AROSICS, nodata declared", (scene, reference)), ("AROSICS, holes filled", filled)):
        found = by_arosics(*pair)
        known = found is not None and bool(found.success) and found.x_shift_px is not None
        shift = [-float(found.y_shift_px), -float(found.x_shift_px)] if found is not None and known else None
        yield {"method": name, "claims": known, "shift": shift}
        sure = bool(known and (found.shift_reliability or 0.0) >= RELIABLE and found.ssim_improved)
        yield {"method": f"{name}, reliable only", "claims": sure, "shift": shift if sure else None}
    rows, cols = scene.shape[:2]
    top, left = (round((b - a) / c) for a, b, c in zip(corner(reference), corner(scene), pixel(scene), strict=True))
    first, second = (np.asarray(x[:], np.float64) for x in filled)
    second = second[top : top + rows, left : left + cols]
    for name, normalization in (("scikit-image, phase", "phase"), ("scikit-image, plain correlation", None)):
        a, b = (first, second) if normalization else (first - first.mean(), second - second.mean())
        moved = phase_cross_correlation(b, a, upsample_factor=100, normalization=normalization)[0]
        yield {"method": name, "claims": True, "shift": [float(v) for v in moved]}


def without_holes(image: Any) -> Any:
    """The image with its missing pixels at the mean of the others; its nodata a value that it does not have."""
    values = np.asarray(image[:], np.float32)
    known = values != image.nodata
    return type(image)(
        np.where(known, values, values[known].mean()).astype(np.float32), image.gt, image.prj, nodata=UNUSED
    )


def corner(image: Any) -> tuple[float, float]:
    """(y, x) of the first pixel's corner."""
    return image.gt[3], image.gt[0]


def pixel(image: Any) -> tuple[float, float]:
    """Its height, negative where rows run south, and width."""
    return image.gt[5], image.gt[1]


def answer_all() -> None:
    """Read the folder that is named on the command line and answer."""
    warnings.simplefilter("ignore")
    names = ("arosics", "scikit-image", "GDAL", "numpy")
    print(json.dumps({"versions": {name: version(name) for name in names}}))
    for folder in sorted(p for p in Path(sys.argv[1]).iterdir() if p.is_dir()):
        for answer in answers(folder):
            print(json.dumps({"pair": folder.name, **answer}), flush=True)


if __name__ == "__main__":
    answer_all()
