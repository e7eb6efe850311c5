"""What is written beside the output: where detail comes from, a catalogue entry, a small picture, a page for people."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window as RioWindow

from geo_refdiff.engine.publish import publish_sources, publish_uncertainty
from geo_refdiff.engine.rasters import UNCERTAINTY
from geo_refdiff.engine.workdir import Workdir
from geo_refdiff.plan.records import Plan
from geo_refdiff.raster.dates import Span, span_in_name, span_of
from geo_refdiff.raster.files import write_json_atomic
from geo_refdiff.raster.gdal import gdal_env
from geo_refdiff.raster.info import RasterInfo
from geo_refdiff.raster.picture import look, write_quicklook
from geo_refdiff.raster.reader import ClearReader
from geo_refdiff.raster.styles import write_image_style, write_ramp_style


def product_path(out: Path, product: str) -> Path:
    """Where a product of `out` is: out.source.tif, out.uncertainty.tif, out.qml, out.json, out.png, out.html."""
    suffixes = {"source": ".source.tif", UNCERTAINTY: ".uncertainty.tif", "style": ".qml", "stac": ".json"}
    return out.with_suffix((suffixes | {"quicklook": ".png", "report": ".html"})[product])


def product_files(out: Path, products: Iterable[str]) -> list[Path]:
    """All files that the products make."""
    files = [product_path(out, p) for p in products]
    source, uncertainty = product_path(out, "source"), product_path(out, UNCERTAINTY)
    if {product_path(out, "style"), uncertainty} <= set(files):
        files.append(uncertainty.with_suffix(".qml"))
    if source in files:
        files += [source.with_suffix(".qml"), source.with_name(f"{source.name}.aux.xml")]
    return files


def write_products(
    plan: Plan, workdir: Workdir, out: Path, products: Iterable[str], notes: Iterable[str], scene_date: str | None
) -> dict[str, Any]:
    """Write the products of a published output; files that are there are replaced.

    Args:
        plan, workdir, out: of the output.
        products: their names.
        notes: for the STAC item and the report.
        scene_date: when the scene was taken, as the user says.

    Returns:
        what they reported: "sources", pixels of each class, where that map was made.

    Raises:
        OutputError: a file cannot be written.
    """
    wanted, notes, measured = tuple(products), tuple(notes), {}
    with gdal_env(GDAL_PAM_ENABLED=False):
        if "source" in wanted:
            measured["sources"] = publish_sources(plan, workdir, product_path(out, "source"))
        if UNCERTAINTY in wanted:
            publish_uncertainty(plan, workdir, product_path(out, UNCERTAINTY))
        preview = look(out, clear=_clear_of(plan)) if {"style", "quicklook"} & set(wanted) else None
        if preview and "style" in wanted:
            write_image_style(preview, product_path(out, "style"))
        if "style" in wanted and UNCERTAINTY in wanted:
            uncertainty = product_path(out, UNCERTAINTY)
            write_ramp_style(uncertainty, uncertainty.with_suffix(".qml"))
        if preview and "quicklook" in wanted:
            write_quicklook(preview, product_path(out, "quicklook"))
        if "stac" in wanted:
            write_json_atomic(product_path(out, "stac"), _item(plan, out, wanted, measured, notes, span_of(scene_date)))
        if "report" in wanted:
            from geo_refdiff.commands.report import write_report

            made = {product: product_path(out, product) for product in wanted}
            write_report(plan, out, made["report"], made.get("source"), made.get(UNCERTAINTY), notes)
    return measured


def _taken(scene: RasterInfo, given: Span | None, metadata: datetime | None) -> tuple[datetime, datetime | None, str]:
    """When a scene was taken, or from when until when, and who says so."""
    if given is None and metadata is not None:
        return metadata, None, "scene metadata"
    written = datetime.fromtimestamp(scene.mtime_ns / 1e9, UTC)
    latest = written.date() if scene.mtime_ns else None  # of a URL the time is not known
    span, source = (given, "given") if given else (span_in_name(scene.name, latest), "name of the scene")
    if span is None:
        return written, None, "file time of the scene"
    at_once = span.begin == span.end if span.times else span.first == span.last
    return span.begin, None if at_once else span.end, source


def _placed(plan: Plan) -> dict[str, Any]:
    """How well the reference was registered; "unused": it was given, and nothing of it is in the output."""
    placed = plan.coregistration
    matrix = placed.displacement.matrix
    return {
        "mode": placed.mode,
        "verdict": placed.verdict,
        "kind": placed.kind,
        "shift_scene_pixels": [matrix[2], matrix[5]] if placed.displacement.is_linear else None,
        "standard_error_scene_pixels": placed.sigma,
        "residual_scene_pixels": {"before": placed.before, "after": placed.after},
        "dropped_places": len(placed.dropped),
        "unused": placed.unused,
    }


def _clouds(plan: Plan) -> dict[str, str] | None:
    """The scene's cloud layer, and how cloudy pixels were treated."""
    layer = plan.scene.clouds
    return None if layer is None else {"layer": Path(layer.path).name, "kind": layer.kind, "pixels": plan.clouds}


