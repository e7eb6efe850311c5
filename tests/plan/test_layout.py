from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geo_refdiff.errors import OptionError
from geo_refdiff.plan.layout import WindowSpan, plan_blocks, plan_windows
from geo_refdiff.raster.window import Window

FAR = (-100_000, 100_000)


def covers_once(spans: list[WindowSpan], lo: int, hi: int, overlap: int) -> None:
    """Spans follow each other, overlap by the cross-fade and no more, and cover [lo, hi)."""
    assert spans[0].start <= lo
    assert spans[-1].stop >= hi
    assert all(a.stop - b.start == overlap for a, b in pairwise(spans))
    assert all(s.first <= s.start < s.stop <= s.last for s in spans)


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize(
    ("size", "overlap", "halo", "scale", "multiple"),
    [(512, 32, 48, 8, 16), (256, 31, 20, 6, 16), (64, 0, 0, 8, 1), (1, 200, 5, 5, 4), (100, 7, 3, 3, 8)],
)
def test_windows_fit_scale_and_network(
    size: int, overlap: int, halo: int, scale: int, multiple: int, fixed: bool
) -> None:
    layout = plan_windows(size, overlap, halo, scale, multiple, fixed=fixed)
    assert layout.overlap >= overlap
    assert layout.halo >= halo
    assert layout.stride >= layout.overlap
    spans = layout.spans(-1000 * scale, 900 * scale, FAR)
    covers_once(spans, -1000 * scale, 900 * scale, layout.overlap)
    for span in spans:
        assert not span.first % layout.step
        assert not span.last % layout.step
        assert span.start - span.first >= halo
        assert span.last - span.stop >= halo
        assert span.last - span.first == layout.size if fixed else span.last - span.first <= layout.size + layout.step


def test_fixed_windows_lie_on_the_lattice_whatever_region_asks() -> None:
    layout = plan_windows(96, 16, 8, 8, 4, fixed=True)
    whole = layout.spans(-200, 200, FAR)
    for lo in range(-200, 190, 7):
        assert set(layout.spans(lo, lo + 10, FAR)) <= set(whole)


@given(lo=st.integers(-40, 40), length=st.integers(1, 300), before=st.integers(0, 30), after=st.integers(0, 30))
def test_windows_see_no_more_than_it_takes(lo: int, length: int, before: int, after: int) -> None:
    """One window where one suffices; nothing beyond the scene but to fill up a step."""
    scale = 8
    layout = plan_windows(512, 32, 64, scale, 16, fixed=False)
    start, stop = lo * scale, (lo + length) * scale
    scene = start - before * scale, stop + after * scale
    spans = layout.spans(start, stop, scene)
    covers_once(spans, start, stop, layout.overlap)
    assert (spans[0].start, spans[-1].stop) == (start, stop)
    assert scene[0] - layout.step < spans[0].first
    assert spans[-1].last < scene[1] + layout.step
    needed = min(64, before * scale) + (stop - start) + min(64, after * scale)
    if needed <= 512 - 2 * layout.step:
        assert len(spans) == 1
    assert sum(s.last - s.first for s in spans) <= needed + (len(spans) - 1) * (32 + 2 * 64) + len(spans) * 32


def test_oversized_windows_are_refused() -> None:
    with pytest.raises(OptionError, match="8192"):
        plan_windows(20_000, 0, 0, 8, 1, fixed=True)


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
