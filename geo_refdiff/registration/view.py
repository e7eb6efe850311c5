"""The reference as the scene's sensor would have seen it, at any placement.

Two images of different resolution can only be compared after one has gone through the other's sensor, and what a
coarse sensor samples depends on where its pixels lie. So the reference is seen once at every quarter of a scene pixel,
and a placement of it is then a cheap interpolation of a well sampled image.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from geo_refdiff.sensor.convolution import convolve
from geo_refdiff.sensor.sensor import SensorModel

OVERSAMPLING = 4
"""Positions of the sensor along a scene pixel. It passes next to nothing beyond one cycle a scene pixel, so that cubic
interpolation between four of them is good to 1 % of the image's contrast."""

_SUPPORT = 0.6
"""Part of the sensor's response that must fall on valid pixels of the reference."""
_MIN_SUPPORT = 1e-3
_ROWS = 64
"""Of the reference that the sensor looks at together: what it adds up stays in the processor's cache."""

Placement = tuple[float, float] | NDArray[np.float32]
"""Where the reference is read: a shift (rows, columns), or one for each scene pixel (2, h, w); scene pixels."""


@dataclass(frozen=True, slots=True)
class View:
    """A scene and the reference seen by its sensor, over the same ground.

    Attributes:
        scene: (C, h, w) float32, any units.
        valid: (h, w), True = the scene is valid in every band.
        observed: (C, (h + 2 pad) 4, (w + 2 pad) 4) float32; position (4 (i + pad), 4 (j + pad)) is what the sensor
            would have seen in scene pixel (i, j) had it looked at the reference.
        support: ((h + 2 pad) 4, (w + 2 pad) 4) float32, the part of the sensor's response there that falls on
            valid pixels of the reference, 0..1.
        pad: scene pixels by which the reference reaches beyond the scene on each side.
        origin: (row, col) of the view's first pixel in the scene; displacements are counted from the scene's corner.
    """

    scene: NDArray[np.float32]
    valid: NDArray[np.bool_]
    observed: NDArray[np.float32]
    support: NDArray[np.float32]
    pad: int
    origin: tuple[int, int] = (0, 0)

    @property
    def shape(self) -> tuple[int, int]:
        """(h, w), scene pixels."""
        height, width = self.valid.shape
        return height, width

    def render(self, placement: Placement) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """What the sensor would have seen of the reference on the scene's pixels.

        Args:
            placement: pixel (i, j) shows what the reference shows at (i, j) + placement.

        Returns:
            (C, h, w) float32, and (h, w), True = valid.
        """
        height, width = self.shape
        image = np.empty((len(self.observed), height, width), dtype=np.float32)
        if isinstance(placement, tuple):
            row, col = (float(self.pad + s) * OVERSAMPLING for s in placement)
            matrix = np.array([[OVERSAMPLING, 0, col], [0, OVERSAMPLING, row]], dtype=np.float64)
            flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
            for band, observed in zip(image, self.observed, strict=True):
                cv2.warpAffine(observed, matrix, (width, height), band, flags, cv2.BORDER_REPLICATE)
            flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
            support = cv2.warpAffine(self.support, matrix, (width, height), None, flags, cv2.BORDER_CONSTANT)
        else:
            rows = (np.arange(height, dtype=np.float32)[:, None] + np.float32(self.pad) + placement[0]) * OVERSAMPLING
            cols = (np.arange(width, dtype=np.float32)[None] + np.float32(self.pad) + placement[1]) * OVERSAMPLING
            for band, observed in zip(image, self.observed, strict=True):
                cv2.remap(observed, cols, rows, cv2.INTER_CUBIC, band, cv2.BORDER_REPLICATE)
            support = cv2.remap(self.support, cols, rows, cv2.INTER_LINEAR, None, cv2.BORDER_CONSTANT)
        return image, np.asarray(support > _SUPPORT)


def make_view(
    scene: NDArray[np.floating],
    valid: NDArray[np.bool_],
    reference: NDArray[np.floating],
    reference_valid: NDArray[np.bool_],
    sensor: SensorModel,
    origin: tuple[int, int] = (0, 0),
) -> View:
    """Let the sensor look at the reference.

    Args:
        scene: (C, h, w).
        valid: (h, w), True = valid in every band.
        reference: (C, (h + 2 pad) 4, (w + 2 pad) 4) on a grid four times finer than the scene's, bands as the scene's.
        reference_valid: the same height and width, True = valid.
        sensor: the declared operator; its scale does not matter, its PSF is in scene pixels.
        origin: of the view in the scene.
    """
    pad = (reference_valid.shape[0] // OVERSAMPLING - valid.shape[0]) // 2
    observed, support = _look(reference, reference_valid, SensorModel(OVERSAMPLING, sensor.psf_sigma, sensor.kernel))
    filled = np.where(valid, scene, 0).astype(np.float32)
    return View(filled, np.asarray(valid), observed, support, pad, origin)


def _look(
    image: NDArray[np.floating], valid: NDArray[np.bool_], sensor: SensorModel
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The sensor's view with its pixel's corner at every pixel of `image`, (C, height, width), and its support."""
    before, after = sensor.reach, sensor.reach + sensor.scale - 1
    sides = ((before, after), (before, after))
    valid_pixels = torch.from_numpy(np.pad(valid, sides, mode="edge"))[None, None]
    filled = np.where(valid, image, 0).astype(np.float32)
    fine = torch.from_numpy(np.pad(filled, ((0, 0), *sides), mode="edge"))[None]
    support = convolve(valid_pixels.to(torch.float32), [sensor.factors], 1)
    observed = torch.empty(1, *image.shape)
    for start in range(0, image.shape[-2], _ROWS):
        rows = slice(start, start + _ROWS)
        part = convolve(fine[..., start : start + _ROWS + before + after, :], [sensor.factors], 1)
        torch.div(part, support[..., rows, :].clamp(min=_MIN_SUPPORT), out=observed[..., rows, :])
    return observed[0].numpy(), support[0, 0].numpy()
