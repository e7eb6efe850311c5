"""Noise that belongs to places: standard normal values addressed by (seed, lattice pixel, channel, step).

A counter-based generator (Philox 4x32-10, Salmon et al. 2011, "Parallel Random Numbers: As Easy as 1, 2, 3") turns the
row, the column, the step and a number for every four channels into four 32-bit words, which become normal by the
inverse distribution function. So a pixel's value is the same whatever window asks for it, in whatever order, on
whatever device (there up to the last bits of the inverse distribution function).
"""

from __future__ import annotations

import torch
from torch import Tensor

from geo_refdiff.raster.window import Window

_DOMAIN = 0x67656F2D
"""Keeps these streams apart from other uses of the same seed."""
_WORD = 0xFFFF_FFFF
_ROUNDS = 10
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_STRIP = 2**14


def lattice_noise(window: Window, channels: int, seed: int, step: int, device: torch.device | str = "cpu") -> Tensor:
    """Standard normal noise for a window.

    Args:
        window: on the HR lattice; rows and columns may be negative.
        channels: number of channels; channel c has the same values whatever the number.
        seed: any integer (taken modulo 2^64).
        step: any integer (modulo 2^32); 0 for the start, 1, 2, ... for the steps of a sampler.
        device: where it is drawn.

    Returns:
        (channels, height, width) float32, every value finite (|z| < 6.4).
    """
    groups = -(-channels // 4)
    out = torch.empty(4 * groups, window.height, window.width, dtype=torch.float32, device=device)
    cols = torch.arange(window.col, window.stop_col, device=device) & _WORD
    height = window.height if torch.device(device).type != "cpu" else max(1, _STRIP // window.width)
    for top in range(0, window.height, height):  # in strips that fit into a processor's cache
        stop = min(top + height, window.height)
        rows = torch.arange(window.row + top, window.row + stop, device=device)[:, None] & _WORD
        for group in range(groups):
            words = _philox(
                (rows, cols, torch.full_like(cols, group ^ _DOMAIN), torch.full_like(cols, step & _WORD)), seed
            )
            for k, word in enumerate(words):
                uniform = (word.to(torch.float64) + 0.5) * 2.0**-32
                out[4 * group + k, top:stop] = torch.special.ndtri(uniform).to(torch.float32)
    return out[:channels]


def _philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Four 32-bit words, as int64, of each counter (four 32-bit words, broadcast) under the key `seed`."""
    c0, c1, c2, c3 = counter
    k0, k1 = seed & _WORD, (seed >> 32) & _WORD
    for _ in range(_ROUNDS):
        high0, low0 = _product(c0, _MULTIPLIERS[0])
        high1, low1 = _product(c2, _MULTIPLIERS[1])
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + _WEYL[0]) & _WORD, (k1 + _WEYL[1]) & _WORD
    return c0, c1, c2, c3


def _product(words: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    """The upper and the lower 32 bits of 32-bit words times a 32-bit factor; int64 wraps around, its bits are right."""
    product = words * factor
    return (product >> 32) & _WORD, product & _WORD
