"""Pairs of an index: registered, in one radiometry, on one grid, the same pixels however they are read."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from geo_refdiff.data import OpenedDataset, ReadError, open_dataset
from geo_refdiff.data.index import COLUMNS, IndexRow, read_index, write_index
from geo_refdiff.data.make_index import make_index
from geo_refdiff.errors import InputError, OptionError, OutputError

BANDS = ("red", "green", "blue", "nir")
SIDE = 128
SHIFT = (1.5, -2.25)
GAIN, OFFSET = 0.8, 20.0
Tree = Callable[..., Path]


def ground(seed: int, side: int = SIDE + 16) -> np.ndarray:
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.normal(0, 1, (4, side, side)), (0, 2, 2)) * 200 + 120
    return np.clip(field, 20, 210)


def dates(seed: int, shift: tuple[float, float] = SHIFT) -> tuple[np.ndarray, np.ndarray]:
    """The new date, and the old one of the same ground: moved by -shift, darker and flatter."""
    now = ground(seed)
    old = ndimage.shift((now - OFFSET) / GAIN, (0, -shift[0], -shift[1]), order=3, mode="nearest")
    inner = (slice(None), slice(8, -8), slice(8, -8))
    return tuple(np.clip(np.rint(image[inner]), 1, 255).astype(np.uint8) for image in (now, old))  # type: ignore[return-value]


def write(path: Path, array: np.ndarray, crs: str = "EPSG:26914", left: float = 500_000.0, **profile: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {
        "driver": "GTiff", "count": array.shape[0], "height": array.shape[1], "width": array.shape[2],
        "dtype": array.dtype.name, "crs": crs, "transform": Affine(0.6, 0, left, 0, -0.6, 5_200_000.0),
    }  # fmt: skip
    with rasterio.open(path, "w", **(options | profile)) as dataset:
        dataset.write(array)
        if array.shape[0] == 4:
            dataset.descriptions = BANDS


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two towns, three places of two dates."""
    folder = tmp_path / "data" / "towns"
    for seed, place in enumerate(("alpha/000", "alpha/001", "beta/000")):
        new, old = dates(seed)
        write(folder / place / "2016.tif", old)
        write(folder / place / "2020.tif", new)
    return folder


@pytest.fixture
def index(tree: Path, tmp_path: Path) -> Path:
    make_index(tree, tmp_path / "index.csv")
    return tmp_path / "index.csv"


@pytest.fixture
def both(index: Path) -> tuple[OpenedDataset, OpenedDataset]:
    """The index held in memory and streamed, with change by rules."""
    held, streamed = (open_dataset(index, resident=resident, pseudo_change=True) for resident in (True, False))
    return held, streamed


def find(dataset: OpenedDataset, name: str) -> int:
    return [dataset.name(i) for i in range(len(dataset))].index(name)


def test_all_ordered_pairs_with_shift_and_radiometry(index: Path) -> None:
    rows = {row.name: row for row in read_index(index)}
    assert len(rows) == 6
    forth, back = rows["alpha/000 2016->2020"], rows["alpha/000 2020->2016"]
    assert (forth.place, forth.new_date, forth.ref_date) == ("alpha/000", "2020", "2016")
    assert (forth.shift_rows, forth.shift_cols) == pytest.approx(SHIFT, abs=0.1)
    assert (back.shift_rows, back.shift_cols) == pytest.approx((-SHIFT[0], -SHIFT[1]), abs=0.1)
    assert forth.gain == pytest.approx((GAIN,) * 4, rel=0.03)
    assert forth.offset == pytest.approx((OFFSET,) * 4, abs=4)
    assert back.gain == pytest.approx((1 / GAIN,) * 4, rel=0.03)
    assert forth.correlation is not None
    assert forth.correlation > 0.98


