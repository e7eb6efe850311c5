"""What a raster is, looked over before anything depends on it."""

from __future__ import annotations

import stat
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import isfinite, isnan
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyproj
import rasterio
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import NotGeoreferencedWarning
from rasterio.windows import Window as RioWindow

from geo_refdiff.errors import InputError
from geo_refdiff.raster.gdal import GDAL_ERRORS, check_proj, gdal_env, is_gdal_name, is_remote, one_line, unreadable
from geo_refdiff.raster.window import Window
from geo_refdiff.signed_urls import unsigned

Role = Literal["scene", "reference", "mask", "clouds"]
CloudKind = Literal[
    "scl", "qa_pixel", "fmask", "fmask4", "udm", "udm2", "msk_classi", "msk_clouds", "probability", "percent", "mask"
]
"""What the values of a cloud layer mean, see `raster.clouds`."""

Validity = Literal["nodata", "nan", "alpha", "mask", "none"]

MAX_CHUNK_BYTES = 512 * 2**20
"""Largest tile or strip that is read: one has to fit into memory whole."""

_ALPHA_TILE = 32
_ALPHA_SHARE = 0.2
"""An alpha band may be soft at edges: up to this share of its values above 0 may lie below the maximum."""


@dataclass(frozen=True, slots=True)
class CloudLayer:
    """The cloud layer of a raster.

    Attributes:
        path: of the layer.
        kind: what its values mean.
        size_bytes, mtime_ns: size and time of last change; 0 if unknown.
        vrt: XML of a VRT on the raster's own grid whose first band is 255 where it is clear, 0 where it is cloudy.
    """

    path: str
    kind: CloudKind
    size_bytes: int
    mtime_ns: int
    vrt: str


@dataclass(frozen=True)
class RasterInfo:
    """A raster that can be used: georeferenced by an affine, real-valued, readable.

    Attributes:
        path: absolute path, or a GDAL name (/vsi..., URL); of a product its folder, archive or STAC item.
        width, height: pixels.
        count: bands in the file, an alpha band included.
        dtype: numpy name of the data bands' type.
        crs_wkt: CRS as WKT.
        transform: pixel (col, row) to CRS units, (a, b, c, d, e, f): x = a col + b row + c.
        nodata: the first data band's nodata value.
        descriptions, scales, offsets, units, colorinterp: one for each band of the file.
        validity: how missing pixels are marked: a nodata value, NaN (float data without a nodata value, or with
            NaN as such), an alpha band, a mask band, or nowhere.
        data_bands: 1-based indices of the bands that are not alpha.
        size_bytes, mtime_ns: size and time of last change (of a VRT: together with its sources); 0 if unknown.
        vrt: XML of the GDAL VRT that a product is read through; None: `path` itself is opened.
        clouds: the layer of its cloudy pixels, which are missing for readers; None: there is none.
        coarser: how many bands, the last ones, are of a product's coarser pixels, resampled to those of the others.
    """

    path: str
    width: int
    height: int
    count: int
    dtype: str
    crs_wkt: str
    transform: tuple[float, float, float, float, float, float]
    nodata: float | None
    descriptions: tuple[str | None, ...]
    scales: tuple[float, ...]
    offsets: tuple[float, ...]
    units: tuple[str | None, ...]
    colorinterp: tuple[str, ...]
    validity: Validity
    data_bands: tuple[int, ...]
    size_bytes: int
    mtime_ns: int
    vrt: str | None = None
    clouds: CloudLayer | None = None
    coarser: int = 0

    @property
    def name(self) -> str:
        """Last part of the path, without the signature of a URL."""
        return Path(unsigned(self.path)).name

    @property
    def source(self) -> str:
        """What GDAL opens."""
        return self.path if self.vrt is None else self.vrt

    @property
    def window(self) -> Window:
        """All of its pixels."""
        return Window(0, 0, self.height, self.width)


def inspect(path: str | Path, role: Role, vrt: str | None = None) -> RasterInfo:
    """What a raster file holds, after checking that it can serve as a scene, a reference, a mask of change or clouds.

    A few single pixels are read (corners and centre), so that a file that declares more than it holds is rejected
    out now. Rotated and south-up rasters, and pixels that are not square, are fine.

    Raises:
        InputError: one line that names the file, what is wrong and the way out.
    """
    check_proj()
    name = _local_name(path) if vrt is None else str(path)
    with gdal_env(), warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # raised below, as an error
        try:
            with rasterio.open(vrt or name) as dataset:
                return replace(_checked(dataset, name, role), vrt=vrt)
        except GDAL_ERRORS as error:
            if isinstance(error, InputError):
                raise
            text = one_line(error).replace(f"'{name}' ", "")
            for spelling in (name, Path(name).name):
                text = text.removeprefix(f"{spelling}: ").removeprefix(f"{spelling}, ")
            way_out = unreadable(name) if is_remote(name) else "check it with gdalinfo"
            raise InputError(f"{name}: cannot be opened as a raster ({text}); {way_out}") from error


