"""Small products in the layouts and with the metadata of their agencies."""

from __future__ import annotations

import json
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from affine import Affine

CORNER = (600_000.0, 5_400_000.0)
CRS = "EPSG:32633"
SIDE = 24
"""Pixels of 10 m of a tile."""

CLOUDS = np.zeros((SIDE // 2, SIDE // 2), bool)
CLOUDS[4:8, 2:7] = True
"""On pixels of 20 m: where the Sentinel-2 product that is asked to be so is cloudy."""

Make = Callable[..., Path]


def image(seed: int, side: int = SIDE) -> np.ndarray:
    """(side, side) uint16 with structure, 1200 to 4200; the upper left corner is nodata (0)."""
    y, x = np.mgrid[:side, :side] * (SIDE / side)
    values = 2700 + 900 * np.sin(x / 3 + seed) + 500 * np.cos(y / 4 - seed)
    values[: side // 8, : side // 8] = 0
    return values.round().astype(np.uint16)


def write(path: Path, values: np.ndarray, pixel: float, **profile: Any) -> None:
    """A GeoTIFF, or a lossless JPEG 2000."""
    values = values if values.ndim == 3 else values[None]
    path.parent.mkdir(parents=True, exist_ok=True)
    target = path.with_suffix(".tif") if path.suffix == ".jp2" else path
    options = {
        "driver": "GTiff", "count": len(values), "height": values.shape[1], "width": values.shape[2],
        "dtype": values.dtype.name, "crs": CRS, "transform": Affine(pixel, 0, CORNER[0], 0, -pixel, CORNER[1]),
        "photometric": "minisblack", "alpha": "no",
    }  # fmt: skip
    with rasterio.open(target, "w", **(options | profile)) as dataset:
        dataset.write(values)
    if target != path:
        rasterio.shutil.copy(target, path, driver="JP2OpenJPEG", QUALITY="100", REVERSIBLE="YES")
        target.unlink()


def zipped(folder: Path, name: str) -> Path:
    """The folder as a zip beside it, in a folder of its name, as the agencies pack it."""
    path = folder.parent / name
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.relative_to(folder.parent))
    shutil.rmtree(folder)
    return path


def write_l1c_clouds(folder: Path, clouds: bool, *, old: bool) -> None:
    """The mask of L1C: polygons in GML before baseline 04.00, one opaque cloud with a hole; else a raster of 60 m."""
    folder.mkdir(parents=True)
    if not old:
        opaque = CLOUDS[::3, ::3] & clouds
        values = np.stack([opaque, np.roll(opaque, 1, 0), ~opaque])  # opaque, cirrus, snow
        write(folder / "MSK_CLASSI_B00.jp2", values.astype(np.uint8), 60)
        return
    west, north = CORNER
    rings = [
        f'<gml:{side}><gml:LinearRing><gml:posList srsDimension="2">'
        + " ".join(f"{west + 10 * x:g} {north - 10 * y:g}" for x, y in points)
        + f"</gml:posList></gml:LinearRing></gml:{side}>"
        for side, points in (
            ("exterior", [(4, 8), (14, 8), (14, 16), (4, 16), (4, 8)]),
            ("interior", [(6, 10), (6, 12), (8, 12), (8, 10), (6, 10)]),
        )
    ]
    member = (
        '<eop:maskMembers><eop:MaskFeature gml:id="OPAQUE.0"><eop:maskType>OPAQUE</eop:maskType><eop:extentOf>'
        '<gml:Polygon gml:id="OPAQUE.0_Polygon">'
        f"{''.join(rings)}</gml:Polygon></eop:extentOf></eop:MaskFeature></eop:maskMembers>"
    )
    (folder / "MSK_CLOUDS_B00.gml").write_text(
        '<?xml version="1.0" encoding="UTF-8"?><eop:Mask xmlns:eop="http://www.opengis.net/eop/2.0" '
        'xmlns:gml="http://www.opengis.net/gml/3.2" gml:id="S2A_OPER_MSK_CLOUDS">'
        "<gml:name>MSK_CLOUDS</gml:name>"
        '<gml:boundedBy><gml:Envelope srsName="urn:ogc:def:crs:EPSG:8.7:32633"/></gml:boundedBy>'
        f"{member if clouds else ''}</eop:Mask>"
    )


_S2_BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")


@pytest.fixture
def make_sentinel_2(tmp_path: Path) -> Make:
    """A .SAFE folder: make(level="L2A", baseline="05.00", offset=-1000, without=(), clouds=False) -> path."""

    def make(
        level: str = "L2A",
        baseline: str = "05.00",
        offset: int | None = -1000,
        without: Sequence[str] = (),
        clouds: bool = False,
    ) -> Path:
        tile, time = "T33UUP", "20220503T102021"
        number = baseline.replace(".", "")
        folder = tmp_path / f"S2A_MSI{level}_{time}_N{number}_R065_{tile}_20220503T131413.SAFE"
        granule = f"GRANULE/{level}_{tile}_A030619_20220503T102244"
        sizes = dict.fromkeys(("B02", "B03", "B04", "B08"), 10)
        sizes |= dict.fromkeys(("B05", "B06", "B07", "B8A", "B11", "B12"), 20)
        images = []
        for band, metres in sizes.items():
            name = f"{granule}/IMG_DATA/{tile}_{time}_{band}"
            if level == "L2A":
                name = f"{granule}/IMG_DATA/R{metres}m/{tile}_{time}_{band}_{metres}m"
            images.append(name)
            if band not in without:
                side = SIDE * 10 // metres
                values = image(_S2_BANDS.index(band), side)
                if clouds:
                    values[np.kron(CLOUDS, np.ones((20 // metres,) * 2)) > 0] = 12_000
                write(folder / f"{name}.jp2", values, metres)
        if level == "L2A":
            name = f"{granule}/IMG_DATA/R20m/{tile}_{time}_SCL_20m"
            images.append(name)
            classes = np.where(CLOUDS & clouds, 9, 4).astype(np.uint8)
            classes[10, 10] = 11  # snow
            if "SCL" not in without:
                write(folder / f"{name}.jp2", classes, 20)
        elif "MSK" not in without:
            write_l1c_clouds(folder / granule / "QI_DATA", clouds, old=float(baseline) < 4)
        listed = "".join(f"<IMAGE_FILE>{name}</IMAGE_FILE>" for name in images)
        adds = "BOA_ADD_OFFSET" if level == "L2A" else "RADIO_ADD_OFFSET"
        lists = "BOA_ADD_OFFSET_VALUES_LIST" if level == "L2A" else "Radiometric_Offset_List"
        values = "".join(f'<{adds} band_id="{k}">{offset}</{adds}>' for k in range(13))
        quantity = '<QUANTIFICATION_VALUE unit="none">10000</QUANTIFICATION_VALUE>'
        if level == "L2A":
            quantity = (
                '<QUANTIFICATION_VALUES_LIST><BOA_QUANTIFICATION_VALUE unit="none">10000</BOA_QUANTIFICATION_VALUE>'
                '<AOT_QUANTIFICATION_VALUE unit="none">1000.0</AOT_QUANTIFICATION_VALUE></QUANTIFICATION_VALUES_LIST>'
            )
        text = f"""<?xml version="1.0" encoding="UTF-8" standalone="no"?>
<n1:Level-{level[1:]}_User_Product xmlns:n1="https://psd-14.sentinel2.eo.esa.int/PSD/User_Product_Level-{level[1:]}.xsd">
<n1:General_Info><Product_Info>
<PRODUCT_START_TIME>2022-05-03T10:20:21.024Z</PRODUCT_START_TIME><PRODUCT_URI>{folder.name}</PRODUCT_URI>
<PROCESSING_LEVEL>Level-{level[1:]}</PROCESSING_LEVEL><PROCESSING_BASELINE>{baseline}</PROCESSING_BASELINE>
<Datatake datatakeIdentifier="GS2A_{time}_035793_N{baseline}"><SPACECRAFT_NAME>Sentinel-2A</SPACECRAFT_NAME>
<DATATAKE_SENSING_START>2022-05-03T10:20:21.024Z</DATATAKE_SENSING_START></Datatake>
<Product_Organisation><Granule_List><Granule imageFormat="JPEG2000">{listed}</Granule></Granule_List>
</Product_Organisation>
</Product_Info>
<Product_Image_Characteristics><Special_Values><SPECIAL_VALUE_TEXT>NODATA</SPECIAL_VALUE_TEXT>
<SPECIAL_VALUE_INDEX>0</SPECIAL_VALUE_INDEX></Special_Values>{quantity}
{"" if offset is None else f"<{lists}>{values}</{lists}>"}
</Product_Image_Characteristics></n1:General_Info></n1:Level-{level[1:]}_User_Product>
"""
        (folder / f"MTD_MSI{level}.xml").write_text(text)
        return folder

    return make


def _mtl(groups: dict[str, dict[str, str]], kind: str) -> str:
    if kind == "json":
        return json.dumps({"LANDSAT_METADATA_FILE": groups}, indent=2)
    if kind == "xml":
        body = "".join(
            f"<{name}>{''.join(f'<{k}>{v}</{k}>' for k, v in group.items())}</{name}>" for name, group in groups.items()
        )
        return f'<?xml version="1.0" encoding="UTF-8"?>\n<LANDSAT_METADATA_FILE>{body}</LANDSAT_METADATA_FILE>\n'
    lines = ["GROUP = LANDSAT_METADATA_FILE"]
    for name, group in groups.items():
        lines += [f"  GROUP = {name}", *(f'    {k} = "{v}"' for k, v in group.items()), f"  END_GROUP = {name}"]
    return "\n".join([*lines, "END_GROUP = LANDSAT_METADATA_FILE", "END", ""])


@pytest.fixture
def make_landsat(tmp_path: Path) -> Make:
    """A Collection 2 folder or tar: make(number=8, level="L2SP", mtl="json", tar=False, without=()) -> path."""

    def make(
        number: int = 8, level: str = "L2SP", mtl: str = "json", tar: bool = False, without: Sequence[str] = ()
    ) -> Path:
        sensor = {8: "LC08", 9: "LC09", 7: "LE07", 5: "LT05"}[number]
        product = f"{sensor}_{level}_191025_20220503_20220508_02_T1"
        folder = tmp_path / product
        bands = range(1, 8) if number >= 8 else (1, 2, 3, 4, 5, 7)
        part = "_SR" if level.startswith("L2") else ""
        contents = {"LANDSAT_PRODUCT_ID": product, "PROCESSING_LEVEL": level, "COLLECTION_NUMBER": "02"}
        rescale, surface = {}, {}
        for band in bands:
            name = f"{product}{part}_B{band}.TIF"
            contents[f"FILE_NAME_BAND_{band}"] = name
            rescale |= {f"REFLECTANCE_MULT_BAND_{band}": "2.0000E-05", f"REFLECTANCE_ADD_BAND_{band}": "-0.100000"}
            surface |= {f"REFLECTANCE_MULT_BAND_{band}": "2.75e-05", f"REFLECTANCE_ADD_BAND_{band}": "-0.2"}
            if f"B{band}" not in without:
                write(folder / name, image(band) * np.uint16(4), 30)
        contents["FILE_NAME_QUALITY_L1_PIXEL"] = f"{product}_QA_PIXEL.TIF"
        write(folder / f"{product}_QA_PIXEL.TIF", np.full((SIDE, SIDE), 21824, np.uint16), 30)
        groups = {
            "PRODUCT_CONTENTS": contents,
            "IMAGE_ATTRIBUTES": {
                "SPACECRAFT_ID": f"LANDSAT_{number}", "DATE_ACQUIRED": "2022-05-03",
                "SCENE_CENTER_TIME": "10:02:34.1234560Z", "SUN_ELEVATION": "53.1",
            },
            "LEVEL1_RADIOMETRIC_RESCALING": rescale,
        }  # fmt: skip
        if level.startswith("L2"):
            groups["LEVEL2_SURFACE_REFLECTANCE_PARAMETERS"] = surface
        if "MTL" not in without:
            (folder / f"{product}_MTL.{mtl}").write_text(_mtl(groups, mtl))
        if not tar:
            return folder
        path = tmp_path / f"{product}.tar"
        with tarfile.open(path, "w") as archive:
            for file in sorted(folder.iterdir()):
                archive.add(file, file.name)
        shutil.rmtree(folder)
        return path

    return make


@pytest.fixture
def make_hls(tmp_path: Path) -> Make:
    """An HLS folder: make(kind="S30", without=()) -> path."""

    def make(kind: str = "S30", without: Sequence[str] = ()) -> Path:
        product = f"HLS.{kind}.T33UUP.2022123T102021.v2.0"
        bands = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
        if kind == "L30":
            bands = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B09", "B10", "B11")
        for number, band in enumerate(bands):
            values = image(number).astype(np.int16)
            values[values == 0] = -9999
            if band == "B03":
                values[10:12, 10:12] = -9999
            if band not in without:
                write(tmp_path / product / f"{product}.{band}.tif", values, 30, nodata=-9999)
        mask = np.full((SIDE, SIDE), 64, np.uint8)
        write(tmp_path / product / f"{product}.Fmask.tif", mask, 30, nodata=255)
        return tmp_path / product

    return make


@pytest.fixture
def make_planetscope(tmp_path: Path) -> Make:
    """A PlanetScope folder: make(bands=4, sr=True, without=()) -> path."""

    def make(bands: int = 4, sr: bool = True, without: Sequence[str] = ()) -> Path:
        scene, eight = "20220503_101112_34_2251", "_8b" if bands == 8 else ""
        folder = tmp_path / "order" / "PSScene"
        values = np.stack([image(band) for band in range(bands)])
        write(folder / f"{scene}_3B_AnalyticMS{'_SR' if sr else ''}{eight}_clip.tif", values, 3, nodata=0)
        usable = np.zeros((8, SIDE, SIDE), np.uint8)
        usable[0] = 1
        if "udm2" not in without:
            write(folder / f"{scene}_3B_udm2_clip.tif", usable, 3)
        fields = "".join(
            f"<ps:bandSpecificMetadata><ps:bandNumber>{k}</ps:bandNumber>"
            f"<ps:reflectanceCoefficient>{2e-5 * k}</ps:reflectanceCoefficient></ps:bandSpecificMetadata>"
            for k in range(1, bands + 1)
        )
        if "metadata" not in without:
            (folder / f"{scene}_3B_AnalyticMS{eight}_metadata_clip.xml").write_text(
                f'<ps:EarthObservation xmlns:ps="http://schemas.planet.com/ps/v1/planet_product_metadata_geocorrected_level">'
                f"{fields}</ps:EarthObservation>"
            )
        return tmp_path / "order"

    return make


@pytest.fixture
def make_stac_item(tmp_path: Path) -> Make:
    """A STAC item with an asset a band, as the catalogues write it: make(style="earth-search", ...) -> path."""

    def make(style: str = "earth-search", **properties: Any) -> Path:
        named = {"blue": "B02", "green": "B03", "red": "B04", "nir": "B08", "swir16": "B11"}
        assets: dict[str, Any] = {}
        for number, (common, band) in enumerate(named.items(), 1):
            metres = 20 if common == "swir16" else 10
            write(tmp_path / "assets" / f"{band}.tif", image(number, SIDE * 10 // metres), metres)
            eo = {"name": band, "common_name": common}
            asset: dict[str, Any] = {
                "href": f"./assets/{band}.tif", "type": "image/tiff; application=geotiff; profile=cloud-optimized",
                "roles": ["data"], "gsd": metres,
            }  # fmt: skip
            if style == "earth-search":
                asset |= {"eo:bands": [eo], "raster:bands": [{"nodata": 0, "scale": 0.0001, "offset": -0.1}]}
            elif style == "planetary-computer":
                asset |= {"eo:bands": [eo]}
            else:
                asset |= {"bands": [{"name": band, "eo:common_name": common, "raster:scale": 0.0001}]}
            assets[common if style == "earth-search" else band] = asset
        write(tmp_path / "assets" / "SCL.tif", np.full((SIDE // 2, SIDE // 2), 4, np.uint8), 20)
        visual = {"href": "./assets/TCI.tif", "type": "image/tiff", "roles": ["visual"]}
        rgb = [{"name": n, "common_name": c} for c, n in named.items() if c in ("red", "green", "blue")]
        assets["visual"] = visual | {"eo:bands": rgb}
        assets["scl"] = {"href": "./assets/SCL.tif", "type": "image/tiff", "roles": ["data"]}
        item = {
            "type": "Feature", "stac_version": "1.0.0", "id": "S2A_33UUP_20220503_0_L2A", "geometry": None, "links": [],
            "properties": {"datetime": "2022-05-03T10:25:01Z", "platform": "sentinel-2a"} | properties,
            "assets": assets,
        }  # fmt: skip
        path = tmp_path / "item.json"
        path.write_text(json.dumps(item))
        return path

    return make


@pytest.fixture
def zip_folder() -> Callable[[Path, str], Path]:
    """`zipped`."""
    return zipped
