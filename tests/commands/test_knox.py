"""A real scene: lakes and fields of North Dakota, 2018 seen at 40 m, with the reference of 2012 at 5 m."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from shutil import which

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from rio_cogeo.cogeo import cog_validate

from geo_refdiff import upscale
from geo_refdiff.plan.file import read_plan
from geo_refdiff.raster.geobox import compose
from geo_refdiff.raster.window import Window
from geo_refdiff.sensor.sensor import SensorModel

pytestmark = pytest.mark.slow

BANDS = ("red", "green", "blue", "nir")


@pytest.fixture(scope="module")
def knox(request: pytest.FixtureRequest) -> Path:
    folder: Path = request.getfixturevalue("shared_data") / "naip-knox"
    if not (folder / "2018.tif").exists():
        pytest.skip(f"no real scene at {folder}: set GEO_REFDIFF_DATA")
    return folder


MakeScene = Callable[..., Path]


@pytest.fixture
def make_scene(knox: Path, tmp_path: Path) -> MakeScene:
    """2018 at 40 m as a scene: make_scene(rows=90, cols=116, dtype="uint8", turn=Affine) -> path."""

    def make(rows: int = 90, cols: int = 116, dtype: str = "uint8", south_up: bool = False, angle: float = 0.0) -> Path:
        with rasterio.open(knox / "2018.tif") as source:
            truth, transform = source.read(), source.transform
        # odd shapes reach beyond the image: they repeat its border
        truth = np.pad(truth, ((0, 0), (0, 24), (0, 24)), mode="edge")[:, : rows * 8, : cols * 8]
        seen = SensorModel(8).observe(torch.from_numpy(truth.astype(np.float32))[None])[0].numpy()
        transform = compose(transform, Affine.scale(8))
        if south_up:
            seen = seen[:, ::-1]
            transform = compose(transform, Affine(1, 0, 0, 0, -1, rows))
        if angle:
            transform = compose(transform, Affine.rotation(angle))
        nodata: float | None = 0
        if dtype == "uint8":
            values = np.clip(np.rint(seen), 1, 255)
        elif dtype == "uint16":
            values = np.rint(seen * 39.0 + 250)
        else:
            values, nodata = seen / 255.0, np.nan
        values = np.ascontiguousarray(values.astype(dtype))
        values[:, 3:9, 20:39] = nodata
        path = tmp_path / "scene.tif"
        profile = {"driver": "GTiff", "count": 4, "height": rows, "width": cols, "dtype": dtype, "nodata": nodata}
        profile |= {"crs": "EPSG:26914", "transform": transform, "photometric": "minisblack", "alpha": "no"}
        with rasterio.open(path, "w", **profile) as target:
            target.write(values)
            target.descriptions = BANDS
        return path

    return make


def check_product(scene: Path, out: Path, epsg: int = 26914) -> None:
    """The promises that hold for every output."""
    with rasterio.open(scene) as lr, rasterio.open(out) as hr:
        assert hr.crs.to_epsg() == epsg
        assert hr.shape == (8 * lr.height, 8 * lr.width)
        assert hr.transform.almost_equals(compose(lr.transform, Affine.scale(1 / 8)), precision=1e-9)
        assert hr.dtypes == lr.dtypes
        assert hr.descriptions == BANDS
        np.testing.assert_array_equal(hr.dataset_mask(), lr.dataset_mask().repeat(8, 0).repeat(8, 1))
        assert hr.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        values, low = hr.read(masked=True).astype(float), lr.read(masked=True).astype(float)
    valid, errors, warnings = cog_validate(str(out), strict=True)
    assert (valid, errors, warnings) == (True, [], [])
    seen = values.reshape(4, low.shape[1], 8, low.shape[2], 8).mean(axis=(2, 4))
    spread = float(low.std())
    assert float(np.ma.abs(seen - low).mean()) < 0.15 * spread  # the radiometry means something


@pytest.mark.parametrize("crs", [None, "EPSG:4326", "EPSG:26913"])
def test_the_model_with_a_reference_in_any_crs(
    knox: Path, make_scene: MakeScene, reprojected: Callable[[Path, str], Path], tmp_path: Path, crs: str | None
) -> None:
    scene = make_scene(rows=45, cols=60)
    reference = knox / "2012.tif" if crs is None else reprojected(knox / "2012.tif", crs)
    out = upscale(scene, ref=reference, out=tmp_path / "out.tif", scale=8, device="cpu").out
    check_product(scene, out)
    if which("gdalinfo"):
        reported = subprocess.run(["gdalinfo", str(out)], capture_output=True, text=True, check=True)
        assert 'ID["EPSG",26914]' in reported.stdout
        assert "Warning" not in reported.stderr


def test_the_model_with_a_mask_and_without(knox: Path, make_scene: MakeScene, tmp_path: Path) -> None:
    scene = make_scene(rows=45, cols=60)
    with rasterio.open(knox / "2012.tif") as old:
        classes = np.zeros((1, *old.shape), np.uint8)
        classes[:, 100:240, 120:330] = 1
        profile = old.profile | {"count": 1, "nodata": None}
    with rasterio.open(tmp_path / "mask.tif", "w", **profile) as target:
        target.write(classes)
    images = []
    for mask in (tmp_path / "mask.tif", None):
        out = upscale(scene, ref=knox / "2012.tif", mask=mask, out=tmp_path / "out.tif", overwrite=True).out
        check_product(scene, out)
        with rasterio.open(out) as dataset:
            images.append(dataset.read())
    assert (images[0] != images[1]).any()


@pytest.mark.parametrize("model", ["bicubic-ibp", "matched-ref"])
@pytest.mark.parametrize(
    "kind",
    [
        {},
        {"south_up": True},
        {"angle": 17.0},
        {"rows": 91, "cols": 117},
        {"dtype": "uint16"},
        {"dtype": "float32"},
    ],
    ids=["plain", "south-up", "rotated", "91x117", "uint16", "float32 NaN"],
)
def test_every_kind_of_scene_through_the_baselines(
    knox: Path, make_scene: MakeScene, tmp_path: Path, model: str, kind: dict[str, object]
) -> None:
    scene = make_scene(**kind)
    move = "off" if "angle" in kind else "auto"  # the grid is turned, its content is not
    out = upscale(scene, ref=knox / "2012.tif", out=tmp_path / "out.tif", model=model, coregister=move).out
    check_product(scene, out)


@pytest.mark.parametrize(
    "kind",
    [{"south_up": True}, {"angle": 17.0}, {"dtype": "uint16"}, {"dtype": "float32"}],
    ids=["south-up", "rotated", "uint16", "float32 NaN"],
)
def test_every_kind_of_scene_through_the_model(
    knox: Path, make_scene: MakeScene, tmp_path: Path, kind: dict[str, object]
) -> None:
    scene = make_scene(rows=27, cols=45, **kind)
    check_product(scene, upscale(scene, ref=knox / "2012.tif", out=tmp_path / "out.tif").out)


def cross_fade_gradients(
    scene: Path, reference: Path, folder: Path, window: int
) -> tuple[np.ndarray, list[np.ndarray]]:
    """The image and, along rows and columns, whether a place is in a cross-fade of its windows."""
    result = upscale(scene, ref=reference, out=folder / f"{window}.tif", window=window, keep=True)
    assert result.plan_path is not None
    plan = read_plan(result.plan_path)
    with rasterio.open(result.out) as dataset:
        image = dataset.read(masked=True).astype(float)
    whole = plan.on_lattice(Window(0, 0, *plan.shape))
    fades = []
    for spans, size, start in zip(plan.windows.windows(whole, whole), plan.shape, (whole.row, whole.col), strict=True):
        place = np.arange(1, size) + start
        fades.append(np.any([(b.start <= place) & (place <= a.stop) for a, b in pairwise(spans)], axis=0))
    return image, fades


def test_windows_leave_no_seams(knox: Path, make_scene: MakeScene, tmp_path: Path) -> None:
    """Gradients in the cross-fades over those at the same places of a run whose windows lie elsewhere."""
    scene = make_scene(rows=60, cols=72)
    image, fades = cross_fade_gradients(scene, knox / "2012.tif", tmp_path, 256)
    other, other_fades = cross_fade_gradients(scene, knox / "2012.tif", tmp_path, 288)
    across, same_places = [], []
    for axis in (0, 1):
        only_here = fades[axis] & ~other_fades[axis]
        assert only_here.sum() > 60
        for gradients, source in ((across, image), (same_places, other)):
            gradient = np.ma.abs(np.diff(source, axis=axis + 1)).mean(axis=(0, 2 - axis))
            gradients.append(gradient[only_here])
    assert 0.98 < float(np.concatenate(across).mean() / np.concatenate(same_places).mean()) < 1.02
