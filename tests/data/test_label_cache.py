"""Labels by rules are made once, beside the index, and never taken for those of other data."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from scipy import ndimage

from geo_refdiff.data import OpenedDataset, open_dataset
from geo_refdiff.data import labels as rules
from geo_refdiff.data import pair_files as files
from geo_refdiff.data.labels import LabelCache, content_key
from geo_refdiff.data.make_index import make_index
from geo_refdiff.errors import OutputError


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """Three places of two dates; red, green, blue, nir."""
    for place in range(3):
        rng = np.random.default_rng(place)
        ground = ndimage.gaussian_filter(rng.normal(0, 1, (4, 96, 96)), (0, 3, 3)) * 300 + 120
        for date in (2016, 2020):
            image = ground.copy()
            if date == 2020:
                image[:3, 20:60, 30:70] += 80
            path = tmp_path / "town" / f"{place:03d}" / f"{date}.tif"
            path.parent.mkdir(parents=True, exist_ok=True)
            options = {"driver": "GTiff", "count": 4, "height": 96, "width": 96, "dtype": "uint8", "crs": "EPSG:26911"}
            with rasterio.open(path, "w", **options, transform=Affine(0.6, 0, 4e5, 0, -0.6, 4e6)) as dataset:
                dataset.write(np.clip(image, 1, 254).astype(np.uint8))
                dataset.descriptions = ("red", "green", "blue", "nir")
    make_index(tmp_path, tmp_path / "pairs.csv")
    return tmp_path / "pairs.csv"


def masks(data: OpenedDataset) -> list[np.ndarray]:
    return [part for i in range(len(data)) for part in data.read(i, 0, 0, 96, 96)[4:]]


def opened(index: Path, messages: list[str] | None = None) -> OpenedDataset:
    return open_dataset(index, pseudo_change=True, log=None if messages is None else messages.append)


def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Notes what is made by rules from here on."""
    made: list[str] = []
    for name in ("change_mask", "land_cover"):
        rule = getattr(files, name)
        monkeypatch.setattr(files, name, lambda *args, rule=rule, name=name: made.append(name) or rule(*args))
    return made


def check_equal(one: OpenedDataset, other: OpenedDataset) -> None:
    for a, b in zip(masks(one), masks(other), strict=True):
        np.testing.assert_array_equal(a, b)


