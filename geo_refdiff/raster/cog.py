"""Publishing: a mosaic becomes one cloud-optimised GeoTIFF, streamed, whole or not at all.

Overviews of imagery are made here, in one pass, with missing pixels left out of every mean; those of classes by GDAL.
GDAL's averages are the same to the bit without nodata, for NaN, for sentinel values of real numbers and for masks, in
4 to 6 times the processor time. They are not where whole numbers (or 0) are nodata and a valid pixel holds that in one
band: GDAL leaves the band out of its mean.

Source: https://gdal.org/en/stable/drivers/raster/cog.html
"""

from __future__ import annotations

import os
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from pathlib import Path
from shutil import rmtree
from typing import Any, Literal

import numpy as np
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from rasterio.windows import Window as RioWindow

from geo_refdiff.errors import OutputError
from geo_refdiff.raster.files import atomic_path, check_free, write_bytes_atomic
from geo_refdiff.raster.gdal import GDAL_ERRORS, gdal_env, gdal_threads, one_line
from geo_refdiff.raster.geobox import compose
from geo_refdiff.raster.nodata import avoid_nodata_pixels, equals_nodata, is_sentinel
from geo_refdiff.raster.vrt import add_overview_elements, tiled_geotiff
from geo_refdiff.raster.window import Window

OverviewResampling = Literal["average", "mode"]
"""Of imagery, of classes."""

_SMALLEST = 512
_TILE = 256  # of the overview files: a chunk of 4 x 4 tiles makes whole tiles at 1/2 and at 1/4
Valid = NDArray[np.bool_] | None


def publish_cog(
    vrt: str | Path,
    out: str | Path,
    *,
    overview_resampling: OverviewResampling = "average",
    threads: int = 2,
    overwrite: bool = False,
    overviews: int = 0,
) -> None:
    """Copies a VRT to a COG: ZSTD, predictor, tiles of 512, overviews; band names, statistics and tags as in the VRT.

    Memory does not depend on the size. The same input gives the same bytes.

    Args:
        vrt: the mosaic.
        out: the file to write.
        overview_resampling: "average" (see `add_overviews`) or "mode" (GDAL's own), of valid pixels.
        threads: compression threads.
        overwrite: whether a file that is there may be replaced.
        overviews: how many averages there shall be, however small the image.

    Raises:
        OutputError: `out` exists, its folder is missing or read-only, the disk is full, a block file cannot be read.
    """
    out = Path(out)
    check_free(out, overwrite)
    with atomic_path(out) as temporary, _without_leftovers(temporary):
        try:
            with gdal_env(GDAL_PAM_ENABLED=False):
                if overview_resampling == "mode":
                    _copy(Path(vrt), temporary, threads, OVERVIEWS="IGNORE_EXISTING", OVERVIEW_RESAMPLING="MODE")
                else:
                    folder = temporary.with_name(f"{temporary.name}.overviews")
                    folder.mkdir()
                    made = add_overviews(Path(vrt), folder, threads, overviews)
                    _copy(made, temporary, threads, OVERVIEWS="FORCE_USE_EXISTING")
        except GDAL_ERRORS as error:
            raise explained(out, error) from error


def _copy(vrt: Path, temporary: Path, threads: int, **overviews: str) -> None:
    rasterio.shutil.copy(
        str(vrt),
        str(temporary),
        driver="COG",
        BIGTIFF="IF_SAFER",
        BLOCKSIZE=512,
        COMPRESS="ZSTD",
        LEVEL=1,
        NUM_THREADS=threads,
        PREDICTOR="YES",
        STATISTICS="AUTO",
        **overviews,
    )
    with rasterio.open(temporary) as dataset:  # the last tile: GDAL may overlook that the disk filled up
        dataset.read(window=RioWindow(dataset.width - 1, dataset.height - 1, 1, 1))


