"""Beside the output: where detail comes from, a catalogue entry, a picture; bands that the model does not know."""

from __future__ import annotations

import base64
import io
import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely
from PIL import Image
from scipy.ndimage import uniform_filter

from geo_refdiff import upscale
from geo_refdiff.errors import OptionError, OutputError
from geo_refdiff.options import chosen_products

PRODUCTS = "source,stac,quicklook"


def read(path: Path) -> np.ndarray:
    with rasterio.open(path) as dataset:
        return dataset.read()


def test_source_map_of_a_classical_model(make_raster: Any, make_pair: Any, tmp_path: Path) -> None:
    scene, ref = make_pair(40, 48)
    with rasterio.open(ref) as dataset:
        old = dataset.read()
    old[:, :, 200:] = 0
    old[:, :, :200] = np.maximum(old[:, :, :200], 1)
    half = make_raster("half.tif", old, pixel=5.0, nodata=0, names=("red", "green", "blue"))
    out = upscale(scene, ref=half, model="matched-ref", out=tmp_path / "o.tif", products="source", scale=8).out
    classes = read(tmp_path / "o.source.tif")[0]
    assert set(np.unique(classes[:, :190])) == {1}
    assert set(np.unique(classes[:, 210:])) == {3}
    many = upscale(
        scene, ref=half, model="matched-ref", out=tmp_path / "m.tif", products=["source"], scale=8, block_size=80
    )
    np.testing.assert_array_equal(read(tmp_path / "m.source.tif")[0], classes)
    assert many.out != out
    with rasterio.open(tmp_path / "o.source.tif") as dataset:
        assert dataset.nodata == 0
        assert dataset.colormap(1)[1] == (27, 120, 55, 255)
        assert dataset.tags()["GEO_REFDIFF_CLASS_2"] == "generated"
        assert int(dataset.tags()["GEO_REFDIFF_PIXELS_REFERENCE"]) == (classes == 1).sum()
    names = [e.text for e in ET.parse(tmp_path / "o.source.tif.aux.xml").iter("Category")]
    assert names == ["nodata", "reference", "generated", "interpolated", "cloud"]
    style = (tmp_path / "o.source.qml").read_text()
    assert style.count("<paletteEntry") == 4
    assert 'label="generated"' in style


def test_source_map_of_a_diffusion_model(make_pair: Any, tiny_compact: Path, tmp_path: Path) -> None:
    """Without a sampler and without a reference, what the mean estimate adds to the scene is generated, if it shows."""
    scene, ref = make_pair(24, 30)
    options: dict[str, Any] = {"model": tiny_compact, "scale": 4, "products": "source"}
    upscale(scene, out=tmp_path / "mean.tif", detail=0.0, psf="0.5", **options)
    upscale(scene, out=tmp_path / "plain.tif", model="bicubic-ibp", scale=4, psf="0.5")
    classes = read(tmp_path / "mean.source.tif")[0]
    away = (read(tmp_path / "mean.tif").astype(float) - read(tmp_path / "plain.tif")) ** 2
    energy = uniform_filter(uniform_filter(away.mean(axis=0), 7), 7)
    assert set(np.unique(classes)) <= {2, 3}
    assert set(np.unique(classes[energy > 4])) == {2}
    options["ref"] = ref
    upscale(scene, out=tmp_path / "a.tif", detail=0.5, **options)
    upscale(scene, out=tmp_path / "b.tif", detail=0.5, block_size=48, **options)
    classes = read(tmp_path / "a.source.tif")
    np.testing.assert_array_equal(read(tmp_path / "b.source.tif"), classes)
    assert (classes == 2).any()
    upscale(scene, out=tmp_path / "start.tif", detail=0.5, steps=0, **options)
    assert (read(tmp_path / "start.source.tif") == 1).any()
    np.testing.assert_array_equal(read(tmp_path / "a.tif"), read(tmp_path / "b.tif"))


def test_nodata_is_nodata_in_the_source_map(make_raster: Any, tmp_path: Path) -> None:
    values = np.full((1, 20, 20), 90, np.uint8)
    values[:, 3:6, 4:9] = 0
    scene = make_raster("scene.tif", values, nodata=0)
    upscale(scene, model="bicubic", scale=4, out=tmp_path / "o.tif", products="source")
    classes = read(tmp_path / "o.source.tif")[0]
    np.testing.assert_array_equal(classes == 0, np.repeat(np.repeat(values[0] == 0, 4, 0), 4, 1))


