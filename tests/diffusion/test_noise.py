"""Noise that belongs to places."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from geo_refdiff.diffusion import noise
from geo_refdiff.raster.window import Window

CELL = 64
KNOWN = [-0.544565, -0.60684, -0.725415, -0.423194, -0.270643, -0.44577, -0.214406, -0.347626]


def lattice_noise(window: Window, channels: int, seed: int, step: int) -> np.ndarray:
    return noise.lattice_noise(window, channels, seed, step).numpy()


positions = st.integers(-300, 300)
sides = st.integers(1, 150)


@settings(max_examples=40)
@given(positions, positions, sides, sides, positions, positions, sides, sides)
def test_overlapping_windows_agree(row, col, height, width, row2, col2, height2, width2):
    a, b = Window(row, col, height, width), Window(row2, col2, height2, width2)
    first, second = lattice_noise(a, 2, 7, 1), lattice_noise(b, 2, 7, 1)
    rows = range(max(row, row2), min(row + height, row2 + height2))
    cols = range(max(col, col2), min(col + width, col2 + width2))
    for r in rows[:: max(1, len(rows) // 5)]:
        for c in cols[:: max(1, len(cols) // 5)]:
            assert np.array_equal(first[:, r - row, c - col], second[:, r - row2, c - col2])


def test_a_window_is_its_parts():
    whole = lattice_noise(Window(-70, -130, 200, 200), 3, 5, 2)
    for row in range(-70, 130, 50):
        for col in range(-130, 70, 40):
            part = lattice_noise(Window(row, col, 50, 40), 3, 5, 2)
            assert np.array_equal(part, whole[:, row + 70 : row + 120, col + 130 : col + 170])


def test_fewer_channels_are_the_first_of_more():
    window = Window(3, 5, 20, 30)
    assert np.array_equal(lattice_noise(window, 1, 0, 0), lattice_noise(window, 4, 0, 0)[:1])


def test_standard_normal():
    values = lattice_noise(Window(-333, 1000, 512, 512), 3, 0, 0)
    assert values.dtype == np.float32
    assert np.isfinite(values).all()
    n = values.size
    assert abs(values.mean()) < 5 / np.sqrt(n)
    assert abs(values.var() - 1) < 5 * np.sqrt(2 / n)
    assert abs(stats.skew(values, axis=None)) < 5 * np.sqrt(6 / n)
    assert abs(stats.kurtosis(values, axis=None)) < 5 * np.sqrt(24 / n)
    assert stats.kstest(values.ravel()[:200_000], "norm").pvalue > 1e-3
    assert 4.5 < np.abs(values).max() < 6.4


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"seed": 0}, {"seed": 1}),
        ({"seed": 0}, {"seed": -1}),
        ({"step": 0}, {"step": 1}),
        ({"row": 0}, {"row": CELL}),
        ({"row": 0}, {"row": -CELL}),
        ({"col": 0}, {"col": CELL}),
        ({"row": 0}, {"row": 1}),
        ({"row": 0}, {"col": 1}),
        ({"row": CELL}, {"col": CELL}),
        ({"row": 2**31}, {"row": 0}),
        ({"seed": 2**40}, {"seed": 0}),
    ],
)
def test_streams_are_independent(one, other):
    def draw(row: int = 0, col: int = 0, seed: int = 0, step: int = 0) -> np.ndarray:
        return lattice_noise(Window(row, col, 256, 256), 1, seed, step).ravel()

    a, b = draw(**one), draw(**other)
    assert abs(np.corrcoef(a, b)[0, 1]) < 5 / np.sqrt(a.size)
    assert abs(np.corrcoef(a**2, b**2)[0, 1]) < 5 / np.sqrt(a.size)


def test_channels_are_independent():
    a, b, c = lattice_noise(Window(0, 0, 256, 256), 3, 0, 0).reshape(3, -1)
    bound = 5 / np.sqrt(a.size)
    assert abs(np.corrcoef(a, b)[0, 1]) < bound
    assert abs(np.corrcoef(b, c)[0, 1]) < bound


def test_values_are_the_same_everywhere_for_ever():
    """A change of these numbers is a change of every product."""
    found = lattice_noise(Window(-1, -1, 2, 2), 2, 42, 3)
    assert found.ravel().tolist() == pytest.approx(KNOWN, abs=1e-6)


def test_the_words_are_those_of_philox():
    """Known answers of Random123 (kat_vectors, philox4x32 with 10 rounds)."""
    ones = 0xFFFFFFFF
    for counter, key, expected in (
        ((0, 0, 0, 0), 0, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((ones,) * 4, (ones << 32) | ones, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0x299F31D0 << 32) | 0xA4093822,
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ):
        words = noise._philox(tuple(torch.tensor([c]) for c in counter), key)
        assert tuple(int(w) for w in words) == expected


def test_any_integer_is_a_seed():
    window = Window(0, 0, 4, 4)
    assert np.array_equal(lattice_noise(window, 1, 2**64 + 3, 0), lattice_noise(window, 1, 3, 0))