def _clear_of(plan: Plan) -> Callable[[tuple[int, int]], NDArray[np.bool_]] | None:
    """From the shape of a reduced output to where it shows no clouds; None: it shows none at all."""
    if plan.scene.clouds is None or plan.clouds != "keep":
        return None

    def clear(shape: tuple[int, int]) -> NDArray[np.bool_]:
        crop = plan.grid.crop
        with ClearReader(plan.scene) as reader:
            return reader.inside(RioWindow(crop.col, crop.row, crop.width, crop.height), shape)

    return clear


def _item(
    plan: Plan,
    out: Path,
    products: tuple[str, ...],
    measured: Mapping[str, Any],
    notes: tuple[str, ...],
    given: Span | None,
) -> dict[str, Any]:
    from geo_refdiff.raster.stac import COG, VRT, Asset, acquired, item, rfc3339

    when, until, source = _taken(plan.scene, given, acquired(plan.scene.source))
    assets = {"data": Asset(out, "output", ("data",), VRT if out.suffix == ".vrt" else COG)}
    if "source" in products:
        path = product_path(out, "source")
        assets["source"] = Asset(path, "where each pixel's detail comes from", ("metadata",), COG)
    if UNCERTAINTY in products and plan.uncertainty:
        path = product_path(out, UNCERTAINTY)
        assets[UNCERTAINTY] = Asset(path, plan.uncertainty.meaning, ("metadata",), COG)
    if "quicklook" in products:
        assets["thumbnail"] = Asset(product_path(out, "quicklook"), "quicklook", ("thumbnail",), "image/png")
    if "report" in products:
        path = product_path(out, "report")
        assets["report"] = Asset(path, "pictures, decisions and verdict, for people", ("metadata",), "text/html")
    properties: dict[str, Any] = {
        "geo_refdiff:datetime_from": source,
        "geo_refdiff:plan_sha256": plan.digest,
        "geo_refdiff:model": {"name": plan.model.name, "sha256": plan.model.sha256, "source": plan.model.source},
        "geo_refdiff:sampler": dict(plan.model.sampler),
        "geo_refdiff:seed": plan.seed,
        "geo_refdiff:scale": plan.grid.scale,
        "geo_refdiff:sensor": {"psf_sigma": plan.psf_sigma, **msgspec.to_builtins(plan.sensor)},
        "geo_refdiff:bands": {
            "model": list(plan.bands.names),
            "transferred": dict(zip(plan.bands.other_names, plan.bands.fitness, strict=True)),
        },
        "geo_refdiff:inputs": {
            role: None if info is None else info.name
            for role, info in (("scene", plan.scene), ("reference", plan.reference))
        },
        "geo_refdiff:mask": None if plan.mask is None else plan.mask.kind,
        "geo_refdiff:clouds": _clouds(plan),
        "geo_refdiff:coregistration": _placed(plan),
        "geo_refdiff:radiometry": msgspec.to_builtins(plan.radiometry),
        "geo_refdiff:software": dict(plan.software),
        "geo_refdiff:notes": list(notes),
    }
    if until is not None:
        properties |= {"start_datetime": rfc3339(when), "end_datetime": rfc3339(until)}
    if "sources" in measured:
        properties["geo_refdiff:sources"] = measured["sources"]
    return item(out, assets, when, properties)
