"""JPEG's loss, batched: what an 8-bit baseline JPEG file does to an image, without the file.

Sources: ITU-T T.81 (1992), annex A.3.3 (8 x 8 DCT) and annex K.1 (quantisation tables); ITU-T T.871 (JFIF, YCbCr of
BT.601 at full range); the quality scale is that of the Independent JPEG Group's library, with its chroma at half the
size (4:2:0) and its triangular up-sampling of it.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from geo_refdiff.errors import OptionError

BLOCK = 8
MCU = 16
"""Side of the square that a three-band image is coded by, its chroma being at half the size."""

_LUMINANCE = (
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56,
    14, 17, 22, 29, 51, 87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92,
    49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
)  # fmt: skip
_CHROMINANCE = (
    17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99, 24, 26, 56, 99, 99, 99, 99, 99,
    47, 66, 99, 99, 99, 99, 99, 99, *(99,) * 32,
)  # fmt: skip


@lru_cache(maxsize=256)
def quantisation_table(quality: int, chroma: bool) -> tuple[int, ...]:
    """The 64 divisors of the DCT coefficients, row by row, 1..255.

    Raises:
        OptionError: a quality outside 1..100.
    """
    if not 1 <= quality <= 100:
        raise OptionError(f"JPEG quality {quality}: choose from 1 to 100")
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    base = _CHROMINANCE if chroma else _LUMINANCE
    return tuple(min(255, max(1, (v * percent + 50) // 100)) for v in base)


@lru_cache(maxsize=1)
def _dct() -> Tensor:
    """(8, 8) float64: the orthonormal DCT-II, frequency by sample."""
    k, x = np.arange(BLOCK)[:, None], np.arange(BLOCK)[None]
    matrix = np.sqrt(2 / BLOCK) * np.cos((2 * x + 1) * k * math.pi / (2 * BLOCK))
    matrix[0] /= math.sqrt(2)
    return torch.from_numpy(matrix)


def jpeg(images: Tensor, quality: list[int]) -> Tensor:
    """Images as they come back from JPEG files.

    Args:
        images: (N, C, H, W) float, DN 0..255; clipped and rounded first. Three bands are coded as YCbCr with chroma at
            half the size, another number of bands one by one. Sizes that are no multiples of 8 (16) are filled up by
            replication.
        quality: of each image, 1..100.

    Returns:
        (N, C, H, W) whole DN 0..255, same dtype.

    Raises:
        OptionError: a quality outside 1..100.
    """
    height, width = images.shape[-2:]
    colour = images.shape[1] == 3
    side = MCU if colour else BLOCK
    x = _whole(images.clamp(0, 255))
    x = F.pad(x, (0, -width % side, 0, -height % side), mode="replicate")
    if not colour:
        return _coded(x, quality, chroma=False)[..., :height, :width]
    luma, chroma = _to_ycbcr(x)
    luma = _coded(luma, quality, chroma=False)
    chroma = _doubled(_coded(_halved(chroma), quality, chroma=True))
    return _whole(_to_rgb(luma, chroma).clamp(0, 255))[..., :height, :width]


def _coded(x: Tensor, quality: list[int], chroma: bool) -> Tensor:
    """(N, C, H, W), H and W multiples of 8, through DCT and quantisation; whole DN 0..255."""
    n, c, height, width = x.shape
    dct = _dct().to(device=x.device, dtype=x.dtype)
    tables = torch.tensor([quantisation_table(int(q), chroma) for q in quality], dtype=x.dtype, device=x.device)
    steps = tables.view(n, 1, 1, BLOCK, 1, BLOCK)
    blocks = (x - 128.0).reshape(n, c, height // BLOCK, BLOCK, width // BLOCK, BLOCK)
    levels = torch.einsum("ux,nchxwy,vy->nchuwv", dct, blocks, dct) / steps
    levels = torch.sign(levels) * _whole(levels.abs()) * steps
    decoded = torch.einsum("ux,nchuwv,vy->nchxwy", dct, levels, dct).reshape(x.shape) + 128.0
    return _whole(decoded.clamp(0, 255))


def _whole(x: Tensor) -> Tensor:
    """Rounded half up, where a half is one up to rounding errors: these must not decide, since they depend on how the
    sums were arranged, and exact halves are common among DCT coefficients of whole numbers."""
    return torch.floor(x + (0.5 + (2.0**-30 if x.dtype == torch.float64 else 2.0**-10)))


def _halved(chroma: Tensor) -> Tensor:
    """The mean of each 2 x 2 pixels; halves are rounded down and up in turn from column to column, as the IJG does."""
    lift = torch.arange(chroma.shape[-1] // 2, device=chroma.device) % 2 + 1
    return torch.floor((4 * F.avg_pool2d(chroma, 2) + lift) / 4)


def _doubled(chroma: Tensor) -> Tensor:
    """Twice the size by a triangle (3/4, 1/4); rounded as the IJG does, half up in even and down in odd columns."""
    fine = F.interpolate(chroma, scale_factor=2, mode="bilinear", align_corners=False)
    lift = 8 - torch.arange(fine.shape[-1], device=fine.device) % 2
    return torch.floor((16 * fine + lift) / 16)


def _to_ycbcr(rgb: Tensor) -> tuple[Tensor, Tensor]:
    """Luma (N, 1, H, W) and the two chroma bands (N, 2, H, W), whole numbers."""
    red, green, blue = rgb[:, :1], rgb[:, 1:2], rgb[:, 2:]
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    chroma = torch.cat(((blue - luma) / 1.772, (red - luma) / 1.402), dim=1) + 128.0
    return _whole(luma), _whole(chroma).clamp(0, 255)


def _to_rgb(luma: Tensor, chroma: Tensor) -> Tensor:
    cb, cr = chroma[:, :1] - 128.0, chroma[:, 1:] - 128.0
    green = luma - (0.114 * 1.772 / 0.587) * cb - (0.299 * 1.402 / 0.587) * cr
    return torch.cat((luma + 1.402 * cr, green, luma + 1.772 * cb), dim=1)
