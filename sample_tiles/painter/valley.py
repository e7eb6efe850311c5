"""The sample scene, which `python -m sample_tiles.painter valley [FOLDER]` draws (default: valley/ beside this folder).

The valley is 768 x 768 m of generated land at two dates. The scene is what a coarse sensor sees of the new date, the
reference is a sharp picture of the old date in another CRS and a little off, the mask says what has changed, and the
truth is what the scene would look like at 1 m.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from affine import Affine
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.features import rasterize
from rasterio.warp import reproject, transform_bounds

from geo_refdiff.classes import CLASSES, COLOURS
from geo_refdiff.raster.geobox import compose
from geo_refdiff.sensor.sensor import SensorModel
from sample_tiles.painter.landcover import Edge, Use
from sample_tiles.painter.landscape import LandscapePair, render_pair
from sample_tiles.painter.pairs import BANDS, CORNER, CRS_UTM, write_raster

U8 = NDArray[np.uint8]

SEED: Final = 2
SIZE: Final = 768
SCALE: Final = 8
PSF_SIGMA: Final = 0.35
MARGIN: Final = 64
"""Metres drawn beyond the scene, so that the turned reference covers it. A multiple of SCALE."""
SCENE_NOISE: Final = 0.7
"""Standard deviation of the scene's noise before rounding, DN."""
CRS_REFERENCE: Final = "EPSG:3035"
SHIFT: Final = (0.4, -0.3)
"""Metres by which the reference is too far east and north in EPSG:32633 (so 0.3 m too far south)."""
REFERENCE_RIM: Final = 14
"""Metres by which the reference grid is larger than the scene's bounding box; its corners hold no data."""
NODATA_CORNER: Final = ((69.0, 0.0), (96.0, 0.0), (96.0, 27.0), (89.5, 21.0), (85.0, 11.5), (77.0, 7.0))
"""Polygon of the scene's missing corner: (column, row) of scene pixels."""
CHANGES: Final = (
    Use.LOTS, Use.CLEARCUT, Use.POND, Edge.LANE, Use.ORCHARD, Use.SOLAR, Use.LOTS, Use.INDUSTRY, Use.GRAVEL, Use.MEADOW,
)  # fmt: skip


def draw_valley() -> LandscapePair:
    """The valley with its margin at 1 m, (SIZE + 2 MARGIN) pixels square."""
    side = SIZE + 2 * MARGIN
    return render_pair(SEED, (side, side), 1.0, theme="valley", changes=CHANGES)


def inner(array: U8) -> U8:
    """The valley itself out of an array (..., H, W) with margin."""
    return np.ascontiguousarray(array[..., MARGIN : MARGIN + SIZE, MARGIN : MARGIN + SIZE])


def observe(sharp: U8) -> U8:
    """What the coarse sensor sees of the new date (with margin): (4, 96, 96) uint8, the missing corner 0."""
    seen = SensorModel(SCALE, PSF_SIGMA).observe(torch.from_numpy(sharp.astype(np.float32))[None])[0].numpy()
    rim = MARGIN // SCALE
    seen = seen[:, rim:-rim, rim:-rim]
    noisy = seen + np.random.default_rng([SEED, 40]).normal(0, SCENE_NOISE, seen.shape)
    scene = np.clip(np.rint(noisy), 1, 255).astype(np.uint8)
    missing = {"type": "Polygon", "coordinates": [[*NODATA_CORNER, NODATA_CORNER[0]]]}
    hole = rasterize([missing], out_shape=scene.shape[1:], transform=Affine.identity(), dtype="uint8")
    scene[:, hole == 1] = 0
    return scene


