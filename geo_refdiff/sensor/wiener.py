"""The noise in what an image misses of the scene: a local Wiener filter, which corrections to the scene begin with.

With noise in the scene an exact correction writes the noise into the image, amplified where the sensor lets little
through. Wiener's (1949) regularised inverse H / (H^2 + n), n the noise's variance over that of what is missing, is the
exact inverse 1 / H after the filter S / (S + sigma^2), S the variance of what the sensor sees. That filter is here: S
is estimated from the residual between scene and image itself, around every pixel, frequency by frequency (cosine
transforms of overlapping squares, as Yu and Sapiro, "DCT image denoising", IPOL 2011), of mixtures of bands that have
least in common (`components`), since bands share the ground and not the noise. The better the image already is, the
less of the residual is ground, and the more noise is taken off; detail that image and scene share is not touched.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

SIDE = 8
"""Of the squares, scene pixels."""

REACH = SIDE - 1
"""scene pixels on each side that a filtered pixel depends on; nearer to an edge, fewer squares give it."""

_DOUBT = 1.5
"""Times the noise's variance that is taken off the scene's: estimates from few frequencies scatter, and what stands out
by chance would show as a lattice, the highest frequencies being amplified most."""

_FEWEST = 64
"""Differences of neighbours from which mixtures of bands are estimated."""


def components(tiles: Sequence[NDArray[np.floating]], sigmas: Sequence[float]) -> tuple[tuple[float, ...], ...]:
    """Mixtures of the bands that have noise, each band in units of its noise: noise is as large in each and shared by
    none, and differences of neighbouring pixels have nothing in common (Green et al., "A transformation for ordering
    multispectral data in terms of image quality", IEEE TGRS 26, 1988).

    Args:
        tiles: (C, h, w) pieces of the scene, NaN = missing.
        sigmas: standard deviation of each band's noise; bands of 0 are left out.

    Returns:
        (K, K) orthonormal rows, K bands with noise.
    """
    noisy = [band for band, sigma in enumerate(sigmas) if sigma > 0]
    if not noisy:
        return ()
    scale = np.array([sigmas[band] for band in noisy])[:, None]
    parts = []
    for tile in tiles:
        kept = np.asarray(tile, dtype=np.float64)[noisy]
        parts += [np.diff(kept, axis=axis).reshape(len(noisy), -1) for axis in (1, 2)]
    steps = np.concatenate(parts, axis=1) / scale if parts else np.zeros((len(noisy), 0))
    steps = steps[:, np.isfinite(steps).all(axis=0)]
    if steps.shape[1] < _FEWEST:
        return tuple(tuple(row) for row in np.eye(len(noisy)).tolist())
    _, vectors = np.linalg.eigh(steps @ steps.T / steps.shape[1])
    return tuple(tuple(row) for row in vectors.T[::-1].tolist())


class NoiseFilter:
    """Takes a scene's noise off.

    Args:
        sigmas: standard deviation of each band's noise, the scene's units; bands of 0 come back as they are.
        mixtures: of the bands with noise, from `components`.
    """

    def __init__(self, sigmas: Sequence[float], mixtures: Sequence[Sequence[float]]) -> None:
        self.noisy = [band for band, sigma in enumerate(sigmas) if sigma > 0]
        scale = torch.tensor([sigmas[band] for band in self.noisy], dtype=torch.float64)
        mix = torch.tensor(mixtures, dtype=torch.float64).reshape(len(self.noisy), len(self.noisy))
        self._mix, self._unmix = mix / scale, (mix * scale).T

    def estimate(self, residual: Tensor) -> Tensor:
        """The noise in a residual between the scene and an image, or in a scene.

        Args:
            residual: (N, C, h, w) float, nothing missing.

        Returns:
            (N, C, h, w), same dtype, to be taken off.
        """
        height, width = residual.shape[-2:]
        noise = torch.zeros_like(residual)
        if self.noisy:
            mix, unmix = (m.to(device=residual.device, dtype=residual.dtype) for m in (self._mix, self._unmix))
            mixed = torch.einsum("kc,nchw->nkhw", mix, residual[:, self.noisy])
            if min(height, width) < SIDE:
                mixed = F.pad(mixed, (0, max(SIDE - width, 0), 0, max(SIDE - height, 0)), mode="replicate")
            parts = [_noise(mixed[:, k : k + 1]) for k in range(len(self.noisy))]  # 64 coefficients a pixel each
            unmixed = torch.einsum("ck,nkhw->nchw", unmix, torch.cat(parts, dim=1))
            noise[:, self.noisy] = unmixed[..., :height, :width]
        return noise


def _noise(image: Tensor) -> Tensor:
    """(N, 1, h, w) with white noise of variance 1 -> the noise in it, the mean over the squares inside, same shape."""
    rows, rings = _squares(image.dtype, image.device)
    with torch.autocast(image.device.type, enabled=False):
        across = F.conv2d(image, rows[:, None, None, :])  # (N, 8, ., w + 7)
        n, _, height, width = across.shape
        spectra = F.conv2d(across.reshape(n * SIDE, 1, height, width), rows[:, None, :, None])
        spectra = spectra.reshape(n, SIDE * SIDE, height - REACH, width)
        power = torch.einsum("nkhw,kr->nrhw", spectra.square(), rings / rings.sum(dim=0))
        share = _DOUBT / power.clamp(min=_DOUBT)
        share[:, 0] = 0  # a square's mean is kept
        share = torch.einsum("nrhw,kr->nkhw", share, rings)
        weight = 1 / (1 - share).square().sum(dim=1, keepdim=True)
        taken = (spectra * share * weight).reshape(n * SIDE, SIDE, height - REACH, width)
        back = F.conv_transpose2d(taken, rows[:, None, :, None]).reshape(n, SIDE, height, width)
        back = F.conv_transpose2d(back, rows[:, None, None, :])
        total = F.conv_transpose2d(weight, torch.ones_like(weight[:1, :1, :1, :1]).expand(1, 1, SIDE, SIDE))
    return back / total


@lru_cache(maxsize=16)
def _squares(dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """(8, 8) orthonormal cosine transform, frequency by sample; (64, R) which ring of equal frequency each pair of
    frequencies (across, then down) belongs to, the mean first."""
    k, x = np.arange(SIDE)[:, None], np.arange(SIDE)[None]
    transform = np.sqrt(2 / SIDE) * np.cos((2 * x + 1) * k * math.pi / (2 * SIDE))
    transform[0] /= math.sqrt(2)
    ring = np.minimum(np.ceil(np.hypot(k, x)), SIDE + 1).astype(int).ravel()
    with torch.inference_mode(False):
        rings = torch.from_numpy(np.eye(ring.max() + 1)[ring])
        return torch.from_numpy(transform).to(device=device, dtype=dtype), rings.to(device=device, dtype=dtype)


def without_noise(scenes: Tensor, sigmas: Sequence[float], margin: int = 0) -> Tensor:
    """Scenes less their noise, for each scene the same in all bands: what a trainer corrects to, which has no image.

    Args:
        scenes: (N, C, h + 2 margin, w + 2 margin) float.
        sigmas: N standard deviations of their noise, same units.
        margin: scene pixels around what is wanted.

    Returns:
        (N, C, h, w).
    """
    inner = (..., slice(margin, scenes.shape[-2] - margin), slice(margin, scenes.shape[-1] - margin))
    cleaned = scenes[inner].clone()
    for scene, sigma, result in zip(scenes, sigmas, cleaned, strict=True):
        if sigma > 0:
            bands = (sigma,) * len(scene)
            result -= NoiseFilter(bands, components([scene.cpu().numpy()], bands)).estimate(scene[None])[inner][0]
    return cleaned
