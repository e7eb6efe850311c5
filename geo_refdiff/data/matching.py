"""Matching one date to another for training: the shift between them, sub-pixel shifting, and the radiometric fit."""

from __future__ import annotations

from dataclasses import dataclass
from math import floor

import numpy as np
from numpy.typing import NDArray

from geo_refdiff.registration.correlation import weighted_peak
from geo_refdiff.registration.features import Frame, orientation
from geo_refdiff.registration.radiometry import fit_radiometry

MAX_SHIFT = 8.0
"""Larger shifts are rejected, output pixels."""

TAPS_BEFORE, TAPS_AFTER = 1, 2
"""Pixels before and after the floor of a position that cubic interpolation reads."""

_MIN_PEAK = 8.0
"""Standard deviations over the mean of the correlation: 54 pairs of 256 px have 16 or more, strangers less than 5."""
_COARSE = 8
_MIN_SIDE = 32
F32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Match:
    """Shift and radiometric fit that bring the reference to the new date.

    Attributes:
        shift: (rows, cols), output pixels of the new date by which the reference is moved; (0, 0) without a clear one.
        registered: whether a shift was measured; False also if registration was off.
        gain, offset: (C,), new ~ gain * reference + offset, DN of 0..255.
        correlation: mean over bands of Pearson's r over the fitted pixels, -1..1.
    """

    shift: tuple[float, float]
    registered: bool
    gain: tuple[float, ...]
    offset: tuple[float, ...]
    correlation: float


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


def whole_and_part(shift: float) -> tuple[int, float]:
    """(whole pixels, rest in [0, 1)) of -shift: where the pixel at 0 of a moved image comes from."""
    whole = floor(-shift)
    part = -shift - whole
    return (whole + 1, 0.0) if part > 1 - 1e-6 else (whole, part if part > 1e-6 else 0.0)


def interpolate(values: NDArray[np.generic], parts: tuple[float, float]) -> F32:
    """Cubic interpolation at one sub-pixel offset for the whole image (Keys 1981, a = -1/2).

    Rounding is the same for every pixel, so that results do not depend on windows.

    Args:
        values: (..., h + 3, w + 3): TAPS_BEFORE pixels above and left, TAPS_AFTER below and right of the result.
        parts: sub-pixel offsets along rows and columns, each in [0, 1).

    Returns:
        (..., h, w) float32.
    """
    out = values.astype(np.float32)
    for axis, t in ((-2, parts[0]), (-1, parts[1])):
        n = out.shape[axis] - TAPS_BEFORE - TAPS_AFTER
        taps = [out[..., k : k + n, :] if axis == -2 else out[..., k : k + n] for k in range(4)]
        if t == 0.0:
            out = taps[TAPS_BEFORE]
            continue
        weights = _cubic(t)
        total = taps[0] * weights[0]
        for tap, weight in zip(taps[1:], weights[1:], strict=True):
            total += tap * weight
        out = total
    return out


def interpolate_valid(valid: NDArray[np.bool_], parts: tuple[float, float]) -> NDArray[np.bool_]:
    """Which pixels of `interpolate` are computed from valid pixels only: (h + 3, w + 3) -> (h, w) bool."""
    out = valid
    for axis, t in ((0, parts[0]), (1, parts[1])):
        n = out.shape[axis] - TAPS_BEFORE - TAPS_AFTER
        taps = [out[k : k + n] if axis == 0 else out[:, k : k + n] for k in range(4)]
        out = taps[TAPS_BEFORE] if t == 0.0 else taps[0] & taps[1] & taps[2] & taps[3]
    return out


def _cubic(t: float) -> tuple[np.float32, ...]:
    weights = (
        0.5 * (-t + 2 * t**2 - t**3),
        0.5 * (2 - 5 * t**2 + 3 * t**3),
        0.5 * (t + 4 * t**2 - 3 * t**3),
        0.5 * (t**3 - t**2),
    )
    return tuple(np.float32(w) for w in weights)