@pytest.mark.parametrize("resident", [True, False])
def test_the_reference_lies_on_the_new_date_and_looks_like_it(index: Path, resident: bool) -> None:
    dataset = open_dataset(index, resident=resident)
    assert dataset.bands == BANDS
    assert dataset.classes == ("no change", "water", "bare ground", "low vegetation", "tree", "built-up")
    crop = dataset.read(find(dataset, "beta/000 2016->2020"), 0, 0, SIDE, SIDE)
    assert crop.new.dtype == crop.ref.dtype == np.uint8
    difference = np.abs(crop.new.astype(float) - crop.ref)[:, crop.ref_valid]
    assert difference.mean() < 1.5
    # moved down and left: rows from above and columns from the right are missing
    assert not crop.ref_valid[0].any()
    assert not crop.ref_valid[:, -1].any()
    assert crop.ref_valid[4:-4, 4:-4].all()
    assert crop.new_valid.all()
    assert (crop.ref[:, ~crop.ref_valid] == 0).all()
    raw = open_dataset(index, resident=resident, match=False)
    same = raw.read(find(raw, "beta/000 2016->2020"), 0, 0, SIDE, SIDE)
    assert same.ref_valid.all()
    assert np.abs(same.new.astype(float) - same.ref).mean() > 10


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_windows_are_cut_from_one_picture(both: tuple[OpenedDataset, OpenedDataset], data: st.DataObject) -> None:
    held, streamed = both
    pair = data.draw(st.integers(0, len(held) - 1))
    height, width = data.draw(st.integers(1, SIDE)), data.draw(st.integers(1, SIDE))
    top, left = data.draw(st.integers(0, SIDE - height)), data.draw(st.integers(0, SIDE - width))
    whole = held.read(pair, 0, 0, SIDE, SIDE)
    for dataset in (held, streamed):
        for part, cut in zip(whole, dataset.read(pair, top, left, height, width), strict=True):
            np.testing.assert_array_equal(part[..., top : top + height, left : left + width], cut)


def test_a_crop_belongs_to_its_caller(index: Path) -> None:
    dataset = open_dataset(index, resident=True)
    before = dataset.read(0, 0, 0, SIDE, SIDE)
    for part in dataset.read(0, 0, 0, SIDE, SIDE):
        part[:] = 0
    for part, again in zip(before, dataset.read(0, 0, 0, SIDE, SIDE), strict=True):
        np.testing.assert_array_equal(part, again)


def test_another_grid_and_crs_is_warped_once_with_its_shift(
    tmp_path: Path, reprojected: Callable[[Path, str], Path]
) -> None:
    new, old = dates(5)
    write(tmp_path / "a" / "2020.tif", new)
    write(tmp_path / "a" / "plain.tif", old)
    shutil.move(reprojected(tmp_path / "a" / "plain.tif", "EPSG:32613"), tmp_path / "a" / "2016.tif")
    (tmp_path / "a" / "plain.tif").unlink()
    make_index(tmp_path / "a", tmp_path / "i.csv")
    held, streamed = (open_dataset(tmp_path / "i.csv", resident=r) for r in (True, False))
    pair = find(held, "a 2016->2020")
    crop = held.read(pair, 0, 0, SIDE, SIDE)
    inner = crop.ref_valid & ndimage.binary_erosion(crop.ref_valid, iterations=3)
    assert inner.mean() > 0.8
    assert np.abs(crop.new.astype(float) - crop.ref)[:, inner].mean() < 4.0
    window = streamed.read(pair, 20, 30, 50, 60)
    np.testing.assert_array_equal(window.ref, crop.ref[:, 20:70, 30:90])


def test_dates_shifted_by_whole_pixels_of_their_grid(tmp_path: Path) -> None:
    new, old = dates(6, (0.0, 0.0))
    write(tmp_path / "p" / "2020.tif", new)
    write(tmp_path / "p" / "2016.tif", old[:, :, 8:], left=500_000.0 + 8 * 0.6)
    rows = [replace(IndexRow("p", "p/2020.tif", "p/2016.tif"), gain=(1.0,) * 4, offset=(0.0,) * 4)]
    write_index(tmp_path / "i.csv", rows)
    crop = open_dataset(tmp_path / "i.csv").read(0, 0, 0, SIDE, SIDE)
    assert not crop.ref_valid[:, :8].any()
    assert crop.ref_valid[:, 8:].all()
    np.testing.assert_array_equal(crop.ref[:, :, 8:], old[:, :, 8:])


