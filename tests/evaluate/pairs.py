"""A data set of pairs in memory, whose pixels say where they lie; and small index files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio
import torch
from affine import Affine
from PIL import Image
from scipy import ndimage

from geo_refdiff.data import Crop, ReadError
from geo_refdiff.data.dataset import Numbers
from geo_refdiff.sensor.sensor import SensorModel

CLASSES = ("no change", "water", "building")


class Numbered:
    """Pairs in memory: red = row, green = column, blue = pair; the reference is 7 darker, its first column missing."""

    bands = ("red", "green", "blue")
    classes = CLASSES

    def __init__(self, names: list[str], shape: tuple[int, int] = (96, 128), broken: int = -1) -> None:
        self.names, self.size, self.broken = names, shape, broken
        self.masks = np.full((len(names), *shape), 255, np.uint8)
        self.new_valid = np.ones((len(names), *shape), np.bool_)
        self.reads = 0

    def __len__(self) -> int:
        return len(self.names)

    def name(self, index: int) -> str:
        return self.names[index]

    def files(self, index: int) -> tuple[str, ...]:
        return ()

    def numbers(self, index: int) -> Numbers:
        return Numbers()

    def shape(self, index: int) -> tuple[int, int]:
        return self.size

    def read(self, index: int, top: int, left: int, height: int, width: int) -> Crop:
        self.reads += 1
        if index == self.broken:
            raise ReadError(f"{self.names[index]}: torn")
        rows, cols = np.mgrid[top : top + height, left : left + width]
        new = np.stack([rows, cols, np.full_like(rows, 10 * index)]).astype(np.uint8)
        at = (slice(top, top + height), slice(left, left + width))
        cover = np.where(cols < 64, 1, 2).astype(np.uint8)
        ref = np.clip(new.astype(int) - 7, 0, 255).astype(np.uint8)
        return Crop(new, ref, self.new_valid[index][at], cols > 0, cover, self.masks[index][at])

    def fingerprint(self) -> str:
        return "0" * 64


def write_index(path: Path, rows: list[dict[str, str]]) -> Path:
    """An index as a user writes it by hand."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = [",".join(columns), *(",".join(row.get(c, "") for c in columns) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


def ground(seed: int, bands: int, side: int) -> np.ndarray:
    """(bands, side, side) uint8 with structure at several sizes."""
    rng = np.random.default_rng(seed)
    layers = [ndimage.gaussian_filter(rng.standard_normal((bands, side, side)), (0, s, s)) for s in (1, 3, 8)]
    mixed = sum(layer / layer.std() * weight for layer, weight in zip(layers, (12, 16, 22), strict=True))
    return np.clip(120 + mixed, 1, 254).astype(np.uint8)


def write_pairs(folder: Path, places: int = 2, side: int = 64, bands: int = 3, mask: bool = True) -> Path:
    """GeoTIFF pairs, the reference with a water square that is now bare ground, and their index."""
    names, rows = ("red", "green", "blue", "nir")[:bands], []
    grid = {"driver": "GTiff", "height": side, "width": side, "dtype": "uint8", "crs": "EPSG:26914"}
    grid["transform"] = Affine(1.0, 0, 485_904.0, 0, -1.0, 5_209_248.0)
    for place in range(places):
        new = ground(place, bands, side)
        old, change = new.copy(), np.zeros((1, side, side), np.uint8)
        square = (slice(None), slice(side // 4, side // 2), slice(side // 4, side // 2))
        old[square], change[square] = ground(place + 50, bands, side)[square] // 3, 2
        for name, image in {"new": new, "old": old, "change": change}.items():
            with rasterio.open(folder / f"{place}_{name}.tif", "w", count=len(image), **grid) as target:
                target.write(image)
                if len(image) > 1:
                    target.descriptions = names
        row = {"name": f"town/{place:03d} 2016->2020", "new": f"{place}_new.tif", "ref": f"{place}_old.tif"}
        rows.append({**row, "place": f"town/{place:03d}"} | ({"mask": f"{place}_change.tif"} if mask else {}))
    return write_index(folder / "index.csv", rows)


def write_pairs16(folder: Path, low: float, high: float, side: int = 64) -> Path:
    """A pair in uint16, most of it between low and high, dark water and a bright roof beyond, and its index."""
    names, low_high = ("red", "green", "blue"), {"low": str(low), "high": str(high)}
    new = np.rint(low + (high - low) * ground(7, 3, side) / 255.0).astype(np.uint16)
    new[:, 12:24, 12:24], new[:, 34:46, 34:46] = low / 2, 2.5 * high
    for name, image in {"new": new, "old": new}.items():
        with rasterio.open(
            folder / f"{name}.tif", "w", driver="GTiff", count=3, height=side, width=side, dtype="uint16",
            crs="EPSG:26914", transform=Affine(1.0, 0, 485_904.0, 0, -1.0, 5_209_248.0),
        ) as target:  # fmt: skip
            target.write(image)
            target.descriptions = names
    row = {"name": "town/007 2016->2020", "new": "new.tif", "ref": "old.tif", "place": "town/007", **low_high}
    return write_index(folder / "index.csv", [row])


def write_refsr(folder: Path, places: int = 2, side: int = 64) -> Path:
    """A test split in the layout of SECOND: a square that is now a building, bicubic LR images for 8x."""
    kinds = ("HR_64", "Ref", "CD_mask_RGB", "Bic_LR_D8_8")
    for kind in kinds:
        (folder / "test" / kind).mkdir(parents=True)
    for place in range(places):
        new, old, labels = ground(place, 3, side), ground(place, 3, side), np.full((3, side, side), 255, np.uint8)
        square = (slice(None), slice(side // 4, side // 2), slice(side // 4, side // 2))
        old[square], labels[square] = 255 - old[square], np.array([128, 0, 0], np.uint8)[:, None, None]
        lr = np.rint(SensorModel(8, kernel="bicubic").observe(torch.from_numpy(new).float()[None])[0].numpy())
        for kind, image in zip(kinds, (new, old, labels, lr.clip(0, 255).astype(np.uint8)), strict=True):
            picture = np.ascontiguousarray(image.transpose(1, 2, 0))
            Image.fromarray(picture).save(folder / "test" / kind / f"{place:05d}.png")
    table = "0 unchanged 255 255 255\n1 water 0 0 255\n2 building 128 0 0\n"
    (folder / "CLASS_Table.txt").write_text(table)
    return folder
