"""A page about an output for a person: pictures with a swipe, what was decided, the verdict, how sure it is.

One HTML file that needs nothing beside it. Pictures are read reduced, so that neither memory nor the file grows with
the scene; the verdict goes through all pixels, tile by tile.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, hypot
from pathlib import Path

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from PIL import ImageColor
from rasterio.enums import Resampling
from scipy.ndimage import uniform_filter

from geo_refdiff.plan.records import Plan
from geo_refdiff.products.opening import inspect
from geo_refdiff.raster.band_names import UNNAMED
from geo_refdiff.raster.clouds import MEANINGS as MEANINGS_OF_CLOUDS
from geo_refdiff.raster.crs import unit_of
from geo_refdiff.raster.files import write_bytes_atomic
from geo_refdiff.raster.geobox import compose, crop
from geo_refdiff.raster.info import RasterInfo
from geo_refdiff.raster.picture import picture_of, reduced, shown_bands, stretch
from geo_refdiff.raster.styles import RAMP
from geo_refdiff.raster.warp import WarpedReader
from geo_refdiff.raster.window import Window
from geo_refdiff.registration.register import TOO_SMALL
from geo_refdiff.restore.sources import CLASSES, COLOURS, MEANINGS
from geo_refdiff.signed_urls import unsigned
from geo_refdiff.validate.validation import Validation, validate_raster

_CLEAR = 254
"""Mean of a layer of clouds (255: clear) from which on a pixel of a picture has none in it."""

SIDE = 1024
"""Largest side of a picture, pixels."""

_CUT = (2.0, 98.0)
_TEMPLATE = "report.html.j2"
_CENTRE_TRIES = 256

Values = NDArray[np.float32]
Valid = NDArray[np.bool_]


@dataclass(frozen=True)
class Layer:
    """A picture of the page.

    Attributes:
        key: one word.
        title: for people.
        data: as a data URI; empty: there is none.
        caption: what it shows, or why there is none.
    """

    key: str
    title: str
    data: str
    caption: str


@dataclass(frozen=True)
class Uncertainty:
    """A map of half-widths in short, in the output's numbers: median, 95th percentile, the value drawn brightest."""

    median: float
    high: float
    brightest: float


def write_report(
    plan: Plan, out: Path, page: Path, sources: Path | None, uncertainty: Path | None, notes: Iterable[str]
) -> None:
    """Write the page, whole or not at all.

    Args:
        plan, out: of the finished output.
        page: to write.
        sources: the map of where detail comes from, None where none was made.
        uncertainty: the map of half-widths, None where none was made.
        notes: of the run.

    Raises:
        InputError: an input or the output cannot be read.
        OutputError: the page cannot be written.
    """
    import jinja2

    validation = validate_raster(inspect(out, "scene"), plan.scene)
    summary = None if uncertainty is None else _in_short(uncertainty)
    views = [
        {"name": name, "width": window.width, "height": window.height, "layers": layers}
        for name, window in _windows(plan, out).items()
        for layers in [_layers(plan, out, window, sources, uncertainty, summary)]
    ]
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined)
    text = environment.get_template(_TEMPLATE).render(
        title=out.name,
        views=views,
        legend=[
            ("#{:02x}{:02x}{:02x}".format(*colour), name, meaning)
            for name, colour, meaning in list(zip(CLASSES, COLOURS, MEANINGS, strict=True))[1:]
        ],
        decided=list(_decided(plan)),
        notes=list(notes),
        verdict=validation.verdict,
        sure=list(_sure(plan, validation, summary)),
    )
    write_bytes_atomic(page, text.encode())


def _windows(plan: Plan, out: Path) -> dict[str, Window]:
    """What is shown, in output pixels: all; of a larger output also a part at full resolution."""
    height, width = plan.shape
    whole = Window(0, 0, height, width)
    if max(height, width) <= SIDE:
        return {"all of it": whole}
    scale = plan.grid.scale
    side = SIDE // scale * scale
    size = min(side, height), min(side, width)
    valid = reduced(str(out), (1,), _CENTRE_TRIES, whole)[1]
    shrink = height / valid.shape[0], width / valid.shape[1]
    share = uniform_filter(
        valid.astype(np.float32), [ceil(n / s) for n, s in zip(size, shrink, strict=True)], mode="constant"
    )
    rows, cols = np.ogrid[: valid.shape[0], : valid.shape[1]]
    away = np.hypot(rows / valid.shape[0] - 0.5, cols / valid.shape[1] - 0.5)
    row, col = np.unravel_index(int(np.argmax(share - 0.1 * away)), share.shape)
    top, left = (
        min(max(0, int(centre * s - n / 2)), total - n) // scale * scale
        for centre, s, n, total in zip((row, col), shrink, size, (height, width), strict=True)
    )
    return {"all of it": whole, "a part at full resolution": Window(top, left, *size)}


