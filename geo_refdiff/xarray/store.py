"""Arrays as files that a plan can read: each chunk becomes a small GeoTIFF when it is needed, all of them one VRT."""

from __future__ import annotations

import atexit
import os
import socket
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from shutil import rmtree
from typing import Any

import dask.array
import numpy as np
import xarray
from dask.base import tokenize
from numpy.typing import NDArray

from geo_refdiff.errors import InputError
from geo_refdiff.raster.files import output_error
from geo_refdiff.raster.gdal import gdal_env
from geo_refdiff.raster.geobox import crop, scene_geobox
from geo_refdiff.raster.info import RasterInfo
from geo_refdiff.raster.vrt import VirtualRaster, write_block, write_vrt
from geo_refdiff.raster.window import Window
from geo_refdiff.xarray.arrays import array_info

_SIDE = 1024
_VRT = "image.vrt"


@dataclass(frozen=True)
class Store:
    """Where the chunks of an image are, or will be.

    Attributes:
        info: what the VRT over them is going to be.
        rows, cols: where chunks start along y and x, and where the last one ends, pixels.
    """

    info: RasterInfo
    rows: tuple[int, ...]
    cols: tuple[int, ...]

    @property
    def folder(self) -> Path:
        """Holds the chunks."""
        return Path(self.info.path).parent

    def name(self, row: int, col: int) -> str:
        """File of a chunk, within the folder."""
        return f"r{row:05d}_c{col:05d}.tif"

    def window(self, row: int, col: int) -> Window:
        """A chunk in pixels of the image."""
        top, left = self.rows[row], self.cols[col]
        return Window(top, left, self.rows[row + 1] - top, self.cols[col + 1] - left)

    def finish(self) -> None:
        """Write the VRT over all chunks.

        Raises:
            InputError: a chunk was written where this process cannot see it.
        """
        sources = [(r, c) for r in range(len(self.rows) - 1) for c in range(len(self.cols) - 1)]
        missing = [self.name(*at) for at in sources if not (self.folder / self.name(*at)).exists()]
        if missing:
            raise InputError(
                f"{self.folder}: {len(missing)} of {len(sources)} chunks are not to be seen from "
                f"{socket.gethostname()}; give folder=, a folder that all workers share"
            )
        info = self.info
        mosaic = VirtualRaster(
            geobox=scene_geobox(info),
            dtype=info.dtype,
            count=info.count,
            sources=tuple((self.name(*at), self.window(*at)) for at in sources),
            nodata=info.nodata,
            descriptions=info.descriptions,
            colorinterp=info.colorinterp,
            crs_wkt=info.crs_wkt,
        )
        write_vrt(info.path, mosaic)


@dataclass(frozen=True)
class Stored:
    """A store, and the lazy array that fills it: computing it writes the chunks, its values say nothing."""

    store: Store
    written: dask.array.Array


def store_image(image: xarray.DataArray, folder: Path, what: str) -> Stored:
    """An image as files under `folder`, written when they are asked for and only once.

    Args:
        image: (band, y, x), in memory or chunked.
        folder: exists, seen by all workers; images of other content go into folders of their own.
        what: for messages.

    Raises:
        InputError: the image cannot be a georeferenced raster.
    """
    info = array_info(image, "", what)
    pixels = image.data
    if not isinstance(pixels, dask.array.Array):
        pixels = dask.array.from_array(np.asarray(pixels), chunks=(-1, _SIDE, _SIDE))
    if pixels.numblocks[0] > 1:
        pixels = pixels.rechunk({0: -1})
    own = folder / tokenize(pixels.name, info)
    rows, cols = ((0, *(int(v) for v in np.cumsum(c))) for c in pixels.chunks[1:])
    store = Store(array_info(image, str(own / _VRT), what), rows, cols)
    written = dask.array.map_blocks(
        _write,
        pixels,
        store,
        dtype=np.bool_,
        chunks=tuple((1,) * n for n in pixels.numblocks),
        meta=np.empty((0, 0, 0), dtype=np.bool_),
        name=f"refdiff-store-{own.name}",
    )
    return Stored(store, written)


@cache
def temporary_folder() -> Path:
    """A folder that is removed when this process ends."""
    folder = Path(tempfile.mkdtemp(prefix="geo-refdiff-"))
    owner = os.getpid()
    atexit.register(lambda: rmtree(folder, ignore_errors=True) if os.getpid() == owner else None)
    return folder


def _write(chunk: NDArray[Any], store: Store, block_id: tuple[int, int, int] = (0, 0, 0)) -> NDArray[np.bool_]:
    _, row, col = block_id
    path, window, info = store.folder / store.name(row, col), store.window(row, col), store.info
    if not path.exists():
        if not store.folder.parent.is_dir():
            raise InputError(
                f"{store.folder.parent}: no such folder on {socket.gethostname()}; give folder=, a folder that all "
                f"workers share"
            )
        try:
            store.folder.mkdir(exist_ok=True)
        except OSError as error:
            raise output_error(store.folder, error) from error
        affine = crop(scene_geobox(info), window).affine
        with gdal_env():
            write_block(path, chunk.astype(info.dtype, copy=False), None, affine, info.crs_wkt, info.nodata)
    return np.ones((1, 1, 1), dtype=np.bool_)