def test_stac_item_is_valid(make_pair: Any, tmp_path: Path) -> None:
    pystac = pytest.importorskip("pystac", reason="pystac is a development dependency")
    pytest.importorskip("jsonschema", reason="jsonschema is a development dependency")
    from pystac.validation import stac_validator

    scene, ref = make_pair(30, 34)
    result = upscale(scene, ref=ref, model="matched-ref", scale=4, out=tmp_path / "o.tif", products=PRODUCTS)
    data = json.loads((tmp_path / "o.json").read_text())
    core = data | {"stac_extensions": []}  # pystac ships the core's schemas; the extensions' are on the network
    validator = stac_validator.JsonSchemaSTACValidator()
    uri = validator.schema_uri_map.get_object_schema_uri(pystac.STACObjectType.ITEM, data["stac_version"])
    assert uri is not None
    validator.validate_core(core, pystac.STACObjectType.ITEM, data["stac_version"])
    item = pystac.Item.from_dict(data)
    assert item.ext.proj.code == "EPSG:26914"
    assert item.ext.proj.shape == [120, 136]
    assert item.ext.proj.transform == list(result.transform)
    assert set(item.assets) == {"data", "source", "thumbnail"}
    bands = item.assets["data"].ext.raster.bands
    assert [b.data_type for b in bands] == ["uint8"] * 3
    assert bands[0].spatial_resolution == pytest.approx(10)
    assert bands[0].statistics.mean == pytest.approx(float(read(result.out)[0].mean()), abs=0.01)
    west, south, east, north = item.bbox
    assert -180 <= west < east <= 180
    assert -90 <= south < north <= 90
    assert data["properties"]["geo_refdiff:sensor"]["consistency"] == "standard"
    for asset in item.assets.values():
        assert (tmp_path / asset.href).exists()
    counts = data["properties"]["geo_refdiff:sources"]
    assert sum(counts.values()) == 120 * 136
    with Image.open(tmp_path / "o.png") as picture:
        assert picture.size == (136, 120)
        assert picture.mode == "RGBA"


@pytest.mark.parametrize(
    ("name", "said", "want"),
    [
        ("s2_20210503T101010.tif", None, ("2021-05-03T00:00:00Z", None, "name of the scene")),
        ("naip_2018.tif", None, ("2018-01-01T00:00:00Z", "2018-12-31T23:59:59Z", "name of the scene")),
        ("naip_2018.tif", "2019-07", ("2019-07-01T00:00:00Z", "2019-07-31T23:59:59Z", "given")),
        ("naip_2018.tif", "2021-05-03T10:30:21Z", ("2021-05-03T10:30:21Z", None, "given")),
        (
            "naip_2018.tif",
            "2021-05-03T22:30-05:00/2021-05-05",
            ("2021-05-04T03:30:00Z", "2021-05-05T23:59:59Z", "given"),
        ),
        ("tile_2098.tif", None, (None, None, "file time of the scene")),
    ],
)
def test_the_item_says_when_the_scene_was_taken(
    make_pair: Any, tmp_path: Path, name: str, said: str | None, want: tuple[str | None, str | None, str]
) -> None:
    scene = make_pair()[0].rename(tmp_path / name)
    options: dict[str, Any] = {"model": "bicubic", "scale": 2, "products": "stac", "scene_date": said}
    upscale(scene, out=tmp_path / "o.tif", **options)
    reported = json.loads((tmp_path / "o.json").read_text())["properties"]
    assert reported["geo_refdiff:datetime_from"] == want[2]
    assert reported["datetime"] == want[0] or want[0] is None
    assert reported.get("end_datetime") == want[1]
    assert reported.get("start_datetime") == (reported["datetime"] if want[1] else None)


def test_a_date_that_is_none_is_reported_before_anything_runs(make_pair: Any, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="--scene-date 'may': give a date as 2021-05-03"):
        upscale(make_pair()[0], model="bicubic", scale=2, out=tmp_path / "o.tif", scene_date="may")


def test_the_item_says_how_the_reference_was_registered(make_pair: Any, tmp_path: Path) -> None:
    scene, ref = make_pair()
    upscale(scene, ref=ref, model="matched-ref", out=tmp_path / "o.tif", products="stac")
    reported = json.loads((tmp_path / "o.json").read_text())["properties"]["geo_refdiff:coregistration"]
    assert reported["mode"] == "auto"
    assert reported["unused"] is False
    assert len(reported["shift_scene_pixels"]) == 2


def test_products_are_not_overwritten_unasked(make_pair: Any, tmp_path: Path) -> None:
    scene, _ = make_pair()
    (tmp_path / "o.png").write_text("mine")
    with pytest.raises(OutputError, match=r"o\.png: exists already"):
        upscale(scene, model="bicubic", scale=2, out=tmp_path / "o.tif", products=PRODUCTS)
    assert (tmp_path / "o.png").read_text() == "mine"


