"""Class maps: files, names and colours become class indices; what is unknown is reported with what is known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geo_refdiff.change.class_map import as_key, by_names, category_names, read_class_map, second_colours
from geo_refdiff.classes import CLASSES, SECOND_COLOURS, class_index
from geo_refdiff.errors import InputError, OptionError
from geo_refdiff.raster.styles import class_colours, write_legend
from geo_refdiff.sample_tiles import __file__ as samples


@given(st.integers(0, 255), st.integers(0, 255), st.integers(0, 255))
def test_a_colour_is_the_same_key_however_it_is_written(red: int, green: int, blue: int) -> None:
    want = (red, green, blue)
    assert as_key([red, green, blue]) == want
    assert as_key(f"{red},{green},{blue}") == want
    assert as_key(f"#{red:02x}{green:02X}{blue:02x}") == want


@given(st.integers(-1000, 100_000))
def test_a_number_is_the_same_key_however_it_is_written(value: int) -> None:
    assert as_key(value) == as_key(str(value)) == as_key(f" {value}.0 ") == as_key(float(value)) == value


def test_names_of_others_find_the_models_classes() -> None:
    assert class_index("Trees", CLASSES) == 4
    assert class_index("BUILDING", CLASSES) == 5
    assert class_index("unchanged", CLASSES) == 0
    assert class_index("others", CLASSES) == 255
    assert class_index("3", CLASSES) == 3
    assert class_index("6", CLASSES) is None
    assert class_index("ship", CLASSES) is None
    assert class_index("building", ("no change", "building")) == 1  # the model's own name comes first
    assert class_index("grass", ("no change", "building")) is None
    assert class_index("built-up", ("no change", "water", "building", "playground")) == 2  # the same by another name
    assert class_index("200", ()) == 200


@pytest.mark.parametrize(
    ("name", "text", "want"),
    [
        ("m.json", '{"10": "water", "#808080": "bare ground", "Road": 5}', {10: 1, (128, 128, 128): 2, "road": 5}),
        (
            "m.json",
            '{"classes": [{"value": 7, "name": "tree", "colour": [0, 255, 0]}]}',
            {7: 4, (0, 255, 0): 4, "tree": 4},
        ),
        ("m.csv", "value,class\n1,forest\n2,unknown\n", {1: 4, 2: 255}),
        ("m.csv", "red;green;blue;class\n0;0;255;water\n", {(0, 0, 255): 1}),
        ("m.csv", "\n# a remark\n#00ff00,tree\n", {(0, 255, 0): 4}),
    ],
)
def test_class_map_files(tmp_path: Path, name: str, text: str, want: dict[object, int]) -> None:
    (tmp_path / name).write_text(text)
    assert read_class_map(tmp_path / name, CLASSES) == want


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ('{"1": "ship"}', OptionError, "'ship' is no class of the model; its classes are 0 no change, 1 water"),
        ("1,water,3\n", InputError, "has 3 fields"),
        ("{nonsense", InputError, "is no class map"),
        ("{}", InputError, "is empty"),
        ('{"classes": [{"value": 1}]}', InputError, "names no class"),
    ],
)
def test_bad_class_maps_are_reported_in_one_line(tmp_path: Path, text: str, error: type[Exception], words: str) -> None:
    (tmp_path / "m").write_text(text)
    with pytest.raises(error, match=words.replace("(", r"\(")) as result:
        read_class_map(tmp_path / "m", CLASSES)
    assert "\n" not in str(result.value)


def test_second_colours_cover_the_published_labels() -> None:
    assert second_colours(CLASSES) == {
        (255, 255, 255): 0, (0, 0, 255): 1, (128, 128, 128): 2, (0, 128, 0): 3, (0, 255, 0): 4, (128, 0, 0): 5,
        (255, 0, 0): 5,
    }  # fmt: skip
    assert set(second_colours(("no change", "water"))) == {(255, 255, 255), (0, 0, 255)}
    assert len(SECOND_COLOURS) == 7


def test_category_names_of_the_sample_mask() -> None:
    names = category_names(str(Path(samples).parent / "valley" / "mask.tif"))
    assert names == CLASSES
    assert by_names(names, CLASSES) == ({i: i for i in range(6)}, {})
    assert by_names(["no change", "", "ship"], CLASSES) == ({0: 0}, {2: "ship"})


def test_a_legend_gives_names_to_gdal_and_colours_to_qgis(make_raster: Callable[..., Path], tmp_path: Path) -> None:
    path = make_raster("mask.tif", np.zeros((1, 4, 4), np.uint8))
    assert category_names(str(path)) == ()
    write_legend(path, CLASSES, class_colours(len(CLASSES)))
    assert category_names(str(path)) == CLASSES
    style = (tmp_path / "mask.qml").read_text()
    assert style.count("<paletteEntry") == 6
    assert 'value="1" color="#286edc" alpha="255" label="water"' in style
