"""A small country: two scenes side by side, references of several dates, a dozen areas."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import shapely

from geo_refdiff.options import Sources

EAST, NORTH, PIXEL, SIDE = 485_904.0, 5_209_248.0, 40.0, 24
UTM = "EPSG:26914"

OPTIONS: dict[str, Any] = {"model": "bicubic", "scale": 2, "device": "cpu", "products": "none"}
"""The cheapest run there is."""


@dataclass(frozen=True)
class Country:
    """Folders of a batch's inputs, and its areas."""

    root: Path
    areas: Path
    names: tuple[str, ...]

    @property
    def scenes(self) -> Path:
        """Folder of the scenes."""
        return self.root / "scenes"

    @property
    def references(self) -> Path:
        """Folder of the references."""
        return self.root / "references"

    def sources(self, **more: Any) -> Sources:
        """The scenes alone, and what is said beside."""
        return Sources([self.scenes], **more)


def square(row: float, col: float, side: float) -> shapely.Polygon:
    """A polygon by pixels of the first scene, counted from its corner."""
    west, north = EAST + col * PIXEL, NORTH - row * PIXEL
    return shapely.box(west, north - side * PIXEL, west + side * PIXEL, north)


def write_areas(path: Path, named: dict[str, shapely.Geometry], crs: str = UTM, layer: str = "areas") -> Path:
    """A GeoPackage of areas."""
    frame = geopandas.GeoDataFrame({"name": list(named)}, geometry=list(named.values()), crs=UTM)
    frame.to_crs(crs).to_file(path, driver="GPKG", layer=layer)
    return path


@pytest.fixture
def country(make_raster: Callable[..., Path], make_texture: Any, tmp_path: Path) -> Country:
    """Scenes of two dates on one grid (the second reaches from column 20 to 44), six areas."""
    for folder in ("scenes", "references"):
        (tmp_path / folder).mkdir()
    ground = np.round(20 + 200 * make_texture((3, SIDE, 44), seed=3)).astype("uint8")
    names = ("red", "green", "blue")
    from affine import Affine

    for name, col, size in (("west_20210503.tif", 0, 24), ("east_20210613.tif", 20, 24)):
        make_raster(
            f"scenes/{name}",
            ground[:, :, col : col + size],
            transform=Affine(PIXEL, 0, EAST + col * PIXEL, 0, -PIXEL, NORTH),
            names=names,
            nodata=0,
        )
    areas = {
        "plain": square(2, 2, 8),
        "round": square(6, 6, 8).centroid.buffer(3 * PIXEL),
        "seam": square(4, 16, 10),
        "far_east": square(10, 30, 9),
        "Größe/../x": square(14, 3, 6),
        "nowhere": square(200, 200, 5),
    }
    path = write_areas(tmp_path / "areas.gpkg", areas)
    return Country(tmp_path, path, ("plain", "round", "seam", "far_east", "Größe_.._x", "nowhere"))


@pytest.fixture
def write_scheduler_file(start_cluster: Callable[[int], Any]) -> Callable[[Path, int], None]:
    """Starts a cluster and writes the file that names its scheduler: write_scheduler_file(path, workers)."""

    def start(path: Path, workers: int) -> None:
        path.write_text(json.dumps({"address": start_cluster(workers).scheduler_address}))

    return start