def test_missing_pixels_are_transparent_and_white(make_pair: Any, tmp_path: Path) -> None:
    """Of areas whose polygon is turned against the grid."""
    scene, _ = make_pair()
    with rasterio.open(scene) as dataset:
        (west, south), (east, north) = dataset.bounds[:2], dataset.bounds[2:]
    x, y = (west + east) / 2, (south + north) / 2
    turned = shapely.Polygon([(x, north), (east, y), (x, south), (west, y)])
    upscale(scene, model="bicubic", scale=2, out=tmp_path / "o.tif", aoi=turned, products="quicklook,report")
    picture = np.asarray(Image.open(tmp_path / "o.png"))
    missing = picture[..., 3] == 0
    assert 0.3 < missing.mean() < 0.7
    assert (picture[missing] == (255, 255, 255, 0)).all()
    data = re.search(r'src="data:image/webp;base64,([^"]+)" alt="output"', (tmp_path / "o.html").read_text())
    assert data is not None
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(data[1]))))
    assert (shown[..., 3] == 0).mean() == pytest.approx(missing.mean(), abs=0.02)
    assert np.median(shown[shown[..., 3] == 0][:, :3]) == 255


def test_names_of_products() -> None:
    assert chosen_products("all") == ("source", "style", "stac", "quicklook", "report")
    assert chosen_products("stac, source") == ("source", "stac")
    assert chosen_products("none") == chosen_products(None) == ()
    with pytest.raises(OptionError, match="products 'pdf': choose of source"):
        chosen_products("pdf")


def test_other_bands_get_detail(make_raster: Any, make_texture: Any, tmp_path: Path, tiny_compact: Path) -> None:
    """A band that is a sum of the model's bands gets their detail; one that has nothing to do with them gets none."""
    fine = 40 + 120 * make_texture((3, 256, 256), 3)
    coarse = fine.reshape(3, 32, 8, 32, 8).mean((2, 4))
    alien = 40 + 120 * np.random.default_rng(0).random((1, 32, 32))
    swir = 0.5 * coarse[:1] + 0.3 * coarse[1:2] + 20
    names = ("red", "green", "blue", "swir", "alien")
    scene = make_raster("scene.tif", np.concatenate([coarse, swir, alien]).astype("float32"), names=names)
    ref = make_raster("ref.tif", fine.astype("float32"), pixel=5.0, names=names[:3])
    options: dict[str, Any] = {"ref": ref, "model": tiny_compact, "scale": 8, "products": "none"}
    kept = upscale(scene, out=tmp_path / "a.tif", consistency="standard", **options)
    assert kept.bands == names
    with rasterio.open(kept.out) as dataset:
        out = dataset.read()
        assert dataset.descriptions == names
        assert [dataset.tags(b)["GEO_REFDIFF_BAND"] for b in range(1, 6)] == ["model"] * 3 + ["transfer"] * 2
        assert float(dataset.tags(4)["GEO_REFDIFF_TRANSFER_CORRELATION"]) > 0.999
        assert float(dataset.tags(5)["GEO_REFDIFF_TRANSFER_CORRELATION"]) < 0.3
    predicted = 0.5 * out[0] + 0.3 * out[1] + 20
    inner = (slice(32, -32), slice(32, -32))
    error = (out[3] - predicted)[inner].std() / predicted[inner].std()
    assert error < 0.1
    dropped = upscale(scene, out=tmp_path / "b.tif", other_bands="drop", plan_only=True, **options)
    assert dropped.bands == names[:3]
    with pytest.raises(OptionError, match="other bands 'keep'"):
        upscale(scene, model=tiny_compact, scale=8, out=tmp_path / "c.tif", other_bands="keep")


def test_presets_know_the_width_for_each_band(make_raster: Any, tmp_path: Path) -> None:
    values = np.full((2, 12, 12), 90, np.uint8)
    scene = make_raster("scene.tif", values, names=("b11", "b8a"))
    out = upscale(scene, model="bicubic-ibp", scale=2, psf="Sentinel-2", out=tmp_path / "o.tif").out
    with rasterio.open(out) as dataset:
        tags = dataset.tags()
    first, second = (float(s) for s in tags["GEO_REFDIFF_PSF_SIGMAS"].split(","))
    assert tags["GEO_REFDIFF_PSF"] == "sentinel-2"
    assert first > second > 0.3
    for wrong, text in (("nonsense", "psf 'nonsense': give 0 to 0.6"), (2.0, "PSF sigma 2: give 0 to 0.6")):
        with pytest.raises(OptionError, match=text):
            upscale(scene, model="bicubic-ibp", scale=2, psf=wrong, out=tmp_path / "p.tif")
    with pytest.raises(OptionError, match="consistency 'loose': choose strict, standard, off"):
        upscale(scene, model="bicubic-ibp", scale=2, consistency="loose", out=tmp_path / "p.tif")


def test_the_kept_mosaic_is_the_image(make_pair: Any, tmp_path: Path) -> None:
    scene, ref = make_pair()
    out = tmp_path / "out.tif"
    upscale(scene, ref=ref, model="matched-ref", scale=4, block_size=64, out=out, keep=True, products="source")
    for name, published in (("mosaic", out), ("mosaic.source", out.with_suffix(".source.tif"))):
        with rasterio.open(f"{out}.parts/{name}.vrt") as mosaic, rasterio.open(published) as finished:
            assert mosaic.descriptions == finished.descriptions
            np.testing.assert_array_equal(mosaic.read(), finished.read())
