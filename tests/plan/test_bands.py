"""Which bands play which part."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from rasterio.enums import ColorInterp

from geo_refdiff.errors import InputError, OptionError
from geo_refdiff.plan.bands import band_notes, choose_bands
from geo_refdiff.plan.records import Bands
from geo_refdiff.raster.info import inspect

MODEL = ("red", "green", "blue", "nir")
RGB = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)


@pytest.fixture
def make_info(make_raster: Any) -> Any:
    def make(count: int, name: str = "a.tif", **options: Any) -> Any:
        path = make_raster(name, np.ones((count, 4, 4), np.uint8), **options)
        return inspect(path, "scene" if name == "a.tif" else "reference")

    return make


def test_by_name_in_any_order(make_info: Any) -> None:
    scene = make_info(5, names=("nir", "swir", "Blue", "green", "RED"))
    found = choose_bands(scene, None, None, MODEL, ("nir",))
    assert found == Bands((1, 3, 4, 5), (), ("nir", "Blue", "green", "RED"), (3, 2, 1, 0))


def test_by_number_where_names_do_not_help(make_info: Any) -> None:
    scene = make_info(4, colorinterp=(*RGB, ColorInterp.undefined), photometric="rgb")
    assert choose_bands(scene, None, None, MODEL, ("nir",)).scene == (1, 2, 3, 4)
    assert choose_bands(make_info(3), None, None, MODEL, ("nir",)).channels == (0, 1, 2, None)


def test_an_optional_band_may_be_missing(make_info: Any) -> None:
    scene = make_info(5, names=("blue", "green", "red", "thermal", "haze"))
    found = choose_bands(scene, None, ["3", "2", "blue"], MODEL, ("nir",))
    assert (found.scene, found.channels) == ((3, 2, 1), (0, 1, 2, None))
    by_themselves = choose_bands(scene, None, None, MODEL, ("nir",))
    assert (by_themselves.scene, by_themselves.channels) == ((1, 2, 3), (2, 1, 0, None))
    with pytest.raises(InputError, match=r"2 bands, but the model takes red, green, blue, nir \(optional\)"):
        choose_bands(scene, None, [1, 2], MODEL, ("nir",))


def test_bands_are_asked_for_as_their_file_calls_them(make_info: Any) -> None:
    scene = make_info(6, names=("B02", "B03", "B04", "B08", "B11", "B12"))
    assert choose_bands(scene, None, ["B04", "b03", "blue"], MODEL, ("nir",)).scene == (3, 2, 1)
    with pytest.raises(OptionError, match=r"has no band 'B05'; its bands are 1 B02, 2 B03, 3 B04"):
        choose_bands(scene, None, ["B05"], MODEL, ("nir",))


def test_too_many_without_names(make_info: Any) -> None:
    with pytest.raises(InputError, match="7 bands, but the model takes"):
        choose_bands(make_info(7), None, None, MODEL, ())
    with pytest.raises(OptionError, match="name each band once"):
        choose_bands(make_info(4), None, [1, 1], (), ())


def test_the_reference_follows_the_scene(make_info: Any) -> None:
    scene = make_info(4, names=MODEL)
    named = make_info(4, "b.tif", names=("nir", "red", "green", "blue"))
    assert choose_bands(scene, named, None, (), ()).reference == (2, 3, 4, 1)
    plain = make_info(4, "c.tif")
    assert choose_bands(scene, plain, ["nir", "red"], (), ()).reference == (4, 1)
    fewer = choose_bands(scene, make_info(3, "d.tif"), None, (), ())
    assert (fewer.scene, fewer.reference, fewer.other) == ((1, 2, 3), (1, 2, 3), ())
    with pytest.raises(
        InputError, match=r"none of its bands \(band 1, band 2, band 3\) is known to be the scene's nir;"
    ):
        choose_bands(scene, make_info(3, "d.tif"), ["red", "nir"], (), ())


def test_a_band_that_the_reference_lacks_follows_the_others(make_info: Any) -> None:
    scene = make_info(5, names=(*MODEL, "swir"))
    for reference in (
        make_info(3, "b.tif", names=("blue", "green", "red")),
        make_info(5, "b.tif", names=("haze", "red", "green", "blue", "thermal")),
        make_info(3, "b.tif"),
    ):
        found = choose_bands(scene, reference, None, MODEL, ("nir",), others=True)
        assert (found.scene, found.channels) == ((1, 2, 3), (0, 1, 2, None))
        assert (found.other, found.other_names) == ((4, 5), ("nir", "swir"))
        assert len(found.reference) == 3
    unnamed = choose_bands(make_info(4), make_info(3, "b.tif"), None, MODEL, ("nir",), others=True)
    assert (unnamed.scene, unnamed.reference, unnamed.other) == ((1, 2, 3), (1, 2, 3), (4,))
    full = make_info(4, "c.tif", colorinterp=(*RGB, ColorInterp.undefined), photometric="rgb")
    assert choose_bands(make_info(4, names=MODEL), full, None, MODEL, ("nir",), others=True).reference == (1, 2, 3, 4)
    any_bands = choose_bands(make_info(4, names=MODEL), make_info(1, "d.tif", names=["green"]), None, (), (), True)
    assert (any_bands.scene, any_bands.reference, any_bands.other) == ((2,), (1,), (1, 3, 4))
    needs = ("red", "green", "blue", "nir")
    with pytest.raises(InputError, match=r"none of its bands \(red, green, blue\) is known to be the scene's nir"):
        choose_bands(make_info(4, names=MODEL), make_info(3, "b.tif", names=MODEL[:3]), None, needs, (), others=True)


def test_landsat_numbers_are_not_taken_for_sentinel_2s(make_info: Any) -> None:
    """Of Landsat 4 to 7 B4 is near infrared."""
    scene = make_info(6, names=("B1", "B2", "B3", "B4", "B5", "B7"))
    with pytest.raises(InputError, match="6 bands, but the model takes red, green, blue, nir"):
        choose_bands(scene, None, None, MODEL, ("nir",))
    assert choose_bands(scene, None, ["B3", "b2", "B1", "B4"], MODEL, ("nir",)).scene == (3, 2, 1, 4)
    full = make_info(8, names=("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8"))
    assert choose_bands(full, None, None, MODEL, ("nir",)).scene == (2, 3, 4, 8)


def test_sentinel_2_names_are_known(make_info: Any) -> None:
    stack = make_info(4, names=("B02", "B03", "B04", "B08"))
    chosen = choose_bands(stack, None, None, ("red", "green", "blue", "nir"), ("nir",))
    assert (chosen.scene, chosen.channels) == ((1, 2, 3, 4), (2, 1, 0, 3))


def test_names_that_contradict_the_order_are_reported(make_info: Any) -> None:
    scene = make_info(4, names=("blue", "green", "red", "other"))
    with pytest.raises(InputError, match=r"\(blue, green, red, other\) is known to be nir; .* --model matched-ref"):
        choose_bands(scene, None, None, MODEL, ())
    assert choose_bands(scene, None, None, MODEL, ("nir",)).channels == (2, 1, 0, None)
    with pytest.raises(InputError, match=r"5 bands, .* none .*\(blue, green, x, y, z\) is known to be red;"):
        choose_bands(make_info(5, names=("blue", "green", "x", "y", "z")), None, None, MODEL, ("nir",))


@pytest.mark.parametrize("names", [("red", "green", "nir"), ("B04", "B03", "B08"), ("green", "red", "x")])
def test_a_band_of_another_kind_is_not_taken_for_the_one_that_is_lacking(make_info: Any, names: Any) -> None:
    with pytest.raises(InputError, match=rf"the model takes red, green, blue, .*\({', '.join(names)}\) .* to be blue;"):
        choose_bands(make_info(3, names=names), None, None, MODEL, ("nir",))
    assert choose_bands(make_info(3, names=names), None, ("1", "2", "3"), MODEL, ("nir",)).channels == (0, 1, 2, None)


@pytest.mark.parametrize(
    ("names", "options", "references", "pairs"),
    [
        (("SR_B2", "SR_B3", "SR_B4", "SR_B5"), {"names": MODEL}, 4, {1: 3, 2: 2, 3: 1, 4: 4}),
        (("B2", "B3", "B4", "B8"), {"colorinterp": (*RGB, ColorInterp.undefined), "photometric": "rgb"}, 4,
         {1: 3, 2: 2, 3: 1, 4: 4}),
        (("B02", "B03", "B04", "B08"), {}, 4, {1: 3, 2: 2, 3: 1, 4: 4}),
        (("B02", "B03", "B04", "B08"), {}, 3, {1: 3, 2: 2, 3: 1}),
        (("red", "green", "blue"), {}, 4, {1: 1, 2: 2, 3: 3}),
        (("nir08", "B4, central wavelength 665 nm", "x"), {"names": ("swir16", "NIR_Narrow", "Red")}, 3, {1: 2, 2: 3}),
        (("a", "b", "c", "d", "e"), {}, 5, {1: 1, 2: 2, 3: 3, 4: 4, 5: 5}),
        (("B02", "B03", "B04", "B08", "B11"), {"colorinterp": (*RGB, *[ColorInterp.undefined] * 2)}, 5,
         {1: 3, 2: 2, 3: 1}),
        (("red", "green", "blue", "nir", "swir16"), {"colorinterp": (*RGB, *[ColorInterp.undefined] * 2)}, 5,
         {1: 1, 2: 2, 3: 3, 4: 4, 5: 5}),
    ],
)  # fmt: skip
def test_scene_and_reference_are_paired_by_what_they_measure(
    make_info: Any, names: Any, options: Any, references: int, pairs: dict[int, int]
) -> None:
    scene, reference = make_info(len(names), names=names), make_info(references, "b.tif", **options)
    found = choose_bands(scene, reference, None, (), (), others=True)
    assert dict(zip(found.scene, found.reference, strict=True)) == pairs
    assert set(found.output) == set(scene.data_bands)


def test_a_reference_of_other_bands_is_refused(make_info: Any) -> None:
    scene = make_info(3, names=("B05", "B06", "B07"))
    with pytest.raises(InputError, match=r"none of its bands \(red, green, blue\) is known to be the scene's B05, B06"):
        choose_bands(scene, make_info(3, "b.tif", names=MODEL[:3]), None, (), ())


def test_the_reference_s_bands_are_the_user_s_choice(make_info: Any) -> None:
    scene, reference = make_info(4, names=("B02", "B03", "B04", "B08")), make_info(5, "b.tif")
    found = choose_bands(scene, reference, None, MODEL, ("nir",), True, ["5", 4, 3, "-"])
    assert (found.scene, found.reference, found.other) == ((1, 2, 3), (5, 4, 3), (4,))
    assert choose_bands(scene, reference, ["B04", "B03"], (), (), False, [1, 2]).reference == (1, 2)
    with pytest.raises(OptionError, match=r"ref bands 1, 2: give 4, for B02, B03, B04, B08 \(- for none\)"):
        choose_bands(scene, reference, None, (), (), False, [1, 2])
    with pytest.raises(OptionError, match="has no band '6'; its bands are 1, 2, 3, 4, 5"):
        choose_bands(scene, reference, None, (), (), False, [1, 2, 3, 6])


def test_bands_taken_by_place_are_reported(make_info: Any) -> None:
    scene, reference = make_info(5, names=("a", "b", "c", "d", "e")), make_info(5, "b.tif")
    bands = choose_bands(scene, reference, None, (), ())
    assert list(band_notes(scene, reference, bands, bands, ()))[-1] == (
        "no name says which band of the reference is a, b, c, d, e: taken by place; choose with --ref-bands"
    )
    assert len(list(band_notes(scene, reference, bands, bands, (), chosen=True))) == 1


def test_the_pairing_is_said(make_info: Any) -> None:
    scene, reference = make_info(4, names=("B02", "B03", "B04", "B08")), make_info(3, "b.tif")
    bands, alone = (choose_bands(scene, r, None, MODEL, ("nir",), True) for r in (reference, None))
    assert list(band_notes(scene, reference, bands, alone, MODEL)) == [
        "the reference's bands without names are taken by place: 1 for red, 2 for green, 3 for blue; choose otherwise "
        "with --ref-bands",
        "bands: B02 <- ref band 3, the model's blue; B03 <- ref band 2, the model's green; B04 <- ref band 1, the "
        "model's red",
        "the reference has no B08: it gets no detail from it but what is transferred from the other bands",
    ]
    named = make_info(4, "c.tif", names=MODEL)
    bands = choose_bands(scene, named, None, (), ())
    assert list(band_notes(scene, named, bands, bands, ())) == [
        "bands: B02 <- ref band 3 (blue); B03 <- ref band 2 (green); B04 <- ref band 1 (red); B08 <- ref band 4 (nir)"
    ]
