"""Masks from rasters of classes and colours, mapped to the model's classes, and how sure they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import rasterio
from odc.geo.geobox import GeoBox

from geo_refdiff.change.mask import MaskRecord, decide_mask, mask_notes, open_mask
from geo_refdiff.classes import CLASSES, SECOND_COLOURS
from geo_refdiff.errors import InputError, OptionError
from geo_refdiff.options import MaskOptions
from geo_refdiff.raster.geobox import scene_geobox
from geo_refdiff.raster.info import inspect
from geo_refdiff.raster.window import Window

Make = Callable[..., Path]
WHOLE = Window(0, 0, 64, 64)


@pytest.fixture
def target(make_raster: Make) -> GeoBox:
    return scene_geobox(inspect(make_raster("grid.tif", np.zeros((1, 64, 64), np.uint8), pixel=5), "mask"))


def read(record: MaskRecord | None, target: GeoBox, window: Window = WHOLE) -> np.ndarray:
    assert record is not None
    assert msgspec.json.decode(msgspec.json.encode(record), type=MaskRecord) == record
    prior = open_mask(record, target)
    try:
        return prior.read(window)
    finally:
        prior.close()


def test_class_indices_pass_through(make_raster: Make, target: GeoBox) -> None:
    values = np.arange(64 * 64).reshape(1, 64, 64).astype(np.uint8) % 6
    record = decide_mask(MaskOptions(mask=make_raster("m.tif", values, pixel=5)), CLASSES, target)
    assert record is not None
    assert record.values == ()
    assert (read(record, target) == values[0]).all()


def test_no_change_and_class_map(make_raster: Make, target: GeoBox, tmp_path: Path) -> None:
    values = np.full((1, 64, 64), 9, np.uint8)
    values[0, :8], values[0, 8:16] = 30, 41
    mask = make_raster("m.tif", values, pixel=5)
    (tmp_path / "map.csv").write_text("30,forest\n41,others\n")
    request = MaskOptions(mask=mask, no_change=9, class_map=tmp_path / "map.csv")
    result = read(decide_mask(request, CLASSES, target), target)
    assert (result[:8] == 4).all()
    assert (result[8:16] == 255).all()
    assert (result[16:] == 0).all()
    with pytest.raises(InputError, match="holds 9, which is no class of the model; mapped values are 30, 41, 0"):
        decide_mask(MaskOptions(mask=mask, class_map=tmp_path / "map.csv"), CLASSES, target)
    with pytest.raises(InputError, match=r"holds 9, which is no class .*; say what it means with --class-map"):
        decide_mask(MaskOptions(mask=mask), CLASSES, target)


def test_0_means_no_change_where_a_class_map_does_not_say_what_does(
    make_raster: Make, target: GeoBox, tmp_path: Path
) -> None:
    values = np.zeros((1, 64, 64), np.uint8)
    values[0, :8] = 30
    (tmp_path / "map.csv").write_text("30,forest\n")
    named = MaskOptions(mask=make_raster("m.tif", values, pixel=5), class_map=tmp_path / "map.csv")
    assert np.unique(read(decide_mask(named, CLASSES, target), target)).tolist() == [0, 4]
    (tmp_path / "map.csv").write_text("30,forest\n7,no change\n")
    with pytest.raises(InputError, match="holds 0, which is no class"):
        decide_mask(named, CLASSES, target)


def test_no_change_alone_leaves_the_other_classes(make_raster: Make, target: GeoBox) -> None:
    values = np.full((1, 64, 64), 100, np.uint8)
    values[0, 0, 0] = 3
    result = read(
        decide_mask(MaskOptions(mask=make_raster("m.tif", values, pixel=5), no_change=100), CLASSES, target), target
    )
    assert result[0, 0] == 3
    assert (result.ravel()[1:] == 0).all()


def test_nodata_cannot_be_a_class(make_raster: Make, target: GeoBox) -> None:
    mask = make_raster("m.tif", np.zeros((1, 64, 64), np.uint8), pixel=5, nodata=0)
    with pytest.raises(InputError, match="also the file's nodata value"):
        decide_mask(MaskOptions(mask=mask, no_change=0), CLASSES, target)
    record = decide_mask(MaskOptions(mask=mask), CLASSES, target)
    assert record is not None
    assert record.hides_no_change  # a run notes it
    assert (read(record, target) == 255).all()


@pytest.mark.parametrize(
    ("ones", "nodata", "said"),
    [
        (True, None, "0 is taken for no change, 1 is taken for 'water'"),
        (True, 0, "alone: 1 is taken for 'water'"),
        (False, None, ""),
    ],
)
def test_what_0_and_1_are_taken_for(
    make_raster: Make, target: GeoBox, ones: bool, nodata: int | None, said: str
) -> None:
    values = np.zeros((1, 64, 64), np.uint8)
    values[0, 8:16] = ones
    record = decide_mask(MaskOptions(mask=make_raster("m.tif", values, pixel=5, nodata=nodata)), CLASSES, target)
    assert record is not None
    notes = [note for note in mask_notes(record, CLASSES) if "0 and 1 alone" in note]
    assert len(notes) == bool(said)
    assert all(said in note for note in notes)


def test_categories_of_the_raster_are_matched_by_name(make_raster: Make, target: GeoBox) -> None:
    values = np.ones((1, 64, 64), np.uint8)
    values[0, :4] = 2
    mask = make_raster("m.tif", values, pixel=5)
    sidecar = mask.with_name("m.tif.aux.xml")
    pam = "<PAMDataset><PAMRasterBand band='1'><CategoryNames>{}</CategoryNames></PAMRasterBand></PAMDataset>"
    output = "".join(f"<Category>{name}</Category>" for name in ("unchanged", "Building", "Water", "ship"))
    sidecar.write_text(pam.format(output))
    result = read(decide_mask(MaskOptions(mask=mask), CLASSES, target), target)
    assert (result[:4] == 1).all()
    assert (result[4:] == 5).all()
    values[0, 0, 0] = 3
    mask = make_raster("m.tif", values, pixel=5)
    sidecar.write_text(pam.format(output))
    with pytest.raises(InputError, match=r"holds 3 \('ship'\), which is no class of the model"):
        decide_mask(MaskOptions(mask=mask), CLASSES, target)


def test_second_colours_in_another_crs(
    make_raster: Make, reprojected: Callable[[Path, str], Path], target: GeoBox
) -> None:
    names = list(SECOND_COLOURS)
    values = np.zeros((3, 70, 70), np.uint8)
    for i in range(70):
        values[:, i] = np.array(names[i // 10])[:, None]
    plain = make_raster("m.tif", values, pixel=5)
    result = read(decide_mask(MaskOptions(mask=plain), CLASSES, target), target)
    want = [0, 1, 2, 3, 4, 5, 5]
    for i in range(64):
        assert (result[i] == want[i // 10]).all()
    strange = values.copy()
    strange[:, 3, 3] = (1, 2, 3)
    with pytest.raises(InputError, match=r"holds the colour #010203, .* mapped are #0000ff"):
        decide_mask(MaskOptions(mask=make_raster("s.tif", strange, pixel=5)), CLASSES, target)
    with pytest.raises(OptionError, match="name the colour in --class-map"):
        decide_mask(MaskOptions(mask=plain, no_change=0), CLASSES, target)


def paletted(path: Path, values: np.ndarray, table: dict[int, tuple[int, int, int]]) -> Path:
    with rasterio.open(path) as dataset:
        profile = dataset.profile | {"photometric": "palette"}
    with rasterio.open(path, "w", **profile) as dataset:
        dataset.write(values)
        dataset.write_colormap(1, table)
    return path


def test_a_colour_table_of_second_counts(make_raster: Make, target: GeoBox, tmp_path: Path) -> None:
    """Values in an order of their own; what they mean is given by their colours."""
    values = (np.arange(64, dtype=np.uint8) // 10)[None, :, None].repeat(64, 2)
    table = dict(enumerate(reversed(SECOND_COLOURS)))
    mask = paletted(make_raster("m.tif", values, pixel=5), values, table)
    result = read(decide_mask(MaskOptions(mask=mask), CLASSES, target), target)
    want = [0, 1, 2, 3, 4, 5, 5][::-1]
    for i in range(64):
        assert (result[i] == want[i // 10]).all()
    own = paletted(make_raster("o.tif", values.clip(max=5), pixel=5), values.clip(max=5), table | {0: (1, 2, 3)})
    np.testing.assert_array_equal(
        read(decide_mask(MaskOptions(mask=own), CLASSES, target), target), values[0].clip(max=5)
    )
    given = tmp_path / "map.csv"
    given.write_text("1,2,3,water\n" + "".join(f"{r},{g},{b},tree\n" for r, g, b in SECOND_COLOURS))
    result = read(decide_mask(MaskOptions(mask=own, class_map=given), CLASSES, target), target)
    assert (result[:10] == 1).all()
    assert (result[10:] == 4).all()


def test_a_low_confidence_is_unknown(make_raster: Make, target: GeoBox) -> None:
    mask = make_raster("m.tif", np.full((1, 64, 64), 2, np.uint8), pixel=5)
    sure = np.linspace(0, 1, 64, dtype=np.float32)[None, None].repeat(64, 1)
    confidence = make_raster("c.tif", sure, pixel=5)
    for least, limit in ((None, 0.5), (0.8, 0.8)):
        result = read(
            decide_mask(MaskOptions(mask=mask, mask_confidence=confidence, min_confidence=least), CLASSES, target),
            target,
        )
        assert ((result == 255) == (sure[0] < limit)).all()
        assert set(np.unique(result).tolist()) == {2, 255}
    percent = make_raster("p.tif", np.full((1, 64, 64), 90, np.uint8), pixel=5)
    with pytest.raises(InputError, match="the confidence holds 90, but must lie between 0 and 1"):
        decide_mask(MaskOptions(mask=mask, mask_confidence=percent), CLASSES, target)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mask": "none", "no_change": 3}, "--no-change goes with a mask from a file"),
        ({"mask": "auto", "class_map": "x"}, "--class-map goes with a mask from a file"),
        ({"mask": "m.tif", "min_confidence": 0.5}, "needs a confidence"),
        ({"mask": "auto", "min_confidence": 2.0}, "min confidence 2"),
    ],
)
def test_options_that_do_not_go_together(options: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        MaskOptions(**options)


def test_files_are_reported_without_layers() -> None:
    request = MaskOptions(mask="a.gpkg|layername=x", class_map="m.csv", mask_confidence="c.tif")
    assert request.files == ("a.gpkg", "m.csv", "c.tif")
    assert MaskOptions(mask="auto").files == ()
