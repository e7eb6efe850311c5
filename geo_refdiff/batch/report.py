"""A page about a batch: one HTML file with a map, figures and thumbnails, which needs nothing beside it."""

from __future__ import annotations

import base64
import errno
import io
import os
from collections.abc import Mapping, Sequence
from functools import partial
from math import cos, radians
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from geo_refdiff.batch.manifest import STATUS_COLOURS, Row
from geo_refdiff.commands.products import product_path
from geo_refdiff.errors import InputError, OutputError
from geo_refdiff.products.opening import gdal_source
from geo_refdiff.raster.files import check_replaceable, output_error, write_bytes_atomic
from geo_refdiff.raster.gdal import GDAL_ERRORS, gdal_env
from geo_refdiff.raster.geobox import point
from geo_refdiff.raster.picture import look, picture_of, reduced, stretch
from geo_refdiff.restore.sources import CLOUD

PICTURES = 48
"""Areas that are shown with thumbnails."""

_MARK = '<meta name="generator" content="geo-refdiff batch">'
_HEAD = 1024
_WIDTH = 900.0
_SIDE = 320
_OUTLIERS = 20
_TEMPLATE = "report.html.j2"
_COLUMNS = (
    ("name", "area"),
    ("status", "status"),
    ("scene", "scene"),
    ("reference", "reference"),
    ("seconds", "s"),
    ("megapixels", "MPix"),
    ("scene_residual_rms", "scene residual, rms DN"),
    ("ref_correlation", "correlation with the reference"),
    ("generated", "share generated"),
    ("error", "error"),
)


def check_report(path: Path, folder: Path, *, overwrite: bool) -> None:
    """Refuse, before any work is done, a page that could not be written, or that would replace a file of other kind.

    Args:
        path: of the page; over a page of an earlier run it may be written.
        folder: of the batch, which may still have to be made.
        overwrite: whether any file may be replaced.

    Raises:
        OutputError: the page's folder is missing or cannot be written to, or something else is there.
    """
    check_replaceable(path)
    place = path.absolute().parent
    if place.is_dir() and not os.access(place, os.W_OK):
        raise output_error(path, PermissionError(errno.EACCES, ""))
    if not place.is_dir() and place != folder:
        raise output_error(path, FileNotFoundError(errno.ENOENT, ""))
    if path.is_dir():
        raise output_error(path, IsADirectoryError(errno.EISDIR, ""))
    if not path.exists() or overwrite:
        return
    try:
        with path.open("rb") as stream:
            ours = _MARK.encode() in stream.read(_HEAD)
    except OSError as error:
        raise output_error(path, error) from error
    if not ours:
        raise OutputError(f"{path}: is no report of a batch; choose another name or say --overwrite")


def write_report(
    path: Path, title: str, rows: Mapping[str, Row], outlines: Mapping[str, BaseGeometry], outputs: Mapping[str, Path]
) -> None:
    """Write the page, whole or not at all.

    Args:
        path: of the page.
        title: of the batch.
        rows: of its manifest, by name.
        outlines: of the areas in degrees, by name.
        outputs: files, by name.

    Raises:
        OutputError: it cannot be written.
    """
    import jinja2

    shown = [rows[name] for name in outlines if name in rows]
    counts = {status: sum(row.status == status for row in shown) for status in STATUS_COLOURS}
    done = [row for row in shown if row.status == "done"]
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined)
    environment.filters["figure"] = _text
    page = environment.get_template(_TEMPLATE).render(
        mark=_MARK,
        title=title,
        rows=shown,
        counts=[f"{n} {status}" for status, n in counts.items() if n],
        map=_map(shown, outlines),
        pictures=_pictures(done, outputs),
        done=len(done),
        columns=_COLUMNS,
    )
    write_bytes_atomic(path, page.encode())


