"""The report of an evaluation of real scenes: a table a triplet, means, differences, and pictures."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from geo_refdiff import __version__
from geo_refdiff.errors import GeoRefDiffError, InputError
from geo_refdiff.evaluate import pictures
from geo_refdiff.evaluate.figures import columns
from geo_refdiff.evaluate.methods import Variant
from geo_refdiff.evaluate.opening import open_networks
from geo_refdiff.evaluate.options import EvaluateOptions
from geo_refdiff.evaluate.report import (
    Evaluation,
    Scores,
    differences_tables,
    efflp_note,
    make_folder,
    markdown,
    markdown_list,
    means_table,
    model_facts,
    write_report,
)
from geo_refdiff.evaluate.scenes import (
    CELL,
    DIFFERENCE,
    SceneRun,
    Truth,
    bands_in,
    read_triplets,
    run_triplet,
    scene_methods,
    score,
)
from geo_refdiff.nn.device import chosen_device, torch_settings
from geo_refdiff.products.opening import inspect
from geo_refdiff.raster.gdal import gdal_env
from geo_refdiff.raster.geobox import output_geobox, scene_geobox
from geo_refdiff.raster.picture import Panel, stretch, write_panels
from geo_refdiff.raster.reader import RasterReader
from geo_refdiff.raster.warp import WarpedReader
from geo_refdiff.raster.window import Window

AGAINST = ("bicubic", "matched-ref")
SHOWN = ("psnr", "ssim", "haarpsi", "gmsd", "efflp", "lpips", "energy")
"""Figures in the tables; metrics.json has all."""
SIDE = 256
"""Output pixels along a panel of the grid."""

_CUT = (0.5, 99.5)
"""Percentiles that become black and white, band by band: sensors differ."""


def evaluate_triplets(
    data: str, models: Sequence[str], options: EvaluateOptions, out: Path, progress: Callable[[int, int], None]
) -> Evaluation:
    """Run every method on every triplet of real scenes, measure, and write the report.

    Args:
        data: index, see `scenes.read_triplets`.
        models: bundled names or model folders.
        options: as asked.
        out: folder of the report, which is there.
        progress: called with (triplets done, all of them).

    Raises:
        GeoRefDiffError: bad input, options or models; it cannot be written.
    """
    triplets = read_triplets(data, options)
    methods = scene_methods(models, options)
    networks = open_networks(options.report, chosen_device(options.compute.device), efflp=True)
    kinds = {method.name: method.kind for method in methods}
    if any(triplet.lr_t1 and triplet.ref for triplet in triplets):
        kinds[DIFFERENCE] = "baseline"
    scores = Scores(kinds)
    runs: list[SceneRun] = []
    left_out: dict[str, str] = {}
    asked, seed, names = options.report, options.sampling.seed, [triplet.name for triplet in triplets]
    grid, full = (pictures.choose_names(names, asked.show, n, seed) for n in (asked.grid, asked.pictures))
    rows: dict[str, list[Panel]] = {}
    files: list[Path] = []
    with torch.inference_mode(), torch_settings(), gdal_env():
        for done, triplet in enumerate(triplets):
            progress(done, len(triplets))
            try:
                run = run_triplet(triplet, methods, options)
            except GeoRefDiffError as error:
                left_out[triplet.name] = str(error)
                continue
            runs.append(run)
            if run.picture.truth is not None:
                figures, compared = score(run, networks)
                scores.add(triplet.name, figures, run.seconds)
                if not set(run.left_out) - {DIFFERENCE}:
                    scores.add_features(compared, list(run.restored))
            if triplet.name in grid:
                rows[triplet.name] = scene_panels(run, SIDE)
            if triplet.name in full:
                files.append(_draw(scene_panels(run), triplet.name, out))
    progress(len(triplets), len(triplets))
    if not runs:
        raise InputError(f"none of {len(triplets)} triplets can be used; the first: {next(iter(left_out.values()))}")
    if rows:
        files = [out / "grid.png", *files]
        write_panels(files[0], list(rows.values()), SIDE)
    parts = ["# Evaluation of real scenes", "", _head(data, methods, runs, left_out, efflp_note(networks)), ""]
    common = scores.common(without=(DIFFERENCE,))
    if scores.tiles:
        parts += [
            "## Each scene",
            "",
            scene_table(runs, scores),
            "",
            _means(common),
            *differences_tables(scores, AGAINST),
        ]
    metrics = {
        "geo_refdiff": __version__,
        "data": {"source": data},
        "seed": options.sampling.seed,
        "models": {
            method.name: {"sha256": method.model.sha256, "sampler": dict(method.model.sampler)}
            for method in methods
            if method.kind == "model"
        },
        "efflp_fd": efflp_note(networks),
        "scenes": {run.picture.triplet.name: run.to_dict() for run in runs},
        "left_out": left_out,
        **scores.to_dict(),
        "common": common.to_dict(),
    }
    return write_report(out, "\n".join(parts), metrics, files)


def scene_table(runs: Sequence[SceneRun], scores: Scores) -> str:
    """Markdown table with a row for each scene and method that was run on it."""
    shown = [(figure, key) for figure, key in columns(scores.measured()) if key in SHOWN]
    rows = []
    for picture in (run.picture for run in runs):
        if picture.truth is None:
            continue
        at = scores.tiles.index(picture.triplet.name)
        first = f"{picture.triplet.name}, {picture.factor}x"
        for name, figures in scores.values.items():
            values = [figures[key][at] if key in figures else math.nan for _, key in shown]
            if all(map(math.isnan, values)):
                continue
            label = f"**{name}**" if scores.kinds[name] != "baseline" else name
            cells = ["-" if math.isnan(v) else f"{v:.{f.digits}f}" for v, (f, _) in zip(values, shown, strict=True)]
            rows.append([first, label, *cells])
            first = ""
    return markdown(["", "", *(figure.title for figure, _ in shown)], rows)


def _means(common: Scores) -> str:
    """Table of means over the scenes that every method was run on; empty where there are none."""
    if not common.tiles:
        return ""
    shown = [(figure, key) for figure, key in columns(common.measured()) if key in SHOWN]
    text = means_table(common, shown, totals=True)
    return f"## Means over the {len(common.tiles)} scenes that every method was run on\n\n{text}\n"


def _head(
    data: str,
    methods: Sequence[Variant],
    runs: Sequence[SceneRun],
    left_out: Mapping[str, str],
    efflp: str,
) -> str:
    measured = sum(run.picture.truth is not None for run in runs)
    lines = {
        "data": f"{data}, {len(runs)} scenes, {measured} of them with a truth",
        "fit": "gain and offset a band between scene and truth as the scene's sensor sees it, the same for all methods",
        "effLP, FD": f"{efflp}; FD over parts of {CELL} x {CELL} px of the scenes that all methods were run on",
    }
    for method in methods:
        if method.kind == "model":
            lines[f"model {method.name}"] = model_facts(method.model)
    for run in runs:
        lines[run.picture.triplet.name] = _facts(run)
    for name, reason in left_out.items():
        lines[f"{name}, left out"] = reason
    return markdown_list(lines)


def _facts(run: SceneRun) -> str:
    """How a scene and its truth belong together, and what could not be run."""
    factor, truth = run.picture.factor, run.picture.truth
    parts = [f"{factor}x"]
    if truth is None:
        parts.append("no truth")
    else:
        parts.append(f"correlation with the truth {', '.join(f'{r:.2f}' for r in truth.fit.correlation)}")
        parts.append(_registration(truth))
    at = {name: restored.scale for name, restored in run.restored.items() if restored.scale != factor}
    parts += [f"{name} made at {scale}x and averaged" for name, scale in at.items()]
    parts += [f"not by {name}: {reason}" for name, reason in run.left_out.items()]
    return "; ".join(parts)


def _registration(truth: Truth) -> str:
    if truth.shift is None:
        return "the truth could not be registered: it is compared by its own georeference"
    done = "is moved back" if truth.moved else "is not moved"
    rows, cols = truth.shift
    return f"the truth is {rows:.2f}, {cols:.2f} output pixels (down, right) off and {done}"


def scene_panels(run: SceneRun, side: int | None = None) -> list[Panel]:
    """Scene, reference, results and truth of a square in the middle.

    Black and white are those of the truth for all but the reference, or of the scene where there is no truth.

    Args:
        run: of a triplet.
        side: of the square, output pixels, at most; None: as large as the scene allows.
    """
    picture, truth = run.picture, run.picture.truth
    scene, factor = picture.scene, picture.factor
    cells = min(scene.height, scene.width, *([] if side is None else [max(side // factor, 1)]))
    square = Window((scene.height - cells) // 2, (scene.width - cells) // 2, cells, cells)
    fine = square.multiply(factor)
    with RasterReader(scene, picture.bands) as reader:
        values, valid = reader.read(square)
    lr = torch.from_numpy(values.astype(np.float32))[None]
    limits = _limits(values, np.asarray(valid.all(axis=0)))
    shown = {name: restored.image[_part(fine)] for name, restored in run.restored.items()}
    if truth is not None:
        lr, shown = truth.fitted(lr), {name: truth.fitted(image) for name, image in shown.items()}
        shown["truth"] = truth.image[_part(fine)]
        limits = _limits(shown["truth"][0].numpy(), truth.valid[_part(fine)][0, 0].numpy())
    panels = [Panel(f"scene, {picture.triplet.name}", _shade(lr[0].numpy(), limits))]
    if picture.triplet.ref:
        ref = inspect(picture.triplet.ref, "reference")
        target = output_geobox(scene_geobox(scene), factor)
        with WarpedReader(ref, bands_in(picture, ref), target, "cubic") as warped:
            old, old_valid = warped.read(fine)
        panels.append(Panel("reference", _shade(old, _limits(old, old_valid))))
    return panels + [Panel(name, _shade(image[0].numpy(), limits)) for name, image in shown.items()]


def _part(window: Window) -> tuple[Any, ...]:
    """A window of (1, C, H, W)."""
    return ..., slice(window.row, window.stop_row), slice(window.col, window.stop_col)


Limits = tuple[NDArray[np.float64], NDArray[np.float64]]


def _limits(values: NDArray[Any], valid: NDArray[np.bool_]) -> Limits:
    """What becomes black and white in each band."""
    if not valid.any():
        return np.zeros(len(values)), np.ones(len(values))
    low, high = np.percentile(values[:, valid].astype(np.float64), _CUT, axis=1)
    return low, high


def _shade(values: NDArray[Any], limits: Limits) -> NDArray[np.uint8]:
    """(3, height, width); one band as grey."""
    chosen = (0, 1, 2) if len(values) >= 3 else (0, 0, 0)
    low, high = limits
    return stretch(np.nan_to_num(values[list(chosen)]), low[list(chosen)], high[list(chosen)])


def _draw(row: list[Panel], name: str, out: Path) -> Path:
    """Write a triplet at its full size."""
    make_folder(out / "pictures")
    path = out / "pictures" / f"{name.replace('/', '_')}.png"
    pictures.write_full(path, row, max(panel.pixels.shape[-1] for panel in row) // 2)
    return path
