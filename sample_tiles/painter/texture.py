"""Smooth random fields on the pixel grid, and the warp that bends straight parcel lines.

Fields are cubic B-spline interpolations of random lattices, spelled out as gathers and sums (no BLAS), so that the
same seed gives the same field on any machine with the same NumPy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]


def _spline_taps(n: int, step: float) -> tuple[NDArray[np.intp], F32]:
    """First lattice index (n,) and cubic B-spline weights (4, n) of n pixels `step` lattice cells apart."""
    at = (np.arange(n) + 0.5) * step
    first = np.floor(at).astype(np.intp)
    f = (at - first).astype(np.float32)
    g = 1 - f
    weights = np.stack([g**3, 3 * f**3 - 6 * f**2 + 4, 3 * g**3 - 6 * g**2 + 4, f**3]) / 6
    return first, weights.astype(np.float32)


def smooth_field(rng: np.random.Generator, shape: tuple[int, int], wavelength: float) -> F32:
    """Random field (H, W) of about unit variance whose lattice has `wavelength` pixels a cell (at least 1)."""
    step = 1.0 / wavelength
    rows, cols = shape
    grid = rng.standard_normal((int(rows * step) + 5, int(cols * step) + 5), dtype=np.float32)
    first, weights = _spline_taps(rows, step)
    tall = sum(weights[k][:, None] * grid[first + k] for k in range(4))
    first, weights = _spline_taps(cols, step)
    field = np.asarray(tall)[:, first] * weights[0]
    for k in range(1, 4):
        field += np.asarray(tall)[:, first + k] * weights[k]
    return np.asarray(field * np.float32(2.05), dtype=np.float32)  # 2.05: mean variance of the spline is 0.479^2


def fractal(rng: np.random.Generator, shape: tuple[int, int], wavelengths: tuple[float, ...], gain: float = 0.5) -> F32:
    """Sum of smooth fields (H, W), each `gain` times as strong as the one before, scaled to about unit variance."""
    total = np.zeros(shape, np.float32)
    power = 0.0
    for k, wavelength in enumerate(wavelengths):
        total += np.float32(gain**k) * smooth_field(rng, shape, max(1.0, wavelength))
        power += gain ** (2 * k)
    return np.asarray(total / np.float32(np.sqrt(power)), dtype=np.float32)


@dataclass(frozen=True)
class Warp:
    """Bends map metres (x east, y south) into plan metres (u, v): a rotation plus four long sine waves."""

    angle: float
    waves: NDArray[np.float64]
    """Shape (n, 5): wave vector (2, rad/m), phase (rad), amplitude of u and of v (m)."""

    @classmethod
    def random(cls, rng: np.random.Generator, bend: float) -> Warp:
        """A random warp; `bend` 0..1 scales the amplitudes. The gradient stays below about 0.15."""
        n = 4
        length = rng.uniform(180.0, 900.0, n)
        heading = rng.uniform(0, 2 * np.pi, n)
        amplitude = bend * length * 0.010
        wave = 2 * np.pi / length
        turn = rng.uniform(0, 2 * np.pi, n)
        columns = [
            wave * np.cos(heading),
            wave * np.sin(heading),
            rng.uniform(0, 2 * np.pi, n),
            amplitude * np.cos(turn),
            amplitude * np.sin(turn),
        ]
        return cls(float(rng.uniform(0, np.pi)), np.stack(columns, axis=1))

    def _bend(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
        du, dv = np.zeros_like(x), np.zeros_like(x)
        for kx, ky, phase, au, av in self.waves:
            s = np.sin(kx * x + ky * y + phase)
            du += au * s
            dv += av * s
        return du, dv

    def forward(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
        """Map metres to plan metres."""
        c, s = np.cos(self.angle), np.sin(self.angle)
        du, dv = self._bend(x, y)
        return c * x + s * y + du, -s * x + c * y + dv

    def inverse(self, u: NDArray[np.float64], v: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
        """Plan metres to map metres, by fixed-point iteration (error below a centimetre)."""
        c, s = np.cos(self.angle), np.sin(self.angle)
        x, y = c * u - s * v, s * u + c * v
        for _ in range(8):
            du, dv = self._bend(x, y)
            x, y = c * (u - du) - s * (v - dv), s * (u - du) + c * (v - dv)
        return x, y
