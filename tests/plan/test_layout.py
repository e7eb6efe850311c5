from itertools import pairwise

import pytest

from geo_refdiff.errors import OptionError
from geo_refdiff.plan.layout import plan_blocks, plan_windows
from geo_refdiff.raster.window import Window


@pytest.mark.parametrize(
    ("size", "overlap", "halo", "scale", "multiple"),
    [(512, 32, 48, 8, 16), (256, 31, 20, 6, 16), (64, 0, 0, 8, 1), (1, 200, 5, 5, 4), (100, 7, 3, 3, 8)],
)
def test_windows_fit_scale_and_network(size: int, overlap: int, halo: int, scale: int, multiple: int) -> None:
    layout = plan_windows(size, overlap, halo, scale, multiple)
    assert layout.size >= size or layout.size >= layout.stride + layout.overlap + 2 * halo
    assert layout.overlap >= overlap
    assert layout.halo >= halo
    assert layout.stride >= layout.overlap
    assert layout.size == layout.stride + layout.overlap + 2 * layout.halo
    for index in (-3, 0, 7):
        seen = layout.seen(index, -index)
        assert seen.row % scale == seen.col % scale == 0
        assert seen.row % multiple == seen.height % multiple == 0


def test_every_pixel_meets_one_or_two_windows_an_axis() -> None:
    layout = plan_windows(96, 16, 8, 8, 4)
    for row in range(-200, 200):
        count = len(layout.rows(Window(row, 0, 1, 1)))
        at = row % layout.stride
        faded = at < layout.overlap // 2 or at >= layout.stride - layout.overlap // 2
        assert count == (2 if faded else 1)


def test_oversized_windows_are_refused() -> None:
    with pytest.raises(OptionError, match="8192"):
        plan_windows(20_000, 0, 0, 8, 1)


def test_blocks_cover_the_output_once() -> None:
    layout = plan_blocks(64, (130, 200))
    assert (layout.rows, layout.cols) == (3, 4)
    windows = [layout.window(i, (130, 200)) for i in range(layout.count)]
    assert sum(w.area for w in windows) == 130 * 200
    assert windows[-1] == Window(128, 192, 2, 8)
    order = list(layout.serpentine())
    assert sorted(order) == list(range(12))
    for a, b in pairwise(order):
        (row, col), (row_b, col_b) = divmod(a, 4), divmod(b, 4)
        assert abs(row - row_b) + abs(col - col_b) == 1


@pytest.mark.parametrize("size", [0, 8, 100, 1 << 20])
def test_odd_block_sizes_are_refused(size: int) -> None:
    with pytest.raises(OptionError, match="multiple of 16"):
        plan_blocks(size, (100, 100))