def test_nodata_stays_missing_and_does_not_leak(tmp_path: Path) -> None:
    new, old = dates(7)
    new[:, :20, :20] = 0
    old[:, 60:80, 60:80] = 0
    write(tmp_path / "p" / "2020.tif", new, nodata=0)
    write(tmp_path / "p" / "2016.tif", old, nodata=0)
    make_index(tmp_path / "p", tmp_path / "i.csv")
    dataset = open_dataset(tmp_path / "i.csv", pseudo_change=True)
    row = read_index(tmp_path / "i.csv")[find(dataset, "p 2016->2020")]
    assert (row.shift_rows, row.shift_cols) == pytest.approx(SHIFT, abs=0.2)
    crop = dataset.read(find(dataset, "p 2016->2020"), 0, 0, SIDE, SIDE)
    assert not crop.new_valid[:20, :20].any()
    assert crop.new_valid[20:].all()
    assert (crop.classes[:20, :20] == 0).all()
    assert (crop.classes[40:] > 0).all()
    assert not crop.ref_valid[63:80, 59:76].any()
    both = crop.new_valid & crop.ref_valid
    assert (crop.mask[~both] == 255).all()
    assert np.abs(crop.new.astype(float) - crop.ref)[:, both].max() < 40


def test_sixteen_bits_are_brought_to_0_to_255(tmp_path: Path) -> None:
    new, old = dates(8)
    for name, image in (("2020", new), ("2016", old)):
        write(tmp_path / "p" / f"{name}.tif", (image.astype(np.uint16) * 30 + 200))
    make_index(tmp_path / "p", tmp_path / "i.csv")
    (row, _) = read_index(tmp_path / "i.csv")
    assert row.low is not None
    assert 200 < row.low < 1500
    crop = open_dataset(tmp_path / "i.csv").read(0, 0, 0, SIDE, SIDE)
    assert crop.new.dtype == crop.ref.dtype == np.float32
    assert 0 <= crop.new.min() < crop.new.max() <= 255
    assert crop.new.std() > 20
    assert np.abs(crop.new - crop.ref)[:, crop.ref_valid].mean() < 3
    write_index(tmp_path / "no.csv", [replace(row, low=None, high=None)])
    with pytest.raises(ReadError, match=r"holds uint16; give low and high"):
        open_dataset(tmp_path / "no.csv")


