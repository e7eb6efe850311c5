"""Zero valid pixels lost, zero invented, however scene, reference and mask tell their missing pixels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.enums import ColorInterp

from geo_refdiff import upscale

SCALE = 4
BANDS = ("red", "green", "blue")
WAYS = ("none", "nodata", "nan", "alpha", "mask")


def write(path: Path, values: np.ndarray, hole: np.ndarray, way: str, pixel: float, dtype: str) -> Path:
    """Values (C, h, w) in 20..200 whose missing pixels `hole` (h, w) are reported in one of `WAYS`."""
    kind = "float32" if way == "nan" else dtype
    array, count = values.astype(kind), len(values)
    profile: dict[str, Any] = {
        "driver": "GTiff", "count": count + (way == "alpha"), "height": values.shape[1], "width": values.shape[2],
        "dtype": kind, "crs": "EPSG:32633", "transform": Affine(pixel, 0, 5e5, 0, -pixel, 5e6),
        "photometric": "minisblack", "alpha": "unspecified" if way == "alpha" else "no",
    }  # fmt: skip
    if way == "nodata":
        array[:, hole] = profile["nodata"] = 0
    elif way == "nan":
        array[:, hole] = np.nan
    elif way in ("alpha", "mask"):
        array[:, hole] = 77  # what is under a mask is as good as any value
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "w", **profile) as dataset:
        dataset.write(array, list(range(1, count + 1)))
        if count == 3:
            dataset.descriptions = BANDS + (("",) if way == "alpha" else ())
        if way == "alpha":
            top = np.iinfo(kind).max
            dataset.write(np.where(hole, 0, top).astype(kind), count + 1)
            dataset.colorinterp = (ColorInterp.undefined,) * count + (ColorInterp.alpha,)
        if way == "mask":
            dataset.write_mask(np.where(hole, 0, 255).astype(np.uint8))
    return path


def holes(seed: int, share: float, height: int, width: int) -> np.ndarray:
    """A block and scattered pixels, never all of it."""
    rng = np.random.default_rng(seed)
    hole = rng.random((height, width)) < share
    row, col = rng.integers(0, height), rng.integers(0, width)
    hole[row : row + height // 4, col : col + width // 3] = share > 0
    hole[height // 2, width // 2] = False
    return hole


CASES = {
    "scene": st.sampled_from(WAYS),
    "ref": st.sampled_from((*WAYS, "absent")),
    "mask": st.sampled_from(("none", "nodata", "mask", "absent")),
    "dtype": st.sampled_from(("uint8", "uint16")),
    "seed": st.integers(0, 1000),
    "share": st.sampled_from((0.0, 0.05, 0.4)),
}


def check(folder: Path, model: Any, consistency: str | None, case: dict[str, Any], **options: Any) -> None:
    """Upscales such a case and compares what is valid, pixel by pixel."""
    rng, (height, width) = np.random.default_rng(case["seed"]), (9, 11)
    fine = 20 + 180 * rng.random((3, height * SCALE, width * SCALE))
    lr = fine.reshape(3, height, SCALE, width, SCALE).mean(axis=(2, 4))
    hole = holes(case["seed"], case["share"], height, width)
    if case["scene"] == "none":
        hole[:] = False
    scene = write(folder / "scene.tif", np.rint(lr), hole, case["scene"], 4.0, case["dtype"])
    if case["ref"] != "absent":
        gone = holes(case["seed"] + 1, case["share"], height * SCALE, width * SCALE)
        options["ref"] = write(folder / "ref.tif", np.rint(fine), gone, case["ref"], 1.0, case["dtype"])
    if case["mask"] != "absent" and model != "matched-ref":
        gone = holes(case["seed"] + 2, case["share"], height * SCALE, width * SCALE)
        classes = rng.integers(1, 3, (1, height * SCALE, width * SCALE))
        options["mask"] = write(folder / "mask.tif", classes, gone, case["mask"], 1.0, "uint8")
    if model == "matched-ref" and case["ref"] == "absent":
        model = "bicubic-ibp"
    out = upscale(
        scene, out=folder / "out.tif", model=model, scale=SCALE, consistency=consistency, coregister="off",
        overwrite=True, products="source", **options,
    ).out  # fmt: skip
    wanted = np.kron(~hole, np.ones((SCALE, SCALE))) > 0
    with rasterio.open(out) as dataset:
        valid, image = dataset.dataset_mask() > 0, dataset.read()
    assert int((wanted & ~valid).sum()) == 0, "valid pixels were lost"
    assert int((valid & ~wanted).sum()) == 0, "valid pixels were invented"
    assert np.isfinite(image[:, wanted]).all()
    low, high = (-500, 1000) if image.dtype.kind == "f" else (np.iinfo(image.dtype).min, 1000)
    assert low <= image[:, wanted].min()
    assert image[:, wanted].max() < high  # nothing of 65535 or of what is under a mask has leaked
    with rasterio.open(out.with_suffix(".source.tif")) as dataset:
        np.testing.assert_array_equal(dataset.read(1) > 0, wanted)
    if case["ref"] == "absent":
        with rasterio.open(out.with_suffix(".source.tif")) as dataset:
            assert not (dataset.read(1) == 1).any()


@settings(max_examples=24)
@given(case=st.fixed_dictionaries(CASES), consistency=st.sampled_from(("standard", "strict", "off")))
def test_no_pixel_is_lost_or_invented(
    tmp_path_factory: pytest.TempPathFactory, case: dict[str, Any], consistency: str
) -> None:
    check(tmp_path_factory.mktemp("n"), "matched-ref", consistency, case)


@settings(max_examples=8)
@given(case=st.fixed_dictionaries(CASES), blocks=st.sampled_from((16, 2048)))
def test_no_pixel_is_lost_or_invented_by_a_network(
    tmp_path_factory: pytest.TempPathFactory, tiny_for_all: Path, case: dict[str, Any], blocks: int
) -> None:
    check(tmp_path_factory.mktemp("n"), tiny_for_all, None, case, block_size=blocks)


@pytest.mark.parametrize("way", [w for w in WAYS if w != "none"])
def test_each_way_by_itself(tmp_path: Path, way: str) -> None:
    """In scene, reference and both: every way at least once, whatever hypothesis draws."""
    for scene, ref in ((way, "none"), ("none", way), (way, way)):
        case = {"scene": scene, "ref": ref, "mask": "absent", "dtype": "uint8", "seed": 3, "share": 0.4}
        check(tmp_path, "matched-ref", None, case)


@pytest.fixture(scope="module")
def tiny_for_all(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network with random weights."""
    from geo_refdiff.diffusion.checkpoint import build_denoiser, decode_config, save_model

    config = {
        "architecture": "compact", "bands": list(BANDS), "classes": ["no change", "water", "building"],
        "network": {"unshuffle": 2, "widths": [8, 8], "full_width": 4, "hidden": 8, "embedding": 8},
        "halo": 8, "window": 64, "overlap": 8, "scales": [4], "sigma_data": 0.5,
        "sampler": {"name": "better-start", "steps": 1, "sigma_start": 0.2, "sigma_min": 0.1, "rho": 7},
    }  # fmt: skip
    made = build_denoiser(decode_config(config))
    return save_model(tmp_path_factory.mktemp("model") / "tiny", made.config, made.network.state_dict(), "For tests.\n")


