"""Consistency: the output, seen through the declared sensor, is the scene, up to the scene's noise.

The residual between an image and the scene is corrected by back-projection (`sensor.inverse`): x <- x + U G (lr - A x).
A sees valid pixels only, so that what is under missing pixels never counts. Passes are repeated for borders and
missing pixels, where G is not quite the inverse. Where the scene has noise, what Wiener's filter (`sensor.wiener`)
takes for noise in the first residual is left out, a regularised inverse: what remains is as large as the noise, not
zero.

"standard" corrects windows, in which the halo is the context that it takes. "strict" continues, on a whole block with
all of the context that its steps reach, until what remains in finished pixels is at most half a digital number; it
knows no noise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from geo_refdiff.engine.finish import avoid_nodata_collision, equals, rounded
from geo_refdiff.options import Consistency
from geo_refdiff.sensor.fill import fill_missing
from geo_refdiff.sensor.inverse import filter_residual
from geo_refdiff.sensor.resize import CONTEXT, cell_means, repeat_pixels, upsample
from geo_refdiff.sensor.sensor import SensorModel
from geo_refdiff.sensor.wiener import NoiseFilter

HALF = 0.5
"""Digital numbers: what strict mode promises."""

_PASSES = 2
_SMOOTH, _WITHIN = 12, 8
"""Steps of strict mode after the passes, smooth ones and then ones within scene px, between which values are brought
back into the range of the type. Smooth steps hand on to neighbours what a saturated scene px cannot take and leave no
edges; those within scene pixels end it: A restricted to them is close to the identity, whatever is missing, so that
heavy-ball steps (Polyak 1964) divide what remains by about 3 each."""
_SETTLING = 8
"""Steps after these, on finished pixels: scene pixels near saturated ones have moved with them to the last."""
_SETTLED = HALF - 1e-3
_STEP, _LEAST_FREE = 1.5, 0.1
_MOMENTUM = {"smooth": 0.5, "within": 0.4}
_FILL = 3


Bounds = tuple[Tensor | float, Tensor | float]
"""The least and the greatest value that output pixels may take: numbers, or (N, 1, h scale, w scale)."""


@dataclass(frozen=True, slots=True)
class Residual:
    """The residual between the scene and the output as the sensor sees it, over scene pixels, in digital numbers.

    Attributes:
        count: valid scene pixels, bands counted apart.
        largest: absolute value.
        beyond: how many are off by more than half a digital number.
        squares: sum of squares.
        saturated: of those beyond, how many see pixels at a limit of the data type, which is why.
    """

    count: int = 0
    largest: float = 0.0
    beyond: int = 0
    squares: float = 0.0
    saturated: int = 0

    def plus(self, other: Residual) -> Residual:
        """Both together."""
        return Residual(
            self.count + other.count,
            max(self.largest, other.largest),
            self.beyond + other.beyond,
            self.squares + other.squares,
            self.saturated + other.saturated,
        )

    @property
    def rms(self) -> float:
        """Root mean square, digital numbers; 0 for none."""
        return float(np.sqrt(self.squares / self.count)) if self.count else 0.0


class LrConsistency:
    """Back-projection of images of digital numbers to the scene.

    Images are (N, C, h scale, w scale) float32, the scene (N, C, h, w) real numbers, and `valid` bool of its shape,
    True = valid in the scene, or None: all are.

    Args:
        sensors: the declared operator, a band each.
        mode: as of the module; "off": none.
        dtype: of the output.
        nodata: a limit of the type that stands for missing pixels is not used for others in strict mode, but where
            the scene's own valid pixels hold it in a band.
        noise: takes off the scene's noise; None: the scene is exact. Strict mode does not use it.
    """

    def __init__(
        self,
        sensors: tuple[SensorModel, ...],
        mode: Consistency,
        dtype: np.dtype[Any],
        nodata: float | None = None,
        noise: NoiseFilter | None = None,
    ) -> None:
        self.mode, self.dtype = mode, dtype
        self.scale = sensors[0].scale
        self.nodata = None if nodata is None or np.isnan(nodata) else nodata
        self.limits = None if dtype.kind == "f" else (float(np.iinfo(dtype).min), float(np.iinfo(dtype).max))
        self.sees = max(-(-s.reach // self.scale) for s in sensors)
        """scene pixels beyond its own that the sensor sees for one."""
        self.sensors = sensors
        self._noise = noise if mode == "standard" else None
        self._groups: dict[SensorModel, list[int]] = {}
        for band, sensor in enumerate(sensors):
            self._groups.setdefault(sensor, []).append(band)

    @property
    def margin(self) -> int:
        """scene pixels beyond a block of corrected windows that its finished pixels, and what the sensor sees of them,
        depend on."""
        if self.mode == "off":
            return 0
        steps = _SMOOTH * (self.sees + CONTEXT) + (_WITHIN + _SETTLING) * self.sees if self.mode == "strict" else 0
        return steps + self.sees

    def correct(self, image: Tensor, lr: Tensor, valid: Tensor | None) -> Tensor:
        """Windows, corrected to a scene, not rounded."""
        if self.mode == "off":
            return image
        noise: Tensor | None = None
        for _ in range(_PASSES):
            residual = self._by_sensor(
                lambda sensor, x, scene, own: self._residual(x, scene, own, sensor), valid, image, lr
            )
            if self._noise is not None:
                noise = self._noise.estimate(residual) if noise is None else noise
                residual = residual - noise if valid is None else torch.where(valid, residual - noise, 0)
            image = self._by_sensor(self._back_projected, valid, image, residual)
        return image

    def finish(self, image: Tensor, lr: Tensor, valid: Tensor | None) -> Tensor:
        """Values of the output's type, none of them the nodata value but where the scene has it.

        Strict mode corrects on, then looks at what remains in finished pixels: scene pixels off by more than half a
        digital number that see no limit of the type are moved, alone, until none is.

        Args:
            image: of corrected windows.
            lr, valid: as of the class.
        """
        dark = self._dark(lr, valid)
        if self.mode == "strict":
            valid = torch.ones_like(lr, dtype=torch.bool) if valid is None else valid
            for band, sensor in enumerate(self.sensors):
                one = (slice(None), slice(band, band + 1))
                held, bounds = None if dark is None else dark[one], self._bounds(None if dark is None else dark[one])
                if bool(valid[one].any()):
                    x = self._step(image[one], lr[one], valid[one], sensor, bounds)
                    image[one] = self._settle(x, lr[one], valid[one], sensor, bounds, held)
        return self._finished(image, dark)

    def measure(
        self,
        pixels: Tensor,
        lr: Tensor,
        valid: Tensor | None,
        inner: tuple[slice, slice],
        cut: Tensor | None = None,
    ) -> Residual:
        """What remains in finished pixels.

        Args:
            pixels: an image of values of the output's type.
            lr, valid: as of the class.
            inner: rows and columns of scene pixels to look at.
            cut: (N, C, h, w), scene px that are valid in the scene but were cut off the pixels; what sees them is left
                out. None: none.
        """
        total = Residual()
        every = (slice(None), slice(None), *inner)
        is_valid = torch.ones_like(lr, dtype=torch.bool) if valid is None else valid
        counted = is_valid[every]
        if cut is not None:
            counted = counted & ~self._spread_out(cut)[every]
        for sensor, bands in self._groups.items():
            here = counted[:, bands]
            if not bool(here.any()):
                continue
            residual = self._residual(
                pixels[:, bands], lr[:, bands], None if valid is None else valid[:, bands], sensor
            )
            residual = residual[every].abs()
            values, wrong = residual[here], (residual > HALF) & here
            beyond = int(wrong.sum())
            limited = 0
            if beyond:
                limited = int((wrong & self._at_limit(pixels[:, bands], is_valid[:, bands])[every]).sum())
            squares = float(values.to(torch.float64).square().sum())
            total = total.plus(Residual(values.numel(), float(values.max()), beyond, squares, limited))
        return total

    def _by_sensor(
        self,
        of: Callable[[SensorModel, Tensor, Tensor, Tensor | None], Tensor],
        valid: Tensor | None,
        image: Tensor,
        lr: Tensor,
    ) -> Tensor:
        """A function of sensor, image, scene and validity, called for the bands of each sensor together."""
        if len(self._groups) == 1:
            return of(self.sensors[0], image, lr, valid)
        parts = [
            of(sensor, image[:, bands], lr[:, bands], None if valid is None else valid[:, bands])
            for sensor, bands in self._groups.items()
        ]
        order = [band for bands in self._groups.values() for band in bands]
        return torch.cat(parts, dim=1)[:, [order.index(band) for band in range(len(order))]]

    def _residual(self, image: Tensor, lr: Tensor, valid: Tensor | None, sensor: SensorModel) -> Tensor:
        """(N, C, h, w) float32, 0 where missing."""
        fine_valid = None
        if valid is not None:
            same = bool((valid == valid[:, :1]).all())  # bands mostly share their missing pixels
            fine_valid = repeat_pixels(valid[:, :1] if same else valid, self.scale)
        seen, _ = sensor.observe_valid(image, fine_valid)
        residual = lr.to(torch.float32) - seen
        return residual if valid is None else torch.where(valid, residual, 0)

    def _back_projected(self, sensor: SensorModel, image: Tensor, residual: Tensor, valid: Tensor | None) -> Tensor:
        """x + U G of a residual."""
        filtered = filter_residual(_filled(residual, valid), sensor)
        return upsample(filtered, self.scale, kernel="lanczos").add_(image)

    def _step(
        self,
        image: Tensor,
        lr: Tensor,
        valid: Tensor,
        sensor: SensorModel,
        bounds: Bounds,
    ) -> Tensor:
        """Projections onto the consistent and onto the representable images by turns, with momentum.

        What remains of a scene pixel goes to those of its output pixels that are not at the limit it pushes to.
        """
        low, high = bounds
        image = _clipped(image, bounds)
        for kind, rounds in (("smooth", _SMOOTH), ("within", _WITHIN)):
            moved = torch.zeros_like(image)
            for _ in range(rounds):
                residual = self._residual(image, lr, valid, sensor)
                free = torch.where(repeat_pixels(residual > 0, self.scale), image < high, image > low)
                push = _STEP * residual / cell_means(free, self.scale).clamp(min=_LEAST_FREE)
                added = upsample(push, self.scale) if kind == "smooth" else repeat_pixels(push, self.scale)
                after = _clipped(image + added + _MOMENTUM[kind] * moved, bounds)
                image, moved = after, after - image
        return image

    def _settle(
        self,
        image: Tensor,
        lr: Tensor,
        valid: Tensor,
        sensor: SensorModel,
        bounds: Bounds,
        dark: Tensor | None,
    ) -> Tensor:
        if self.limits is None:
            return image
        own = sum(sensor.taps[sensor.reach : sensor.reach + self.scale]) ** 2
        step = min(_STEP, 1.0 / own)
        for _ in range(_SETTLING):
            pixels = self._finished(image, dark)
            residual = self._residual(pixels, lr, valid, sensor)
            off = (residual.abs() > _SETTLED) & ~self._at_limit(pixels, valid)
            if not bool(off.any()):
                break
            image = _clipped(image + repeat_pixels(torch.where(off, step * residual, 0), self.scale), bounds)
        return image

    def _finished(self, image: Tensor, dark: Tensor | None) -> Tensor:
        pixels = rounded(image, self.dtype)
        if self.nodata is None:
            return pixels
        held = None if dark is None or not bool(dark.any()) else repeat_pixels(dark, self.scale)
        return avoid_nodata_collision(pixels, None, held, self.nodata, self.dtype)

    def _dark(self, lr: Tensor, valid: Tensor | None) -> Tensor | None:
        """(N, C, h, w) where the scene holds the nodata value in a valid pixel, and the output may, too; None without
        nodata.

        It may not where all bands of the output hold it, as can be where another band of the scene, which is not in the
        output, makes the pixel a valid one: it would read as missing.
        """
        if self.nodata is None:
            return None
        dark = equals(lr, self.nodata, self.dtype)
        if valid is not None:
            dark &= valid
        return dark & ~dark.all(dim=1, keepdim=True)

    def _bounds(self, dark: Tensor | None) -> Bounds:
        """Of one band."""
        if self.limits is None:
            return -np.inf, np.inf
        low, high = self.limits
        if dark is None or self.nodata not in self.limits:
            return low, high
        inwards = 1 if self.nodata == low else -1
        edge = torch.where(repeat_pixels(dark, self.scale), float(self.nodata), float(self.nodata) + inwards)
        return (edge, high) if inwards > 0 else (low, edge)

    def _at_limit(self, pixels: Tensor, valid: Tensor) -> Tensor:
        """Which scene pixels see a valid pixel at a limit of the type, or next to nodata that is there."""
        if self.limits is None:
            return torch.zeros_like(valid)
        low, high = self.limits
        at = (pixels <= low + (self.nodata == low)) | (pixels >= high - (self.nodata == high))
        return self._spread_out((cell_means(at, self.scale) > 0) & valid)

    def _spread_out(self, marked: Tensor) -> Tensor:
        """scene pixels that see marked ones."""
        side = 2 * self.sees + 1
        return F.max_pool2d(marked.to(torch.float32), side, stride=1, padding=self.sees) > 0


def _filled(residual: Tensor, valid: Tensor | None) -> Tensor:
    """A residual, missing pixels filled from their neighbours."""
    if valid is None or bool(valid.all()):
        return residual
    around = F.pad(residual, (_FILL,) * 4, mode="replicate")
    there = F.pad(valid.to(residual.dtype), (_FILL,) * 4, mode="replicate") > 0
    return fill_missing(around, there, _FILL, (0.0,) * residual.shape[1])


def _clipped(image: Tensor, bounds: Bounds) -> Tensor:
    low, high = (torch.as_tensor(b, dtype=image.dtype, device=image.device) for b in bounds)
    return torch.clamp(image, low, high)
