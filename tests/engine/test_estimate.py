"""A run's time and memory are estimated before it begins, from what runs took on this machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from geo_refdiff import upscale
from geo_refdiff.engine.estimate import Speeds, duration
from geo_refdiff.engine.run import Progress


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "geo-refdiff" / "speed.json"


def test_seconds_are_those_of_every_run_and_of_every_pixel(cache: Path) -> None:
    assert Speeds.load().seconds("a", 1.0) is None
    for pixels in (1.0, 2.0, 8.0):
        Speeds.load().add("a", pixels, 3.0 + 2.0 * pixels)
    known = Speeds.load()
    assert known.seconds("a", 4.0) == pytest.approx(11.0)
    assert known.seconds("a", 4.0, runs=2) == pytest.approx(14.0)
    assert known.seconds("b", 4.0) is None


def test_runs_of_one_size_tell_of_their_pixels_alone_and_old_runs_are_forgotten(cache: Path) -> None:
    for _ in range(3):
        Speeds.load().add("a", 2.0, 10.0)
    assert Speeds.load().seconds("a", 1.0) == pytest.approx(5.0)
    for _ in range(8):  # a faster machine
        Speeds.load().add("a", 2.0, 1.0)
    assert Speeds.load().seconds("a", 1.0) == pytest.approx(0.5)


@pytest.mark.parametrize("text", ["", "[]", '{"a": 3}', '{"a": [["x", 1]]}', '{"a": [[1]]}'])
def test_a_damaged_file_tells_nothing_and_is_replaced(cache: Path, text: str) -> None:
    cache.parent.mkdir(parents=True)
    cache.write_text(text)
    assert Speeds.load().seconds("a", 1.0) is None
    Speeds.load().add("a", 1.0, 2.0)
    assert Speeds.load().seconds("a", 1.0) == pytest.approx(2.0)


def test_a_folder_that_cannot_be_written_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    Speeds.load().add("a", 1.0, 2.0)
    assert Speeds.load().seconds("a", 1.0) is None


def test_a_run_is_estimated_before_it_begins_and_the_next_one_from_it(
    cache: Path, tmp_path: Path, make_pair: Callable[..., tuple[Path, Path]]
) -> None:
    scene, _ = make_pair(40, 48)
    given = {"model": "bicubic-ibp", "scale": 8, "out": tmp_path / "out.tif", "block_size": 256, "products": ()}
    planned = upscale(scene, plan_only=True, **given)
    assert planned.estimate is not None
    assert planned.estimate.seconds is None
    assert planned.estimate.blocks == 4
    assert "0.123 megapixels in 4 blocks" in str(planned)
    assert "time not known before the first block" in str(planned)
    reports: list[Progress] = []
    done = upscale(scene, progress=reports.append, **given)
    assert [each.estimate for each in reports if each.stage == "plan"] == [str(planned.estimate)]
    size = (tmp_path / "out.tif").stat().st_size
    assert size / 3 < planned.estimate.disk_bytes < 3 * size
    again = upscale(scene, plan_only=True, overwrite=True, **given)
    assert again.estimate is not None
    assert again.estimate.seconds == pytest.approx(done.timings["total"], rel=0.2, abs=0.2)
    assert again.to_dict()["estimate"]["blocks"] == 4
    other = upscale(scene, plan_only=True, overwrite=True, **{**given, "scale": 4})
    assert other.estimate is not None
    assert other.estimate.seconds is None


@pytest.mark.parametrize(("seconds", "text"), [(0.2, "1 s"), (75, "1 min 15 s"), (3720, "1 h 02 min")])
def test_durations_in_words(seconds: float, text: str) -> None:
    assert duration(seconds) == text