def moved(values: NDArray[np.generic], shift: tuple[float, float]) -> tuple[F32, NDArray[np.bool_]]:
    """An image (C, H, W) moved by `shift` (rows, cols): float32 (C, H, W), and where it is defined (H, W)."""
    height, width = values.shape[1:]
    (row, up), (col, left) = whole_and_part(shift[0]), whole_and_part(shift[1])
    area = np.zeros((values.shape[0], height + 3, width + 3), np.float32)
    inside = np.zeros(area.shape[1:], np.bool_)
    top, start = row - TAPS_BEFORE, col - TAPS_BEFORE
    r0, r1 = max(top, 0), min(top + height + 3, height)
    c0, c1 = max(start, 0), min(start + width + 3, width)
    if r0 < r1 and c0 < c1:
        area[:, r0 - top : r1 - top, c0 - start : c1 - start] = values[:, r0:r1, c0:c1]
        inside[r0 - top : r1 - top, c0 - start : c1 - start] = True
    return interpolate(area, (up, left)), interpolate_valid(inside, (up, left))


def coarse_cells(image: NDArray[np.generic], valid: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Means over cells of 8 x 8 pixels, (C, n), and which cells are entirely valid, (n,) bool."""
    c, h, w = image.shape
    rows, cols = h // _COARSE, w // _COARSE
    cut = (slice(rows * _COARSE), slice(cols * _COARSE))
    cells = image[:, *cut].astype(np.float64).reshape(c, rows, _COARSE, cols, _COARSE)
    whole = valid[cut].reshape(rows, _COARSE, cols, _COARSE).all(axis=(1, 3))
    means: NDArray[np.float64] = cells.mean(axis=(2, 4)).reshape(c, -1)
    return means, np.asarray(whole.ravel())


def match(
    views: list[tuple[NDArray[np.generic], NDArray[np.bool_], NDArray[np.generic], NDArray[np.bool_]]], register: bool
) -> Match:
    """Match two dates on sample windows of both.

    Args:
        views: (new (C, h, w), valid (h, w), reference (C, h, w), valid (h, w)), on the new date's grid; the shift is
            the median over the views.
        register: whether to look for a shift.
    """
    shifts = [find_shift(new, ref, ok & ref_ok) for new, ok, ref, ref_ok in views] if register else []
    measured = [shift for shift in shifts if shift is not None]
    registered = 2 * len(measured) >= len(views) and bool(measured)
    rows, cols = (float(v) for v in np.median(np.array(measured), axis=0)) if registered else (0.0, 0.0)
    old_cells, new_cells, both = [], [], []
    for new, ok, ref, ref_ok in views:
        shifted, inside = moved(ref, (rows, cols))
        ref_valid, _ = moved(ref_ok[None].astype(np.float32), (rows, cols))
        cells, cells_ok = coarse_cells(shifted, inside & (ref_valid[0] > 0.999) & ok)
        old_cells.append(cells)
        both.append(cells_ok)
        new_cells.append(coarse_cells(new, ok)[0])
    old, now, ok_cells = np.concatenate(old_cells, 1), np.concatenate(new_cells, 1), np.concatenate(both)
    fit = fit_radiometry(old, now, ok_cells)
    return Match((rows, cols), registered, fit.gain, fit.offset, float(np.mean(fit.correlation)))


def match_radiometry(new: NDArray[np.uint8], ref: NDArray[np.uint8], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Fit a registered reference (C, H, W) uint8 to the new date radiometrically; `valid` (H, W): in both."""
    matched = match([(new, valid, ref, valid)], register=False)
    gain, offset = (np.array(v, np.float32)[:, None, None] for v in (matched.gain, matched.offset))
    fitted: NDArray[np.uint8] = np.rint(np.clip(ref * gain + offset, 0.0, 255.0)).astype(np.uint8)
    return fitted