def _local_name(path: str | Path) -> str:
    """The absolute path of an existing, not empty regular file; GDAL names and URLs as they are."""
    name = str(path)
    if is_gdal_name(name):
        return name
    file = Path(name).absolute()
    try:
        mode = file.stat()
    except (OSError, ValueError) as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else one_line(error)
        raise InputError(f"{name}: {reason}; give the path of a GeoTIFF, COG or VRT") from error
    if not stat.S_ISREG(mode.st_mode):
        what = "a folder" if stat.S_ISDIR(mode.st_mode) else "not a regular file"
        raise InputError(f"{name}: is {what}; give the path of a GeoTIFF, COG or VRT")
    if mode.st_size == 0:
        raise InputError(f"{name}: the file is empty (0 bytes); fetch or write it again")
    return str(file)


def _checked(dataset: Any, name: str, role: Role) -> RasterInfo:
    _check_shape(dataset, name)
    _check_georeference(dataset, name)
    _check_crs(dataset, name)
    interp, dtypes = dataset.colorinterp, dataset.dtypes  # lists over all bands, rebuilt at each access
    if ColorInterp.alpha in interp:
        _check_chunks(dataset, name)
    data_bands = tuple(b for b, c in enumerate(interp, 1) if c != ColorInterp.alpha or not _is_alpha(dataset, b))
    _check_bands(name, role, data_bands, interp, dtypes)
    _check_chunks(dataset, name)
    _check_readable(dataset, name)
    made_of = [f for f in dataset.files if not f.endswith(".aux.xml")] if dataset.driver == "VRT" else []
    size, mtime = size_and_time([name, *made_of])
    first = data_bands[0]
    nodata = dataset.nodatavals[first - 1]
    has_alpha = len(data_bands) < dataset.count
    return RasterInfo(
        path=name,
        width=dataset.width,
        height=dataset.height,
        count=dataset.count,
        dtype=dtypes[first - 1],
        crs_wkt=dataset.crs.to_wkt(),
        transform=tuple(float(v) for v in dataset.transform[:6]),  # type: ignore[arg-type]
        nodata=None if nodata is None else float(nodata),
        descriptions=tuple(dataset.descriptions),
        scales=tuple(float(v) for v in dataset.scales),
        offsets=tuple(float(v) for v in dataset.offsets),
        units=tuple(dataset.units),
        colorinterp=tuple(c.name for c in interp),
        validity=_validity(dataset.mask_flag_enums[first - 1], nodata, has_alpha, dtypes[first - 1]),
        data_bands=data_bands,
        size_bytes=size,
        mtime_ns=mtime,
    )


def _is_alpha(dataset: Any, band: int) -> bool:
    """Whether a band that is flagged as alpha is one.

    GDAL flags the fourth band of every new 4-band byte GeoTIFF as alpha, near infrared or not. A band with a name is
    what its name says; one without is alpha if its values are 0 and one other, or the greatest is one that stands for
    opaque and hardly any of those that are not 0 is below it.
    """
    name = (dataset.descriptions[band - 1] or "").strip().lower()
    if name:
        return "alpha" in name or "mask" in name
    if np.dtype(dataset.dtypes[band - 1]).kind != "u":
        return True
    tiles = []
    for row in (0.0, 0.5, 1.0):
        for col in (0.0, 0.5, 1.0):
            height, width = min(_ALPHA_TILE, dataset.height), min(_ALPHA_TILE, dataset.width)
            at = RioWindow(int(col * (dataset.width - width)), int(row * (dataset.height - height)), width, height)
            tiles.append(dataset.read(band, window=at).ravel())
    values = np.concatenate(tiles)
    shown = values[values > 0]
    opaque = shown.max(initial=0)
    below = (shown < opaque).sum()
    return bool(below == 0 or (opaque in (1, 255, np.iinfo(values.dtype).max) and below <= _ALPHA_SHARE * len(shown)))


def _check_shape(dataset: Any, name: str) -> None:
    if dataset.width < 1 or dataset.height < 1 or dataset.count < 1:
        shape = f"{dataset.width} x {dataset.height} pixels, {dataset.count} bands"
        hint = (
            f"name one of its subdatasets, e.g. {dataset.subdatasets[0]} (gdalinfo lists them)"
            if dataset.subdatasets
            else "give a raster with pixels"
        )
        raise InputError(f"{name}: holds no image ({shape}); {hint}")