@pytest.mark.parametrize("model", ["bicubic", "bicubic-ibp"])
@pytest.mark.parametrize("consistency", ["standard", "strict"])
def test_a_pixel_that_only_a_band_left_out_tells_apart_from_nodata_is_kept(
    make_raster: Callable[..., Path], tmp_path: Path, model: str, consistency: str
) -> None:
    values = np.random.default_rng(5).integers(1, 40, (4, 24, 24), dtype=np.uint8)
    values[:3, 6:12, 8:20] = 0  # deep water: nothing but near infrared says that it is there
    values[:, :3, :3] = 0
    scene = make_raster("scene.tif", values, nodata=0, names=("red", "green", "blue", "nir"))
    options: dict[str, Any] = {"model": model, "scale": 4, "consistency": consistency}
    out = upscale(scene, bands=["red", "green", "blue"], out=tmp_path / "o.tif", **options).out
    with rasterio.open(out) as dataset:
        valid = dataset.dataset_mask() > 0
    assert (valid == (values != 0).any(axis=0).repeat(4, 0).repeat(4, 1)).all()


def test_a_hole_in_one_band_of_real_numbers_stays_in_it(make_pair: Any, make_raster: Any, tmp_path: Path) -> None:
    """-9999 in one band of a reflectance product: no other band, pixel or overview sees it."""
    scene, _ = make_pair(96, 96)
    with rasterio.open(scene) as dataset:
        image = dataset.read().astype("float32") / 255
    image[1, 40:44, 50:53] = -9999
    hole = np.kron(image[1] == -9999, np.ones((8, 8))) > 0
    path = make_raster("floats.tif", image, nodata=-9999, names=("red", "green", "blue"))
    out = upscale(path, out=tmp_path / "out.tif", model="bicubic-ibp", scale=8, device="cpu").out
    with rasterio.open(out) as dataset:
        assert dataset.overviews(1) == [2]
        for band in (1, 2, 3):
            values, known = dataset.read(band), dataset.read_masks(band) > 0
            np.testing.assert_array_equal(known, ~hole if band == 2 else np.ones_like(hole))
            assert -0.2 < values[known].min() < values[known].max() < 1.2
    with rasterio.open(out, overview_level=0) as dataset:
        values = dataset.read(2)
        np.testing.assert_array_equal(values == -9999, hole[::2, ::2])
        assert values[values != -9999].min() > -0.2
