import numpy as np
import pytest
import torch

from geo_refdiff.engine.blend import Blender, raised_cosine
from geo_refdiff.plan.layout import WindowLayout, kept, plan_windows
from geo_refdiff.raster.window import Window

SCENE = Window(-1000, -1000, 3000, 3000)


def blend(region: Window, layout: WindowLayout, tile_of, skip=()) -> np.ndarray:
    rows, cols = layout.windows(region, SCENE)
    blender = Blender(region, rows, cols, 2, "cpu")
    for i, row in enumerate(rows):
        for j, col in enumerate(cols):
            window = kept(row, col)
            tile = None if (i, j) in skip else torch.from_numpy(tile_of(window, (row.start, col.start)))
            blender.feed(i, j, tile)
    return blender.result().numpy()


def field(window: Window, corner: tuple[int, int] = (0, 0)) -> np.ndarray:
    rows = np.arange(window.row, window.stop_row)[:, None]
    cols = np.arange(window.col, window.stop_col)[None]
    return np.stack([np.sin(rows * 0.7 + cols * 1.3), rows * 1000.0 + cols]).astype(np.float32)


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("region", [Window(-72, 32, 152, 208), Window(8, -16, 8, 8), Window(64, 64, 8, 304)])
def test_windows_that_agree_come_back_exactly(region: Window, fixed: bool) -> None:
    layout = plan_windows(96, 16, 8, 8, 4, fixed=fixed)
    np.testing.assert_array_equal(blend(region, layout, field), field(region))


def disagreeing(window: Window, corner: tuple[int, int]) -> np.ndarray:
    return field(window) + np.float32(corner[0] * 3 + corner[1] * 7)


def test_the_cut_of_regions_changes_nothing_where_windows_are_fixed() -> None:
    layout = plan_windows(64, 24, 4, 4, 4, fixed=True)
    whole = Window(-50, -20, 170, 190)
    expected = blend(whole, layout, disagreeing)
    for part in (Window(-50, -20, 33, 190), Window(-17, 0, 50, 41), Window(100, 150, 20, 20)):
        rows, cols = part.within(whole)
        np.testing.assert_array_equal(blend(part, layout, disagreeing), expected[:, rows, cols])


def test_weights_rise_smoothly_and_sum_to_one() -> None:
    weight = raised_cosine(16).numpy()
    assert (np.diff(weight) > 0).all()
    np.testing.assert_allclose(weight + weight[::-1], 1, atol=1e-6)
    layout = plan_windows(64, 16, 0, 8, 1, fixed=False)
    ones = blend(Window(0, 0, 104, 104), layout, lambda w, i: np.ones((2, *w.shape), np.float32))
    np.testing.assert_array_equal(ones, 1)


def test_disagreeing_windows_meet_without_a_step() -> None:
    """Across a cross-fade of 32 pixels two windows that differ by 100 come together by at most 5 a pixel."""
    layout = plan_windows(128, 32, 0, 8, 1, fixed=False)
    found = blend(Window(0, 0, 64, 208), layout, lambda w, c: np.full((2, *w.shape), 100.0 * (c[1] > 0), np.float32))
    steps = np.diff(found[0, 0])
    assert steps.sum() == 100
    assert steps.min() >= 0
    assert steps.max() < 5


@pytest.mark.parametrize("fixed", [False, True])
def test_unwanted_windows_leave_the_others_alone(fixed: bool) -> None:
    layout = plan_windows(64, 16, 0, 8, 1, fixed=fixed)
    region = Window(0, 0, 200, 200)
    full, partly = blend(region, layout, disagreeing), blend(region, layout, disagreeing, skip={(0, 0)})
    rows, cols = layout.windows(region, SCENE)
    outside = np.ones(region.shape, bool)
    outside[kept(rows[0], cols[0]).intersect(region).within(region)] = False
    np.testing.assert_array_equal(partly[:, outside], full[:, outside])