def _check_bands(
    name: str, role: Role, data_bands: tuple[int, ...], interp: Sequence[ColorInterp], all_dtypes: Sequence[str]
) -> None:
    if not data_bands:
        raise InputError(f"{name}: has only an alpha band; give a raster with image bands")
    dtypes = sorted({all_dtypes[b - 1] for b in data_bands})
    if role == "clouds":
        return
    if any(d.startswith("complex") for d in dtypes):
        raise InputError(
            f"{name}: holds complex numbers ({dtypes[0]}); give real values, e.g. amplitude (gdal_calc.py)"
        )
    if len(dtypes) > 1:
        raise InputError(f"{name}: bands differ in type ({', '.join(dtypes)}); make them one with gdal_translate -ot")
    if role != "mask" and any(interp[b - 1] == ColorInterp.palette for b in data_bands):
        raise InputError(
            f"{name}: holds palette colours, not measurements; as a {role} expand it: gdal_translate -expand rgb"
        )
    if role == "mask" and len(data_bands) != 1 and not (len(data_bands) == 3 and dtypes == ["uint8"]):
        raise InputError(
            f"{name}: has {len(data_bands)} bands; a change mask has one (or three, colours of uint8), e.g. "
            f"gdal_translate -b 1 picks it"
        )


def _check_georeference(dataset: Any, name: str) -> None:
    transform = dataset.transform
    values = [float(v) for v in transform[:6]]
    if transform.is_identity:
        control = "ground control points" if dataset.gcps[0] else "RPCs" if dataset.rpcs else None
        if control:
            raise InputError(
                f"{name}: is georeferenced by {control}, not by an affine; rectify it first: gdalwarp in.tif out.tif"
            )
        raise InputError(f"{name}: is not georeferenced (no affine); assign one: gdal_edit.py -a_ullr ulx uly lrx lry")
    if not all(isfinite(v) for v in values):
        raise InputError(f"{name}: its affine {tuple(values)} is not finite; repair it with gdal_edit.py -a_ullr")
    a, b, _, d, e, _ = values
    if abs(a * e - b * d) <= 1e-9 * (a * a + b * b + d * d + e * e):
        raise InputError(f"{name}: its affine {tuple(values)} is singular; repair it with gdal_edit.py -a_ullr")


def _check_crs(dataset: Any, name: str) -> None:
    if not dataset.crs:
        raise InputError(f"{name}: has no CRS; assign the right one: gdal_edit.py -a_srs EPSG:...")
    wkt = dataset.crs.to_wkt()
    try:
        crs = pyproj.CRS.from_wkt(wkt)
    except pyproj.exceptions.CRSError as error:
        raise InputError(
            f"{name}: its CRS is not understood ({one_line(error, 120)}); assign one: gdal_edit.py -a_srs"
        ) from error
    parts = [crs, *crs.sub_crs_list]
    if any(p.is_engineering for p in parts) or "LOCAL_CS" in wkt or "ENGCRS" in wkt:
        raise InputError(
            f"{name}: its CRS is local ('{crs.name}'), not tied to the Earth; assign the right one: gdal_edit.py -a_srs"
        )
    if not any(p.is_projected or p.is_geographic for p in parts) or crs.is_geocentric:
        raise InputError(f"{name}: its CRS '{crs.name}' is no map grid; reproject with gdalwarp -t_srs EPSG:...")


def _check_chunks(dataset: Any, name: str) -> None:
    rows, cols = dataset.block_shapes[0]
    pixel = np.dtype(dataset.dtypes[0]).itemsize
    if dataset.profile.get("interleave") == "pixel":
        pixel *= dataset.count
    size = rows * cols * pixel
    if size > MAX_CHUNK_BYTES:
        raise InputError(
            f"{name}: is stored in pieces of {size / 2**20:.0f} MiB ({cols} x {rows} pixels); "
            f"re-tile it: gdal_translate -of COG"
        )


def _validity(flags: Sequence[MaskFlags], nodata: float | None, has_alpha: bool, dtype: str) -> Validity:
    if MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags:
        return "mask"
    if has_alpha:
        return "alpha"
    if nodata is not None and not isnan(nodata):
        return "nodata"
    return "nan" if np.dtype(dtype).kind == "f" else "none"


def _check_readable(dataset: Any, name: str) -> None:
    rows = sorted({0, dataset.height // 2, dataset.height - 1})
    cols = sorted({0, dataset.width // 2, dataset.width - 1})
    for row in rows:
        for col in cols:
            try:
                dataset.read(1, window=RioWindow(col, row, 1, 1))
            except GDAL_ERRORS as error:
                raise InputError(
                    f"{name}: cannot be read at row {row}, column {col} ({one_line(error, 160)}); {unreadable(name)}"
                ) from error


def size_and_time(files: Iterable[str]) -> tuple[int, int]:
    """Bytes of some files together, and their last change, ns; URLs and files inside archives count nothing."""
    size = mtime = 0
    for file in sorted(set(files)):
        try:
            state = Path(file).stat()
        except OSError:
            continue
        size, mtime = size + state.st_size, max(mtime, state.st_mtime_ns)
    return size, mtime
