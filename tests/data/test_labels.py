"""Pseudo-classes and pseudo-change: plain surfaces, shifts and shadows that are no change, changes that are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from geo_refdiff.classes import BARE, BUILT, LOW, TREE, WATER
from geo_refdiff.data.labels import COVER_REACH, MIN_AREA, Tone, change_mask, land_cover, measure_tone
from geo_refdiff.data.synthetic_change import paste_change, random_region

WATER_DN, BARE_DN, LAWN_DN = (20, 35, 40, 12), (170, 140, 120, 165), (80, 105, 70, 190)
TREE_DN, ASPHALT_DN, ROOF_DN = (50, 65, 45, 140), (95, 98, 100, 92), (190, 188, 186, 180)
TONE = Tone(0.95, -3.0, 30.0)


def surface(colour: tuple[int, ...], side: int = 96, noise: float = 2.0, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    image = np.array(colour, float)[:, None, None] + noise * rng.standard_normal((4, side, side))
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def trees(side: int = 96) -> np.ndarray:
    """Crowns with lit and shaded sides."""
    rough = ndimage.gaussian_filter(np.random.default_rng(1).standard_normal((side, side)), 2)
    rough = 1 + 0.35 * rough / rough.std()
    return np.clip(np.array(TREE_DN, float)[:, None, None] * np.clip(rough, 0.5, 1.8), 0, 255).astype(np.uint8)


def town(side: int = 160) -> np.ndarray:
    """Asphalt with a roof, a lawn, bare ground and a pond."""
    image = surface(ASPHALT_DN, side, 3.0)
    for at, colour in (
        ((slice(10, 50), slice(10, 60)), ROOF_DN),
        ((slice(10, 70), slice(80, 150)), LAWN_DN),
        ((slice(80, 150), slice(5, 75)), BARE_DN),
        ((slice(85, 150), slice(90, 150)), WATER_DN),
    ):
        image[:, *at] = surface(colour, side, 2.0, seed=at[0].start)[:, *at]
    return image


@pytest.mark.parametrize(
    ("colour", "expected"), [(WATER_DN, WATER), (BARE_DN, BARE), (LAWN_DN, LOW), (ASPHALT_DN, BUILT), (ROOF_DN, BUILT)]
)
def test_plain_surfaces(colour: tuple[int, ...], expected: int) -> None:
    assert (land_cover(surface(colour), TONE)[8:-8, 8:-8] == expected).mean() > 0.95


def test_trees_are_rough_and_lawns_are_not() -> None:
    assert (land_cover(trees(), TONE) == TREE).mean() > 0.9
    assert (land_cover(surface(LAWN_DN), TONE) == TREE).mean() < 0.02


def test_a_town_with_its_own_tone() -> None:
    classes = land_cover(town())
    for at, expected in (
        ((30, 35), BUILT),
        ((40, 115), LOW),
        ((115, 40), BARE),
        ((118, 120), WATER),
        ((75, 85), BUILT),
    ):
        assert classes[at] == expected, at


@pytest.mark.parametrize(("gain", "offset"), [(0.8, 10.0), (1.15, -20.0), (0.9, 0.0)])
def test_the_stretch_of_near_infrared_does_not_matter(gain: float, offset: float) -> None:
    image = town()
    stretched = image.copy()
    stretched[3] = np.clip(image[3] * gain + offset, 0, 255).astype(np.uint8)
    assert (land_cover(stretched) == land_cover(image)).mean() > 0.93


def test_shadow_takes_the_class_around_it() -> None:
    image = surface(ASPHALT_DN, 96, 2.0)
    image[:, 40:48, 20:70] = surface((22, 26, 34, 15), 96, 1.0)[:, 40:48, 20:70]
    assert (land_cover(image, TONE) == BUILT).all()  # not water


def test_asphalt_is_not_water_whatever_its_tone() -> None:
    for nir in (70, 80, 95):
        image = town()
        road = np.all(land_cover(town()) == BUILT, axis=None)
        image[3][land_cover(town()) == BUILT] = nir
        assert not road
        assert (land_cover(image)[72:78, 5:150] != WATER).all()


@settings(max_examples=15)
@given(st.integers(0, 60), st.integers(0, 60), st.integers(20, 60))
def test_classes_depend_on_no_more_than_their_reach(top: int, left: int, side: int) -> None:
    image = town()
    tone = measure_tone([image])
    whole = land_cover(image, tone)
    rows = slice(max(0, top - COVER_REACH), top + side + COVER_REACH)
    cols = slice(max(0, left - COVER_REACH), left + side + COVER_REACH)
    part = land_cover(image[:, rows, cols], tone)
    at = (top - rows.start, left - cols.start)
    np.testing.assert_array_equal(
        whole[top : top + side, left : left + side], part[at[0] : at[0] + side, at[1] : at[1] + side]
    )


def labels_of(new: np.ndarray, ref: np.ndarray) -> np.ndarray:
    tone = measure_tone([new])
    return change_mask(new, ref, land_cover(new, tone), land_cover(ref, tone), tone)


def test_the_same_ground_has_not_changed() -> None:
    assert (labels_of(town(), town()) == 0).all()


@pytest.mark.parametrize("shift", [(2, 0), (-1, 2), (2, 2)])
def test_a_shift_of_two_pixels_is_no_change(shift: tuple[int, int]) -> None:
    assert (labels_of(town(), np.roll(town(), shift, (1, 2)))[4:-4, 4:-4] == 0).all()


def test_a_new_shadow_is_no_change() -> None:
    new = town()
    new[:, 52:60, 10:60] = surface((25, 28, 36, 18), 160, 1.0)[:, 52:60, 10:60]
    assert (labels_of(new, town()) == 0).all()
    assert (labels_of(town(), new) == 0).all()


def test_another_light_within_a_few_percent_is_no_change() -> None:
    dimmer = np.clip(town() * 0.94 + 4, 0, 255).astype(np.uint8)
    assert (labels_of(town(), dimmer) == 0).mean() > 0.999


@pytest.mark.parametrize(
    ("colour", "expected"), [(ROOF_DN, BUILT), (BARE_DN, BARE), (WATER_DN, WATER)], ids=["roof", "earth", "pond"]
)
def test_what_is_new_on_a_lawn_is_reported_with_its_class(colour: tuple[int, ...], expected: int) -> None:
    new = town()
    new[:, 20:60, 95:140] = surface(colour, 160, 2.0)[:, 20:60, 95:140]
    mask = labels_of(new, town())
    inside = np.zeros(mask.shape, bool)
    inside[24:56, 99:136] = True
    assert (mask[inside] == expected).mean() > 0.9
    outside = ~ndimage.binary_dilation(inside, iterations=9)
    assert (mask[outside] == 0).all()


def test_a_large_change_cannot_hide() -> None:
    new = surface(BARE_DN, 128)
    assert (labels_of(new, surface(LAWN_DN, 128)) == BARE).mean() > 0.95


def test_houses_on_bare_ground_are_found_by_their_edges() -> None:
    new = surface((165, 140, 125, 160), 160)
    for row in range(20, 140, 20):
        for col in range(20, 140, 16):
            new[:, row : row + 13, col : col + 11] = surface((115, 95, 85, 108), 160)[:, :13, :11]
            new[:, row + 13 : row + 16, col : col + 11] = surface((70, 66, 66, 62), 160)[:, :3, :11]
    mask = labels_of(new, surface((165, 140, 125, 160), 160))
    assert (mask[40:110, 40:110] > 0).mean() > 0.4
    assert (mask[:, 156:] == 0).all()


def test_specks_are_not_labelled() -> None:
    new = town()
    new[:, 30:34, 100:104] = 250  # a car on the lawn
    mask = labels_of(new, town())
    sizes = np.bincount(ndimage.label(mask > 0, np.ones((3, 3)))[0].ravel())[1:]
    assert (sizes >= MIN_AREA).all()
    assert (mask > 0).sum() < 80


def test_tone_of_nothing_is_the_default() -> None:
    assert measure_tone([np.zeros((4, 0), np.uint8)]).dark == 0.0


def test_rules_against_the_generated_landscape() -> None:
    """Exact classes of another source than the rules were made on: built-up, bare and trees are mostly found."""
    from sample_tiles.painter.landscape import render_pair

    hits = np.zeros((6, 6))
    for seed in (0, 2, 4):
        pair = render_pair(seed, (160, 160))
        np.add.at(hits, (pair.new_classes.ravel(), land_cover(pair.new).ravel()), 1)
    result = np.diag(hits) / np.maximum(hits.sum(axis=1), 1)
    assert result[BUILT] > 0.7
    assert result[BARE] > 0.4
    assert hits[TREE, TREE] + hits[TREE, LOW] > 0.6 * hits[TREE].sum()


REF, CONTENT = torch.zeros(3, 1, 4), torch.full((3, 1, 4), 9.0)
MASK = torch.tensor([[255, 255, 0, 0]], dtype=torch.uint8)
COVER = torch.tensor([[1, 2, 0, 4]], dtype=torch.uint8)


def test_a_pasted_pixel_has_the_class_of_the_truth() -> None:
    where = torch.tensor([[True, True, True, False]])
    ref, mask = paste_change(REF, MASK, COVER, CONTENT, where)
    assert ref.tolist() == [[[9.0, 9.0, 0.0, 0.0]]] * 3  # nothing where the cover of the truth is unknown
    assert mask.tolist() == [[1, 2, 0, 0]]
    assert mask.dtype == torch.uint8


def test_content_of_the_same_class_is_no_change() -> None:
    there = torch.tensor([[1, 3, 3, 0]], dtype=torch.uint8)
    ref, mask = paste_change(REF, MASK, COVER, CONTENT, torch.ones(1, 4, dtype=torch.bool), there)
    assert ref.tolist() == [[[9.0, 9.0, 0.0, 0.0]]] * 3  # nor where that of the content is
    assert mask.tolist() == [[0, 2, 0, 0]]


def test_regions_cover_a_part_and_follow_the_seed() -> None:
    areas = [random_region(64, np.random.default_rng(seed), torch.device("cpu")) for seed in range(20)]
    again = random_region(64, np.random.default_rng(7), torch.device("cpu"))
    assert (again == areas[7]).all()
    shares = [float(area.float().mean()) for area in areas]
    assert all(0 <= share < 0.6 for share in shares)
    assert np.median(shares) > 0.01
