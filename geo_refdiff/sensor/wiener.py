"""The noise-aware correction towards the scene, batch by batch, each image with the sensor declared for it.

With noise in the scene an exact correction writes the noise into the image. The Wiener filter corrects by what is more
likely signal than noise: on the scene grid, where sensor and up-sampling together have the response H, the residual is
weighted by G = H / (H^2 + q), q the noise's share of the residual's variance. Differentiable, so that a network learns
what is left to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from geo_refdiff.sensor.resize import upsample
from geo_refdiff.sensor.sensor import SensorModel, observe

_MARGIN = 4
_LEAST = 0.01
"""Share of noise that is assumed in any case: of rounding, and of a sensor that is not quite the declared one."""
_REACH = 8


@lru_cache(maxsize=512)
def _impulse_response(sensor: SensorModel) -> NDArray[np.float64]:
    """Along one axis, what the sensor sees of one up-sampled scene pixel; (2 _REACH + 1,)."""
    size = 2 * _REACH + 1
    impulse = torch.zeros(1, 1, size, size, dtype=torch.float64)
    impulse[..., _REACH, _REACH] = 1.0
    response = sensor.observe(upsample(impulse, sensor.scale))[0, 0].numpy()
    return np.asarray(response[_REACH] / np.sqrt(response[_REACH, _REACH]))


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
    h, w = (n + 2 * _MARGIN for n in residual.shape[-2:])
    with torch.no_grad():
        total = residual.square().mean(dim=(1, 2, 3))
        signal = (total - noise.square()).clamp(min=1e-3 * total.clamp(min=1e-12))
        share = (noise.square() / signal).clamp(min=_LEAST).view(-1, 1, 1, 1)
        taps = torch.from_numpy(np.stack([_impulse_response(s) for s in sensors])).to(x)
        rows = _response(taps, torch.fft.fftfreq(h, device=x.device, dtype=x.dtype))
        cols = _response(taps, torch.fft.rfftfreq(w, device=x.device, dtype=x.dtype))
        response = (rows[:, :, None] * cols[:, None, :])[:, None]
        gain = response / (response.square() + share)
    spectrum = torch.fft.rfft2(F.pad(residual, (_MARGIN,) * 4))
    correction = torch.fft.irfft2(spectrum * gain, s=(h, w))
    return x + upsample(correction, scale, margin=_MARGIN)


def _response(taps: Tensor, frequencies: Tensor) -> Tensor:
    """(N, 2 _REACH + 1) symmetric taps -> (N, F) their real frequency response, cycles a scene pixel."""
    at = torch.arange(-_REACH, _REACH + 1, device=taps.device, dtype=taps.dtype)
    return taps @ torch.cos(2.0 * torch.pi * at[:, None] * frequencies[None])
