"""The same pixels whatever the way there: batch size and order of blocks to the bit, areas of interest to one digital
number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.windows import Window as RioWindow

from geo_refdiff import upscale
from geo_refdiff.engine.run import run_blocks
from geo_refdiff.engine.workdir import Workdir
from geo_refdiff.errors import GridError
from geo_refdiff.options import UpscaleOptions
from geo_refdiff.plan.planning import make_plan


def pixels(path: Path) -> np.ndarray:
    with rasterio.open(path) as dataset:
        return dataset.read()


def box(scene: Path, row: int, col: int, height: int, width: int) -> str:
    with rasterio.open(scene) as dataset:
        corners = [dataset.transform @ (col + dx * width, row + dy * height) for dx in (0, 1) for dy in (0, 1)]
    x, y = zip(*corners, strict=True)
    return f"{min(x)!r},{min(y)!r},{max(x)!r},{max(y)!r}"


def with_holes(scene: Path) -> None:
    with rasterio.open(scene, "r+") as dataset:
        dataset.nodata = 0
        hole = np.zeros((dataset.count, 7, 9), np.uint8)
        dataset.write(hole, window=RioWindow(11, 5, 9, 7))


def check_ways(scene: Path, whole: Path, tmp_path: Path, areas: int, **options: Any) -> None:
    """AOI cut-outs and block sizes against the whole-scene run, to 1 DN; batch sizes to the bit."""
    expected = pixels(whole)
    with rasterio.open(scene) as dataset:
        tall, wide = dataset.shape
    scale = expected.shape[1] // tall
    rng = np.random.default_rng(5)
    for number in range(areas):
        height, width = (int(v) for v in rng.integers(1, tall // 2 + 5, 2))
        row, col = int(rng.integers(tall - height)), int(rng.integers(wide - width))
        out = tmp_path / f"aoi{number}.tif"
        upscale(
            scene, out=out, aoi=box(scene, row, col, height, width), block_size=int(rng.choice([64, 112])), **options
        )
        with rasterio.open(out) as part, rasterio.open(whole) as full:
            assert part.transform.almost_equals(full.transform @ Affine.translation(col * scale, row * scale), 1e-6)
        rows, cols = slice(row * scale, (row + height) * scale), slice(col * scale, (col + width) * scale)
        check_close(pixels(out), expected[:, rows, cols])
    for batch in (3, 8)[:areas]:
        out = tmp_path / f"batch{batch}.tif"
        upscale(scene, out=out, batch_size=batch, **options)
        np.testing.assert_array_equal(pixels(out), expected)
    out = tmp_path / "blocks.tif"
    upscale(scene, out=out, block_size=160, **options)
    check_close(pixels(out), expected)


def check_close(result: np.ndarray, expected: np.ndarray) -> None:
    """To 1 DN of uint8 in all pixels, and the same pixels missing."""
    difference = np.abs(result.astype(int) - expected.astype(int))
    assert difference.max() <= 1
    np.testing.assert_array_equal(result.any(axis=0), expected.any(axis=0))


@pytest.mark.parametrize("model", ["bicubic", "bicubic-ibp", "matched-ref"])
def test_classical(make_pair: Any, tmp_path: Path, model: str) -> None:
    scene, ref = make_pair()
    with_holes(scene)
    options: dict[str, Any] = {"model": model, "scale": 4, "window": 160}
    if model == "matched-ref":
        options["ref"] = ref
    whole = upscale(scene, out=tmp_path / "whole.tif", **options).out
    check_ways(scene, whole, tmp_path, 3, **options)


@pytest.mark.parametrize("kind", ["compact", "published"])
def test_diffusion(
    make_pair: Any, make_raster: Any, tmp_path: Path, tiny_compact: Path, tiny_published: Path, kind: str
) -> None:
    scene, ref = make_pair() if kind == "compact" else make_pair(24, 26)
    with_holes(scene)
    classes = np.random.default_rng(0).integers(0, 3, (1, 30, 36)).astype(np.uint8)
    options: dict[str, Any] = {
        "model": tiny_compact if kind == "compact" else tiny_published,
        "scale": 4 if kind == "compact" else 2,
        "ref": ref,
        "mask": make_raster("mask.tif", classes, pixel=50.0),
        "seed": 7,
    }
    if kind == "published":
        options |= {"sampler": "dpmpp-2m", "steps": 2}
    whole = upscale(scene, out=tmp_path / "whole.tif", **options).out
    assert pixels(whole).std() > 1
    check_ways(scene, whole, tmp_path, 2 if kind == "compact" else 1, **options)
    if kind == "published":
        return
    again = upscale(scene, out=tmp_path / "again.tif", **options).out
    assert again.read_bytes() == whole.read_bytes()
    other = upscale(scene, out=tmp_path / "seed.tif", **(options | {"seed": 8})).out
    assert (pixels(other) != pixels(whole)).any()


def test_the_order_of_blocks_changes_nothing(make_pair: Any, tmp_path: Path, tiny_compact: Path) -> None:
    scene, ref = make_pair()
    planned = make_plan(scene, ref, UpscaleOptions.of(model=tiny_compact, scale=4, block_size=64, products=()))
    result = []
    for number, seed in enumerate((None, 1)):
        workdir = Workdir(tmp_path / f"run{number}")
        order = None if seed is None else np.random.default_rng(seed).permutation(planned.plan.blocks.count).tolist()
        with workdir.locked():
            workdir.prepare(planned.plan, resume=False, overwrite=False)
            run_blocks(planned.plan, workdir, planned.restorer, order=order)
        files = sorted((workdir.path / "blocks").iterdir())
        assert len(files) == planned.plan.blocks.count == 9
        result.append([f.read_bytes() for f in files])
    assert result[0] == result[1]


def test_a_scene_cut_out_as_a_file_of_its_own(make_pair: Any, make_raster: Any, tmp_path: Path) -> None:
    scene, _ = make_pair()
    with rasterio.open(scene) as dataset:
        part = dataset.read(window=RioWindow(9, 5, 30, 30))
        transform = dataset.transform @ Affine.translation(9, 5)
    cut = make_raster("cut.tif", part, transform=transform)
    whole = pixels(upscale(scene, out=tmp_path / "a.tif", model="bicubic-ibp", scale=4, window=160).out)
    alone = pixels(upscale(cut, out=tmp_path / "b.tif", model="bicubic-ibp", scale=4, window=160).out)
    np.testing.assert_allclose(alone[:, 48:-48, 48:-48].astype(int), whole[:, 68:92, 84:108].astype(int), atol=1)


def test_windows_do_not_show(make_pair: Any, tmp_path: Path) -> None:
    scene, ref = make_pair()
    small = pixels(upscale(scene, ref=ref, out=tmp_path / "a.tif", model="matched-ref", scale=8, window=200).out)
    large = pixels(upscale(scene, ref=ref, out=tmp_path / "b.tif", model="matched-ref", scale=8, window=1024).out)
    difference = np.abs(small.astype(int) - large.astype(int))
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.001


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        ("EPSG:32760", Affine(100, 0, 817_500, 0, -100, 8_149_000)),
        ("EPSG:4326", Affine(1e-3, 0, 179.97, 0, -1e-3, -16.71)),
        ("EPSG:4326", Affine(1e-3, 0, -180.03, 0, -1e-3, -16.71)),
    ],
)
def test_polygons_across_the_180th_meridian(make_raster: Any, tmp_path: Path, crs: str, transform: Affine) -> None:
    """Longitudes of the area jump from 180 to -180; those of the scene continue beyond it."""
    import geopandas
    import shapely

    scene = make_raster("fiji.tif", np.arange(1, 1601, dtype="uint16").reshape(1, 40, 40), crs=crs, transform=transform)
    xy = [(-179.986, -16.74), (-179.986, -16.73), (179.979, -16.725), (179.979, -16.74)]
    area = tmp_path / "area.gpkg"
    geopandas.GeoSeries([shapely.Polygon(xy)], crs="EPSG:4326").to_file(area)
    whole = upscale(scene, out=tmp_path / "whole.tif", model="bicubic", scale=2).out
    part = upscale(scene, out=tmp_path / "part.tif", model="bicubic", scale=2, aoi=str(area)).out
    with rasterio.open(part) as dataset:
        assert 30 <= dataset.height < 40
        assert 60 < dataset.width < 80
        inside = dataset.dataset_mask() > 0
        col, row = (round(v) for v in ~rasterio.open(whole).transform @ (dataset.transform.c, dataset.transform.f))
    assert 0.7 < inside.mean() < 0.9
    np.testing.assert_array_equal(
        pixels(part)[:, inside], pixels(whole)[:, row : row + inside.shape[0], col : col + inside.shape[1]][:, inside]
    )


def test_polygons(make_pair: Any, tmp_path: Path) -> None:
    import geopandas
    import shapely

    scene, _ = make_pair()
    with rasterio.open(scene) as dataset:
        a, b, c = (dataset.transform @ p for p in ((3.3, 4.7), (30.2, 8.1), (12.6, 33.9)))
    polygon = shapely.Polygon([a, b, c])
    area = tmp_path / "area.gpkg"
    geopandas.GeoSeries([polygon], crs="EPSG:26914").to_crs("EPSG:4326").to_file(area)
    whole = pixels(upscale(scene, out=tmp_path / "whole.tif", model="bicubic", scale=4).out)
    parts = [
        upscale(scene, out=tmp_path / f"{size}.tif", model="bicubic", scale=4, aoi=str(area), block_size=size).out
        for size in (32, 1024)
    ]
    np.testing.assert_array_equal(pixels(parts[0]), pixels(parts[1]))
    with rasterio.open(parts[0]) as dataset:
        assert dataset.shape == (120, 112)
        inside = dataset.dataset_mask() > 0
        rows, cols = np.mgrid[:120, :112] + 0.5
        x, y = dataset.transform @ (cols, rows)
    expected = shapely.contains_xy(polygon, x, y)
    assert (inside != expected).mean() < 0.002
    np.testing.assert_array_equal(pixels(parts[0])[:, inside], whole[:, 16:136, 12:124][:, inside])


def test_polygons_of_a_pixel_or_less(make_pair: Any, tmp_path: Path) -> None:
    """A pixel belongs to the area if its centre does; without one there is nothing to make."""
    scene, _ = make_pair()
    with rasterio.open(scene) as dataset:
        transform = dataset.transform @ Affine.scale(1 / 4)
    options: dict[str, Any] = {"model": "bicubic", "scale": 4}

    def area(*points: tuple[float, float]) -> str:
        """In output pixels."""
        return f"EPSG:26914;POLYGON (({', '.join('%r %r' % (transform @ p) for p in (*points, points[0]))}))"

    whole = pixels(upscale(scene, out=tmp_path / "whole.tif", **options).out)
    for number, inside in enumerate((area((9.4, 9.4), (9.6, 9.4), (9.5, 9.7)), area((8, 9.4), (90, 89.9), (90, 90.1)))):
        with rasterio.open(upscale(scene, out=tmp_path / f"{number}.tif", aoi=inside, **options).out) as dataset:
            rows, cols = np.nonzero(dataset.dataset_mask())
            assert len(rows)
            np.testing.assert_array_equal(dataset.read()[:, rows, cols], whole[:, rows + 8, cols + 8])
    for nothing in (area((9.1, 9.1), (9.4, 9.1), (9.2, 9.4)), area((9.6, 0), (9.9, 0), (10.4, 90), (10.1, 90))):
        with pytest.raises(GridError, match=r"no pixel centre of the output is inside, .* draw it larger") as caught:
            upscale(scene, out=tmp_path / "none.tif", aoi=nothing, **options)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 300
        assert not (tmp_path / "none.tif").exists()