def test_labels_are_made_once_and_are_those_of_the_rules(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    messages: list[str] = []
    first = opened(index, messages)
    assert messages[0] == "labels by rules, land cover of 6 dates: 0 done"
    assert "labels by rules, change of 6 pairs: 0 done" in messages
    assert messages[-1] == f"labels by rules are kept in {LabelCache(index).path}"
    check_equal(first, open_dataset(index, pseudo_change=True, resident=False))
    assert any((mask > 0).any() for mask in masks(first)[1::2])

    made = counted(monkeypatch)
    messages.clear()
    again = opened(index, messages)
    assert messages == made == []
    assert again.fingerprint() == first.fingerprint()
    check_equal(first, again)
    assert {path.name for path in index.parent.iterdir()} == {"town", index.name, LabelCache(index).path.name}


def test_only_what_is_missing_is_made(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = index.read_text().splitlines()
    index.write_text("\n".join(rows[:5]) + "\n")  # two places of three
    opened(index)
    made = counted(monkeypatch)
    index.write_text("\n".join(rows) + "\n")
    all_of_it = opened(index)
    # of the third place: the cover of two new dates, and for each pair change and the cover of its reference
    assert sorted(made) == ["change_mask"] * 2 + ["land_cover"] * 4
    made.clear()
    for some in (rows[:3], rows[:1] + rows[3:]):
        index.write_text("\n".join(some) + "\n")
        opened(index)
    assert made == []  # other choices of pairs do not displace each other
    index.write_text("\n".join(rows) + "\n")
    check_equal(all_of_it, open_dataset(index, pseudo_change=True, resident=False))


def test_labels_belong_to_the_pixels_not_to_names_and_times(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(index)
    image = index.parent / "town" / "001" / "2020.tif"
    before = image.stat()
    with rasterio.open(image, "r+") as dataset:
        pixels = dataset.read()
        pixels[:, 5:40, 5:40] = pixels[:, 5:40, 5:40][:, ::-1]
        dataset.write(pixels)
    os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert image.stat().st_size == before.st_size
    made = counted(monkeypatch)
    again = opened(index)
    assert made.count("change_mask") == 2  # both orders of this place's dates
    check_equal(again, open_dataset(index, pseudo_change=True, resident=False))


def test_other_rules_make_other_labels(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(index)
    monkeypatch.setattr(rules, "VERSION", 1_000)
    made = counted(monkeypatch)
    opened(index)
    assert made.count("change_mask") == 6


@pytest.mark.parametrize("harm", ["cut short", "no file at all", "another file", "a label less"])
def test_a_broken_cache_is_rebuilt(index: Path, harm: str) -> None:
    expected = opened(index)
    kept = LabelCache(index).path
    if harm == "cut short":
        kept.write_bytes(kept.read_bytes()[:-200])
    elif harm == "no file at all":
        kept.write_text("labels")
    elif harm == "another file":
        np.savez(kept, other=np.zeros(3))
    else:
        with np.load(kept) as file:
            np.savez(kept, keys=file["keys"], shapes=file["shapes"][:-1], labels=file["labels"])
    messages: list[str] = []
    check_equal(expected, opened(index, messages))
    assert messages[-1] == f"labels by rules are kept in {kept}"
    messages.clear()
    opened(index, messages)
    assert messages == []


def test_a_second_process_waits_for_the_first(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = opened(index)
    cache = LabelCache(index)
    labels = cache.read()
    cache.path.unlink()
    made, messages, results = counted(monkeypatch), list[str](), list[OpenedDataset]()
    other = threading.Thread(target=lambda: results.append(opened(index, messages)))
    with cache.exclusive(messages.append):  # as a process does that is making them
        other.start()
        deadline = time.monotonic() + 30
        while not messages and time.monotonic() < deadline:
            time.sleep(0.02)
        assert cache.write(labels)
    other.join(30)
    assert messages == [f"waiting for the labels by rules that another process makes ({cache.path})"]
    assert made == []
    check_equal(expected, results[0])


def test_a_folder_that_cannot_be_written_costs_nothing_but_time(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*args: object) -> None:
        raise OutputError("a read-only disk")

    monkeypatch.setattr(rules, "write_bytes_atomic", refused)
    monkeypatch.setattr(rules, "held", refused)
    messages: list[str] = []
    assert len(opened(index, messages)) == 6
    assert messages
    assert not any("kept" in line for line in messages)


def test_labels_of_any_sizes_come_back(tmp_path: Path) -> None:
    cache = LabelCache(tmp_path / "x.csv")
    labels = {"a": np.arange(12, dtype=np.uint8).reshape(3, 4), "b": np.full((2, 5), 255, np.uint8)}
    assert cache.write(labels)
    read = cache.read()
    assert list(read) == list(labels)
    for name, part in labels.items():
        np.testing.assert_array_equal(read[name], part)
    assert cache.write({})
    assert cache.read() == {}


def test_a_key_tells_kinds_shapes_types_and_values_apart() -> None:
    one = np.arange(6, dtype=np.uint8)
    other = one.copy()
    other[3] = 9
    arrays = ([one], [other], [one.reshape(2, 3)], [one.view(np.int8)], [one[:3], one[3:]], [one, one])
    keys = {content_key(kind, *some) for kind in ("cover", "change") for some in arrays}
    assert len(keys) == 12
    assert content_key("cover", one) == content_key("cover", one.copy())
    assert content_key("cover", one[::2]) == content_key("cover", one[::2].copy())
