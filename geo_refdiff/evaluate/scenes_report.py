"""The report of an evaluation of real scenes: a table a triplet, means, differences, and pictures."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geo_refdiff import __version__
from geo_refdiff.errors import GeoRefDiffError, InputError
from geo_refdiff.evaluate import pictures
from geo_refdiff.evaluate.figures import columns
from geo_refdiff.evaluate.opening import open_networks
from geo_refdiff.evaluate.options import EvaluateOptions
from geo_refdiff.evaluate.report import (
    Evaluation,
    Scores,
    differences_tables,
    efflp_note,
    listed,
    make_folder,
    markdown,
    means_table,
    write_report,
)
from geo_refdiff.evaluate.scenes import (
    CELL,
    DIFFERENCE,
    SceneMethod,
    ScenePicture,
    bands_in,
    fitted,
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
    opened: list[ScenePicture] = []
    left_out: dict[str, str] = {}
    asked, seed, names = options.report, options.sampling.seed, [triplet.name for triplet in triplets]
    grid, full = (pictures.choose_names(names, asked.show, n, seed) for n in (asked.grid, asked.pictures))
    rows: dict[str, list[Panel]] = {}
    files: list[Path] = []
    with torch.inference_mode(), torch_settings(), gdal_env():
        for done, triplet in enumerate(triplets):
            progress(done, len(triplets))
            try:
                picture, results, seconds = run_triplet(triplet, methods, options)
            except GeoRefDiffError as error:
                left_out[triplet.name] = str(error)
                continue
            opened.append(picture)
            if picture.truth is not None:
                figures, compared = score(picture, results, networks)
                scores.add(triplet.name, figures, seconds)
                if not set(picture.left_out) - {DIFFERENCE}:
                    scores.add_features(compared, list(results))
            images = {name: image for name, (image, _) in results.items()}
            if triplet.name in grid:
                rows[triplet.name] = scene_panels(picture, images, SIDE)
            if triplet.name in full:
                files.append(_draw(scene_panels(picture, images), triplet.name, out))
    progress(len(triplets), len(triplets))
    if not opened:
        raise InputError(f"none of {len(triplets)} triplets can be used; the first: {next(iter(left_out.values()))}")
    if rows:
        files = [out / "grid.png", *files]
        write_panels(files[0], list(rows.values()), SIDE)
    parts = ["# Evaluation of real scenes", "", _head(data, methods, opened, left_out, efflp_note(networks)), ""]
    if scores.tiles:
        parts += [
            "## Each scene",
            "",
            scene_table(opened, scores),
            "",
            _means(scores),
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
        "scenes": {picture.triplet.name: picture.to_dict() for picture in opened},
        "left_out": left_out,
        **scores.to_dict(),
    }
    return write_report(out, "\n".join(parts), metrics, files)


def scene_table(opened: Sequence[ScenePicture], scores: Scores) -> str:
    """Markdown table with a row for each scene and method that was run on it."""
    shown = [(figure, key) for figure, key in columns(scores.measured()) if key in SHOWN]
    rows = []
    for picture in opened:
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


def _means(scores: Scores) -> str:
    shown = [(figure, key) for figure, key in columns(scores.measured()) if key in SHOWN]
    text = means_table(scores, shown, totals=True)
    return f"## Means over the scenes that a method was run on\n\n{text}\n"


def _head(
    data: str,
    methods: Sequence[SceneMethod],
    opened: Sequence[ScenePicture],
    left_out: Mapping[str, str],
    efflp: str,
) -> str:
    measured = sum(picture.truth is not None for picture in opened)
    lines = {
        "data": f"{data}, {len(opened)} scenes, {measured} of them with a truth",
        "fit": "gain and offset a band between scene and truth as the scene's sensor sees it, the same for all methods",
        "effLP, FD": f"{efflp}; FD over parts of {CELL} x {CELL} px of the scenes that all methods were run on",
    }
    for method in methods:
        if method.kind == "model":
            sampler = method.model.sampler
            lines[f"model {method.name}"] = (
                f"sha256 {method.model.sha256[:12]}, {sampler['name']}, {sampler['steps']} steps"
            )
    for picture in opened:
        lines[picture.triplet.name] = _facts(picture)
    for name, reason in left_out.items():
        lines[f"{name}, left out"] = reason
    return listed(lines)


def _facts(picture: ScenePicture) -> str:
    """How a scene and its truth belong together, and what could not be run."""
    parts = [f"{picture.factor}x"]
    if picture.fit is not None:
        parts.append(f"correlation with the truth {', '.join(f'{r:.2f}' for r in picture.fit.correlation)}")
        parts.append(_registration(picture))
    else:
        parts.append("no truth")
    for name, method in picture.scales.items():
        if method != picture.factor:
            parts.append(f"{name} made at {method}x and averaged")
    parts += [f"not by {name}: {reason}" for name, reason in picture.left_out.items()]
    return "; ".join(parts)


def _registration(picture: ScenePicture) -> str:
    if picture.shift is None:
        return "the truth could not be registered: it is taken where it says it lies"
    done = "is moved back" if picture.moved else "is left there"
    return "the truth lies {:.2f}, {:.2f} output pixels (down, right) off and {}".format(*picture.shift, done)


def scene_panels(picture: ScenePicture, images: Mapping[str, Tensor], side: int | None = None) -> list[Panel]:
    """Scene, reference, results and truth of a square in the middle.

    Black and white are those of the truth for all but the reference, or of the scene where there is no truth.

    Args:
        picture: opened.
        images: method -> (1, C, H, W) in the scene's numbers.
        side: of the square, output pixels, at most; None: as large as the scene allows.
    """
    scene, factor = picture.scene, picture.factor
    cells = min(scene.height, scene.width, *([] if side is None else [max(side // factor, 1)]))
    square = Window((scene.height - cells) // 2, (scene.width - cells) // 2, cells, cells)
    fine = square.multiply(factor)
    with RasterReader(scene, picture.bands) as reader:
        values, valid = reader.read(square)
    lr = torch.from_numpy(values.astype(np.float32))[None]
    limits = _limits(values, valid.all(axis=0))
    shown = {name: image[_part(fine)] for name, image in images.items()}
    if picture.truth is not None and picture.valid is not None:
        lr, shown = fitted(picture, lr), {name: fitted(picture, image) for name, image in shown.items()}
        truth = picture.truth[_part(fine)]
        limits = _limits(truth[0].numpy(), picture.valid[_part(fine)][0, 0].numpy())
        shown["truth"] = truth
    panels = [Panel(f"scene, {picture.triplet.name}", _shade(lr[0].numpy(), limits))]
    if picture.triplet.ref:
        ref = inspect(picture.triplet.ref, "reference")
        target = output_geobox(scene_geobox(scene), factor)
        with WarpedReader(ref, bands_in(picture, ref), target, "cubic") as warped:
            old, known = warped.read(fine)
        panels.append(Panel("reference", _shade(old, _limits(old, known))))
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
