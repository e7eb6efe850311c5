"""The scene without its noise, as well as can be estimated: a local Wiener filter, which corrections use as the scene.

With noise in the scene an exact correction writes the noise into the image, amplified where the sensor lets little
through. Wiener's (1949) regularised inverse H / (H^2 + n), n the noise's variance over that of the ground, is the exact
inverse 1 / H after the filter S / (S + sigma^2), S the variance of what the sensor sees. That filter is here: S is told
from the scene itself, around every pixel, frequency by frequency (cosine transforms of overlapping squares, as Yu and
Sapiro, "DCT image denoising", IPOL 2011), of mixtures of bands that have least in common (`components`), since bands
share the ground and not the noise. So it leaves edges, and what bands share; colours lose most.
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

from geo_refdiff.sensor.resize import upsample
from geo_refdiff.sensor.sensor import SensorModel, observe

SIDE = 8
"""Of the squares, scene pixels."""

REACH = SIDE - 1
"""scene pixels on each side that a filtered pixel depends on."""

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

    def told(self, scene: Tensor) -> Tensor:
        """What is taken for noise.

        Args:
            scene: (N, C, h + 2 REACH, w + 2 REACH) float, nothing missing.

        Returns:
            (N, C, h, w), same dtype, to be taken off the scene.
        """
        n, bands, height, width = scene.shape
        noise = scene.new_zeros(n, bands, height - 2 * REACH, width - 2 * REACH)
        if self.noisy:
            mix, unmix = (m.to(device=scene.device, dtype=scene.dtype) for m in (self._mix, self._unmix))
            mixed = torch.einsum("kc,nchw->nkhw", mix, scene[:, self.noisy])
            parts = [_noise(mixed[:, k : k + 1]) for k in range(len(self.noisy))]  # 64 coefficients a pixel each
            noise[:, self.noisy] = torch.einsum("ck,nkhw->nchw", unmix, torch.cat(parts, dim=1))
        return noise


def _noise(image: Tensor) -> Tensor:
    """(N, 1, h + 2 REACH, w + 2 REACH) with white noise of variance 1 -> the noise in it, (N, 1, h, w)."""
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
    inner = (..., slice(REACH, -REACH), slice(REACH, -REACH))
    return back[inner] / total[inner]


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


_AROUND = 4
_LEAST = 0.01
"""Share of noise that is assumed in any case: of rounding, and of a sensor that is not quite the declared one."""
_SEEN = 8


@lru_cache(maxsize=512)
def _impulse_response(sensor: SensorModel) -> NDArray[np.float64]:
    """Along one axis, what the sensor sees of one up-sampled scene pixel; (2 _SEEN + 1,)."""
    size = 2 * _SEEN + 1
    impulse = torch.zeros(1, 1, size, size, dtype=torch.float64)
    impulse[..., _SEEN, _SEEN] = 1.0
    response = sensor.observe(upsample(impulse, sensor.scale))[0, 0].numpy()
    return np.asarray(response[_SEEN] / np.sqrt(response[_SEEN, _SEEN]))


def wiener_project(x: Tensor, lr: Tensor, sensors: Sequence[SensorModel], noise: Tensor) -> Tensor:
    """Correct output images towards their noisy scenes.

    The outermost scene pixels, whose surroundings an image lacks, take no part.

    Args:
        x: (N, C, H, W) float.
        lr: (N, C, H / scale, W / scale), the scenes, same units.
        sensors: N declared operators of one scale.
        noise: (N,) standard deviation of the scene's noise, same units.

    Returns:
        (N, C, H, W).
    """
    scale = sensors[0].scale
    residual = F.pad((lr - observe(x, [s.factors for s in sensors], scale))[..., 1:-1, 1:-1], (1, 1, 1, 1))
    h, w = (n + 2 * _AROUND for n in residual.shape[-2:])
    with torch.no_grad():
        total = residual.square().mean(dim=(1, 2, 3))
        signal = (total - noise.square()).clamp(min=1e-3 * total.clamp(min=1e-12))
        share = (noise.square() / signal).clamp(min=_LEAST).view(-1, 1, 1, 1)
        taps = torch.from_numpy(np.stack([_impulse_response(s) for s in sensors])).to(x)
        rows = _response(taps, torch.fft.fftfreq(h, device=x.device, dtype=x.dtype))
        cols = _response(taps, torch.fft.rfftfreq(w, device=x.device, dtype=x.dtype))
        response = (rows[:, :, None] * cols[:, None, :])[:, None]
        gain = response / (response.square() + share)
    spectrum = torch.fft.rfft2(F.pad(residual, (_AROUND,) * 4))
    correction = torch.fft.irfft2(spectrum * gain, s=(h, w))
    return x + upsample(correction, scale, margin=_AROUND)


def _response(taps: Tensor, frequencies: Tensor) -> Tensor:
    """(N, 2 _SEEN + 1) symmetric taps -> (N, F) their real frequency response, cycles a scene pixel."""
    at = torch.arange(-_SEEN, _SEEN + 1, device=taps.device, dtype=taps.dtype)
    return taps @ torch.cos(2.0 * torch.pi * at[:, None] * frequencies[None])
