"""Images at half the size: 2 x 2 pixels become one, missing pixels do not count. Or larger, by repeated pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Valid = NDArray[np.bool_] | None


def halve(values: NDArray[Any], valid: Valid, resampling: str, nodata: float | None) -> tuple[NDArray[Any], Valid]:
    """The image at half the size; the last row or column of an odd size stands for two.

    Args:
        values: (C, height, width); NaN counts as missing in its band.
        valid: (height, width), True = valid; None: every pixel is.
        resampling: "average" (means are rounded half up for whole numbers), "nearest" (the upper left pixel if it is
            valid, else the next), or "mode" (the most frequent, the first of equals).
        nodata: what a pixel becomes that has no valid pixel below it; 0 if None.

    Returns:
        (C, ceil(height / 2), ceil(width / 2)) in the same dtype, and its valid mask.
    """
    values, valid = _even(values), None if valid is None else _even(valid[None])[0]
    if resampling == "average" and valid is None and values.dtype == np.uint8:
        return _mean_bytes(values), None
    corners = _corners(values)
    ok = None if valid is None else _corners(valid)
    if resampling == "average":
        out = _mean(corners, ok, values.dtype)
    else:
        out = _first(corners, ok) if resampling == "nearest" else _mode(corners, ok)
    if ok is None:
        return out, None
    any_ok = np.asarray(ok.any(axis=0), dtype=np.bool_)
    out[:, ~any_ok] = 0 if nodata is None else nodata
    return out, any_ok


def _even(values: NDArray[Any]) -> NDArray[Any]:
    _, height, width = values.shape
    if height % 2 or width % 2:
        return np.pad(values, ((0, 0), (0, height % 2), (0, width % 2)), mode="edge")
    return values


def _corners(values: NDArray[Any]) -> NDArray[Any]:
    """(4, ...): upper left, upper right, lower left, lower right pixel of each 2 x 2."""
    rows = (values[..., 0::2, :], values[..., 1::2, :])
    return np.stack([r[..., c::2] for r in rows for c in (0, 1)])


def _mean_bytes(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The mean of each 2 x 2 bytes, rounded half up, two columns in one machine word at a time."""
    pairs = values[:, 0::2].astype(np.uint16)
    pairs += values[:, 1::2]
    words = pairs.view(np.uint32)
    total = (words >> 16) + (words & 0xFFFF)
    total += 2
    total >>= 2
    return total.astype(np.uint8)


def _mean(corners: NDArray[Any], ok: NDArray[np.bool_] | None, dtype: np.dtype[Any]) -> NDArray[Any]:
    if dtype.kind == "f":
        here = np.isfinite(corners) if ok is None else np.isfinite(corners) & ok[:, None]
        count = here.sum(axis=0, dtype=np.uint8)
        total = np.where(here, corners, 0).sum(axis=0, dtype=np.float64)
        mean = (total / np.maximum(count, 1)).astype(dtype)
        mean[count == 0] = np.nan
        return np.asarray(mean)
    wide = np.dtype(np.int32 if dtype.itemsize <= 2 else np.float64)
    if ok is None:
        return _rounded(corners.sum(axis=0, dtype=wide), np.full((), 4, wide)).astype(dtype)
    total = (corners * ok[:, None]).sum(axis=0, dtype=wide)
    return _rounded(total, np.maximum(ok.sum(axis=0, dtype=np.int8), 1).astype(wide)).astype(dtype)


def _rounded(total: NDArray[Any], count: NDArray[Any]) -> NDArray[Any]:
    """total / count, rounded half up."""
    if total.dtype.kind == "f":
        return np.asarray(np.floor(total / count + 0.5))
    return np.asarray((2 * total + count) // (2 * count))


def _first(corners: NDArray[Any], ok: NDArray[np.bool_] | None) -> NDArray[Any]:
    if ok is None:
        return np.ascontiguousarray(corners[0])
    index = np.broadcast_to(ok.argmax(axis=0), corners.shape[1:])
    return np.asarray(np.take_along_axis(corners, index[None], axis=0)[0])


def _mode(corners: NDArray[Any], ok: NDArray[np.bool_] | None) -> NDArray[Any]:
    here = np.ones(corners.shape, dtype=np.bool_) if ok is None else np.broadcast_to(ok[:, None], corners.shape)
    votes = np.zeros(corners.shape, dtype=np.int8)
    for other, counts in zip(corners, here, strict=True):
        votes += (corners == other) & counts
    votes[~here] = 0
    return np.asarray(np.take_along_axis(corners, votes.argmax(axis=0)[None], axis=0)[0])


def repeated(lr: NDArray[Any], scale: int) -> NDArray[Any]:
    """(..., h, w) -> (..., h scale, w scale), every pixel repeated."""
    return np.repeat(np.repeat(lr, scale, axis=-2), scale, axis=-1)
