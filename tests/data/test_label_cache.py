"""Labels by rules are made once, beside the index, and never taken for those of other data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from scipy import ndimage

from geo_refdiff.data import OpenedDataset, open_dataset
from geo_refdiff.data import pair_files as files
from geo_refdiff.data.label_cache import cache_path, read_labels, write_labels
from geo_refdiff.data.make_index import make_index


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


def opened(index: Path, told: list[str] | None = None) -> OpenedDataset:
    return open_dataset(index, pseudo_change=True, tell=None if told is None else told.append)


def test_labels_are_made_once_and_are_those_of_the_rules(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    first = opened(index, told)
    assert told[0] == "labels by rules: 0 of 6 pairs"
    assert told[-1] == f"labels are kept in {cache_path(index)}"
    streamed = open_dataset(index, pseudo_change=True, resident=False)
    for one, other in zip(masks(first), masks(streamed), strict=True):
        np.testing.assert_array_equal(one, other)
    assert any((mask > 0).any() for mask in masks(first)[1::2])

    def never(*args: object) -> None:
        raise AssertionError("labels were made again")

    monkeypatch.setattr(files, "change_mask", never)
    monkeypatch.setattr(files, "land_cover", never)
    told.clear()
    again = opened(index, told)
    assert told == []
    assert again.fingerprint() == first.fingerprint()
    for one, other in zip(masks(first), masks(again), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("harm", ["other data", "cut short", "no file at all"])
def test_what_does_not_belong_to_the_data_is_made_anew(index: Path, harm: str) -> None:
    expected = masks(opened(index))
    kept = cache_path(index)
    if harm == "cut short":
        kept.write_bytes(kept.read_bytes()[:-200])
    elif harm == "no file at all":
        kept.write_text("labels")
    else:
        rows = index.read_text().splitlines()
        index.write_text("\n".join([rows[0], *rows[2:]]) + "\n")  # a pair less
        expected = expected[2:]
    told: list[str] = []
    found = masks(opened(index, told))
    assert told[-1] == f"labels are kept in {kept}"
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_folder_that_cannot_be_written_costs_nothing_but_time(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geo_refdiff.data.indexed.write_labels", lambda *args: False)
    told: list[str] = []
    assert len(opened(index, told)) == 6
    assert not any("kept" in line for line in told)


def test_labels_of_any_sizes_come_back(tmp_path: Path) -> None:
    labels = {"cover 0": np.arange(12, dtype=np.uint8).reshape(3, 4), "change 1": np.full((2, 5), 255, np.uint8)}
    assert write_labels(tmp_path / "x.npz", "print", labels)
    found = read_labels(tmp_path / "x.npz", "print")
    assert list(found) == list(labels)
    for name, part in labels.items():
        np.testing.assert_array_equal(found[name], part)
    assert read_labels(tmp_path / "x.npz", "another") == {}
    assert write_labels(tmp_path / "none.npz", "print", {})
    assert read_labels(tmp_path / "none.npz", "print") == {}
