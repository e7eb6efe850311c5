"""The landscape painter: determinism, classes and mask, and that the picture has the statistics of land."""

from __future__ import annotations

import numpy as np
import pytest

from geo_refdiff.classes import BARE, BUILT, CLASSES, LOW, NO_CHANGE, TREE, WATER
from geo_refdiff.errors import OptionError
from sample_tiles.painter.landcover import Edge, Use
from sample_tiles.painter.landscape import LandscapePair, render_pair
from sample_tiles.painter.light import cast_shadows
from sample_tiles.painter.spectra import draw_season
from sample_tiles.painter.texture import Warp

LAYERS = ("old", "new", "old_classes", "new_classes", "mask")


@pytest.fixture(scope="module")
def pairs() -> list[LandscapePair]:
    return [render_pair(seed, (160, 160)) for seed in range(12)]


def test_the_same_seed_gives_the_same_bytes(pairs: list[LandscapePair]) -> None:
    again = render_pair(3, (160, 160))
    for name in LAYERS:
        assert getattr(again, name).tobytes() == getattr(pairs[3], name).tobytes()


def test_another_seed_gives_another_landscape(pairs: list[LandscapePair]) -> None:
    assert len({p.new.tobytes() for p in pairs}) == len(pairs)


@pytest.mark.parametrize("shape", [(64, 64), (37, 91), (16, 16)])
def test_shapes_and_types(shape: tuple[int, int]) -> None:
    pair = render_pair(5, shape, 0.6)
    assert pair.old.shape == pair.new.shape == (4, *shape)
    assert pair.mask.shape == pair.old_classes.shape == pair.new_classes.shape == shape
    assert all(getattr(pair, name).dtype == np.uint8 for name in LAYERS)
    assert pair.gsd == 0.6


def test_mask_is_the_new_class_where_the_classes_differ(pairs: list[LandscapePair]) -> None:
    for pair in pairs:
        differs = pair.old_classes != pair.new_classes
        assert np.array_equal(pair.mask[differs], pair.new_classes[differs])
        assert not pair.mask[~differs].any()


def test_every_pixel_has_a_class_and_zero_stays_free_for_no_data(pairs: list[LandscapePair]) -> None:
    for pair in pairs:
        assert set(np.unique(pair.old_classes)) | set(np.unique(pair.new_classes)) <= {WATER, BARE, LOW, TREE, BUILT}
        assert pair.old.min() >= 1
        assert pair.new.min() >= 1


def test_classes_look_like_themselves_in_the_near_infrared(pairs: list[LandscapePair]) -> None:
    """NDVI of vegetation above that of paving and roofs; water darkest in the near infrared."""
    ndvi: dict[int, list[float]] = {k: [] for k in range(len(CLASSES))}
    nir: dict[int, list[float]] = {k: [] for k in range(len(CLASSES))}
    for pair in pairs:
        red, near = pair.new[0].astype(float), pair.new[3].astype(float)
        for k in np.unique(pair.new_classes):
            here = pair.new_classes == k
            ndvi[k].append(float(((near - red) / (near + red))[here].mean()))
            nir[k].append(float(near[here].mean()))
    assert np.mean(ndvi[TREE]) > np.mean(ndvi[BUILT]) + 0.15
    assert np.mean(ndvi[LOW]) > np.mean(ndvi[BUILT]) + 0.1
    assert np.mean(nir[WATER]) < 0.7 * np.mean(nir[BUILT])


def test_structure_at_all_scales_and_no_white_noise(pairs: list[LandscapePair]) -> None:
    """Neighbouring pixels agree, yet each octave of scale from 2 to 32 m holds contrast."""
    for pair in pairs:
        image = pair.new[1].astype(float)
        flat = image - image.mean()
        assert (flat[:, 1:] * flat[:, :-1]).mean() / (flat**2).mean() > 0.7
    octaves = []
    for pair in pairs:
        level = pair.new[1].astype(float)
        spread = []
        for _ in range(5):
            level = level.reshape(level.shape[0] // 2, 2, level.shape[1] // 2, 2).mean(axis=(1, 3))
            spread.append(float(level.std()))
        octaves.append(-np.diff(spread))
    assert (np.mean(octaves, axis=0) > 0.5).all()


def test_wanted_changes_happen() -> None:
    quiet = render_pair(8, (512, 512), theme="valley", changes=(Use.POND,))
    assert (quiet.mask == WATER).sum() > 200
    road = render_pair(8, (512, 512), theme="valley", changes=(Edge.LANE,))
    assert (road.mask == BUILT).sum() > 100


def test_no_change_is_common_and_change_is_there(pairs: list[LandscapePair]) -> None:
    share = [float((p.mask != NO_CHANGE).mean()) for p in pairs]
    assert 0.005 < np.mean(share) < 0.4


def test_bad_sizes_are_refused_with_the_value() -> None:
    with pytest.raises(OptionError, match="8 x 64"):
        render_pair(0, (8, 64))
    with pytest.raises(OptionError, match=r"9\.0 m"):
        render_pair(0, (64, 64), 9.0)


def test_a_shadow_has_the_length_and_the_side_that_the_sun_gives_it() -> None:
    season = draw_season(np.random.default_rng(4), 0.3)
    height = np.zeros((101, 101), np.float32)
    height[48:53, 48:53] = 12.0
    dark = cast_shadows(height, season, 1.0)
    rows, cols = np.nonzero((dark > 0.5) & (height == 0))
    sx, sy = season.towards_sun
    reach = -((cols - 50) * sx + (rows - 50) * sy)
    assert reach.min() > 0
    length = 12.0 / np.tan(season.elevation)
    assert abs(reach.max() - length) < 4.5  # half the block's diagonal and a pixel
    assert np.abs(-(cols - 50) * sy + (rows - 50) * sx).max() < 4.5


def test_the_warp_has_an_inverse() -> None:
    rng = np.random.default_rng(0)
    warp = Warp.random(rng, 1.0)
    x, y = rng.uniform(0, 900, 50), rng.uniform(0, 900, 50)
    back = warp.inverse(*warp.forward(x, y))
    assert np.hypot(back[0] - x, back[1] - y).max() < 0.01