def test_a_mask_raster_on_a_coarser_grid_and_classes(tmp_path: Path) -> None:
    new, old = dates(9)
    write(tmp_path / "new.tif", new)
    write(tmp_path / "ref.tif", old)
    mask = np.zeros((1, SIDE // 2, SIDE // 2), np.uint8)
    mask[0, 10:20, 5:30] = 4
    mask[0, 40:, 40:] = 255
    coarse = Affine(1.2, 0, 500_000.0, 0, -1.2, 5_200_000.0)
    write(tmp_path / "mask.tif", mask, transform=coarse)
    cover = np.full((1, SIDE, SIDE), 3, np.uint8)
    write(tmp_path / "cover.tif", cover)
    rows = [IndexRow("p", "new.tif", "ref.tif", mask="mask.tif", new_classes="cover.tif")]
    write_index(tmp_path / "i.csv", rows)
    for resident in (True, False):
        crop = open_dataset(tmp_path / "i.csv", resident=resident).read(0, 0, 0, SIDE, SIDE)
        np.testing.assert_array_equal(crop.mask, np.kron(mask[0], np.ones((2, 2), np.uint8)))
        assert (crop.classes == 3).all()
    mask[0, 0, 0] = 9
    write(tmp_path / "mask.tif", mask, transform=coarse)
    with pytest.raises(ReadError, match=r"the mask holds 9; give 0 to 5"):
        open_dataset(tmp_path / "i.csv", resident=False).read(0, 0, 0, 8, 8)
    own = open_dataset(tmp_path / "i.csv", classes=[f"class {k}" for k in range(10)])
    assert own.read(0, 0, 0, 2, 2).mask[0, 0] == 9


def test_missing_and_damaged_files_are_listed_by_name_and_counted(index: Path, tree: Path) -> None:
    (tree / "alpha/000/2016.tif").unlink()
    (tree / "beta/000/2020.tif").write_bytes(b"not a tiff")
    dataset = open_dataset(index)
    assert len(dataset) == 2
    assert {p.name for p in dataset.problems} == {
        "alpha/000 2016->2020", "alpha/000 2020->2016", "beta/000 2016->2020", "beta/000 2020->2016",
    }  # fmt: skip
    text = str(dataset.problems)
    assert text.startswith("2 of 6 pairs are used, 4 left out as missing or unreadable\n")
    assert "no such file" in text
    assert len(text.splitlines()) == 5
    with pytest.raises(ReadError, match=r"^alpha/000 .*no such file"):
        open_dataset(index, on_error="stop")
    shutil.rmtree(tree)
    with pytest.raises(ReadError, match="no pair of the index can be used"):
        open_dataset(index)


def test_a_file_that_breaks_later_is_reported_where_it_is_read(index: Path, tree: Path) -> None:
    dataset = open_dataset(index, resident=False)
    (tree / "alpha/000/2016.tif").unlink()
    with pytest.raises(ReadError, match=r"alpha/000 2016->2020: .*2016\.tif"):
        dataset.read(find(dataset, "alpha/000 2016->2020"), 0, 0, 8, 8)
    assert dataset.read(find(dataset, "beta/000 2016->2020"), 0, 0, 8, 8).new.shape == (4, 8, 8)
    with pytest.raises(ReadError, match="reach outside its 128 x 128 pixels"):
        dataset.read(0, 100, 0, 29, 8)


def test_flagged_pairs_are_left_out_and_counted(index: Path) -> None:
    rows = read_index(index)
    write_index(index, [replace(rows[0], valid=False, note="clouds"), *rows[1:]])
    dataset = open_dataset(index)
    assert len(dataset) == 5
    assert dataset.problems.summary() == "5 of 6 pairs are used, 1 flagged as not valid"
    assert dataset.problems.flagged[0].reason == "clouds"


@pytest.mark.parametrize("suffix", [".csv", ".gpkg", ".parquet"])
def test_every_format_holds_the_same(index: Path, tree: Path, tmp_path: Path, suffix: str) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    rows = read_index(index)
    other = tmp_path / f"other{suffix}"
    write_index(other, rows, [(-99.0, 47.0, -98.9, 47.1)] * len(rows))
    assert read_index(other) == rows
    assert open_dataset(other).fingerprint() == open_dataset(index).fingerprint()


def test_an_index_of_two_columns_will_do(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "i.csv").write_text(
        "new, ref\n\ndata/towns/alpha/000/2020.tif,data/towns/alpha/000/2016.tif\n", encoding="utf-8-sig"
    )
    dataset = open_dataset(tmp_path / "i.csv")
    assert dataset.name(0) == "2016->2020"
    np.testing.assert_array_equal(dataset.read(0, 0, 0, 64, 64).ref[:, :9, :9], dates(0)[1][:, :9, :9])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("new\na.tif\n", "no column 'ref'"),
        ("new,ref,shift_row\na.tif,b.tif,1\n", "unknown column 'shift_row'; rename it to 'shift_rows'"),
        ("new,ref,shift_rows\na.tif,b.tif,far\n", "row 1: shift_rows is 'far'"),
        ("new,ref,shift_rows\na.tif,b.tif,nan\n", "row 1: shift_rows is nan; give a finite number"),
        ("new,ref,gain\na.tif,b.tif,1 2\n", "2 gains but 0 offsets"),
        ("new,ref,valid\na.tif,b.tif,perhaps\n", "valid is 'perhaps'"),
        ("new,ref,low,high\na.tif,b.tif,9,3\n", "low 9.0 and high 3.0 make no range"),
        ("new,ref\na.tif,\n", "'ref' is empty"),
        ("new,ref\na.tif,b.tif,c.tif\n", "row 1: 3 cells for 2 columns"),
        ("new,ref\n", "holds no pair"),
        ('new,ref\n"a.tif,b.tif\n', "cannot be read as CSV"),
    ],
)
def test_a_faulty_index_is_reported_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "i.csv").write_text(text)
    with pytest.raises(InputError, match=r"i\.csv") as caught:
        open_dataset(tmp_path / "i.csv")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_data_root_may_lie_elsewhere(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = tmp_path / "elsewhere" / "i.csv"
    index.parent.mkdir()
    make_index(tree, index, root=tree.parent)
    assert read_index(index)[0].new == "towns/alpha/000/2020.tif" or read_index(index)[0].new.endswith("2016.tif")
    monkeypatch.delenv("GEO_REFDIFF_DATA", raising=False)
    with pytest.raises(ReadError, match="no such file"):
        open_dataset(index)
    given_root = open_dataset(index, root=tree.parent).fingerprint()
    monkeypatch.setenv("GEO_REFDIFF_DATA", str(tree.parent))
    assert open_dataset(index).fingerprint() == given_root
    moved = tmp_path / "moved"
    shutil.copytree(tree.parent, moved)
    assert open_dataset(index, root=moved).fingerprint() == given_root
    with pytest.raises(InputError, match="no such folder"):
        open_dataset(index, root=tmp_path / "nowhere")


def test_the_fingerprint_shows_other_data_and_other_reading(index: Path, tree: Path) -> None:
    prints = [
        open_dataset(index).fingerprint(),
        open_dataset(index, only=["alpha"]).fingerprint(),
        open_dataset(index, match=False).fingerprint(),
        open_dataset(index, pseudo_change=True).fingerprint(),
        open_dataset(index, bands=("red", "nir")).fingerprint(),
    ]
    assert len(set(prints)) == len(prints)
    assert open_dataset(index, resident=False).fingerprint() == prints[0]
    rows = read_index(index)
    write_index(index, [replace(rows[0], shift_rows=rows[0].shift_rows + 0.5), *rows[1:]])
    assert open_dataset(index).fingerprint() != prints[0]


def test_places_and_splits_are_chosen(index: Path, tree: Path, tmp_path: Path) -> None:
    assert len(open_dataset(index, exclude=["alpha"])) == 2
    assert len(open_dataset(index, only=["alpha/001"])) == 2
    assert len(open_dataset(index, only=["alpha"], exclude=["alpha/001"])) == 2
    with pytest.raises(OptionError, match=r"exclude 'alhpa' fits no place; there are e\.g\. alpha"):
        open_dataset(index, exclude=["alhpa"])
    with pytest.raises(InputError, match="no pair remains"):
        open_dataset(index, only=["alpha"], exclude=["alpha"])
    rows = read_index(index)
    write_index(index, [replace(row, split="test" if row.place.startswith("beta") else "train") for row in rows])
    assert len(open_dataset(index, split="test")) == 2
    with pytest.raises(OptionError, match="has no split 'val'; it has test, train"):
        open_dataset(index, split="val")


def test_bands_by_name_in_the_order_asked_for(index: Path) -> None:
    dataset = open_dataset(index, bands=("nir", "red"), match=False)
    full = open_dataset(index, match=False)
    np.testing.assert_array_equal(dataset.read(0, 0, 0, 9, 9).new, full.read(0, 0, 0, 9, 9).new[[3, 0]])
    assert (dataset.read(0, 0, 0, 9, 9).classes == 0).all()  # no rules without all four bands
    with pytest.raises(ReadError, match="has no band swir, only red, green, blue, nir"):
        open_dataset(index, bands=("swir",))


@pytest.mark.parametrize("resident", [True, False])
def test_read_from_threads_and_from_a_pickle(index: Path, resident: bool) -> None:
    dataset = open_dataset(index, resident=resident)
    expected = [dataset.read(i, 5, 5, 60, 60) for i in range(len(dataset))]
    copy = pickle.loads(pickle.dumps(dataset))
    with ThreadPoolExecutor(4) as pool:
        jobs = [
            (i, pool.submit(d.read, i, 5, 5, 60, 60)) for i in list(range(len(dataset))) * 4 for d in (dataset, copy)
        ]
    for i, job in jobs:
        for part, other in zip(expected[i], job.result(), strict=True):
            np.testing.assert_array_equal(part, other)


def test_auto_holds_what_the_budget_allows(index: Path) -> None:
    assert open_dataset(index).resident  # type: ignore[attr-defined]
    assert not open_dataset(index, budget=1000).resident  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("pattern", "files", "names"),
    [
        (None, ["a/x.tif", "a/y.tif", "b/x.tif"], {"a x->y", "a y->x"}),
        ("<date>/<place>", ["2016/p.tif", "2020/p.tif"], {"p 2016->2020", "p 2020->2016"}),
        ("<place>_<year>", ["p_q_2016.tif", "p_q_2020.tif", "notes.tif"], {"p_q 2016->2020", "p_q 2020->2016"}),
        ("<split>/<city>/<date>", ["test/c/1.tif", "test/c/2.tif"], {"c 1->2", "c 2->1"}),
        ("<date>", ["1.tif", "2.tif"], {"tree 1->2", "tree 2->1"}),
    ],
)
def test_templates_of_folder_trees(tmp_path: Path, pattern: str | None, files: list[str], names: set[str]) -> None:
    new, _ = dates(1)
    for file in files:
        write(tmp_path / "tree" / file, new)
    made = make_index(tmp_path / "tree", tmp_path / "i.csv", pattern=pattern)
    assert {row.name for row in made.rows} == names
    if pattern and "<split>" in pattern:
        assert {row.split for row in made.rows} == {"test"}


