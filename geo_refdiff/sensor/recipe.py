"""Recipes: random degradations of sharp images, drawn image by image from a seeded generator.

The kinds are those of the Ref-Diff paper (Dong et al., CVPR 2024, section 3.3): isotropic and anisotropic Gaussian
blur, motion blur, resizing with several kernels, Gaussian noise, JPEG; simpler at 16x than at 8x. The paper gives no
ranges; those of the recipe "published" are ours.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from geo_refdiff.errors import OptionError
from geo_refdiff.sensor.jpeg import jpeg
from geo_refdiff.sensor.kernels import RESIZES, Factors, Resize, oriented, separable
from geo_refdiff.sensor.presets import PRESETS
from geo_refdiff.sensor.sensor import observe

MAX_SIGMA = 4.0
"""scene pixels."""
MAX_MOTION = 4.0
"""scene pixels."""

_BANDS = 4
"""Bands whose sensors may differ from each other; further ones are as these."""

Range = tuple[float, float]


@dataclass(frozen=True, slots=True)
class DegradationRecipe:
    """How often an image is degraded how; probabilities, and ranges (low, high) that are drawn from uniformly.

    Attributes:
        protocol: share of images that are reduced by the antialiased bicubic kernel without any blur, as the paper's
            test images are; what follows is for the others.
        isotropic, anisotropic, motion: probability of a Gaussian blur, of one with two widths and an angle, and of an
            isotropic one along a straight segment; what remains to 1 is not blurred.
        sigma: standard deviation of the Gaussians, scene pixels.
        apart: how far the standard deviation of a band may be from its image's, scene pixels.
        motion_length: scene pixels.
        area, bilinear, bicubic, nearest: probability of each resize kernel (`kernels.resize_taps`), 1 together.
        noisy: probability of Gaussian noise.
        noise: its standard deviation, DN of 0..255.
        shot: the largest share of the noise's variance that is proportional to the signal; the standard deviation is
            then that of a signal of 128 DN.
        jpeg: probability of JPEG.
        jpeg_quality: whole numbers 1..100, both ends included.
        simpler: what the probabilities of anisotropic blur, motion blur, noise and JPEG are multiplied by at 16x and
            beyond; 1 at 8x and below, in between along log2 of the scale. An image that is spared anisotropic or
            motion blur gets the isotropic one.
    """

    protocol: float = 0.0
    isotropic: float = 1.0
    anisotropic: float = 0.0
    motion: float = 0.0
    sigma: Range = (0.25, 0.5)
    apart: float = 0.0
    motion_length: Range = (0.0, 0.0)
    area: float = 1.0
    bilinear: float = 0.0
    bicubic: float = 0.0
    nearest: float = 0.0
    noisy: float = 1.0
    noise: Range = (0.0, 0.0)
    shot: float = 0.0
    jpeg: float = 0.0
    jpeg_quality: tuple[int, int] = (95, 95)
    simpler: float = 1.0

    def __post_init__(self) -> None:
        for name in ("sigma", "motion_length", "noise", "jpeg_quality"):
            _check_range(name, getattr(self, name), *_BOUNDS[name])
        for name in _PROBABILITIES:
            value = getattr(self, name)
            if not _is_number(value) or not 0.0 <= value <= 1.0:
                raise OptionError(f"degradation recipe: {name} = {value!r} must be a number in 0..1")
        if (total := self.isotropic + self.anisotropic + self.motion) > 1 + 1e-9:
            raise OptionError(f"degradation recipe: isotropic + anisotropic + motion = {total:g} is more than 1")
        if abs((total := sum(getattr(self, kind) for kind in RESIZES)) - 1) > 1e-9:
            raise OptionError(f"degradation recipe: {' + '.join(RESIZES)} = {total:g} must be 1")

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> DegradationRecipe:
        """The inverse of `to_dict`; what is not given keeps its default.

        Raises:
            OptionError: an unknown key (the nearest known one is named), or a value that makes no sense.
        """
        names = [f.name for f in fields(cls)]
        for key in data:
            if key not in names:
                near = difflib.get_close_matches(str(key), names, n=1)
                hint = f"did you mean {near[0]}?" if near else f"the keys are {', '.join(names)}"
                raise OptionError(f"degradation recipe: unknown key {key!r}; {hint}")
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
        return cls(**values)

    def eased(self, scale: int) -> float:
        """The factor that `simpler` stands for at this scale."""
        return float(self.simpler ** min(1.0, max(0.0, math.log2(scale / 8))))


_PROBABILITIES = (
    "protocol", "isotropic", "anisotropic", "motion", "apart", *RESIZES, "noisy", "shot", "jpeg", "simpler",
)  # fmt: skip
_BOUNDS: dict[str, tuple[float, float, bool]] = {
    "sigma": (0.0, MAX_SIGMA, False),
    "motion_length": (0.0, MAX_MOTION, False),
    "noise": (0.0, 255.0, False),
    "jpeg_quality": (1, 100, True),
}


def _is_number(value: object, whole: bool = False) -> bool:
    return isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)


def _check_range(name: str, value: object, low: float, high: float, whole: bool) -> None:
    if (
        not isinstance(value, tuple)
        or len(value) != 2
        or not all(_is_number(v, whole) for v in value)
        or not low <= value[0] <= value[1] <= high
    ):
        shown = list(value) if isinstance(value, tuple) else value
        kind = "whole numbers" if whole else "numbers"
        raise OptionError(f"degradation recipe: {name} = {shown!r} must be two {kind} [low, high] in {low:g}..{high:g}")


RECIPES: dict[str, DegradationRecipe] = {
    "sensor": DegradationRecipe(
        protocol=0.15, isotropic=0.75 / 0.85, sigma=(0.25, 0.5), noise=(0.0, 1.5)
    ),
    "satellite": DegradationRecipe(
        protocol=0.08, isotropic=0.85, anisotropic=0.15, sigma=(0.2, 0.55), apart=0.05, noisy=0.6, noise=(0.2, 5.0),
        shot=0.8,
    ),
    "published": DegradationRecipe(
        protocol=0.1, isotropic=0.45, anisotropic=0.25, motion=0.15, sigma=(0.15, 0.6), motion_length=(0.2, 1.0),
        area=0.4, bilinear=0.2, bicubic=0.3, nearest=0.1, noisy=0.7, noise=(0.0, 4.0), jpeg=0.3, jpeg_quality=(60, 95),
        simpler=0.5,
    ),
    **{
        name: DegradationRecipe(protocol=1.0)
        if preset.kernel == "bicubic"
        else DegradationRecipe(isotropic=float(preset.psf_sigma > 0), sigma=(preset.psf_sigma, preset.psf_sigma))
        for name, preset in PRESETS.items()
    },
}  # fmt: skip
"""By name: "sensor" (PSF and area mean, some noise, some images by the bicubic protocol), "satellite" (wider PSFs that
differ between bands, noise as of real products, often none), "published" (all the paper's kinds), and the sensors of
`presets.PRESETS` as they are."""


@dataclass(frozen=True, slots=True)
class Degradation:
    """The drawn parameters of N images.

    Attributes:
        scale: output pixels along a scene pixel.
        seed: of the noise.
        sigma: N pairs of standard deviations, scene pixels: along the angle and across it.
        apart: N times what is added to them in each band, scene px (bands beyond the last start over); () = nothing.
        angle: N, radians, from the direction of rows (to the right) towards that of columns (downwards).
        motion: N lengths, scene pixels; 0 = none.
        resize: N names of resize kernels.
        noise: N standard deviations, DN of 0..255, at a signal of 128 DN.
        shot: N shares of their variance that are proportional to the signal.
        quality: N JPEG qualities 1..100; 0 = no JPEG.
    """

    scale: int
    seed: int
    sigma: tuple[Range, ...]
    apart: tuple[tuple[float, ...], ...]
    angle: tuple[float, ...]
    motion: tuple[float, ...]
    resize: tuple[Resize, ...]
    noise: tuple[float, ...]
    shot: tuple[float, ...]
    quality: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.sigma)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        data = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
        return data | {key: [list(part) for part in data[key]] for key in ("sigma", "apart")}

    def kernel(self, index: int, band: int = 0) -> Factors:
        """Blur and resizing of a band of an image: rows and cols, (rank, scale + 2 reach) float64
        (`kernels.oriented`)."""
        sigma, motion, apart = self.sigma[index], self.motion[index], self.apart[index]
        if apart and max(sigma) > 0:
            added = apart[band % len(apart)]
            sigma = (max(sigma[0] + added, 0.0), max(sigma[1] + added, 0.0))
        if sigma[0] == sigma[1] and motion == 0:
            taps = separable(self.scale, sigma[0], self.resize[index])[None]
            return taps, taps
        return oriented(self.scale, sigma, motion, self.angle[index], self.resize[index])

    def apply(self, hr: Tensor) -> Tensor:
        """The images as the drawn sensors see them.

        The same draw gives the same values on the same device, in the images' own precision, not autocast's (with TF32
        a GPU is off by up to 0.1 DN; training runs without).

        Args:
            hr: (N, C, H, W) float, DN 0..255, finite (fill missing pixels first); H and W multiples of the scale. The
                border is replicated.

        Returns:
            (N, C, H / scale, W / scale), same dtype and device; whole numbers where JPEG was drawn; noise may leave
            0..255.

        Raises:
            OptionError: a size that is no multiple of the scale, or another number of images than was drawn.
        """
        with torch.autocast(hr.device.type, enabled=False):
            lr = self._reduced(hr)
            if any(self.noise):
                generator = torch.Generator(device=hr.device).manual_seed(self.seed)
                amount, shot = (
                    torch.tensor(values, dtype=hr.dtype, device=hr.device).view(-1, 1, 1, 1)
                    for values in (self.noise, self.shot)
                )
                if any(self.shot):
                    amount = amount * (1.0 - shot + shot * lr.clamp(min=0.0) / 128.0).sqrt()
                lr += amount * torch.randn(lr.shape, generator=generator, dtype=hr.dtype, device=hr.device)
            coded = [i for i, q in enumerate(self.quality) if q]
            if coded:
                lr[coded] = jpeg(lr[coded], [self.quality[i] for i in coded])
            return lr

    def _reduced(self, hr: Tensor) -> Tensor:
        n, c, height, width = hr.shape
        if len(self) != n or not any(self.apart):
            return observe(hr, [self.kernel(i) for i in range(len(self))], self.scale)
        kernels = [self.kernel(i, band) for i in range(n) for band in range(c)]
        lr = observe(hr.reshape(n * c, 1, height, width), kernels, self.scale)
        return lr.reshape(n, c, *lr.shape[-2:])


def draw(recipe: DegradationRecipe, rng: np.random.Generator, n: int, scale: int) -> Degradation:
    """The parameters of n images.

    The generator is asked for the same number of values whatever is drawn.

    Args:
        recipe: what to draw from.
        rng: the source of randomness, moved on.
        n: number of images.
        scale: output pixels along a scene pixel, a whole number.
    """
    seed = int(rng.integers(2**63))
    drawn = [_one(recipe, rng.random(10), scale) for _ in range(n)]
    sigma, angle, motion, resize, noise, quality = zip(*drawn, strict=True)
    further = rng.random((n, 1 + _BANDS))
    shot = tuple(recipe.shot * float(u) for u in further[:, 0])
    spread = [tuple(recipe.apart * (2.0 * v - 1.0) for v in u.tolist()) for u in further[:, 1:]]
    apart = tuple(spread if recipe.apart else [()] * n)
    return Degradation(scale, seed, sigma, apart, angle, motion, resize, noise, shot, quality)


def _one(
    recipe: DegradationRecipe, u: np.ndarray[Any, np.dtype[np.float64]], scale: int
) -> tuple[Range, float, float, Resize, float, int]:
    """The parameters of one image from ten uniform numbers."""
    ease = recipe.eased(scale)
    noise = _between(recipe.noise, u[5]) if u[4] < recipe.noisy * ease else 0.0
    low, high = recipe.jpeg_quality
    quality = min(high, low + int((high - low + 1) * u[7])) if u[6] < recipe.jpeg * ease else 0
    if u[0] < recipe.protocol:
        return (0.0, 0.0), 0.0, 0.0, "bicubic", noise, quality
    edges = np.cumsum([getattr(recipe, kind) for kind in RESIZES])
    resize = RESIZES[int(np.searchsorted(edges, u[1], side="right").clip(max=len(RESIZES) - 1))]
    first, second = _between(recipe.sigma, u[8]), _between(recipe.sigma, u[9])
    angle = math.pi * float(u[3])
    if u[2] < recipe.anisotropic * ease:
        return (first, second), angle, 0.0, resize, noise, quality
    if u[2] < (recipe.anisotropic + recipe.motion) * ease:
        return (first, first), angle, _between(recipe.motion_length, u[9]), resize, noise, quality
    if u[2] < recipe.anisotropic + recipe.motion + recipe.isotropic:
        return (first, first), 0.0, 0.0, resize, noise, quality
    return (0.0, 0.0), 0.0, 0.0, resize, noise, quality


def _between(bounds: Range, u: float) -> float:
    return bounds[0] + (bounds[1] - bounds[0]) * float(u)