def _map(rows: Sequence[Row], outlines: Mapping[str, BaseGeometry]) -> dict[str, Any] | None:
    """Outlines as paths of an SVG, where areas are done; the others beyond are outliers. None: no outlines."""
    drawn = [row for row in rows if not outlines[row.name].is_empty]
    if not drawn:
        return None
    done = [row for row in drawn if row.status == "done"] or drawn
    west, south, east, north = shapely.total_bounds([outlines[row.name] for row in done])
    extent = shapely.box(west, south, east, north)
    narrow = max(cos(radians((south + north) / 2)), 0.05)
    unit = _WIDTH / max((east - west) * narrow, (north - south) / 2, 1e-9)
    shapes, outliers = [], []
    for row in drawn:
        part = shapely.force_2d(outlines[row.name]).intersection(extent)
        if part.is_empty:
            outliers.append(f"{row.name} ({row.status})")
            continue
        path = "".join(
            "M" + "L".join(f"{(x - west) * narrow * unit:.1f} {(north - y) * unit:.1f}" for x, y in ring) + "Z"
            for polygon in shapely.get_parts(part.simplify(0.3 / unit))
            if polygon.geom_type == "Polygon"
            for ring in [polygon.exterior.coords, *(r.coords for r in polygon.interiors)]
        )
        colour = "#{:02x}{:02x}{:02x}".format(*STATUS_COLOURS.get(row.status or "", (0, 0, 0)))
        shapes.append({"name": row.name, "status": row.status, "path": path, "colour": colour})
    if len(outliers) > _OUTLIERS:
        outliers[_OUTLIERS:] = [f"and {len(outliers) - _OUTLIERS} more"]
    return {
        "width": round((east - west) * narrow * unit, 1),
        "height": round(max((north - south) * unit, 10.0), 1),
        "shapes": shapes,
        "outliers": outliers,
    }


def _pictures(done: Sequence[Row], outputs: Mapping[str, Path]) -> list[dict[str, str]]:
    """Thumbnails of finished areas, PNG as base64: the scene before, the output after."""
    if len(done) > PICTURES:
        done = [done[round(i * (len(done) - 1) / (PICTURES - 1))] for i in range(PICTURES)]
    pairs = [(row.name, _pair(outputs[row.name], row.scene_file)) for row in done]
    return [{"name": name, "before": pair[0], "after": pair[1]} for name, pair in pairs if pair is not None]


def _pair(out: Path, scene: str | None) -> tuple[str, str] | None:
    """The scene under an output, and the output, stretched alike, in at most 320 pixels; PNG as base64.

    None where they cannot be read.
    """
    import rasterio
    from rasterio.windows import Window

    try:
        with gdal_env(), rasterio.open(out) as fine, rasterio.open(gdal_source(str(scene))) as coarse:
            source = product_path(out, "source")
            after = look(out, _SIDE, clear=partial(_clear, source) if source.exists() else None)
            scale = int(fine.tags()["GEO_REFDIFF_SCALE"])
            bands = [int(b) for b in fine.tags()["GEO_REFDIFF_BANDS"].split(",")]
            col, row = point(~coarse.transform, fine.transform.c, fine.transform.f)
            window = Window(round(col), round(row), fine.width // scale, fine.height // scale)
            shrink = max(window.width, window.height, _SIDE) / _SIDE
            size = max(1, round(window.height / shrink)), max(1, round(window.width / shrink))
            shown = [bands[b - 1] for b in after.bands]
            before = coarse.read(shown, window=window, out_shape=(len(shown), *size))
            seen = coarse.dataset_mask(window=window, out_shape=size) > 0
    except (*GDAL_ERRORS, InputError, KeyError, IndexError):
        return None
    low, high = (np.full(len(after.bands), edge) for edge in after.range)
    return _png(stretch(before, low, high), seen), _png(stretch(after.values, low, high), after.valid)


def _clear(source: Path, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Where a map of sources, reduced to a shape, shows no cloud."""
    return np.asarray(reduced(str(source), (1,), max(shape))[0][0] != CLOUD)


def _png(values: NDArray[np.uint8], valid: NDArray[np.bool_]) -> str:
    stream = io.BytesIO()
    picture_of(values, valid).save(stream, format="PNG", optimize=True)
    return base64.b64encode(stream.getvalue()).decode()


def _text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
