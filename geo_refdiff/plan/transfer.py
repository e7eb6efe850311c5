"""Bands that a model does not know: detail of its own bands is transferred to them.

Pansharpening by multiresolution analysis with the sensor's modulation transfer function (MTF-GLP: Aiazzi, Alparone,
Baronti, Garzelli and Selva 2006, "MTF-tailored multiscale fusion of high-resolution MS and Pan imagery") in which the
model's bands take the place of the panchromatic one, combined by a regression on the coarse scale as in GSA (Aiazzi,
Baronti and Selva 2007, "Improving component substitution pansharpening through multivariate regression of MS + Pan
data"). Since the model's bands, seen by the sensor, are the scene, what they have beyond the up-sampled scene is their
detail. A band that depends little on the model's gets little of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geo_refdiff.sensor.resize import upsample

_LEAST_PIXELS = 64
_RIDGE = 1e-4


@dataclass(frozen=True, slots=True)
class TransferFit:
    """How a band depends on the model's bands, on the scene's own pixels.

    Attributes:
        weights: one for each of the model's bands.
        correlation: of their weighted sum with the band, 0..1.
    """

    weights: tuple[float, ...]
    correlation: float


def fit_transfer(model_bands: NDArray[np.float64], other: NDArray[np.float64]) -> TransferFit:
    """Least squares with a little ridge, so that bands that are alike share the weight.

    Args:
        model_bands: (C, n) the model's bands, digital numbers; NaN = missing.
        other: (n,) the band.

    Returns:
        the fit; weights of 0 where fewer than 64 pixels are valid or the band is flat.
    """
    good = np.isfinite(model_bands).all(axis=0) & np.isfinite(other)
    none = TransferFit((0.0,) * len(model_bands), 0.0)
    if int(good.sum()) < _LEAST_PIXELS:
        return none
    x, y = model_bands[:, good], other[good]
    x = x - x.mean(axis=1, keepdims=True)
    y = y - y.mean()
    covariance = x @ x.T
    if not np.trace(covariance) or not y.any():
        return none
    ridge = _RIDGE * np.trace(covariance) / len(x) * np.eye(len(x))
    weights = np.linalg.solve(covariance + ridge, x @ y)
    made = weights @ x
    correlation = float(made @ y / max(float(np.sqrt((made @ made) * (y @ y))), 1e-12))
    return TransferFit(tuple(float(w) for w in weights), min(max(correlation, 0.0), 1.0))


def transfer_detail(image: Tensor, lr: Tensor, weights: Sequence[Sequence[float]], scale: int) -> Tensor:
    """The other bands: up-sampled, with the weighted detail of the model's bands added.

    Args:
        image: (N, C, h scale, w scale) the model's bands, digital numbers.
        lr: (N, C + K, h + 2 m, w + 2 m) the scene with m pixels of context, missing pixels filled in.
        weights: K times C.
        scale: output pixels along a scene pixel.

    Returns:
        (N, K, h scale, w scale).
    """
    count, margin = image.shape[1], (lr.shape[-1] - image.shape[-1] // scale) // 2
    smooth = upsample(lr, scale, margin)
    shares = torch.tensor(weights, dtype=image.dtype, device=image.device)
    return smooth[:, count:] + torch.einsum("kc,nchw->nkhw", shares, image - smooth[:, :count])
