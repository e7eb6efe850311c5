"""LR consistency on the global grid: the output, seen through the declared sensor, is the scene.

Windows are restored one by one and cross-faded; what is left between them and the scene is corrected here, on the
lattice, by back-projection (Irani and Peleg 1991): x <- x + U G (lr - A x), A the sensor, U up-sampling by Lanczos'
kernel and G the inverse of A U, a separable filter on the LR grid since A and U are separable. (Keys' kernel, which the
rest of the engine uses, lets more of the LR grid through: 3.4 % steeper at borders of LR pixels than inside, Lanczos of
4 lobes 0.8 %, on a reference four years old.) A sees valid pixels only
(normalised convolution, Knutsson and Westin 1993), so that what lies under missing pixels never counts. All sums are
made in an order that does not depend on where an image was cut, and the context that a pixel depends on is known: any
layout of blocks gives the same bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter

from geo_refdiff.engine.finish import rounded
from geo_refdiff.options import Consistency
from geo_refdiff.raster.fill import fill_missing
from geo_refdiff.raster.nodata import avoid_nodata_collision, dark_pixels
from geo_refdiff.raster.window import repeated
from geo_refdiff.sensor.resampling import (
    LOBES,
    cell_means,
    enlarged,
    filtered,
    lanczos_along,
    reduced,
    reduced_along,
)
from geo_refdiff.sensor.resize import CONTEXT
from geo_refdiff.sensor.sensor import SensorModel

_ROUNDS: dict[Consistency, tuple[int, int]] = {"strict": (12, 8), "standard": (2, 4), "off": (0, 0)}
"""Steps after the pass, smooth ones and then ones within LR pixels: near borders and missing pixels, where G is not
quite the inverse, and, in strict mode, within the range of the type. Smooth steps hand on to neighbours what a
saturated LR pixel cannot take and leave no edges; those within LR pixels end it: A restricted to them is close to the
identity, whatever is missing, so that heavy-ball steps (Polyak 1964) divide what is left by about 3 each."""
_SETTLING = 8
"""Steps after these, on finished pixels: LR pixels near saturated ones have moved with them to the last."""
HALF = 0.5
"""Digital numbers: what strict mode promises."""
_STEP, _LEAST_FREE = np.float32(1.5), np.float32(0.1)
_MOMENTUM = {"smooth": np.float32(0.5), "within": np.float32(0.4)}
_TAIL = 1e-3
_FILL = 3
_GRID = 256
_LEAST_WEIGHT = np.float32(1e-3)


@lru_cache(maxsize=64)
def inverse_taps(sensor: SensorModel) -> tuple[float, ...]:
    """G along one axis, (2 R + 1,), cut where less than a thousandth of its centre is left, sum 1."""
    impulse = np.zeros((_GRID, 1), dtype=np.float32)
    impulse[_GRID // 2] = 1.0
    seen = reduced_along(lanczos_along(impulse, sensor.scale, 0), sensor, 0)[:, 0].astype(np.float64)
    response = np.fft.fft(np.fft.ifftshift(seen)).real
    kernel = np.fft.fftshift(np.fft.ifft(1.0 / response).real)
    mid = _GRID // 2
    radius = int(np.flatnonzero(np.abs(kernel[mid:]) > _TAIL * kernel[mid])[-1])
    cut = kernel[mid - radius : mid + radius + 1]
    return tuple(float(v) for v in cut / cut.sum())


@dataclass(frozen=True, slots=True)
class Residual:
    """What is left between the scene and the output as the sensor sees it, over LR pixels, in digital numbers.

    Attributes:
        count: valid LR pixels, bands counted apart.
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
    """Back-projection of a region of the output.

    Args:
        sensors: the declared operator, a band each.
        mode: "standard": a pass and a few small steps. "strict": more steps, between which values are brought back
            into the range that a whole-number type holds, so that saturated pixels hand on what they cannot take.
            "off": none.
        dtype: of the output.
        nodata: a limit of the type that stands for missing pixels is not used for others in strict mode, but where
            the scene's own valid pixels hold it in a band.
    """

    def __init__(
        self, sensors: tuple[SensorModel, ...], mode: Consistency, dtype: np.dtype[Any], nodata: float | None = None
    ) -> None:
        self.sensors, self.mode, self.dtype = sensors, mode, dtype
        self.scale = sensors[0].scale
        self.nodata = None if nodata is None or np.isnan(nodata) else nodata
        self.limits = None if dtype.kind == "f" else (np.float32(np.iinfo(dtype).min), np.float32(np.iinfo(dtype).max))
        self.sees = max(-(-s.reach // self.scale) for s in sensors)
        """LR pixels beyond its own that the sensor sees for one."""
        self._settling = _SETTLING if mode == "strict" and self.limits is not None else 0

    @property
    def margin(self) -> int:
        """LR pixels beyond a region that its pixels, and what the sensor sees of them, depend on."""
        if self.mode == "off":
            return 0
        spreads = max(len(inverse_taps(s)) // 2 for s in self.sensors) + LOBES + _FILL
        smooth, within = _ROUNDS[self.mode]
        return self.sees + spreads + smooth * (self.sees + CONTEXT) + (within + self._settling) * self.sees + self.sees

    def correct(self, image: NDArray[np.float32], lr: NDArray[Any], valid: NDArray[np.bool_]) -> None:
        """Correct a region in place; right but for `margin` LR pixels where more of the scene lies beyond.

        Args:
            image: (C, h scale, w scale) digital numbers, not rounded.
            lr: (C, h, w) the scene.
            valid: (C, h, w), True = valid in the scene.
        """
        dark = self._dark(lr, valid)
        for band, sensor in enumerate(self.sensors):
            if self.mode == "off" or not valid[band].any():
                continue
            residual = self._residual(image[band], lr[band], valid[band], sensor)
            image[band] += self._spread(residual, valid[band], sensor)
            self._step(image[band], lr[band], valid[band], sensor, self._bounds(dark, band))

    def finish(self, image: NDArray[np.float32], lr: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[Any]:
        """Pixels in the output's dtype of a corrected region, none of them the nodata value but where the scene has it.

        Strict mode looks at what is left in them: LR pixels off by more than half a digital number that see no limit of
        the type are moved, alone, until none is.

        Args:
            image, lr, valid: as for `correct`; `image` is used up.
        """
        dark = self._dark(lr, valid)
        for band, sensor in enumerate(self.sensors):
            held = None if dark is None else dark[band : band + 1]
            self._settle(image[band], lr[band], valid[band], sensor, self._bounds(dark, band), held)
        return self._finished(image, dark)

    def _settle(
        self,
        image: NDArray[np.float32],
        lr: NDArray[Any],
        valid: NDArray[np.bool_],
        sensor: SensorModel,
        bounds: tuple[Any, Any],
        dark: NDArray[np.bool_] | None,
    ) -> None:
        own = sum(sensor.taps[sensor.reach : sensor.reach + self.scale]) ** 2
        step = min(_STEP, np.float32(1.0 / own))
        for _ in range(self._settling):
            pixels = self._finished(image[None].copy(), dark)[0]
            residual = self._residual(pixels, lr, valid, sensor)
            off = (np.abs(residual) > HALF) & ~self._at_limit(pixels, valid)
            if not off.any():
                return
            image += repeated(np.where(off, step * residual, np.float32(0.0)), self.scale)
            np.clip(image, *bounds, out=image)

    def _finished(self, image: NDArray[np.float32], dark: NDArray[np.bool_] | None) -> NDArray[Any]:
        pixels = rounded(image, self.dtype)
        if dark is not None and self.nodata is not None:
            avoid_nodata_collision(pixels, None, repeated(dark, self.scale) if dark.any() else None, self.nodata)
        return pixels

    def _step(
        self,
        image: NDArray[np.float32],
        lr: NDArray[Any],
        valid: NDArray[np.bool_],
        sensor: SensorModel,
        bounds: tuple[Any, Any],
    ) -> None:
        """Projections onto the consistent and onto the representable images by turns, with momentum.

        What is left of an LR pixel goes to those of its HR pixels that are not at the limit it pushes to.
        """
        low, high = bounds
        np.clip(image, low, high, out=image)
        for kind, rounds in zip(_MOMENTUM, _ROUNDS[self.mode], strict=True):
            moved = np.zeros_like(image)
            for _ in range(rounds):
                residual = self._residual(image, lr, valid, sensor)
                free = np.where(repeated(residual > 0, self.scale), image < high, image > low)
                share = np.maximum(cell_means(free, self.scale), _LEAST_FREE)
                before = image.copy()
                push = (_STEP * residual / share).astype(np.float32, copy=False)
                image += enlarged(push, self.scale) if kind == "smooth" else repeated(push, self.scale)
                moved *= _MOMENTUM[kind]
                image += moved
                np.clip(image, low, high, out=image)
                np.subtract(image, before, out=moved)

    def _dark(self, lr: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.bool_] | None:
        """(C, h, w), see `dark_pixels`: all bands together say which; None without nodata."""
        return None if self.nodata is None else dark_pixels(lr, valid, self.nodata)

    def _bounds(self, dark: NDArray[np.bool_] | None, band: int) -> tuple[Any, Any]:
        """The least and the greatest value that HR pixels of a band may take; numbers, or (h scale, w scale)."""
        if self.limits is None or self.mode != "strict":
            return -np.float32(np.inf), np.float32(np.inf)
        low, high = self.limits
        if dark is None or self.nodata not in self.limits:
            return low, high
        inwards = np.float32(1 if self.nodata == low else -1)
        edge = np.where(repeated(dark[band], self.scale), np.float32(self.nodata), np.float32(self.nodata) + inwards)
        return (edge, high) if inwards > 0 else (low, edge)

    def measure(
        self,
        pixels: NDArray[Any],
        lr: NDArray[Any],
        valid: NDArray[np.bool_],
        inner: tuple[slice, slice],
        cut: NDArray[np.bool_] | None = None,
    ) -> Residual:
        """What is left in finished pixels.

        Args:
            pixels: (C, h scale, w scale) in the output's dtype.
            lr, valid: as for `correct`.
            inner: rows and columns of LR pixels to look at.
            cut: (C, h, w), LR pixels that are valid in the scene but were cut off the pixels; what sees them is left
                out. None: none.
        """
        total = Residual()
        for band, sensor in enumerate(self.sensors):
            known = valid[band][inner]
            if cut is not None and cut[band].any():
                known = known & ~maximum_filter(cut[band], 2 * self.sees + 1, mode="constant")[inner]
            if known.any():
                left = np.abs(self._residual(pixels[band], lr[band], valid[band], sensor))
                wrong = np.asarray((left > HALF)[inner] & known)
                limited = self._at_limit(pixels[band], valid[band])[inner] if wrong.any() else wrong
                values = left[inner][known]
                found = Residual(
                    int(values.size),
                    float(values.max()),
                    int(wrong.sum()),
                    float(np.square(values, dtype=np.float64).sum()),
                    int((wrong & limited).sum()),
                )
                total = total.plus(found)
        return total

    def _at_limit(self, pixels: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which LR pixels see a valid pixel at a limit of the type, or next to nodata that is there."""
        if self.limits is None:
            return np.zeros(valid.shape, dtype=np.bool_)
        low, high = self.limits
        at = (pixels <= low + (self.nodata == low)) | (pixels >= high - (self.nodata == high))
        at &= repeated(valid, self.scale)
        return np.asarray(maximum_filter(cell_means(at, self.scale) > 0, 2 * self.sees + 1, mode="constant"))

    def _residual(
        self, image: NDArray[Any], lr: NDArray[Any], valid: NDArray[np.bool_], sensor: SensorModel
    ) -> NDArray[np.float32]:
        known = repeated(valid, self.scale)
        seen = reduced(np.where(known, image, 0).astype(np.float32, copy=False), sensor)
        seen /= np.maximum(reduced(known.astype(np.float32), sensor), _LEAST_WEIGHT)
        return np.where(valid, lr - seen, 0.0).astype(np.float32)

    def _spread(
        self, residual: NDArray[np.float32], valid: NDArray[np.bool_], sensor: SensorModel
    ) -> NDArray[np.float32]:
        grown = fill_missing(np.pad(residual, _FILL)[None], np.pad(valid, _FILL)[None], _FILL, (0.0,))[0]
        taps = inverse_taps(sensor)
        sharper = filtered(filtered(grown, taps, 0), taps, 1)
        return lanczos_along(lanczos_along(sharper, self.scale, 0), self.scale, 1)
