"""Painted landscapes as ordinary pairs: their files, their index, the painter's command."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner

from geo_refdiff.classes import CLASSES
from geo_refdiff.data import open_dataset
from geo_refdiff.data.index import read_index
from geo_refdiff.errors import OptionError
from sample_tiles.painter.__main__ import painter, parse_seeds
from sample_tiles.painter.landscape import render_pair
from sample_tiles.painter.pairs import write_pairs


def test_the_index_gives_what_was_painted_and_odd_seeds_run_back_in_time(tmp_path: Path) -> None:
    done = CliRunner().invoke(painter, ["pairs", "40-42", "-o", str(tmp_path / "x.csv"), "--size", "64", "--gsd", "2"])
    assert done.exit_code == 0, done.output
    assert done.stdout == f"{tmp_path / 'x.csv'}: 3 pairs\n"
    dataset = open_dataset(tmp_path / "x.csv")
    assert len(dataset) == 3
    assert dataset.classes == CLASSES
    assert dataset.bands == ("red", "green", "blue", "nir")
    for index, back in ((0, False), (1, True)):
        scene = render_pair(40 + index, (64, 64), 2.0)
        dates = [(scene.old, scene.old_classes), (scene.new, scene.new_classes)]
        (old, _), (new, classes) = dates[::-1] if back else dates
        assert dataset.name(index) == f"landscape {40 + index} {'new->old' if back else 'old->new'}"
        crop = dataset.read(index, 8, 16, 40, 32)
        at = (slice(8, 48), slice(16, 48))
        np.testing.assert_array_equal(crop.new, new[:, *at])
        np.testing.assert_array_equal(crop.classes, classes[at])
        changed = (scene.old_classes != scene.new_classes)[at]
        np.testing.assert_array_equal(crop.mask, np.where(changed, classes[at], 0))
        assert crop.new_valid.all()
        assert crop.ref_valid.all()
        # the reference comes in the new date's radiometry
        was, now = (np.abs(image.astype(float) - crop.new)[:, ~changed] for image in (old[:, *at], crop.ref))
        assert now.mean() < was.mean()


def test_files_are_georeferenced_and_say_their_classes(tmp_path: Path) -> None:
    write_pairs(tmp_path / "x.csv", [7], 48, 0.5)
    row = read_index(tmp_path / "x.csv")[0]
    for name in (row.new, row.ref, row.mask, row.new_classes):
        with rasterio.open(tmp_path / name) as src:
            assert (src.crs.to_epsg(), src.res, src.shape) == (32633, (0.5, 0.5), (48, 48))
            if src.count == 1:
                assert src.tags(1)["CLASS_4"] == "tree"


def test_the_same_seed_is_the_same_data(tmp_path: Path) -> None:
    prints = []
    for name, seed in (("a", 7), ("b", 7), ("c", 8)):
        (tmp_path / name).mkdir()
        write_pairs(tmp_path / name / "x.csv", [seed], 48)
        prints.append(open_dataset(tmp_path / name / "x.csv").fingerprint())
    assert prints[0] == prints[1] != prints[2]


@pytest.mark.parametrize("text", ["", "a-b", "9-3", "-4", "1-2-3"])
def test_seeds_that_make_no_sense(text: str) -> None:
    with pytest.raises(OptionError, match="FIRST-LAST"):
        parse_seeds(text)


def test_a_single_seed_is_a_range() -> None:
    assert list(parse_seeds("7")) == [7]
    assert list(parse_seeds("7-9")) == [7, 8, 9]


def test_an_index_of_another_kind_is_refused_before_anything_is_painted(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"x\.txt"):
        write_pairs(tmp_path / "x.txt", [7], 48)
    assert not list(tmp_path.iterdir())