def test_index_refuses_what_it_cannot_do(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="give <date> or <year> once"):
        make_index(tree, tmp_path / "i.csv", pattern="<city>/<place>")
    with pytest.raises(InputError, match="none with two dates; give --pattern"):
        make_index(tree, tmp_path / "i.csv", pattern="<city>/<place>/<sort><year>")
    with pytest.raises(InputError, match=r"holds no \.tif"):
        make_index(tree, tmp_path / "i.csv", pattern="<year>")
    with pytest.raises(InputError, match="no such folder"):
        make_index(tmp_path / "nowhere", tmp_path / "i.csv")
    with pytest.raises(OptionError, match=r"an index ends in \.csv"):
        make_index(tree, tmp_path / "i.xlsx")
    with pytest.raises(OptionError, match="exclude 'gamma' fits no place"):
        make_index(tree, tmp_path / "i.csv", exclude=["gamma"])
    (tmp_path / "i.csv").write_text("mine")
    with pytest.raises(OutputError, match="exists already; choose another name or say --overwrite"):
        make_index(tree, tmp_path / "i.csv")
    assert (tmp_path / "i.csv").read_text() == "mine"


def test_index_goes_on_past_damaged_files_or_stops(tree: Path, tmp_path: Path) -> None:
    (tree / "alpha/000/2016.tif").write_bytes(b"")
    write(tree / "beta/000/2020.tif", dates(2)[0], left=900_000.0)  # elsewhere
    made = make_index(tree, tmp_path / "i.csv")
    assert {row.place for row in made.rows} == {"alpha/001"}
    assert len(made.problems) == 4
    assert "does not overlap" in str(made)
    assert made.to_dict()["left_out"][0]["name"].startswith("alpha/000")
    with pytest.raises(ReadError, match="empty"):
        make_index(tree, tmp_path / "j.csv", on_error="stop")
    assert not (tmp_path / "j.csv").exists()


