import numpy as np
import torch
from scipy import ndimage

from geo_refdiff.sensor import fill


def fill_missing(values: np.ndarray, valid: np.ndarray, rounds: int, beyond: tuple[float, ...]) -> np.ndarray:
    return fill.fill_missing(torch.from_numpy(values), torch.from_numpy(valid), rounds, beyond).numpy()


def scene(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    values = rng.uniform(0, 255, (2, 60, 70)).astype(np.float32)
    valid = np.stack([ndimage.gaussian_filter(rng.standard_normal((60, 70)), 4) > -0.02] * 2)
    valid[1, 20:40, 20:50] = False
    return values, valid


def test_valid_pixels_stay_and_filled_ones_lie_within_range() -> None:
    values, valid = scene()
    out = fill_missing(values, valid, 3, (1.0, 2.0))
    inner = (slice(None), slice(3, -3), slice(3, -3))
    np.testing.assert_array_equal(out[valid[inner]], values[inner][valid[inner]])
    assert np.isfinite(out).all()
    assert out[1, 27, 32] == 2.0
    one = fill_missing(values, valid, 1, (-1.0, -1.0))
    grown = ndimage.binary_dilation(valid[0], np.ones((3, 3)))[1:-1, 1:-1]
    assert ((one[0] == -1) == ~grown).all()


def test_the_cut_changes_nothing() -> None:
    values, valid = scene(1)
    rounds = 4
    whole = fill_missing(values, valid, rounds, (9.0, 9.0))
    rows, cols = slice(11, 40), slice(17, 61)
    part = fill_missing(values[:, rows, cols], valid[:, rows, cols], rounds, (9.0, 9.0))
    np.testing.assert_array_equal(part, whole[:, 11 : 40 - 2 * rounds, 17 : 61 - 2 * rounds])


def test_nothing_valid_gives_the_mid_value() -> None:
    out = fill_missing(np.zeros((1, 9, 9), np.float32), np.zeros((1, 9, 9), bool), 2, (7.5,))
    np.testing.assert_array_equal(out, np.full((1, 5, 5), 7.5, np.float32))