@contextmanager
def _without_leftovers(temporary: Path) -> Iterator[None]:
    """Removes the overviews, and what the COG driver may have put beside its output."""
    try:
        yield
    finally:
        for leftover in temporary.parent.glob(f"{temporary.name}.*"):
            if leftover.is_dir():
                rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink(missing_ok=True)


def explained(out: Path, error: Exception) -> Exception:
    """What to raise where GDAL could not make `out`: the system's error, or one that names the file and the way out."""
    if isinstance(error, OSError) and error.errno:
        return error
    text = one_line(error)
    free = os.statvfs(out.parent)
    if free.f_bavail * free.f_frsize < 2**20 or "space left" in text.lower():
        return OutputError(f"{out}: cannot be written: the disk is full; free some space or write elsewhere")
    return OutputError(f"{out}: cannot be written ({text}); check the block files and the disk")


def overview_count(shape: tuple[int, ...]) -> int:
    """How often an image is halved until both sides are at most 512 pixels."""
    side, count = max(shape), 0
    while side > _SMALLEST:
        side, count = -(-side // 2), count + 1
    return count


def add_overviews(vrt: Path, folder: Path, threads: int = 2, least: int = 0) -> Path:
    """Makes overviews of a VRT (2, 4, 8, ... until both sides are at most 512 pixels): means of 2 x 2 valid pixels.

    Args:
        vrt: the mosaic; its mask band, if any, is that of the whole dataset.
        folder: an existing empty folder for the overviews' files.
        threads: compression threads.
        least: how many there shall be, however small the image.

    Returns:
        A VRT in `folder`: the same mosaic with these overviews.

    Raises:
        OSError, RasterioError: from reading the blocks or writing.
    """
    levels: list[Path] = []
    source, count = vrt, max(overview_count(_shape(vrt)), least)
    while len(levels) < count:  # two at a time
        numbers = range(len(levels) + 1, min(len(levels) + 2, count) + 1)
        paths = [folder / f"overview_{2**number}.tif" for number in numbers]
        _make_levels(source, paths, threads)
        levels += paths
        source = paths[-1]
    return _with_overviews(vrt, folder / "mosaic.vrt", levels)


def _shape(path: Path) -> tuple[int, int]:
    with rasterio.open(path) as dataset:
        return int(dataset.height), int(dataset.width)


def _make_levels(source: Path, paths: list[Path], threads: int) -> None:
    """Writes the overviews of 1/2 and 1/4 of the source's size, chunk by chunk of whole tiles."""
    with ExitStack() as stack:
        with rasterio.open(source) as dataset:
            with_mask = _has_mask(dataset)
            outputs = [
                stack.enter_context(rasterio.open(p, "w", **_profile(dataset, 2**k, threads)))
                for k, p in enumerate(paths, 1)
            ]
            if any(dataset.offsets):  # they tell which values are missing, to the next two levels
                for output in outputs:
                    output.offsets = dataset.offsets
        for window, reduced in _chunks(source, 4 * _TILE, len(paths)):
            for k, (values, valid) in enumerate(reduced, 1):
                at = RioWindow(window.col >> k, window.row >> k, values.shape[2], values.shape[1])
                outputs[k - 1].write(values, window=at)
                if with_mask:
                    mask = np.full(values.shape[1:], 255, np.uint8) if valid is None else valid * np.uint8(255)
                    outputs[k - 1].write_mask(mask, window=at)


def _chunks(
    source: Path, size: int, levels: int
) -> Iterator[tuple[Window, list[tuple[NDArray[Any], NDArray[np.bool_] | None]]]]:
    """Chunks of the source, row by row, reduced by 2, 4, ...; one is read ahead in a thread."""
    with gdal_threads(1, "pyramid") as pool:
        dataset = pool.submit(rasterio.open, source).result()
        try:
            windows = list(Window(0, 0, dataset.height, dataset.width).tiles(size))
            ahead: Future[Any] = pool.submit(_reduced, dataset, windows[0], levels)
            for index, window in enumerate(windows):
                result = ahead.result()
                if index + 1 < len(windows):
                    ahead = pool.submit(_reduced, dataset, windows[index + 1], levels)
                yield window, result
        finally:
            pool.submit(dataset.close).result()


def _reduced(dataset: Any, window: Window, levels: int) -> list[tuple[NDArray[Any], NDArray[np.bool_] | None]]:
    at = RioWindow(window.col, window.row, window.width, window.height)
    values = dataset.read(window=at)
    valid = _valid(dataset, values, at)
    if values.dtype.kind != "f" and all(
        is_sentinel(values.dtype, dataset.nodata, offset) for offset in dataset.offsets
    ):
        return _reduced_by_band(values, valid, dataset.nodata, levels)
    by_band = is_sentinel(values.dtype, dataset.nodata)
    if by_band:
        values[equals_nodata(values, dataset.nodata)] = np.nan
    by_value = not by_band and not _has_mask(dataset) and dataset.nodata is not None
    result = []
    for _ in range(levels):
        values, valid = halve(values, valid, np.nan if by_band else dataset.nodata)
        if by_value:  # a mean that happens to be nodata would read as missing
            avoid_nodata_pixels(values, valid, dataset.nodata)
        result.append(
            (np.where(np.isnan(values), values.dtype.type(dataset.nodata), values) if by_band else values, valid)
        )
    return result


def _reduced_by_band(
    values: NDArray[Any], valid: NDArray[np.bool_] | None, nodata: float, levels: int
) -> list[tuple[NDArray[Any], NDArray[np.bool_] | None]]:
    """Whole numbers that are missing band by band."""
    valid_bands = ~equals_nodata(values, nodata)
    if valid is not None:
        valid_bands &= valid
    result: list[tuple[NDArray[Any], NDArray[np.bool_] | None]] = []
    for _ in range(levels):
        parts = [halve(band[None], ok, nodata) for band, ok in zip(values, valid_bands, strict=True)]
        values = np.concatenate([part for part, _ in parts])
        valid_bands = np.stack([ok for _, ok in parts if ok is not None])
        result.append((values, np.asarray(valid_bands.any(axis=0))))
    return result


def _valid(dataset: Any, values: NDArray[Any], at: RioWindow) -> NDArray[np.bool_] | None:
    """(height, width), True = valid; None where every pixel is. NaN is left to the values themselves."""
    valid: NDArray[np.bool_] | None = None
    if _has_mask(dataset):
        valid = dataset.read_masks(1, window=at) != 0
    elif dataset.nodata is not None and not np.isnan(dataset.nodata):
        missing = equals_nodata(values[0], dataset.nodata)
        for band in values[1:]:
            if not missing.any():
                break
            missing &= equals_nodata(band, dataset.nodata)
        valid = ~missing
    return None if valid is None or valid.all() else valid


def _has_mask(dataset: Any) -> bool:
    return rasterio.enums.MaskFlags.per_dataset in dataset.mask_flag_enums[0]


def _profile(dataset: Any, factor: int, threads: int) -> dict[str, Any]:
    shape = dataset.count, -(-dataset.height // factor), -(-dataset.width // factor)
    affine = compose(dataset.transform, rasterio.Affine.scale(factor))
    return {
        **tiled_geotiff(shape, dataset.dtypes[0], (_TILE, _TILE), affine, dataset.crs, dataset.nodata),
        "bigtiff": "if_safer",
        # GDAL 3.10 compresses a mask in threads with the image's count of extra samples, and complains of it
        "num_threads": 1 if _has_mask(dataset) else threads,
    }


def _with_overviews(vrt: Path, path: Path, levels: list[Path]) -> Path:
    """The VRT with its sources by absolute path and `<Overview>` elements for each band and the mask."""
    root = ET.fromstring(vrt.read_text(encoding="utf-8"))
    for name in root.iter("SourceFilename"):
        if name.get("relativeToVRT") == "1":
            name.set("relativeToVRT", "0")
            name.text = str(vrt.absolute().parent / (name.text or ""))
    bands = [(b, b.get("band") or "1") for b in root.findall("VRTRasterBand")]
    bands += [(b, "mask,1") for b in root.findall("MaskBand/VRTRasterBand")]
    for band, source_band in bands:
        add_overview_elements(band, ((2**k, level.name) for k, level in enumerate(levels, 1)), source_band)
    write_bytes_atomic(path, ET.tostring(root, encoding="utf-8", xml_declaration=False))
    return path


def halve(values: NDArray[Any], valid: Valid, nodata: float | None) -> tuple[NDArray[Any], Valid]:
    """The image at half the size, by means; the last row or column of an odd size stands for two.

    Args:
        values: (C, height, width); NaN counts as missing in its band.
        valid: (height, width), True = valid; None: every pixel is.
        nodata: what a pixel becomes that has no valid pixel below it; 0 if None.

    Returns:
        (C, ceil(height / 2), ceil(width / 2)) in the same dtype, whole numbers rounded half up, and its valid mask.
    """
    values, valid = _even(values), None if valid is None else _even(valid[None])[0]
    if valid is None and values.dtype == np.uint8:
        return _mean_bytes(values), None
    ok = None if valid is None else _corners(valid)
    out = _mean(_corners(values), ok, values.dtype)
    if ok is None:
        return out, None
    any_ok = np.asarray(ok.any(axis=0), dtype=np.bool_)
    out[:, ~any_ok] = 0 if nodata is None else nodata
    return out, any_ok


def _even(values: NDArray[Any]) -> NDArray[Any]:
    _, height, width = values.shape
    if height % 2 or width % 2:
        return np.pad(values, ((0, 0), (0, height % 2), (0, width % 2)), mode="edge")
    return values


def _corners(values: NDArray[Any]) -> NDArray[Any]:
    """(4, ...): upper left, upper right, lower left, lower right pixel of each 2 x 2."""
    rows = (values[..., 0::2, :], values[..., 1::2, :])
    return np.stack([r[..., c::2] for r in rows for c in (0, 1)])


def _mean_bytes(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The mean of each 2 x 2 bytes, rounded half up, two columns in one machine word at a time."""
    pairs = values[:, 0::2].astype(np.uint16)
    pairs += values[:, 1::2]
    words = pairs.view(np.uint32)
    total = (words >> 16) + (words & 0xFFFF)
    total += 2
    total >>= 2
    return total.astype(np.uint8)


def _mean(corners: NDArray[Any], ok: NDArray[np.bool_] | None, dtype: np.dtype[Any]) -> NDArray[Any]:
    if dtype.kind == "f":
        here = np.isfinite(corners) if ok is None else np.isfinite(corners) & ok[:, None]
        count = here.sum(axis=0, dtype=np.uint8)
        total = np.where(here, corners, 0).sum(axis=0, dtype=np.float64)
        mean = (total / np.maximum(count, 1)).astype(dtype)
        mean[count == 0] = np.nan
        return np.asarray(mean)
    wide = np.dtype(np.int32 if dtype.itemsize <= 2 else np.float64)
    if ok is None:
        return _rounded(corners.sum(axis=0, dtype=wide), np.full((), 4, wide)).astype(dtype)
    total = (corners * ok[:, None]).sum(axis=0, dtype=wide)
    return _rounded(total, np.maximum(ok.sum(axis=0, dtype=np.int8), 1).astype(wide)).astype(dtype)


def _rounded(total: NDArray[Any], count: NDArray[Any]) -> NDArray[Any]:
    """total / count, rounded half up."""
    if total.dtype.kind == "f":
        return np.asarray(np.floor(total / count + 0.5))
    return np.asarray((2 * total + count) // (2 * count))
