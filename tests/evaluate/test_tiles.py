"""Tiles lie where they say, say what changed, and bad pairs are left out by name."""

from __future__ import annotations

import pytest
import torch
from pairs import Numbered

from geo_refdiff.errors import InputError, OptionError
from geo_refdiff.evaluate.tiles import Tile, TileSource, changed_pixels, file_stem, read_ahead

NAMES = ["town/000 2016->2020", "town/000 2020->2016", "town/001 2016->2020"]


def test_tiles_lie_on_a_lattice_and_hold_its_pixels() -> None:
    source = TileSource(Numbered(NAMES), size=32)
    assert len(source.specs) == 3 * 3 * 4
    spec = source.specs[7]
    assert spec.name == "town_000_2016_2020_r32_c96"
    tile = source.read(spec)
    assert tile.truth.shape == (1, 3, 32, 32)
    assert tile.truth[0, 0, :, 0].tolist() == list(range(32, 64))
    assert tile.truth[0, 1, 0].tolist() == list(range(96, 128))
    assert torch.equal(tile.ref, tile.truth - 7 * (tile.truth > 0) * torch.tensor([1, 1, 0.0]).view(1, 3, 1, 1))
    assert torch.equal(tile.raw, tile.ref)


def test_a_pair_of_one_tile_keeps_its_name_and_every_tile_has_noise_of_its_own() -> None:
    source = TileSource(Numbered(NAMES, (70, 70)), size=64)
    assert [spec.name for spec in source.specs] == ["town_000_2016_2020", "town_000_2020_2016", "town_001_2016_2020"]
    corners = {(spec.lattice.row, spec.lattice.col) for spec in source.specs}
    assert len(corners) == 3


def test_images_are_found_by_the_last_part_of_a_name_where_it_is_no_other_pair_s() -> None:
    names = ["test/7.png", "test/8.png", "a/9.png", "b/9.png"]
    aliases = [spec.aliases for spec in TileSource(Numbered(names), size=96).specs]
    assert aliases == [("test_7", "7"), ("test_8", "8"), ("a_9",), ("b_9",)]
    first = TileSource(Numbered(names), size=32).specs[0]
    assert first.aliases == ("test_7_r0_c0", "7_r0_c0", "test_7", "7")


def test_places_are_counted_with_both_directions() -> None:
    source = TileSource(Numbered(NAMES), size=96)
    assert [s.pair for s in source.first_places(1)] == NAMES[:2]
    assert [s.pair for s in source.first_places(None)] == NAMES


def test_missing_reference_is_nan_and_neither_changed_nor_unchanged() -> None:
    tile = TileSource(Numbered(NAMES), size=32).read(TileSource(Numbered(NAMES), size=32).specs[0])
    assert tile.ref[..., 0].isnan().all()
    assert tile.ref[..., 1:].isfinite().all()
    assert not tile.labelled
    assert not (tile.changed | tile.unchanged)[..., 0].any()
    assert (tile.changed ^ tile.unchanged)[..., 1:].all()


def test_true_labels_come_before_pseudo_labels() -> None:
    data = Numbered(NAMES)
    data.masks[0, :10], data.masks[0, 10:20] = 0, 2
    tile = TileSource(data, size=32).read(TileSource(data, size=32).specs[0])
    assert tile.labelled
    assert tile.changed[0, 0].any(dim=1).tolist() == [False] * 10 + [True] * 10 + [False] * 12
    assert tile.unchanged[0, 0].any(dim=1).tolist() == [True] * 10 + [False] * 22


def test_pseudo_labels_see_large_differences_of_areas_only() -> None:
    truth = torch.full((1, 3, 40, 40), 100.0)
    ref = truth.clone()
    ref[:, 1, 10:30, 10:30] -= 60
    ref[:, 0, 0, 0] = 255
    seen = changed_pixels(truth, ref)
    assert seen.shape == (1, 1, 40, 40)
    assert seen[0, 0, 14:26, 14:26].all()
    assert not seen[0, 0, :5].any()


def test_bands_by_name_in_the_order_wanted() -> None:
    source = TileSource(Numbered(NAMES), size=32, bands=("green", "red"))
    tile = source.read(source.specs[7])
    assert tile.truth.shape == tile.ref.shape == (1, 2, 32, 32)
    assert tile.truth[0, 0, 0].tolist() == list(range(96, 128))
    with pytest.raises(OptionError, match="band 'nir': the data set has red, green, blue"):
        TileSource(Numbered(NAMES), size=32, bands=("nir",))


def test_pasted_change_is_labelled_exactly() -> None:
    source = TileSource(Numbered(NAMES), size=64, paste=True)
    shares = []
    for spec in source.specs:
        tile = source.read(spec)
        plain = TileSource(Numbered(NAMES), size=64).read(spec)
        assert torch.equal(tile.truth, plain.truth)
        touched = (tile.ref != plain.ref).any(dim=1, keepdim=True) & plain.ref.isfinite().all(dim=1, keepdim=True)
        assert not (touched & ~tile.changed).any()
        assert torch.equal(tile.changed, tile.mask > 0)
        assert set(tile.mask.unique().tolist()) <= {0, 1 if spec.window.col < 64 else 2}
        shares.append(float(tile.changed.float().mean()))
        again = TileSource(Numbered(NAMES), size=64, paste=True).read(spec)
        assert torch.equal(again.mask, tile.mask)
    assert 0.02 < sum(shares) / len(shares) < 0.9


def test_another_place_is_another_place() -> None:
    source = TileSource(Numbered(NAMES), size=96)
    for spec in source.specs:
        assert source.other_place(spec).place != spec.place
    alone = TileSource(Numbered(NAMES[:2]), size=96)
    with pytest.raises(OptionError, match="one place alone"):
        alone.other_place(alone.specs[0])


def test_unreadable_and_incomplete_tiles_come_as_their_reason() -> None:
    data = Numbered(NAMES, broken=1)
    data.new_valid[2, 0, 0] = False
    source = TileSource(data, size=96)
    result = [outcome for _, outcome in read_ahead(source, source.specs)]
    assert isinstance(result[0], Tile)
    assert str(result[1]) == "town/000 2020->2016: torn"
    assert isinstance(result[2], InputError)
    assert "0.0% of the truth's pixels are missing" in str(result[2])


def test_nothing_is_read_that_is_not_evaluated() -> None:
    data = Numbered(NAMES)
    source = TileSource(data, size=96)
    assert data.reads == 0
    list(read_ahead(source, source.first_places(1)))
    assert data.reads == 2


def test_impossible_tiles_are_refused() -> None:
    with pytest.raises(OptionError, match=r"tile 256: the largest pair has 96 px"):
        TileSource(Numbered(NAMES), size=256)
    with pytest.raises(OptionError, match="at least 32"):
        TileSource(Numbered(NAMES), size=16)
    with pytest.raises(InputError, match="two tiles would be called a_b"):
        TileSource(Numbered(["a b", "a/b"]), size=96)


@pytest.mark.parametrize(
    ("name", "stem"),
    [("00003", "00003"), ("a/b 1->2", "a_b_1_2"), ("x..//y", "x.._y"), ("test/00003.png", "test_00003"), ("/", "pair")],
)
def test_file_stems(name: str, stem: str) -> None:
    assert file_stem(name) == stem
