"""Folders of images by a tile's or a pair's name: results of other methods, masks of a detector, LR of a protocol."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import rasterio
import torch
from numpy.typing import NDArray
from PIL import Image
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning
from torch import Tensor

from geo_refdiff.data.dataset import Numbers
from geo_refdiff.errors import GeoRefDiffError, InputError
from geo_refdiff.evaluate.tiles import UINT8, TileSpec
from geo_refdiff.raster.files import atomic_path
from geo_refdiff.raster.gdal import GDAL_ERRORS, one_line

SUFFIXES = (".png", ".tif", ".tiff")


class ImageFolder:
    """PNG and GeoTIFF files called like tiles or pairs, in the pair's digital numbers: in its dtype or float32.

    A file called like the pair may hold the whole pair, of which the tile is cut out.

    Args:
        folder: looked at once.
        bands: how many an image must have; None: one band of class indices.
        scale: the images are that many times coarser than the tiles.

    Raises:
        InputError: no such folder, or no image in it.
    """

    def __init__(self, folder: Path, bands: int | None, scale: int = 1) -> None:
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder; name a folder of {', '.join(SUFFIXES)} files")
        self.folder, self.bands, self.scale = folder, bands, scale
        self._files = {path.stem: path for path in sorted(folder.iterdir()) if path.suffix.lower() in SUFFIXES}
        if not self._files:
            raise InputError(f"{folder}: holds no {', '.join(SUFFIXES)} file")

    def read(self, spec: TileSpec) -> Tensor:
        """The image of a tile, (1, bands, h, w) float32, 0..255 as in `Tile`, or (1, 1, h, w) uint8 class indices.

        Raises:
            InputError: there is none, it cannot be read, or it has another size or other bands.
        """
        path = next((self._files[stem] for stem in spec.aliases if stem in self._files), None)
        if path is None:
            raise InputError(f"{self.folder}: has no image called {spec.name}.png or .tif")
        values = _pixels(path)
        height, width = spec.window.shape
        whole = values.shape[1:] == (spec.shape[0] // self.scale, spec.shape[1] // self.scale)
        if values.shape[1:] != (height // self.scale, width // self.scale):
            if not whole:
                wanted = f"{height // self.scale} x {width // self.scale}"
                raise InputError(f"{path}: is {values.shape[1]} x {values.shape[2]} px, the tile {wanted}")
            at = spec.window.divide(self.scale)
            values = values[:, at.row : at.stop_row, at.col : at.stop_col]
        wanted_bands = self.bands or 1
        if values.shape[0] != wanted_bands:
            way = "; choose bands with --bands" if self.bands else ""
            raise InputError(f"{path}: has {values.shape[0]} bands, {wanted_bands} are wanted{way}")
        numbers = UINT8 if self.bands is None else spec.numbers
        allowed = ("uint8",) if self.bands is None else tuple(dict.fromkeys((numbers.dtype, "float32")))
        if values.dtype.name not in allowed:
            means = "values 0 to 255" if numbers == UINT8 else "in the digital numbers of the pair"
            raise InputError(f"{path}: holds {values.dtype.name}; save it as {' or '.join(allowed)}, {means}")
        return torch.from_numpy(values if self.bands is None else numbers.scaled(values.astype(np.float32)))[None]


class Images(Protocol):
    """Images by tile."""

    def read(self, spec: TileSpec) -> Tensor:
        """(1, bands, h, w); InputError where there is none."""
        ...


def lacking(images: Images, specs: Sequence[TileSpec]) -> dict[str, str]:
    """Tiles without a usable image, and why; every image is read once."""
    missing = {}
    for spec in specs:
        try:
            images.read(spec)
        except GeoRefDiffError as error:
            missing[spec.name] = str(error)
    return missing


def _pixels(path: Path) -> NDArray[Any]:
    """(bands, h, w), an alpha band left out."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(path) as source:
                kept = [b for b, c in zip(source.indexes, source.colorinterp, strict=True) if c != ColorInterp.alpha]
                values: NDArray[Any] = source.read(kept)
                return values
    except GDAL_ERRORS as error:
        raise InputError(f"{path}: cannot be read ({one_line(error, 120)}); make it again") from error


def in_own_dtype(image: Tensor, numbers: Numbers) -> Tensor:
    """0..255 as in `Tile` -> digital numbers, rounded and clipped as their dtype is, still float32."""
    own = numbers.own(image)
    if np.dtype(numbers.dtype).kind == "f":
        return own
    bounds = np.iinfo(numbers.dtype)
    return own.clamp(bounds.min, bounds.max).round()


def as_written(image: Tensor, numbers: Numbers = UINT8) -> Tensor:
    """An image as the product delivers it: rounded and clipped as the scene's own dtype holds it, still 0..255."""
    return numbers.scaled(in_own_dtype(image, numbers))


def write_image(path: Path, image: Tensor, numbers: Numbers = UINT8) -> Path:
    """Write (1, C, h, w), 0..255 as in `Tile`, as digital numbers: PNG for uint8 in 1 or 3 bands, else TIFF.

    Args:
        path: without suffix.
        image: what is written.
        numbers: of its pair.

    Returns:
        the file.

    Raises:
        OutputError: it cannot be written.
    """
    values = in_own_dtype(image, numbers)[0].numpy().astype(numbers.dtype)
    if numbers.dtype == "uint8" and values.shape[0] in (1, 3):
        target = path.with_name(f"{path.name}.png")
        with atomic_path(target) as temporary:
            shown = values[0] if values.shape[0] == 1 else np.ascontiguousarray(values.transpose(1, 2, 0))
            Image.fromarray(shown).save(temporary, format="PNG")
        return target
    count, height, width = values.shape
    target = path.with_name(f"{path.name}.tif")
    profile = {"driver": "GTiff", "dtype": numbers.dtype, "count": count, "height": height, "width": width}
    with warnings.catch_warnings(), atomic_path(target) as temporary:
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(temporary, "w", photometric="MINISBLACK", compress="deflate", **profile) as file:
            file.write(values)
    return target
