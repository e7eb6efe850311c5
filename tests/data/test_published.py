"""Data sets as they are published: layouts, label encodings, class tables, LR images, and what is wrong with files."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from geo_refdiff.cli.main import run
from geo_refdiff.data import ReadError, open_dataset
from geo_refdiff.data.class_table import read_class_table
from geo_refdiff.data.index import read_index
from geo_refdiff.data.make_index import make_index
from geo_refdiff.data.published import PublishedDataset, is_published
from geo_refdiff.errors import InputError, OptionError

SECOND = """unchanged 255 255 255
water 0 0 255
non-vegetated ground surface 128 128 128
low vegetation 0 128 0
tree 0 255 0
building 128 0 0
playground 255 0 0
"""
COLOURS = np.array(
    [(255, 255, 255), (0, 0, 255), (128, 128, 128), (0, 128, 0), (0, 255, 0), (128, 0, 0), (255, 0, 0)], np.uint8
)
MODEL = np.array([0, 1, 2, 3, 4, 5, 5], np.uint8)
"""Model class of each class of the table."""
SIDE = 64


def picture(seed: int, side: int = SIDE) -> np.ndarray:
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.normal(0, 1, (side, side, 3)), (2, 2, 0)) * 300 + 120
    return np.clip(field, 0, 255).astype(np.uint8)


def labels(seed: int) -> np.ndarray:
    """(64, 64) indices, most of them 0, every class there."""
    out = np.zeros((SIDE, SIDE), np.uint8)
    for k in range(1, 7):
        out[8 * k : 8 * k + 6, (seed * 3 + k) % 40 : (seed * 3 + k) % 40 + 9] = k
    return out


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


@pytest.fixture
def second(tmp_path: Path) -> Path:
    """Three training and two test pairs in the layout of SECOND."""
    root = tmp_path / "SECOND"
    for split, count in (("train", 3), ("test", 2)):
        for n in range(count):
            name = f"{n:05d}.png"
            new = picture(n)
            folder = root / split
            save(folder / "HR_512" / name, new)
            save(folder / "Ref" / name, np.clip(new * 0.7 + 30, 0, 255).astype(np.uint8))
            save(folder / "CD_mask_RGB" / name, COLOURS[labels(n)])
            save(folder / "CD_mask" / name, labels(n))
            kind = "real" if split == "train" else "Bic"
            for scale in (8, 16):
                small = Image.fromarray(new).resize((SIDE // scale, SIDE // scale), Image.Resampling.BICUBIC)
                save(folder / f"{kind}_LR_D{scale}_{512 // scale}" / name, np.asarray(small))
    (root / "CLASS_Table.txt").write_text(SECOND)
    return root


@pytest.mark.parametrize("encoding", ["colour", "grey"])
@pytest.mark.parametrize("resident", [True, False, "auto"])
def test_pairs_and_labels_of_both_encodings(second: Path, encoding: str, resident: object) -> None:
    dataset = open_dataset(second, labels=encoding, resident=resident)  # type: ignore[arg-type]
    assert len(dataset) == 3
    assert dataset.bands == ("red", "green", "blue")
    assert dataset.classes == ("no change", "water", "bare ground", "low vegetation", "tree", "built-up")
    assert dataset.name(1) == "train/00001.png"
    assert dataset.shape(1) == (SIDE, SIDE)
    crop = dataset.read(1, 5, 7, 40, 50)
    window = (slice(5, 45), slice(7, 57))
    expected = MODEL[labels(1)][window]
    np.testing.assert_array_equal(crop.new, picture(1).transpose(2, 0, 1)[:, *window])
    np.testing.assert_array_equal(crop.mask, expected)
    np.testing.assert_array_equal(crop.classes, expected)
    assert crop.new_valid.all()
    assert crop.ref_valid.all()
    assert np.abs(crop.new.astype(float) - crop.ref).mean() < 2  # the radiometry is fitted
    crop.new[:] = 0
    assert dataset.read(1, 5, 7, 40, 50).new.any()


def test_grey_values_of_the_colours(second: Path) -> None:
    for path in (second / "train" / "CD_mask_RGB").iterdir():
        grey = Image.open(path).convert("L")
        grey.save(second / "train" / "CD_mask" / path.name)
    dataset = open_dataset(second, labels="grey")
    np.testing.assert_array_equal(dataset.read(2, 0, 0, SIDE, SIDE).mask, MODEL[labels(2)])


def test_palette_images(second: Path) -> None:
    for path in list((second / "train" / "CD_mask").iterdir()):
        image = Image.fromarray(labels(int(path.stem)))
        image = image.convert("P")
        image.putpalette(COLOURS.ravel().tolist())
        for folder in ("CD_mask", "CD_mask_RGB"):
            image.save(second / "train" / folder / path.name)
    for encoding in ("colour", "grey"):
        dataset = open_dataset(second, labels=encoding)
        np.testing.assert_array_equal(dataset.read(0, 0, 0, SIDE, SIDE).mask, MODEL[labels(0)])


def test_own_classes_and_a_map(second: Path) -> None:
    own = open_dataset(second, class_map="own")
    assert own.classes == (
        "no change", "water", "non-vegetated ground surface", "low vegetation", "tree", "building", "playground",
    )  # fmt: skip
    np.testing.assert_array_equal(own.read(0, 0, 0, SIDE, SIDE).mask, labels(0))
    mapped = open_dataset(second, class_map={"Playground": 255})
    crop = mapped.read(0, 0, 0, SIDE, SIDE)
    assert (crop.mask[labels(0) == 6] == 255).all()
    assert (crop.classes[labels(0) == 6] == 0).all()
    with pytest.raises(InputError, match="class_map gives 17; give 0 to 5, or 255"):
        open_dataset(second, class_map={"tree": 17})


def test_cnam_cd_has_a_class_for_others(second: Path) -> None:
    (second / "CLASS_Table.txt").write_text(
        "Class, R, G, B\nunchanged: (255,255,255)\nbare land: (128,128,128)\nvegetation: (0,128,0)\nwater: (0,0,255)\n"
        "impervious: (128,0,0)\nothers: (255,0,0)\n"
    )
    for path in (second / "train" / "CD_mask_RGB").iterdir():
        image = np.asarray(Image.open(path)).copy()
        image[(image == (0, 255, 0)).all(-1)] = (0, 128, 0)
        save(path, image)
    crop = open_dataset(second).read(0, 0, 0, SIDE, SIDE)
    np.testing.assert_array_equal(crop.mask, np.array([0, 1, 2, 3, 3, 5, 255], np.uint8)[labels(0)])


@pytest.fixture
def official(tmp_path: Path) -> Path:
    """SECOND as its makers publish it: colours of the class at either date where it changed."""
    root = tmp_path / "SECOND"
    for folder, count in (("SECOND_train_set", 3), ("SECOND_total_test/test", 1)):
        for n in range(count):
            new = picture(n)
            home = root / folder
            save(home / "im1" / f"{n:05d}.png", np.clip(new * 0.7 + 30, 0, 255).astype(np.uint8))
            save(home / "im2" / f"{n:05d}.png", new)
            save(home / "label1" / f"{n:05d}.png", COLOURS[before(n)])
            save(home / "label2" / f"{n:05d}.png", COLOURS[labels(n)])
    return root


def before(seed: int) -> np.ndarray:
    """Classes at the first date of what `labels` says of the second."""
    now = labels(seed)
    return np.where(now > 0, now % 6 + 1, 0).astype(np.uint8)


def test_second_as_published_is_read_in_both_orders(official: Path) -> None:
    dataset = open_dataset(official)
    assert len(dataset) == 6
    assert dataset.classes == ("no change", "water", "bare ground", "low vegetation", "tree", "built-up")
    assert dataset.name(1) == "SECOND_train_set/00001.png"
    assert dataset.name(4) == "SECOND_train_set/00001.png im2->im1"
    assert dataset.files(4) == ("im1/00001.png", "im2/00001.png")
    forth, back = (dataset.read(n, 0, 0, SIDE, SIDE) for n in (1, 4))
    np.testing.assert_array_equal(forth.new, picture(1).transpose(2, 0, 1))
    np.testing.assert_array_equal(forth.mask, MODEL[labels(1)])
    np.testing.assert_array_equal(back.mask, MODEL[before(1)])
    np.testing.assert_array_equal(forth.classes, MODEL[labels(1)])
    assert np.abs(forth.new.astype(float) - forth.ref).mean() < 2  # the radiometry is fitted
    assert np.abs(back.new.astype(float) - back.ref).mean() < 2
    assert back.new.mean() > forth.new.mean() * 0.7
    assert open_dataset(official / "SECOND_train_set").fingerprint() == dataset.fingerprint()


def test_a_folder_that_names_no_split_is_for_training(official: Path, tmp_path: Path) -> None:
    alone = shutil.copytree(official / "SECOND_train_set", tmp_path / "other" / "SECOND")
    assert len(open_dataset(alone, split="train")) == len(open_dataset(alone)) == 6
    with pytest.raises(OptionError, match="no split 'val' in one of the layouts; it has train"):
        open_dataset(alone, split="val")


def test_the_test_set_of_second_may_have_no_labels(official: Path) -> None:
    home = official / "SECOND_total_test" / "test"
    for folder in ("label1", "label2"):
        shutil.rmtree(home / folder)
    dataset = open_dataset(official / "SECOND_total_test", split="test")
    assert len(dataset) == 2
    assert (dataset.read(0, 0, 0, SIDE, SIDE).mask == 255).all()


@pytest.fixture
def cnam(tmp_path: Path) -> Path:
    """CNAM-CD as its makers publish it: TIFFs, labels of 0 background, impervious, bare, vegetation, water, 5 other."""
    root = tmp_path / "CNAM-CD(V1)"
    for n in range(2):
        save(root / "A" / f"{n}.tif", np.clip(picture(n) * 0.8 + 20, 0, 255).astype(np.uint8))
        save(root / "B" / f"{n}.tif", picture(n))
        save(root / "label" / f"{n}.tif", labels(n) % 6)
    return root


def test_cnam_cd_as_published(cnam: Path) -> None:
    dataset = open_dataset(cnam)
    assert [dataset.name(n) for n in range(len(dataset))] == ["CNAM-CD(V1)/0.tif", "CNAM-CD(V1)/1.tif"]
    crop = dataset.read(1, 0, 0, SIDE, SIDE)
    np.testing.assert_array_equal(crop.new, picture(1).transpose(2, 0, 1))
    expected = np.array([0, 5, 2, 3, 1, 255], np.uint8)[labels(1) % 6]
    np.testing.assert_array_equal(crop.mask, expected)
    np.testing.assert_array_equal(crop.classes, np.where(expected == 255, 0, expected))
    assert np.abs(crop.new.astype(float) - crop.ref).mean() < 2


def test_binary_labels_in_the_folders_of_cnam_cd_are_refused(cnam: Path) -> None:
    for path in (cnam / "label").iterdir():
        save(path, np.where(labels(0) > 0, 255, 0).astype(np.uint8))  # as LEVIR-CD has them
    with pytest.raises(InputError, match=r"values that are no class: 255 .*1 or grey -1 impervious surface"):
        open_dataset(cnam)


def test_a_table_beside_the_data_replaces_that_of_the_layout(official: Path) -> None:
    home = official / "SECOND_train_set"
    (home / "CLASS_Table.txt").write_text(SECOND.replace("playground", "other"))
    crop = open_dataset(official).read(0, 0, 0, SIDE, SIDE)
    assert (crop.mask[labels(0) == 6] == 255).all()


@pytest.mark.parametrize("source", ["official", "cnam", "second"])
def test_an_index_of_a_published_data_set_gives_the_same_pairs(
    source: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    folder = request.getfixturevalue(source)
    out = tmp_path / "indices" / "pairs.csv"
    out.parent.mkdir()
    steps: list[tuple[int, int]] = []
    made = make_index(folder, out, register=False, progress=lambda done, total: steps.append((done, total)))
    assert len(made.problems) == 0
    rows = read_index(out)
    assert steps[-1] == (len(rows), len(rows))
    masks = out.with_name("pairs.masks")
    assert {row.mask for row in rows} == {f"{masks.name}/{path.name}" for path in masks.iterdir()}
    assert not any(path.stem.endswith((".png", ".tif")) for path in masks.iterdir())
    for split in {row.split for row in rows}:
        plain, indexed = open_dataset(folder, split=split), open_dataset(out, split=split)
        assert indexed.bands == plain.bands
        names = [plain.name(n) for n in range(len(plain))]
        assert [indexed.name(n) for n in range(len(indexed))] == names
        for n in range(len(plain)):
            for one, other in zip(plain.read(n, 3, 5, 40, 50), indexed.read(n, 3, 5, 40, 50), strict=True):
                assert np.abs(one.astype(float) - other).max() <= 1  # the fit is written with six digits
            for part in ("mask", "classes"):
                np.testing.assert_array_equal(
                    getattr(plain.read(n, 3, 5, 40, 50), part), getattr(indexed.read(n, 3, 5, 40, 50), part)
                )
    made = make_index(folder, out.with_suffix(".gpkg"), only=[rows[0].place])  # without footprints
    assert {row.place for row in made.rows} == {rows[0].place}
    assert set(made.footprints) == {None}
    with pytest.raises(OptionError, match="--pattern goes with folders of dates"):
        make_index(folder, out, overwrite=True, pattern="<place>/<date>")


def test_labels_that_cannot_be_read_leave_a_pair_out_of_the_index(official: Path, tmp_path: Path) -> None:
    image = COLOURS[labels(1)].copy()
    image[0, 0] = (1, 2, 3)
    save(official / "SECOND_train_set" / "label2" / "00001.png", image)
    made = make_index(official / "SECOND_train_set", tmp_path / "i.csv", register=False)
    assert [problem.name for problem in made.problems] == ["SECOND_train_set/00001.png"]
    assert "colours that are no class" in made.problems.unusable[0].reason
    assert len(made.rows) == 5
    assert made.problems.total == 6


def test_splits(second: Path) -> None:
    assert len(open_dataset(second, split="test")) == 2
    assert open_dataset(second / "test").name(0) == "test/00000.png"
    with pytest.raises(OptionError, match="no split 'val'"):
        open_dataset(second, split="val")
    with pytest.raises(OptionError, match="holds red, green, blue, not nir"):
        open_dataset(second, bands=("nir",))
    assert is_published(second)
    assert not is_published(second.parent / "nothing")


def test_lr_images_that_come_with_it(second: Path) -> None:
    dataset = open_dataset(second, split="test")
    assert isinstance(dataset, PublishedDataset)
    assert dataset.lr_kinds() == (("bic", 8), ("bic", 16))
    lr = dataset.read_lr(1, 8)
    small = Image.fromarray(picture(1)).resize((8, 8), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(lr, np.asarray(small).transpose(2, 0, 1))
    with pytest.raises(OptionError, match="no real LR images for 8x; it has bic 8x, bic 16x"):
        dataset.read_lr(0, 8, "real")
    with pytest.raises(OptionError, match="for 4x"):
        dataset.read_lr(0, 4)
    save(second / "test" / "Bic_LR_D8_64" / "00001.png", picture(1, 9))
    with pytest.raises(ReadError, match=r"is \(9, 9\) pixels, expected \(8, 8\)"):
        dataset.read_lr(1, 8)


def test_unknown_colours_are_listed(second: Path) -> None:
    image = COLOURS[labels(1)].copy()
    image[0, :3] = (1, 2, 3)
    image[1, 0] = (9, 9, 9)
    save(second / "train" / "CD_mask_RGB" / "00001.png", image)
    dataset = open_dataset(second)
    with pytest.raises(ReadError, match=r"00001\.png: colours .* no class: \(1, 2, 3\) x 3, \(9, 9, 9\) x 1; correct"):
        dataset.read(1, 0, 0, 4, 4)
    assert dataset.read(0, 0, 0, 4, 4).mask.shape == (4, 4)
    skipped = open_dataset(second, resident=True)
    assert len(skipped) == 2
    assert [p.name for p in skipped.problems] == ["train/00001.png"]
    with pytest.raises(ReadError, match="no class"):
        open_dataset(second, resident=True, on_error="stop")


def test_unknown_grey_values_are_listed(second: Path) -> None:
    bad = labels(0)
    bad[0, 0] = 42
    save(second / "train" / "CD_mask" / "00000.png", bad)
    with pytest.raises(
        InputError, match=r"values that are no class: 42 x 1; the table has 0 or grey 255 unchanged, 1 or"
    ):
        open_dataset(second, labels="grey")


def test_missing_damaged_and_ill_fitting_files(second: Path) -> None:
    train = second / "train"
    (train / "Ref" / "00000.png").unlink()
    save(train / "HR_512" / "00001.png", picture(1, 32))
    (train / "CD_mask_RGB" / "00002.png").write_bytes(b"\x89PNG nonsense")
    with pytest.raises(ReadError, match="no pair can be used"):
        open_dataset(second)
    save(train / "HR_512" / "00001.png", picture(1))
    dataset = open_dataset(second)
    assert len(dataset) == 1
    reasons = {p.name: p.reason for p in dataset.problems}
    assert "no such file" in reasons["train/00000.png"]
    assert "cannot be read as an image" in reasons["train/00002.png"]
    cut_short = (train / "HR_512" / "00001.png").read_bytes()[:2000]
    (train / "HR_512" / "00001.png").write_bytes(cut_short)
    with pytest.raises(ReadError, match="cannot be read as an image"):
        open_dataset(second).read(0, 0, 0, 4, 4)


def test_without_masks_change_is_not_known(second: Path) -> None:
    for folder in ("CD_mask", "CD_mask_RGB"):
        for path in (second / "train" / folder).iterdir():
            path.unlink()
        (second / "train" / folder).rmdir()
    crop = open_dataset(second).read(0, 0, 0, SIDE, SIDE)
    assert (crop.mask == 255).all()
    assert (crop.classes == 0).all()
    with pytest.raises(OptionError, match="no labels 'colour'"):
        open_dataset(second, labels="colour")


def test_fingerprint_and_pickle(second: Path, tmp_path: Path) -> None:
    dataset = open_dataset(second)
    again = pickle.loads(pickle.dumps(dataset))
    assert again.fingerprint() == dataset.fingerprint()
    np.testing.assert_array_equal(again.read(0, 0, 0, 9, 9).mask, dataset.read(0, 0, 0, 9, 9).mask)
    moved = second.rename(tmp_path / "elsewhere")
    assert open_dataset(moved).fingerprint() == dataset.fingerprint()
    prints = {open_dataset(moved, **options).fingerprint() for options in ({}, {"match": False}, {"class_map": "own"})}  # type: ignore[arg-type]
    assert len(prints) == 3
    save(moved / "train" / "HR_512" / "00000.png", picture(77))
    assert open_dataset(moved).fingerprint() != dataset.fingerprint()


@pytest.mark.parametrize(
    "text",
    [
        "0 unchanged 255 255 255\n1 water 0 0 255\n2 tree 0 255 0\n",
        "unchanged\t255,255,255\nwater\t0,0,255\ntree\t0,255,0\n",
        "# colours\nname;R;G;B\nUnchanged; (255, 255, 255)\nWATER; (0, 0, 255)\nTree; (0, 255, 0)\n",
        "\ufeffunchanged 255 255 255 0\r\nwater 0 0 255 1\r\ntree 0 255 0 2\r\n",
        "unchanged 0 255 255 255\nwater 1 0 0 255\ntree 2 0 255 0\n",
        "RGB(255,255,255) unchanged\nRGB(0,0,255) water\nRGB(0,255,0) tree\n",
    ],
)
def test_class_tables_as_people_write_them(tmp_path: Path, text: str) -> None:
    path = tmp_path / "CLASS_Table.txt"
    path.write_bytes(text.encode())
    table = read_class_table(path)
    assert [entry.index for entry in table.entries] == [0, 1, 2]
    assert [entry.colour for entry in table.entries] == [(255, 255, 255), (0, 0, 255), (0, 255, 0)]
    assert table.targets == (0, 1, 4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("unchanged 255 255 255\n", "1 classes; give a line a class"),
        ("unchanged 255 255 255\nwater 0 0 300\n", r"line 2: 'water 0 0 300' is no class"),
        ("unchanged 255 255 255\nwater 0 0\n", r"line 2: 'water 0 0' is no class"),
        ("unchanged 255 255 255\nwater 0 0 255\nWater 0 255 0\n", "name water is there twice"),
        ("unchanged 255 255 255\nwater 0 0 255\ntree 0 0 255\n", r"colour \(0, 0, 255\) is there twice"),
        ("1 unchanged 255 255 255\n1 water 0 0 255\n", "index 1 is there twice"),
        ("water 0 0 255\ntree 0 255 0\n", "0 classes mean no change"),
        ("unchanged 255 255 255\nlava 255 0 0\n", "no model class for lava"),
        ("unchanged 1 1 1 0\nwater 0 0 0 1\n", "which of four numbers is the index"),
    ],
)
def test_faulty_class_tables(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "CLASS_Table.txt"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_class_table(path)


def test_a_missing_class_table_says_how_to_write_one(second: Path) -> None:
    (second / "CLASS_Table.txt").unlink()
    with pytest.raises(InputError, match="no class table; write one, a line a class: unchanged 255 255 255"):
        open_dataset(second)


def test_what_is_no_source(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no index"):
        open_dataset(tmp_path)
    with pytest.raises(InputError, match="no such index file"):
        open_dataset(tmp_path / "none.csv")
    with pytest.raises(OptionError, match="on error 'ignore': choose skip or stop"):
        open_dataset(tmp_path, on_error="ignore")


def test_second_as_published_goes_through_train_and_evaluate(
    official: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ("crop=32", "scales={ 4 = 1.0 }")
    settings = [f"samples.{s}" for s in small] + [f'data.train=["{official}#train"]', "data.validation=[]"]
    given = [part for setting in settings for part in ("--set", setting)]
    assert run(["train", "cpu-minutes", "--dry-run", "--device", "cpu", *given]) == 0
    messages = capsys.readouterr().err
    assert f"{official}#train: 6 pairs" in messages
    assert "at 4x, 32 px: SECOND_train_set/" in messages
    report = tmp_path / "report"
    where = ["--data", str(official / "SECOND_total_test"), "--split", "test", "-o", str(report)]
    assert run(["evaluate", *where, "--tile", "32", "--scale", "4", "--grid", "1", "--device", "cpu"]) == 0
    tiles = json.loads((report / "metrics.json").read_text())
    assert "test_00000" in json.dumps(tiles)
