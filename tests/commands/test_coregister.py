"""Co-registration from files to files, alone and within an upscale."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from PIL import Image
from rasterio.enums import ColorInterp
from scipy import ndimage

from geo_refdiff import upscale
from geo_refdiff.cli.main import run
from geo_refdiff.commands.coregister import coregister
from geo_refdiff.commands.detect_change import detect_change
from geo_refdiff.engine.conditions import ConditionReader
from geo_refdiff.errors import InputError, OptionError, ResumeError
from geo_refdiff.options import UpscaleOptions
from geo_refdiff.plan.aligning import unfit
from geo_refdiff.plan.planning import Planned, make_plan
from geo_refdiff.plan.records import Coregistration
from geo_refdiff.raster.window import Window
from geo_refdiff.sensor.sensor import SensorModel
from geo_refdiff.validate.validation import validate_product

MARGIN = 40
"""output pixels by which the reference reaches beyond the scene."""

Make = Callable[..., tuple[Path, Path]]


@pytest.fixture
def make(make_raster: Any, make_texture: Any) -> Make:
    """make(side, rows, cols, bend=...) -> (scene, reference), 8x. The reference's own georeference is `rows` and `cols`
    output pixels too far down and right; `bend`: scene pixels by which its middle is further down besides."""

    def build(side: int = 64, rows: int = 0, cols: int = 0, bend: float = 0.0, seed: int = 0) -> tuple[Path, Path]:
        full = side * 8 + 2 * MARGIN
        land = np.digitize(make_texture((3, full, full), seed=3, smooth=6.0), (0.2, 0.4, 0.6, 0.8)) * 45.0
        land += make_texture((3, full, full), seed=4) * 40 + 10
        inner = slice(MARGIN, MARGIN + side * 8)
        seen = SensorModel(8).observe(torch.from_numpy(land[:, inner, inner].astype(np.float32))[None])[0].numpy()
        old = land if not seed else make_texture((3, full, full), seed=seed) * 200 + 20
        if bend:
            at = np.arange(full, dtype=float)
            hill = np.exp(-((at[:, None] - full / 2) ** 2 + (at[None] - full / 2) ** 2) / (2 * (side * 2.0) ** 2))
            where = [at[:, None] - bend * 8 * hill, np.broadcast_to(at[None], (full, full))]
            old = np.stack([ndimage.map_coordinates(b, where, order=1, mode="nearest") for b in old])
        scene = make_raster("scene.tif", np.rint(seen).astype(np.uint8))
        with rasterio.open(scene) as dataset:
            corner = dataset.transform @ Affine.scale(1 / 8) @ Affine.translation(-MARGIN, -MARGIN)
        name = f"ref_{rows}_{cols}_{bend}_{seed}.tif"
        moved = corner @ Affine.translation(cols, rows)
        return scene, make_raster(name, np.rint(old).astype(np.uint8), transform=moved)

    return build


def described(out: Path) -> dict[str, Any]:
    properties: dict[str, Any] = json.loads(out.with_suffix(".json").read_text())["properties"]
    return properties


def pixels(path: Path) -> np.ndarray:
    with rasterio.open(path) as dataset:
        return np.asarray(dataset.read())


def plan(scene: Path, ref: Path, **options: Any) -> Planned:
    return make_plan(scene, ref, UpscaleOptions.of(**({"model": "matched-ref", "scale": 8} | options)))


def test_the_command_measures_reports_and_aligns(make: Make, tmp_path: Path, capsys: Any) -> None:
    scene, straight = make()
    _, ref = make(rows=11, cols=-6)
    out, report, picture = tmp_path / "aligned.tif", tmp_path / "report.json", tmp_path / "report.png"
    asked = ["coregister", str(scene), str(ref), "-o", str(out), "--report", str(report), "--picture", str(picture)]
    assert run(asked) == 0
    reported = capsys.readouterr().out
    assert "the reference's content is displaced by one shift" in reported
    result = json.loads(report.read_text())
    assert (result["verdict"], result["kind"], result["scale"]) == ("registered", "global", 8)
    assert result["shift"]["scene_pixels"] == pytest.approx([11 / 8, -6 / 8], abs=0.05)
    assert result["shift"]["output_pixels"] == pytest.approx([11, -6], abs=0.4)
    assert result["shift"]["crs_units"] == pytest.approx([-30, -55], abs=2)  # x to the west, y to the south
    residual = result["residual_scene_pixels"]
    assert residual["before"] > 1
    assert residual["after"] is None, "64 scene pixels hold no places to measure it at"
    with rasterio.open(out) as aligned, rasterio.open(scene) as lr:
        assert aligned.shape == (512, 512)
        assert aligned.transform.almost_equals(lr.transform @ Affine.scale(1 / 8))
        assert (aligned.dtypes, aligned.crs) == (("uint8",) * 3, lr.crs)
        assert aligned.dataset_mask()[8:-8, 8:-8].all()
    inner = slice(16, -16)
    truth = pixels(straight)[:, MARGIN:-MARGIN, MARGIN:-MARGIN].astype(float)
    left = np.abs(pixels(out).astype(float) - truth)[:, inner, inner].mean()
    unaligned = np.abs(np.roll(truth, (11, -6), (1, 2)) - truth)[:, inner, inner].mean()
    assert left < 0.15 * unaligned
    with Image.open(picture) as image:
        assert min(image.size) > 500

    assert run([*asked, "--json"]) == 1  # nothing is replaced unasked
    assert "exists already" in capsys.readouterr().err
    assert run([*asked, "--overwrite", "--json", "--mode", "global"]) == 0
    assert json.loads(capsys.readouterr().out)["files"]["out"] == str(out)


def test_what_remains_in_a_small_scene_is_not_reported_as_nothing(make: Make, tmp_path: Path, capsys: Any) -> None:
    scene, ref = make(56, rows=11, cols=-6)
    picture, out = tmp_path / "p.png", tmp_path / "o.tif"
    assert run(["coregister", str(scene), str(ref), "--picture", str(picture)]) == 0
    assert "  the scene is too small to measure what remains\n" in capsys.readouterr().out
    assert picture.stat().st_size > 1000
    upscale(scene, ref=ref, model="matched-ref", out=out, products="report,stac")
    assert described(out)["geo_refdiff:coregistration"]["residual_scene_pixels"]["after"] is None
    assert "scene pixels; the scene is too small to measure what remains" in out.with_suffix(".html").read_text()
    checked = validate_product(out, scene, reference=ref)
    assert "the scene is too small to measure what remains" in str(checked)
    assert checked.reference["registration"]["after"] is None


def test_near_infrared_flagged_as_alpha_stays_data(make: Make, make_raster: Any, tmp_path: Path) -> None:
    scene, ref = make()
    with rasterio.open(ref) as dataset:
        values, place = dataset.read(), dataset.transform
    values = np.concatenate([values, np.where(values[:1] < 90, 0, values[:1])])
    colours = (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha)
    four = make_raster("four.tif", values, transform=place, colorinterp=colours, alpha="yes", photometric="rgb")
    coregister(scene, four, tmp_path / "aligned.tif")
    with rasterio.open(tmp_path / "aligned.tif") as aligned:
        assert [c.name for c in aligned.colorinterp] == ["red", "green", "blue", "undefined"]
        assert aligned.dataset_mask().all()
        assert (aligned.read(4) == 0).any()


def test_the_picture_is_stretched_over_valid_pixels(make: Make, make_raster: Any, tmp_path: Path) -> None:
    scene, ref = make()
    with rasterio.open(scene) as dataset:
        values = dataset.read().astype(np.int16)
    values[:, :20] = -9999
    holes = make_raster("holes.tif", values, nodata=-9999)
    coregister(holes, ref, picture=tmp_path / "p.png")
    with Image.open(tmp_path / "p.png") as image:
        panel = np.asarray(image.convert("L"))[: image.height // 2, : image.width // 2][-200:-20, 20:-20]
    assert 60 < panel.mean() < 190
    assert panel.std() > 30


def test_a_reference_in_another_crs(make: Make, reprojected: Callable[[Path, str], Path]) -> None:
    scene, ref = make(rows=-5, cols=12)
    result = coregister(scene, reprojected(ref, "EPSG:4326")).registration
    assert result.shift == pytest.approx((-5 / 8, 12 / 8), abs=0.06)


def test_what_does_not_match_is_refused(make: Make, tmp_path: Path) -> None:
    scene, other = make(96, seed=9)
    with pytest.raises(InputError, match=r"not registered \(mismatch\): the images do not match"):
        coregister(scene, other, tmp_path / "out.tif", report=tmp_path / "report.json")
    assert not (tmp_path / "out.tif").exists()
    assert json.loads((tmp_path / "report.json").read_text())["verdict"] == "mismatch"

    with pytest.raises(InputError, match=r"is not registered: .*say --on-misregistration no-ref"):
        plan(scene, other)
    without = plan(scene, other, model="bicubic-ibp").plan
    assert without.coregistration.verdict == "off"  # nobody looks at the reference
    refused = plan(scene, other, model="default", on_misregistration="no-ref")
    assert refused.plan.reference is None
    assert refused.plan.coregistration.unused
    assert any("it is not used" in note for note in refused.notes)
    taken = plan(scene, other, coregister="off").plan
    assert taken.reference is not None
    assert taken.coregistration.verdict == "off"


def test_too_little_to_tell(make_pair: Any) -> None:
    scene, ref = make_pair(20, 20)
    result = plan(scene, ref)
    assert result.plan.coregistration.verdict == "too small"
    assert result.plan.coregistration.displacement.is_zero
    assert "the reference is taken by its own georeference" in result.notes
    with pytest.raises(InputError, match="400 scene pixels valid in both images are too few"):
        plan(scene, ref, coregister="global")


def test_a_black_or_flat_reference_is_not_used(make: Make, make_raster: Any, tmp_path: Path) -> None:
    scene, ref = make(28)
    without = upscale(scene, scale=8, out=tmp_path / "without.tif")
    for value in (0, 90):
        with rasterio.open(ref) as dataset:
            flat = np.full((3, *dataset.shape), value, np.uint8)
            reference = make_raster("flat.tif", flat, transform=dataset.transform)
        options: dict[str, Any] = {"ref": reference, "products": ["source", "stac"]}
        done = upscale(scene, out=tmp_path / f"auto{value}.tif", **options)
        np.testing.assert_array_equal(pixels(done.out), pixels(without.out))
        said = "the reference does not look like the scene, either (correlation 0.00): it is not used"
        assert said in done.notes
        assert not any("is taken by its own georeference" in note for note in done.notes)
        assert described(done.out)["geo_refdiff:notes"] == list(done.notes)
        assert described(done.out)["geo_refdiff:sources"]["reference"] == 0

        kept = upscale(scene, out=tmp_path / f"off{value}.tif", coregister="off", **options)
        assert any("agrees poorly with the scene (correlation 0.00 in band 1)" in note for note in kept.notes)
        assert described(kept.out)["geo_refdiff:sources"]["reference"] == 0  # what says nothing gives no detail


def test_a_small_reference_of_another_place_is_not_used(make: Make) -> None:
    scene, ref = make(28)
    other = make(28, seed=9)[1]
    turned = pixels(ref)[:, ::-1, ::-1]
    assert plan(scene, ref).plan.reference is not None
    with rasterio.open(ref, "r+") as dataset:
        dataset.write(np.ascontiguousarray(turned))
    for wrong in (ref, other):
        result = plan(scene, wrong, model="default")
        assert result.plan.reference is None
        assert result.dropped is not None
        assert result.dropped.startswith("the reference does not look like the scene, either (correlation ")
        kept = plan(scene, wrong, coregister="off").plan
        assert kept.reference is not None
        undecided = Coregistration("auto", "too small")
        for correlations, used in (((0.6, 0.45, 0.42), False), ((0.6, 0.5, 0.46), True)):
            fitted = replace(kept.radiometry, correlation=correlations)
            assert (unfit(fitted, undecided, kept.scene, kept.reference) is None) == used
            assert unfit(fitted, Coregistration("auto", "registered"), kept.scene, kept.reference) is None


def test_the_source_map_tells_a_wrong_reference_that_nobody_registered(make: Make, tmp_path: Path) -> None:
    def share(reference: Path, name: str) -> float:
        done = upscale(
            scene, ref=reference, out=tmp_path / name, coregister="off", products=["source", "stac"], model="default"
        )
        return float(described(done.out)["geo_refdiff:sources"]["reference"])

    scene, reference = make(28)
    right = share(reference, "right.tif")
    assert share(make(28, seed=9)[1], "other place.tif") < 0.2 * right
    image = pixels(reference)
    turned = {"quarter": np.rot90(image, 1, (1, 2)), "half": image[:, ::-1, ::-1], "mirrored": image[..., ::-1]}
    for name, wrong in turned.items():
        with rasterio.open(reference, "r+") as dataset:
            dataset.write(np.ascontiguousarray(wrong))
        assert share(reference, f"{name}.tif") < 0.2 * right, name


def test_upscale_with_a_shifted_reference_and_mask(make: Make, tmp_path: Path) -> None:
    scene, straight = make()
    _, ref = make(rows=-13, cols=9)
    options: dict[str, Any] = {"model": "matched-ref", "scale": 8}
    truth = pixels(upscale(scene, ref=straight, out=tmp_path / "a.tif", **options).out).astype(float)
    moved = upscale(scene, ref=ref, out=tmp_path / "b.tif", **options)
    assert any("the reference is moved by" in note for note in moved.notes)
    off = upscale(scene, ref=ref, out=tmp_path / "c.tif", coregister="off", **options).out
    inner = slice(24, -24)
    left, unmoved = (np.abs(pixels(path).astype(float) - truth)[:, inner, inner].mean() for path in (moved.out, off))
    assert left < 3.0
    assert left < 0.2 * unmoved


@pytest.mark.parametrize("kind", ["raster", "polygons"])
def test_the_mask_moves_with_the_reference(make: Make, make_raster: Any, tmp_path: Path, kind: str) -> None:
    import geopandas
    import shapely

    scene, straight = make()
    _, ref = make(rows=-13, cols=9)
    seen = []
    for path in (straight, ref):
        with rasterio.open(path) as dataset:
            transform, shape = dataset.transform, dataset.shape
        mask = tmp_path / f"{path.stem}_mask.gpkg"
        if kind == "raster":
            classes = np.zeros((1, *shape), np.uint8)
            classes[:, 200:330, 150:420] = 3
            mask = make_raster(f"{path.stem}_mask.tif", classes, transform=transform)
        else:
            corners = [transform @ xy for xy in ((150, 200), (420, 200), (420, 330), (150, 330))]
            frame = geopandas.GeoDataFrame({"now": [3]}, geometry=[shapely.Polygon(corners)], crs="EPSG:26914")
            frame.to_file(mask)
        field = {"mask_field": "now", "mask_lies_on": "ref"} if kind == "polygons" else {}
        result = plan(scene, path, mask=mask, model="default", **field)
        with ConditionReader(result.plan, result.restorer) as reader:
            assert reader.mask is not None
            seen.append(reader.mask.read(Window(0, 0, 512, 512)) == 3)
    rows, cols = (np.flatnonzero(s.any(axis=a))[[0, -1]] for a in (1, 0) for s in seen[:1])
    assert rows.tolist() == [160, 289]
    assert cols.tolist() == [110, 379]
    assert (seen[0] != seen[1]).mean() < 0.005  # less than a pixel along the rim


@pytest.mark.parametrize("kind", ["raster", "polygons"])
@pytest.mark.parametrize("said", ["auto", "scene", "ref"])
def test_a_mask_that_lies_on_the_scene_stays_there(make: Make, tmp_path: Path, said: str, kind: str) -> None:
    scene, _ = make()
    _, ref = make(rows=-13, cols=9)
    mask = tmp_path / ("change.tif" if kind == "raster" else "change.gpkg")
    field = {}
    with rasterio.open(scene) as dataset:
        profile = dataset.profile | {"count": 1, "nodata": None}
    if kind == "raster":
        with rasterio.open(mask, "w", **profile) as dataset:
            dataset.write(np.pad(np.full((10, 20), 3, np.uint8), ((20, 34), (15, 29)))[None])
    else:
        import geopandas
        import shapely

        corners = [profile["transform"] @ xy for xy in ((15, 20), (35, 20), (35, 30), (15, 30))]
        frame = geopandas.GeoDataFrame({"now": [3]}, geometry=[shapely.Polygon(corners)], crs="EPSG:26914")
        frame.to_file(mask)
        field = {"mask_field": "now"}
    result = plan(scene, ref, mask=mask, model="default", mask_lies_on=said, **field)
    with ConditionReader(result.plan, result.restorer) as reader:
        assert reader.mask is not None
        at = reader.mask.read(Window(0, 0, 512, 512)) == 3
    corner = [int(np.flatnonzero(at.any(axis=a))[0]) for a in (1, 0)]
    shift = [rows - full for rows, full in zip(corner, (160, 120), strict=True)]
    assert max(abs(s - (0 if said != "ref" else t)) for s, t in zip(shift, (13, -9), strict=True)) <= 1
    where = "is moved with the reference" if said == "ref" else "is aligned with the scene"
    assert any(f"the mask {where}; say --mask-lies-on" in note for note in result.notes)


def test_what_detect_change_finds_is_used_where_it_was_found(make: Make, tmp_path: Path) -> None:
    scene, _ = make()
    _, ref = make(rows=-13, cols=9)
    mask = detect_change(scene, ref, tmp_path / "change.tif", bands=[1, 2, 3], scale=8)
    result = plan(scene, ref, mask=mask.out, model="default")
    assert result.plan.mask is not None
    assert result.plan.mask.on_scene
    with ConditionReader(result.plan, result.restorer) as reader:
        assert reader.mask is not None
        used = reader.mask.read(Window(0, 0, 512, 512))
    with rasterio.open(mask.out) as dataset:
        assert (used == dataset.read(1).repeat(8, 0).repeat(8, 1)).all()


def test_without_a_fit_reference_no_change_is_looked_for_and_the_reason_is_reported(
    make: Make, make_raster: Any, tmp_path: Path
) -> None:
    scene, ref = make()
    with rasterio.open(ref) as dataset:
        black = make_raster("black.tif", np.zeros(dataset.read().shape, np.uint8), transform=dataset.transform)
    with pytest.raises(InputError, match=r"black\.tif: no change can be looked for: the reference does not look like"):
        detect_change(scene, black, tmp_path / "c.tif", bands=[1, 2, 3], scale=8)
    scene, other = make(128, seed=9)
    with pytest.raises(InputError, match="no change can be looked for: the reference is not registered"):
        detect_change(scene, other, tmp_path / "c.tif", bands=[1, 2, 3], scale=8)
    assert not (tmp_path / "c.tif").exists()
    scene, _ = make()
    asked = plan(scene, black, mask="auto", model="default")
    assert asked.plan.mask is None
    assert "without a reference no change can be looked for" in asked.notes
    assert plan(scene, black, model="default").plan.mask is None


def test_holes_in_a_reference_leave_its_radiometry_alone(make: Make, make_raster: Any) -> None:
    scene, ref = make()
    with rasterio.open(ref) as dataset:
        values, transform = dataset.read().clip(1, 255), dataset.transform
    bright = (values.astype(np.uint16) * 40 + 500).astype(np.uint16)
    scattered = np.random.default_rng(1).random(values.shape[1:]) < 0.02  # in nearly every place that the sensor sees
    fits = []
    for name, holes in (("whole", np.zeros_like(scattered)), ("holes", scattered)):
        path = make_raster(f"{name}.tif", np.where(holes, 0, bright), transform=transform, nodata=0)
        fits.append(plan(scene, path, model="default").plan.radiometry)
    whole, holes_fit = fits
    assert holes_fit.pixels > 0.9 * whole.pixels > 1000
    assert np.allclose(holes_fit.gain, whole.gain, rtol=0.02)
    assert np.allclose(holes_fit.offset, whole.offset, atol=1.0)


def test_a_reference_of_other_units_with_too_little_in_common_is_not_used(make: Make, make_raster: Any) -> None:
    scene, ref = make()
    with rasterio.open(ref) as dataset:
        values, transform = dataset.read().astype(np.uint16) * 40 + 500, dataset.transform
    values[:, :, MARGIN + 3 :] = 0
    path = make_raster("sliver.tif", values, transform=transform, nodata=0)
    result = plan(scene, path, model="default", coregister="off")
    assert result.plan.reference is None
    assert any("too few common pixels" in note and "it is not used" in note for note in result.notes)
    with pytest.raises(OptionError, match="matched-ref needs a reference, but too few common pixels"):
        plan(scene, path, model="matched-ref", coregister="off")


def test_a_field_is_the_same_for_every_block_layout(make: Make, tmp_path: Path) -> None:
    scene, ref = make(128, rows=5, cols=3, bend=1.2)
    options: dict[str, Any] = {"model": "matched-ref", "scale": 8, "ref": ref, "coregister": "local"}
    result = plan(scene, ref, coregister="local")
    assert result.plan.coregistration.kind == "local"
    with ConditionReader(result.plan, result.restorer) as reader:
        assert reader.reference is not None
        whole, known = reader.reference.read(Window(0, 0, 1024, 1024))
    for window in (Window(300, 420, 90, 333), Window(0, 511, 513, 2), Window(900, 7, 124, 310)):
        with ConditionReader(result.plan, result.restorer) as reader:
            assert reader.reference is not None
            part, valid = reader.reference.read(window)
        at = window.within(Window(0, 0, 1024, 1024))
        np.testing.assert_array_equal(part, whole[:, at[0], at[1]])
        np.testing.assert_array_equal(valid, known[at])
    # and it is right: the bend is gone
    _, straight = make(128)
    truth = pixels(straight)[:, MARGIN:-MARGIN, MARGIN:-MARGIN].astype(float)
    one = plan(scene, ref, coregister="global")
    with ConditionReader(one.plan, one.restorer) as reader:
        assert reader.reference is not None
        single, _ = reader.reference.read(Window(0, 0, 1024, 1024))
    inner = (slice(None), slice(40, -40), slice(40, -40))
    left, other = (np.abs(image - truth)[inner].mean() for image in (whole, single))
    assert left < 0.6 * other
    # an area of interest, in small blocks
    with rasterio.open(scene) as dataset:
        (x0, y0), (x1, y1) = (dataset.transform @ at for at in ((61, 97), (100, 50)))
    aoi = f"{x0},{y0},{x1},{y1}"
    parts = [
        pixels(upscale(scene, out=tmp_path / f"{size}.tif", aoi=aoi, block_size=size, **options).out)
        for size in (512, 112)
    ]
    np.testing.assert_array_equal(*parts)


def test_a_residual_beyond_the_limit(make: Make) -> None:
    scene, ref = make(128, bend=1.5)
    with pytest.raises(InputError, match=r"places more than 0\.3; try --coregister local"):
        plan(scene, ref, coregister="global", max_residual=0.3)
    kept = plan(scene, ref, coregister="global", max_residual=0.3, on_misregistration="no-ref")
    assert kept.plan.reference is not None
    assert kept.plan.coregistration.dropped
    area = Window(0, 0, 1024, 1024)
    part = kept.plan.coregistration.kept(area, 8)
    assert part is not None
    assert 0 < (~part).mean() < 0.6
    with ConditionReader(kept.plan, kept.restorer) as reader:
        row, col = kept.plan.grid.origin
        used = reader.conditions(reader.read((area.shift(8 * row, 8 * col),))).ref
    assert used is not None
    known = np.isfinite(np.asarray(used[0, 0]))
    assert not known[~part].any()
    assert known[part].mean() > 0.95
    fine = plan(scene, ref, coregister="local", max_residual=0.3).plan.coregistration
    assert (fine.kind, fine.dropped) == ("local", ())


def test_resume_keeps_the_field(make: Make, tmp_path: Path) -> None:
    scene, ref = make(rows=7, cols=-4)
    out = tmp_path / "out.tif"
    options: dict[str, Any] = {"model": "matched-ref", "scale": 8, "out": out}
    assert plan(scene, ref).plan.digest == plan(scene, ref).plan.digest
    planned = upscale(scene, ref=ref, plan_only=True, **options)
    assert planned.plan_path is not None
    recorded = json.loads(planned.plan_path.read_text())["coregistration"]
    assert recorded["displacement"]["matrix"][2] == pytest.approx(7 / 8, abs=0.05)
    with pytest.raises(ResumeError, match="coregistration"):
        upscale(scene, ref=ref, resume=True, coregister="off", **options)
    first = pixels(upscale(scene, ref=ref, resume=True, **options).out)
    again = pixels(upscale(scene, ref=ref, model="matched-ref", scale=8, out=tmp_path / "again.tif").out)
    np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize(
    ("options", "reported"),
    [
        ({"coregister": "some"}, "coregister 'some': choose auto, global, local, off"),
        ({"on_misregistration": "go"}, "on misregistration 'go': choose stop or no-ref"),
        ({"max_residual": 0.0}, "max residual 0: give a number of scene pixels above 0"),
        ({"max_residual": float("nan")}, "max residual nan: give a number of scene pixels above 0"),
    ],
)
def test_bad_options(make_pair: Any, options: dict[str, Any], reported: str) -> None:
    scene, ref = make_pair()
    with pytest.raises(OptionError) as error:
        plan(scene, ref, **options)
    assert str(error.value) == reported


@pytest.mark.parametrize(
    ("arguments", "reported"),
    [
        (["--mode", "wild"], "mode 'wild': choose auto, global, local, affine"),
        (["--scale", "0"], "scale 0: give a whole number from 1 to"),
        (["--bands", "7"], "7"),
        (["-o", "same.tif", "--report", "same.tif"], "two outputs have the same name"),
        (["-o", "SCENE"], "is one of the inputs"),
        (["-o", "nowhere/out.tif"], "nowhere"),
    ],
)
def test_bad_commands(make_pair: Any, capsys: Any, arguments: list[str], reported: str) -> None:
    scene, ref = make_pair()
    told_arguments = [str(scene) if a == "SCENE" else a for a in arguments]
    assert run(["coregister", str(scene), str(ref), *told_arguments]) in (1, 2)
    error = capsys.readouterr().err.strip()
    assert reported in error
    assert "\n" not in error
