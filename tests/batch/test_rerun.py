"""What a rerun believes of the run before it."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from geo_refdiff.errors import ResumeError
from geo_refdiff.pipeline.batch.batch import batch
from geo_refdiff.pipeline.batch.inputs import Sources

from .conftest import OPTIONS, Country, square, write_areas


@pytest.fixture
def one(country: Country) -> Path:
    """A single area."""
    return write_areas(country.root / "one.gpkg", {"plain": square(2, 2, 8)})


def attempts(folder: Path) -> list[int]:
    import geopandas

    return list(geopandas.read_file(folder / "manifest.gpkg", layer="areas")["attempts"])


def test_other_sources_are_refused_by_name_but_files_may_join(
    country: Country, one: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    batch(one, country.sources(masks=["none"]), out, options=OPTIONS)
    west = country.scenes / "west_20210503.tif"
    for other, told in (
        (country.sources(masks=["auto"]), r'mask: \["none"\] -> \["auto"\]'),
        (country.sources(masks=["none"], references=[west]), r'ref: \[\] -> \["/[^"]*west_20210503\.tif"\]'),
        (Sources([west], masks=["none"]), r'scene: \["[^"]*scenes"\] -> \["[^"]*west_20210503\.tif"\]'),
        (country.sources(masks=["none"], assets={"scene": "red"}), r'scene_asset: null -> "red"'),
    ):
        with pytest.raises(ResumeError, match=told):
            batch(one, other, out, options=OPTIONS)
    shutil.copy(west, country.scenes / "again_20210504.tif")
    monkeypatch.chdir(country.root)
    assert batch(one, Sources(["scenes"], masks=["none"]), out, options=OPTIONS).notes == ()
    assert attempts(out) == [1]


@pytest.mark.parametrize("name", ["plain.tif", "plain.json", "plain.source.tif", "plain.qml", "plain.png"])
@pytest.mark.parametrize("left", [None, b""])
def test_a_missing_or_empty_file_is_made_again(
    country: Country, one: Path, tmp_path: Path, name: str, left: bytes | None
) -> None:
    out = tmp_path / "out"
    options = OPTIONS | {"products": "all"}
    batch(one, country.sources(), out, options=options)
    collection, good = (out / "collection.json").read_bytes(), (out / name).read_bytes()
    if left is None:
        (out / name).unlink()
    else:
        (out / name).write_bytes(left)
    assert batch(one, country.sources(), out, options=options).complete
    assert attempts(out) == [2]
    if name != "plain.json":  # which tells when it was made
        assert (out / name).read_bytes() == good
    assert (out / "collection.json").read_bytes() == collection
    batch(one, country.sources(), out, options=options)
    assert attempts(out) == [2]


def test_empty_shard_is_made_again(country: Country, one: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = OPTIONS | {"shard_size": 16, "block_size": 16}
    batch(one, country.sources(), out, options=options)
    (shard,) = (out / "plain.shards").glob("r*.tif")
    good = shard.read_bytes()
    shard.write_bytes(b"")
    assert batch(one, country.sources(), out, options=options).complete
    assert shard.read_bytes() == good


def test_a_changed_input_is_told_and_made_of_again_only_if_asked(country: Country, one: Path, tmp_path: Path) -> None:
    out, scene = tmp_path / "out", country.scenes / "west_20210503.tif"
    batch(one, country.sources(), out, options=OPTIONS)
    assert batch(one, country.sources(), out, options=OPTIONS).notes == ()
    os.utime(scene, ns=(1, 1))
    notes = batch(one, country.sources(), out, options=OPTIONS).notes
    assert notes == (
        f"{scene}: was changed after plain had been made of it; they stay as they are: remove their outputs to have "
        f"them made again",
    )
    assert attempts(out) == [1]
    (out / "plain.tif").unlink()
    assert batch(one, country.sources(), out, options=OPTIONS).notes == ()
    assert batch(one, country.sources(), out, options=OPTIONS).notes == ()
    assert attempts(out) == [2]
    scene.unlink()
    shutil.copy(country.scenes / "east_20210613.tif", country.scenes / "later.tif")
    assert batch(one, country.sources(), out, options=OPTIONS).notes == ()


def test_sources_are_kept_as_they_were_named(country: Country, one: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(country.root)
    batch(one, Sources(["scenes"], assets={"reference": None}), tmp_path / "out", options=OPTIONS)
    rules = json.loads((tmp_path / "out" / "batch" / "batch.json").read_text())["rules"]
    assert rules["scene"] == [str(country.scenes)]
    assert (rules["ref"], rules["mask"], rules["ref_asset"]) == ([], [], None)
