"""A page about a batch: one HTML file with a map, figures and thumbnails, which needs nothing beside it."""

from __future__ import annotations

import base64
import errno
import html
import io
import os
from collections.abc import Iterable, Mapping
from math import cos, radians
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from geo_refdiff.batch.manifest import STATUS_COLOURS
from geo_refdiff.errors import InputError, OutputError
from geo_refdiff.raster.affine import point
from geo_refdiff.raster.atomic import check_replaceable, output_error, write_bytes_atomic
from geo_refdiff.raster.gdal import GDAL_ERRORS, gdal_env
from geo_refdiff.raster.picture import stretch
from geo_refdiff.raster.quicklook import look

PICTURES = 48
"""Areas that are shown with thumbnails."""

_MARK = '<meta name="generator" content="geo-refdiff batch">'
_HEAD = 1024
_WIDTH = 900.0
_SIDE = 320
_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;margin:2em auto;max-width:70em;padding:0 1em;color:#222;background:#fff}
table{border-collapse:collapse;width:100%;font-size:13px}
td,th{padding:.25em .6em;text-align:left;border-bottom:1px solid #ddd}
svg{width:100%;height:auto;background:#f6f6f4;border:1px solid #ddd}figure{display:inline-block;margin:.5em 1em .5em 0}
img{height:160px;image-rendering:pixelated;margin-right:4px;background:#eee}figcaption{font-size:12px}.failed{color:#d7301f}
"""


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
    path: Path,
    title: str,
    rows: Mapping[str, Mapping[str, Any]],
    outlines: Mapping[str, BaseGeometry],
    outputs: Mapping[str, Path],
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
    counts = {status: sum(row["status"] == status for row in rows.values()) for status in STATUS_COLOURS}
    title = html.escape(title)
    told = ", ".join(f"{n} {status}" for status, n in counts.items() if n)
    parts = [
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">{_MARK}<title>{title}</title>',
        f"<style>{_STYLE}</style></head>",
        f'<body><h1>{title}</h1><p id="summary">{len(rows)} areas: {told}</p>',
        _map(rows, outlines),
        *_pictures(outputs, rows),
        _table(rows.values()),
        "</body></html>\n",
    ]
    write_bytes_atomic(path, "\n".join(parts).encode())


def _map(rows: Mapping[str, Mapping[str, Any]], outlines: Mapping[str, BaseGeometry]) -> str:
    shapes = {name: shape for name, shape in outlines.items() if not shape.is_empty}
    if not shapes:
        return ""
    west, south, east, north = shapely.total_bounds(list(shapes.values()))
    narrow = max(cos(radians((south + north) / 2)), 0.05)
    unit = _WIDTH / max((east - west) * narrow, (north - south) / 2, 1e-9)
    height = max((north - south) * unit, 10.0)
    drawn = []
    for name, shape in shapes.items():
        status = str(rows[name]["status"])
        small = shapely.force_2d(shape).simplify(0.3 / unit)
        paths = "".join(
            "M" + "L".join(f"{(x - west) * narrow * unit:.1f} {(north - y) * unit:.1f}" for x, y in ring) + "Z"
            for polygon in shapely.get_parts(small)
            for ring in [polygon.exterior.coords, *(r.coords for r in polygon.interiors)]
        )
        colour = "#{:02x}{:02x}{:02x}".format(*STATUS_COLOURS.get(status, (0, 0, 0)))
        drawn.append(
            f'<path d="{paths}" fill="{colour}" fill-opacity=".5" stroke="{colour}" stroke-width="3" '
            f'stroke-linejoin="round" fill-rule="evenodd"><title>{html.escape(name)}: {status}</title></path>'
        )
    box = f"-6 -6 {(east - west) * narrow * unit + 12:.1f} {height + 12:.1f}"
    return f'<h2>Map</h2><svg id="map" viewBox="{box}" role="img" aria-label="areas by status">{"".join(drawn)}</svg>'


def _pictures(outputs: Mapping[str, Path], rows: Mapping[str, Mapping[str, Any]]) -> Iterable[str]:
    done = [name for name, row in rows.items() if row["status"] == "done"]
    if not done:
        return
    yield "<h2>Before and after</h2>"
    if len(done) > PICTURES:
        yield f"<p>{PICTURES} of {len(done)}, spread evenly</p>"
        done = [done[round(i * (len(done) - 1) / (PICTURES - 1))] for i in range(PICTURES)]
    for name in done:
        pair = _pair(outputs[name], rows[name]["scene_file"])
        if pair is not None:
            shown = "".join(
                f'<img src="data:image/png;base64,{picture}" alt="{html.escape(name)}, {when}">'
                for picture, when in zip(pair, ("before", "after"), strict=True)
            )
            yield f"<figure>{shown}<figcaption>{html.escape(name)}</figcaption></figure>"


def _pair(out: Path, scene: str | None) -> tuple[str, str] | None:
    """The scene under an output, and the output, stretched alike, in at most 320 pixels; PNG as base64.

    None where they cannot be read.
    """
    import rasterio
    from rasterio.windows import Window

    try:
        with gdal_env(), rasterio.open(out) as fine, rasterio.open(str(scene)) as coarse:
            after = look(out, _SIDE)
            scale = int(fine.tags()["GEO_REFDIFF_SCALE"])
            bands = [int(b) for b in fine.tags()["GEO_REFDIFF_BANDS"].split(",")]
            col, row = point(~coarse.transform, fine.transform.c, fine.transform.f)
            window = Window(round(col), round(row), fine.width // scale, fine.height // scale)
            shrink = max(window.width, window.height, _SIDE) / _SIDE
            size = max(1, round(window.height / shrink)), max(1, round(window.width / shrink))
            shown = [bands[b - 1] for b in after.bands]
            before = coarse.read(shown, window=window, out_shape=(len(shown), *size))
    except (*GDAL_ERRORS, InputError, KeyError, IndexError):
        return None
    low, high = (np.full(len(after.bands), edge) for edge in after.range)
    return _png(stretch(before, low, high)), _png(stretch(after.values, low, high))


def _png(values: Any) -> str:
    from PIL import Image

    rgb = np.repeat(values, 3, axis=0) if len(values) == 1 else values
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(rgb.transpose(1, 2, 0))).save(stream, format="PNG", optimize=True)
    return base64.b64encode(stream.getvalue()).decode()


_SHOWN = (
    ("name", "area"),
    ("status", "status"),
    ("scene", "scene"),
    ("reference", "reference"),
    ("seconds", "s"),
    ("megapixels", "MPix"),
    ("lr_residual_rms", "LR residual, rms DN"),
    ("ref_correlation", "correlation with the reference"),
    ("generated", "share generated"),
    ("error", "error"),
)


def _table(rows: Iterable[Mapping[str, Any]]) -> str:
    head = "".join(f"<th>{label}</th>" for _, label in _SHOWN)
    lines = []
    for row in rows:
        cells = "".join(f"<td>{html.escape(_text(row[key]))}</td>" for key, _ in _SHOWN)
        lines.append(f'<tr class="{html.escape(str(row["status"]))}">{cells}</tr>')
    return f"<h2>Figures</h2><table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def _text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
