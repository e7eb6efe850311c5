"""Kernels: none moves an image, all keep the mean, and the resize kernels are the ones everybody uses."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from geo_refdiff.errors import OptionError
from geo_refdiff.sensor.kernels import RESIZES, Resize, oriented, resize_taps, separable
from geo_refdiff.sensor.recipe import RECIPES, draw

SCALES = [*range(2, 17), 20, 25, 31, 32]


def dense(rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
    """The kernel that the factors stand for, (L, L)."""
    return np.einsum("ri,rj->ij", rows, cols)


def centroid(kernel: np.ndarray, scale: int) -> tuple[float, float]:
    """(row, col) of a kernel's centre of gravity from the scene pixel's centre, scene pixels."""
    at = (np.arange(len(kernel)) - (len(kernel) - 1) / 2) / scale
    return float((kernel.sum(1) * at).sum()), float((kernel.sum(0) * at).sum())


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("scale", range(2, 17))
def test_no_kind_of_kernel_moves_the_image_at_any_factor(scale: int, resize: Resize) -> None:
    """Without blur, isotropic, anisotropic, motion and both."""
    blurs = (((0.0, 0.0), 0.0), ((0.35, 0.35), 0.0), ((0.6, 0.2), 0.0), ((0.3, 0.3), 1.0), ((0.5, 0.2), 0.7))
    for sigma, motion in blurs:
        kernel = dense(*oriented(scale, sigma, motion, 0.7, resize))
        assert centroid(kernel, scale) == pytest.approx((0.0, 0.0), abs=0.001)
    taps = separable(scale, 0.35, resize)
    assert centroid(dense(taps[None], taps[None]), scale) == pytest.approx((0.0, 0.0), abs=1e-9)


@settings(max_examples=120)
@given(
    scale=st.sampled_from(SCALES),
    name=st.sampled_from(sorted(RECIPES)),
    seed=st.integers(0, 2**32),
)
def test_no_drawn_kernel_moves_the_image(scale: int, name: str, seed: int) -> None:
    drawn = draw(RECIPES[name], np.random.default_rng(seed), 3, scale)
    for index in range(3):
        kernel = dense(*drawn.kernel(index))
        assert (len(kernel) - scale) % 2 == 0
        assert kernel.sum() == pytest.approx(1.0, abs=1e-9)
        assert centroid(kernel, scale) == pytest.approx((0.0, 0.0), abs=0.001)


@settings(max_examples=120)
@given(
    scale=st.sampled_from(SCALES),
    along=st.floats(0.0, 1.0),
    across=st.floats(0.0, 1.0),
    motion=st.floats(0.0, 2.0),
    angle=st.floats(0.0, math.pi),
    resize=st.sampled_from(RESIZES),
)
def test_no_kernel_of_any_kind_moves_the_image(
    scale: int, along: float, across: float, motion: float, angle: float, resize: Resize
) -> None:
    kernel = dense(*oriented(scale, (along, across), motion, angle, resize))
    assert kernel.sum() == pytest.approx(1.0, abs=1e-9)
    assert centroid(kernel, scale) == pytest.approx((0.0, 0.0), abs=0.001)


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("scale", [2, 3, 8, 15])
def test_an_oriented_kernel_without_direction_is_the_separable_one(scale: int, resize: Resize) -> None:
    taps = separable(scale, 0.4, resize)
    kernel = dense(*oriented(scale, (0.4, 0.4), 0.0, 0.7, resize))
    assert kernel.shape == (len(taps), len(taps))
    np.testing.assert_allclose(kernel, np.outer(taps, taps), atol=2e-6)


@pytest.mark.parametrize("scale", [2, 3, 5, 8, 16])
@pytest.mark.parametrize(
    ("kind", "filtering"),
    [
        ("bicubic", Image.Resampling.BICUBIC),
        ("bilinear", Image.Resampling.BILINEAR),
        ("area", Image.Resampling.BOX),
    ],
)
def test_resizing_is_pillows(scale: int, kind: Resize, filtering: Image.Resampling) -> None:
    row = np.random.default_rng(0).uniform(0, 255, 40 * scale).astype(np.float32)
    there = np.asarray(Image.fromarray(row[None], mode=None).resize((40, 1), filtering))[0]
    taps = resize_taps(kind, scale)
    taps = taps / taps.sum()
    reach = (len(taps) - scale) // 2
    for at in range(3, 37):
        here = float((taps * row[at * scale - reach : (at + 1) * scale + reach]).sum())
        assert here == pytest.approx(float(there[at]), abs=1e-3)


def test_nearest_takes_the_centre_or_the_two_beside_it() -> None:
    assert resize_taps("nearest", 5).tolist() == [0, 0, 1, 0, 0]
    assert resize_taps("nearest", 4).tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize("angle", [0.0, 0.4, math.pi / 2, 2.5])
def test_a_turned_blur_is_as_wide_as_it_says_and_where_it_says(angle: float) -> None:
    scale, along, across, motion = 8, 0.6, 0.2, 0.9
    kernel = dense(*oriented(scale, (along, across), motion, angle, "area"))
    at = (np.arange(len(kernel)) - (len(kernel) - 1) / 2) / scale
    moments = [
        float((kernel * at[None] ** 2).sum()),
        float((kernel * at[None] * at[:, None]).sum()),
        float((kernel * at[:, None] ** 2).sum()),
    ]
    pixel = (1 - 1 / scale**2) / 12  # of the area mean over eight samples
    long, short = along**2 + motion**2 / 12, across**2
    cos, sin = math.cos(angle), math.sin(angle)
    expected = [
        long * cos**2 + short * sin**2 + pixel,
        (long - short) * cos * sin,
        long * sin**2 + short * cos**2 + pixel,
    ]
    assert moments == pytest.approx(expected, abs=0.01)


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(OptionError, match=r"whole number of 1 or more, got 2\.5"):
        resize_taps("area", 2.5)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="unknown resize kernel 'lanczos'"):
        resize_taps("lanczos", 4)  # type: ignore[arg-type]