def test_other_places_are_not_registered_and_said_so(tmp_path: Path) -> None:
    for year, seed in (("2016", 20), ("2020", 21)):
        write(tmp_path / "p" / f"{year}.tif", dates(seed)[0])
    made = make_index(tmp_path / "p", tmp_path / "i.csv")
    assert all((row.shift_rows, row.shift_cols) == (0, 0) for row in made.rows)
    assert {row.note for row in made.rows} == {"no clear shift was found"}
    assert "none found for 2" in str(made)
    assert {r.note for r in make_index(tmp_path / "p", tmp_path / "j.csv", register=False).rows} == {""}


def test_columns_are_those_that_are_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
    for column in COLUMNS:
        assert f"`{column}" in text, column


def test_pictures_without_georeference_are_pairs_of_an_index_but_not_of_a_folder(tmp_path: Path) -> None:
    new, old = dates(9, (0.0, 0.0))
    for name, image in (("2016", old), ("2020", new)):
        save_picture(tmp_path / "p" / f"{name}.png", image[:3])
    rows = [IndexRow("p", "p/2020.png", "p/2016.png")]
    write_index(tmp_path / "i.csv", rows)
    for resident in (True, False):
        crop = open_dataset(tmp_path / "i.csv", resident=resident).read(0, 10, 20, 30, 40)
        np.testing.assert_array_equal(crop.new, new[:3, 10:40, 20:60])
        np.testing.assert_array_equal(crop.ref, old[:3, 10:40, 20:60])
    # where nobody says that they belong together they are refused, as are those of another size or kind
    shutil.copy(tmp_path / "p" / "2016.png", tmp_path / "p" / "2016.tif")
    shutil.copy(tmp_path / "p" / "2020.png", tmp_path / "p" / "2020.tif")
    with pytest.raises(InputError, match=r"2016\.tif: is not georeferenced; assign an affine and a CRS"):
        make_index(tmp_path / "p", tmp_path / "j.csv")
    save_picture(tmp_path / "p" / "small.png", old[:3, :64])
    write(tmp_path / "p" / "placed.tif", old[:3])
    for other in ("small.png", "placed.tif"):
        write_index(tmp_path / "i.csv", [IndexRow("p", "p/2020.png", f"p/{other}")])
        with pytest.raises(ReadError, match="is not georeferenced; both dates and their labels must be so, and of one"):
            open_dataset(tmp_path / "i.csv")


def save_picture(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image.transpose(1, 2, 0)).save(path)