def _layers(
    plan: Plan, out: Path, window: Window, sources: Path | None, uncertainty: Path | None, summary: Uncertainty | None
) -> list[Layer]:
    scale = plan.grid.scale
    info = inspect(out, "scene")
    bands = shown_bands(info)
    of_scene = [plan.bands.output[info.data_bands.index(b)] for b in bands]
    coarse = Window(window.row // scale, window.col // scale, window.height // scale, window.width // scale)
    coarse = coarse.shift(plan.grid.crop.row, plan.grid.crop.col)
    scene = reduced(plan.scene.source, of_scene, SIDE, coarse, Resampling.average)
    fine = reduced(str(out), bands, SIDE, window, Resampling.average)
    clear = scene[1]
    if plan.scene.clouds is not None:
        clear = clear & (reduced(plan.scene.clouds.vrt, (1,), SIDE, coarse, Resampling.average)[0][0] > _CLEAR)
    low, high = _range(scene[0], clear if clear.any() else scene[1])
    pixel, unit = hypot(plan.geobox.affine.a, plan.geobox.affine.d), unit_of(plan.crs_name)
    layers = [
        Layer("scene", "scene", _picture(*scene, low, high), f"as it came, pixels of {pixel * scale:.4g} {unit}"),
        Layer("output", "output", _picture(*fine, low, high), f"pixels of {pixel:.4g} {unit}, stretched as the scene"),
        _reference(plan, of_scene, window, low, high),
    ]
    if uncertainty is None or summary is None:
        caption = "not computed; --uncertainty 4 does it"
        layers.append(Layer("uncertainty", "uncertainty", "", caption))
    else:
        values, valid = reduced(
            str(uncertainty), inspect(uncertainty, "scene").data_bands, SIDE, window, Resampling.average
        )
        caption = f"half-width of 90 % intervals, mean of the bands: black 0, bright {summary.brightest:.3g} and more"
        if plan.uncertainty is not None and not plan.uncertainty.coverage:
            caption = f"{plan.uncertainty.meaning}, mean of the bands: black 0, bright {summary.brightest:.3g} and more"
        layers.append(Layer("uncertainty", "uncertainty", _ramp(values, valid, summary.brightest), caption))
    if sources is None:
        layers.append(Layer("source", "source of detail", "", "not made; --products source,report does it"))
    else:
        classes = reduced(str(sources), (1,), SIDE, window)[0][0].astype(np.uint8)
        rgb = np.array(COLOURS, dtype=np.uint8)[classes].transpose(2, 0, 1)
        layers.append(Layer("source", "source of detail", _uri(rgb, classes > 0, "PNG"), "see the legend"))
    return layers


def _reference(plan: Plan, of_scene: Sequence[int], window: Window, low: float, high: float) -> Layer:
    """The reference as the run sees it: on the output's grid, moved to its place, in the scene's radiometry."""
    info = plan.reference
    if info is None:
        why = "there is none" if not plan.coregistration.unused else "one was given, but could not be used: see below"
        return Layer("reference", "reference", "", why)
    places = [plan.bands.scene.index(b) for b in of_scene if b in plan.bands.scene]
    matched = len(places) == len(of_scene) and bool(plan.bands.reference)
    bands = [plan.bands.reference[p] for p in places] if matched else list(shown_bands(info))
    values, valid = _warped(plan, info, bands, window)
    if matched and plan.radiometry.gain:
        gain, offset = (
            np.array([v[p] for p in places], np.float32) for v in (plan.radiometry.gain, plan.radiometry.offset)
        )
        values = values * gain[:, None, None] + offset[:, None, None]
        return Layer(
            "reference", "reference", _picture(values, valid, low, high), "moved to its place, in the scene's colours"
        )
    return Layer("reference", "reference", _picture(values, valid, *_range(values, valid)), "in its own colours")


def _warped(plan: Plan, info: RasterInfo, bands: Sequence[int], window: Window) -> tuple[Values, Valid]:
    """A window of the output's grid, reduced to at most `SIDE` pixels; shifts are below a pixel where it is reduced."""
    if max(window.shape) <= SIDE:
        place = plan.grid.crop.multiply(plan.grid.scale)
        with WarpedReader(info, bands, plan.target, "cubic", plan.coregistration.on_target(plan.grid.scale)) as reader:
            return reader.read(window.shift(place.row, place.col))
    shrink = max(window.shape) / SIDE
    shape = max(1, round(window.height / shrink)), max(1, round(window.width / shrink))
    part = crop(plan.geobox, window)
    grown = Affine.scale(window.width / shape[1], window.height / shape[0])
    with WarpedReader(info, bands, GeoBox(shape, compose(part.affine, grown), part.crs), "cubic") as reader:
        return reader.read(Window(0, 0, *shape))


def _range(values: Values, valid: Valid) -> tuple[float, float]:
    """What becomes black and white."""
    summary = values[:, valid]
    low, high = np.percentile(summary, _CUT) if summary.size else (0.0, 1.0)
    return float(low), float(high)


def _picture(values: Values, valid: Valid, low: float, high: float) -> str:
    ends = (np.full(len(values), end, np.float32) for end in (low, high))
    return _uri(stretch(np.where(valid, values, np.float32(low)), *ends), valid, "WEBP")


def _ramp(values: Values, valid: Valid, brightest: float) -> str:
    """The mean of the bands from dark to light."""
    level = np.clip(np.where(valid, values, 0).mean(axis=0) / max(brightest, 1e-9), 0, 1)
    stops = np.linspace(0, 1, len(RAMP))
    rgb = np.stack([np.interp(level, stops, [ImageColor.getrgb(c)[k] for c in RAMP]) for k in range(3)])
    return _uri(np.rint(rgb).astype(np.uint8), valid, "WEBP")


def _uri(pixels: NDArray[np.uint8], valid: Valid, kind: str) -> str:
    """A picture with missing pixels transparent, (1 or 3, height, width), as a data URI."""
    picture = picture_of(pixels, valid)
    if valid.all():
        picture = picture.convert("RGB")
    stream = io.BytesIO()
    picture.save(stream, format=kind, **({"quality": 88} if kind == "WEBP" else {"optimize": True}))
    return f"data:image/{kind.lower()};base64,{base64.b64encode(stream.getvalue()).decode()}"


def _in_short(path: Path) -> Uncertainty:
    values, valid = reduced(str(path), inspect(path, "scene").data_bands, SIDE)
    valid_means = values[:, valid].mean(axis=0)
    median, high, brightest = np.percentile(valid_means, [50, 95, 98]) if valid_means.size else (0.0, 0.0, 1.0)
    return Uncertainty(float(median), float(high), float(brightest))


def _decided(plan: Plan) -> Iterable[tuple[str, list[str]]]:
    """What the run has decided: headings and lines."""
    height, width = plan.shape
    sampler = ", ".join(f"{'sampler' if k == 'name' else k} {v}" for k, v in plan.model.sampler.items())
    yield "model", [f"{plan.model.name}{f' ({sampler})' if sampler else ''}, seed {plan.seed}"]
    yield "grid", [f"{width} x {height} pixels, {plan.grid.scale} along a scene pixel, {plan.crs_name}"]
    yield "inputs", [info.name for info in (plan.scene, plan.reference) if info is not None]
    yield (
        "bands",
        [_pair(pair) for pair in plan.bands.pairs(plan.model.bands)]
        + [
            f"{name}: detail is transferred from the others (correlation {r:.2f})"
            for name, r in zip(plan.bands.other_names, plan.bands.fitness, strict=True)
        ],
    )
    if plan.reference is not None or plan.coregistration.unused:
        yield "shift", [_shift(plan)]
    if plan.radiometry.gain:
        fits = zip(
            plan.bands.names,
            plan.radiometry.gain,
            plan.radiometry.offset,
            plan.radiometry.correlation,
            strict=True,
        )
        yield (
            "radiometry",
            [f"{n}: reference times {g:.4g} {o:+.4g}, correlation {r:.3f} with the scene" for n, g, o, r in fits],
        )
    widths = ", ".join(dict.fromkeys(f"{s:.3g}" for s in plan.sensor.sigmas))
    yield "sensor", [f"{plan.sensor.kernel} of sigma {widths} scene pixels ({plan.sensor.name})"]
    names = plan.bands.names + plan.bands.other_names
    sigmas = [f"{n} {s:.3g}" for n, s in zip(names, plan.sensor.noise, strict=True) if s]
    yield "noise", [f"{', '.join(sigmas)} (standard deviation, the scene's numbers)" if sigmas else "none"]
    yield "consistency with the scene", [plan.sensor.consistency]
    yield "change mask", [_mask(plan)]
    layer = plan.scene.clouds
    if layer is not None:
        become = "nodata" if plan.clouds == "nodata" else "interpolated, and marked in the source map"
        yield "clouds", [f"by {Path(layer.path).name} ({MEANINGS_OF_CLOUDS[layer.kind]}): {become}"]


def _pair(pair: Mapping[str, object]) -> str:
    text = f"{pair['name']} (scene band {pair['scene']})"
    if "reference" in pair:
        number, name = pair["reference"], str(pair["reference_name"])
        text += f" with reference band {number}" + ("" if name.startswith(UNNAMED) else f" ({name})")
    return text if pair["channel"] is None else f"{text}, the model's {pair['channel']}"


def _shift(plan: Plan) -> str:
    placed = plan.coregistration
    if placed.unused:
        return f"the reference was not used: {placed.verdict}"
    if placed.verdict != "registered":
        return f"the reference was taken where it says it is ({placed.verdict})"
    if placed.displacement.is_zero:
        moved = "not moved"
    elif placed.displacement.is_linear:
        _, _, rows, _, _, cols = placed.displacement.matrix
        moved = f"moved by {rows:+.3f} rows and {cols:+.3f} columns, scene pixels"
    else:
        moved = "moved by a field of shifts"
    sure = TOO_SMALL if placed.after is None else f"{placed.after:.3f} scene pixels remain"
    dropped = f"; not used in {len(placed.dropped)} places, where it is misaligned" if placed.dropped else ""
    return f"the reference was {moved}; {sure}{dropped}"


def _mask(plan: Plan) -> str:
    mask = plan.mask
    if mask is None:
        return "none: no change is assumed known"
    if mask.kind == "auto":
        return f"detected by comparing scene and reference, where at least {mask.min_confidence:.2g} sure"
    path = mask.raster.path if mask.raster else mask.polygons.path if mask.polygons else ""
    return f"{Path(unsigned(path)).name} ({mask.kind}), is on the {'scene' if mask.on_scene else 'reference'}"


def _sure(plan: Plan, validation: Validation, summary: Uncertainty | None) -> Iterable[str]:
    """How far the output can be trusted, in plain words."""
    if plan.sensor.consistency == "off":
        yield "The output was not held to the scene: even averaged over a scene pixel it may differ from it."
    else:
        yield (
            f"Averaged as the declared sensor does it, the output is the scene, to {validation.residual.rms:.2g} "
            f"{validation.unit} (rms): at the scene's own resolution trust it as you trust the scene."
        )
    total = sum(validation.sources.values()) - validation.sources.get(CLASSES[0], 0)
    if total:
        reference, generated, plain, cloudy = (validation.sources[name] / total for name in CLASSES[1:])
        if reference:
            yield (
                f"In {reference:.0%} of the pixels finer detail is taken from the reference: it was there when the "
                f"reference was taken, and is right where nothing has changed since."
            )
        if generated:
            yield (
                f"In {generated:.0%} it is generated: it looks plausible and fits the scene, but no sensor has seen "
                f"it. Do not count, measure or identify objects there."
            )
        if plain:
            yield f"In {plain:.0%} the scene is merely interpolated: smooth, with nothing added."
        if cloudy:
            yield f"In {cloudy:.0%} a cloud or its shadow hides the ground: nothing that is to be seen there is ground."
    if summary is None:
        yield "How far a single pixel may be off was not computed; run with --uncertainty 4 to know."
        return
    record = plan.uncertainty
    if record is not None and record.coverage:
        unit = validation.unit
        yield (
            f"A typical pixel is within ±{summary.median:.3g} {unit} of the truth in {record.coverage:.0%} of the "
            f"cases; in the least sure twentieth of the pixels only within ±{summary.high:.3g} {unit} or more."
        )
    if record is not None and not record.calibrated:
        yield "This was not measured for this very model, setting and scale: take it as an order, not as numbers."