def reference_grid() -> tuple[Affine, tuple[int, int]]:
    """Affine and shape of the 1 m reference grid in its own CRS, whole metres, that covers the scene."""
    x, y = CORNER
    west, south, east, north = transform_bounds(CRS_UTM, CRS_REFERENCE, x, y - SIZE, x + SIZE, y, densify_pts=21)
    left, top = np.floor(west) - REFERENCE_RIM, np.ceil(north) + REFERENCE_RIM
    return Affine(1, 0, left, 0, -1, top), (
        int(top - np.floor(south) + REFERENCE_RIM),
        int(np.ceil(east) + REFERENCE_RIM - left),
    )


def reference(old: U8) -> U8:
    """The old date (with margin), moved by SHIFT and warped once, cubic, to the reference grid; 0 = no data."""
    x, y = CORNER
    source = Affine(1, 0, x - MARGIN + SHIFT[0], 0, -1, y + MARGIN + SHIFT[1])
    grid, shape = reference_grid()
    out = np.zeros((4, *shape), np.uint8)
    for band in range(4):
        reproject(
            old[band],
            out[band],
            src_transform=source,
            src_crs=CRS_UTM,
            dst_transform=grid,
            dst_crs=CRS_REFERENCE,
            src_nodata=0,
            dst_nodata=0,
            resampling=Resampling.cubic,
            num_threads=1,
            tolerance=0.0,
        )
    out[:, (out == 0).any(axis=0)] = 0
    return out


def _category_names(path: Path) -> None:
    """GDAL's side file with the category names, which Rasterio cannot write (GDAL "PAM" metadata)."""
    rows = "".join(f"      <Category>{name}</Category>\n" for name in CLASSES)
    path.with_name(path.name + ".aux.xml").write_text(
        f'<PAMDataset>\n  <PAMRasterBand band="1">\n    <CategoryNames>\n{rows}    </CategoryNames>\n'
        "  </PAMRasterBand>\n</PAMDataset>\n",
        encoding="utf-8",
    )


def class_table() -> str:
    """The class table as JSON text: value, name and colour of each class."""
    table = [{"value": k, "name": name, "colour": COLOURS[k]} for k, name in enumerate(CLASSES)]
    return json.dumps({"classes": table}, indent=1) + "\n"


def facts() -> dict[str, Any]:
    """Everything that a test or a reader wants to know about the valley."""
    grid, shape = reference_grid()
    return {
        "name": "valley",
        "seed": SEED,
        "bands": list(BANDS),
        "scene": {"crs": CRS_UTM, "corner": list(CORNER), "gsd_m": SCALE, "shape": [SIZE // SCALE] * 2, "nodata": 0},
        "truth": {"crs": CRS_UTM, "corner": list(CORNER), "gsd_m": 1, "shape": [SIZE] * 2},
        "reference": {"crs": CRS_REFERENCE, "corner": [grid.c, grid.f], "gsd_m": 1, "shape": list(shape), "nodata": 0},
        "reference_shift_m": {"east": SHIFT[0], "north": SHIFT[1], "crs": CRS_UTM},
        "sensor": {"scale": SCALE, "psf_sigma_lr_px": PSF_SIGMA, "noise_dn": SCENE_NOISE},
        "nodata_corner_lr_px": [list(p) for p in NODATA_CORNER],
    }


def generate(folder: Path) -> None:
    """Write scene.tif, reference.tif, mask.tif, truth.tif, classes.json and valley.json into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    pair = draw_valley()
    fine = Affine(1, 0, CORNER[0], 0, -1, CORNER[1])
    write_raster(folder / "truth.tif", inner(pair.new), CRS_UTM, fine, None)
    write_raster(folder / "scene.tif", observe(pair.new), CRS_UTM, compose(fine, Affine.scale(SCALE)), 0)
    write_raster(folder / "reference.tif", reference(pair.old), CRS_REFERENCE, reference_grid()[0], 0)
    write_raster(folder / "mask.tif", inner(pair.mask), CRS_UTM, fine, None)
    _category_names(folder / "mask.tif")
    (folder / "classes.json").write_text(class_table(), encoding="utf-8")
    (folder / "valley.json").write_text(json.dumps(facts(), indent=1) + "\n", encoding="utf-8")
