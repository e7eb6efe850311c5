import numpy as np
import pytest

from geo_refdiff.engine.blend import Blender, raised_cosine
from geo_refdiff.plan.layout import WindowLayout, plan_windows
from geo_refdiff.raster.window import Window


def blend(region: Window, layout: WindowLayout, tile_of, skip=()) -> np.ndarray:
    blender = Blender(region, layout, 2)
    for index in layout.meeting(region):
        blender.feed(*index, None if index in skip else tile_of(layout.kept(*index), index))
    return blender.result()


def field(window: Window, index: tuple[int, int] = (0, 0)) -> np.ndarray:
    rows = np.arange(window.row, window.stop_row)[:, None]
    cols = np.arange(window.col, window.stop_col)[None]
    return np.stack([np.sin(rows * 0.7 + cols * 1.3), rows * 1000.0 + cols]).astype(np.float32)


@pytest.mark.parametrize("region", [Window(-70, 33, 150, 211), Window(5, -9, 1, 1), Window(60, 60, 8, 300)])
def test_windows_that_agree_come_back_exactly(region: Window) -> None:
    layout = plan_windows(96, 16, 8, 8, 4)
    np.testing.assert_array_equal(blend(region, layout, field), field(region))


def disagreeing(window: Window, index: tuple[int, int]) -> np.ndarray:
    return field(window) + np.float32(index[0] * 3 + index[1] * 7)


def test_the_cut_of_regions_changes_nothing() -> None:
    layout = plan_windows(64, 24, 4, 4, 4)
    whole = Window(-50, -20, 170, 190)
    expected = blend(whole, layout, disagreeing)
    for part in (Window(-50, -20, 33, 190), Window(-17, 0, 50, 41), Window(100, 150, 20, 20)):
        rows, cols = part.within(whole)
        np.testing.assert_array_equal(blend(part, layout, disagreeing), expected[:, rows, cols])


def test_weights_rise_smoothly_and_sum_to_one() -> None:
    weight = raised_cosine(16)
    assert (np.diff(weight) > 0).all()
    np.testing.assert_allclose(weight + weight[::-1], 1, atol=1e-6)
    layout = plan_windows(64, 16, 0, 8, 1)
    ones = blend(Window(0, 0, 100, 100), layout, lambda w, i: np.ones((2, *w.shape), np.float32))
    np.testing.assert_array_equal(ones, 1)


def test_unwanted_windows_leave_the_others_alone() -> None:
    layout = plan_windows(64, 16, 0, 8, 1)
    region = Window(0, 0, 200, 200)
    full, partly = blend(region, layout, disagreeing), blend(region, layout, disagreeing, skip={(0, 0)})
    outside = np.ones(region.shape, bool)
    rows, cols = layout.kept(0, 0).intersect(region).within(region)
    outside[rows, cols] = False
    np.testing.assert_array_equal(partly[:, outside], full[:, outside])
