"""Matching one date to another for training: the shift between them, and the radiometric fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from geo_refdiff.registration.correlation import weighted_peak
from geo_refdiff.registration.features import Frame, orientation
from geo_refdiff.registration.radiometry import RadiometricFit, fit_radiometry

MAX_SHIFT = 8.0
"""Larger shifts are rejected, output pixels."""

_MIN_PEAK = 8.0
"""Standard deviations over the mean of the correlation: 54 pairs of 256 px have 16 or more, other places below 5."""
_COARSE = 8
_MIN_SIDE = 32


class View(NamedTuple):
    """A sample window of both dates on the new date's grid: (C, h, w) pixels, (h, w) where they are valid."""

    new: NDArray[np.generic]
    new_valid: NDArray[np.bool_]
    ref: NDArray[np.generic]
    ref_valid: NDArray[np.bool_]


def find_shift(
    fixed: NDArray[np.generic], moving: NDArray[np.generic], valid: NDArray[np.bool_] | None = None
) -> tuple[float, float] | None:
    """(rows, cols) by which `moving` must be moved to match `fixed`; None without a clear peak.

    Normalised phase correlation of the images' orientations, as co-registration uses it (`registration.correlation`).

    Args:
        fixed, moving: (C, H, W), any units.
        valid: (H, W) bool, True = valid in both; None = everywhere.
    """
    if min(fixed.shape[1:]) < _MIN_SIDE or (valid is not None and not valid.any()):
        return None
    both = np.ones(fixed.shape[1:], np.bool_) if valid is None else valid
    frame = Frame(fixed.astype(np.float32), both)
    turned = orientation(frame.described(moving.astype(np.float32)), frame.used)
    peak = weighted_peak(frame.orientation, turned, frame.taper, int(MAX_SHIFT))
    if peak.score < _MIN_PEAK or max(map(abs, peak.shift)) > MAX_SHIFT:
        return None
    return -peak.shift[0], -peak.shift[1]


def median_shift(views: Sequence[View]) -> tuple[float, float] | None:
    """The median of `find_shift` over the views; None unless at least half of them show a clear one."""
    shifts = [find_shift(view.new, view.ref, view.new_valid & view.ref_valid) for view in views]
    measured = [shift for shift in shifts if shift is not None]
    if not measured or 2 * len(measured) < len(views):
        return None
    rows, cols = np.median(np.array(measured), axis=0)
    return float(rows), float(cols)


def coarse_cells(image: NDArray[np.generic], valid: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Means over cells of 8 x 8 pixels, (C, n), and which cells are entirely valid, (n,) bool."""
    c, h, w = image.shape
    rows, cols = h // _COARSE, w // _COARSE
    cut = (slice(rows * _COARSE), slice(cols * _COARSE))
    cells = image[:, *cut].astype(np.float64).reshape(c, rows, _COARSE, cols, _COARSE)
    whole = valid[cut].reshape(rows, _COARSE, cols, _COARSE).all(axis=(1, 3))
    means: NDArray[np.float64] = cells.mean(axis=(2, 4)).reshape(c, -1)
    return means, np.asarray(whole.ravel())


def fit_views(views: Sequence[View]) -> RadiometricFit:
    """new ~ gain * reference + offset, DN of 0..255, over cells of registered views."""
    old = [coarse_cells(view.ref, view.new_valid & view.ref_valid) for view in views]
    new = [coarse_cells(view.new, view.new_valid)[0] for view in views]
    cells, whole = (np.concatenate(parts, axis=-1) for parts in zip(*old, strict=True))
    return fit_radiometry(cells, np.concatenate(new, axis=1), whole)


def match_radiometry(new: NDArray[np.uint8], ref: NDArray[np.uint8], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Fit a registered reference (C, H, W) uint8 to the new date radiometrically; `valid` (H, W): in both."""
    fit = fit_views([View(new, valid, ref, valid)])
    gain, offset = (np.array(v, np.float32)[:, None, None] for v in (fit.gain, fit.offset))
    fitted: NDArray[np.uint8] = np.rint(np.clip(ref * gain + offset, 0.0, 255.0)).astype(np.uint8)
    return fitted
