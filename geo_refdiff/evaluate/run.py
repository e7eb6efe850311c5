"""Evaluates models, classical baselines and results of other methods on a data set, and writes the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from geo_refdiff.errors import InputError, OutputError
from geo_refdiff.evaluate import pictures
from geo_refdiff.evaluate.figures import measure, window_disagreement
from geo_refdiff.evaluate.image_folder import as_written, write_image
from geo_refdiff.evaluate.methods import ModelRun, Observation
from geo_refdiff.evaluate.opening import ScaleSetup, Setup, open_all, open_scale
from geo_refdiff.evaluate.options import EvaluateOptions
from geo_refdiff.evaluate.report import (
    TRUTH,
    Evaluation,
    ScaleResult,
    Scores,
    as_json,
    head,
    make_folder,
    tables,
    write_report,
)
from geo_refdiff.evaluate.scenes import is_triplets, seen_pixels
from geo_refdiff.evaluate.scenes_report import evaluate_triplets
from geo_refdiff.evaluate.tiles import UINT8, Tile, read_ahead
from geo_refdiff.nn.device import torch_settings
from geo_refdiff.options import CountCallback
from geo_refdiff.raster.gdal import gdal_env
from geo_refdiff.raster.picture import Panel, write_panels
from geo_refdiff.registration.radiometry import fit_radiometry


def evaluate(
    data: str | Path,
    models: Sequence[str | Path] = (),
    *,
    out: Path,
    progress: CountCallback = lambda done, total: None,
    **options: Any,
) -> Evaluation:
    """Run everything on the same tiles, measure, and write metrics.json, table.md and pictures to the folder `out`.

    Args:
        data: pairs as `open_dataset` takes them, or an index of triplets of real scenes, see `scenes.Triplet`.
        models: bundled names or model folders.
        out: made if missing.
        progress: called with (tiles or triplets done, all of them).
        options: of `EvaluateOptions`.

    Raises:
        GeoRefDiffError: bad input, options or models; the report exists; it cannot be written.
    """
    asked, names = EvaluateOptions.of(**options), [str(model) for model in models]
    _check_out(out, asked.report.overwrite)
    if is_triplets(data):
        return evaluate_triplets(str(data), names, asked, out, progress)
    return _evaluate_pairs(open_all(str(data), names, asked), out, progress)


def _evaluate_pairs(setup: Setup, out: Path, progress: CountCallback) -> Evaluation:
    asked = setup.options.report
    scales = [open_scale(setup, scale) for scale in setup.options.scene.scales]
    total, done = sum(len(scale.specs) for scale in scales), 0
    results: list[ScaleResult] = []
    files: list[Path] = []
    with torch.inference_mode(), torch_settings(), gdal_env():
        for scale in scales:
            result = ScaleResult(scale, Scores({method.name: method.kind for method in scale.methods}))
            seed = setup.options.sampling.seed
            grid, full = (pictures.choose(scale.specs, asked.show, n, seed) for n in (asked.grid, asked.pictures))
            shown = _Shown(grid, full)
            for spec, tile in read_ahead(setup.source, scale.specs):
                if isinstance(tile, Tile):
                    files += _tile(setup, result, tile, shown, out)
                else:
                    result.left_out[spec.name] = str(tile)
                done += 1
                progress(done, total)
            if not result.scores.tiles:
                name, reason = next(iter(result.left_out.items()))
                raise InputError(f"none of {len(scale.specs)} tiles can be used; the first: {name}: {reason}")
            files += _draw(shown, f"{scale.sensor.scale}x", setup.options.data.tile, out)
            results.append(result)
    parts = ["# Evaluation", "", head(setup, results), "", *map(tables, results)]
    return write_report(out, "\n".join(parts), as_json(setup, results), files)


@dataclass(frozen=True, slots=True)
class _Shown:
    """Pictures of one scale.

    Attributes:
        grid, full: names of the tiles in the picture grid, and of those that are drawn at full size.
        rows: panels of these.
    """

    grid: list[str]
    full: list[str]
    rows: dict[str, list[Panel]] = field(default_factory=dict)


def _check_out(out: Path, overwrite: bool) -> None:
    if (out / "metrics.json").exists() and not overwrite:
        raise OutputError(f"{out}: holds a report already; give another folder, or --overwrite")
    make_folder(out)


def _tile(setup: Setup, result: ScaleResult, tile: Tile, shown: _Shown, out: Path) -> list[Path]:
    """Everything for one tile; the image files that were written."""
    scale, scores = result.setup, result.scores
    seen = _observation(setup, scale, tile)
    images: dict[str, Tensor] = {}
    seconds: dict[str, float] = {}
    for method in scale.methods:
        started = perf_counter()
        images[method.name] = as_written(method.restore(seen), tile.spec.numbers)
        seconds[method.name] = perf_counter() - started
    together = torch.cat(list(images.values()))
    compared = setup.networks.compare(together, tile.truth)
    measured = measure(together, tile, seen.lr, scale.sensor, compared)
    figures = {
        method.name: {key: values[number] for key, values in measured.items()}
        for number, method in enumerate(scale.methods)
    }
    for method in scale.methods:
        if setup.options.report.windows and isinstance(method, ModelRun):
            figures[method.name]["windows"] = window_disagreement(method, seen)
    scores.add(tile.spec.name, figures, seconds)
    scores.add_features(compared, list(images))
    result.labelled += tile.labelled
    if tile.spec.name in (*shown.grid, *shown.full):
        order = [*scores.compared, *(n for n in images if n not in scores.compared)]
        shown.rows[tile.spec.name] = pictures.panels(tile, seen.lr, {n: images[n] for n in order}, order[0])
    folder = out / "images" / f"{scale.sensor.scale}x"
    return _write_images(folder, seen, images) if setup.options.report.images else []


def _observation(setup: Setup, scale: ScaleSetup, tile: Tile) -> Observation:
    scene, methods, sensor = setup.options.scene, setup.options.methods, scale.sensor
    lr = sensor.observe(tile.truth) if scale.lr is None else scale.lr.read(tile.spec)
    if scene.noise:
        draw = torch.Generator().manual_seed(tile.spec.index * 65537 + setup.options.sampling.seed)
        lr = lr + scene.noise * torch.randn(lr.shape, generator=draw)
    if scene.declared_psf is not None:
        sensor = replace(sensor, psf_sigma=scene.declared_psf)
    other = None
    if "other" in methods.reference:
        other = setup.source.read(setup.source.other_place(tile.spec)).ref
        coarse, valid = seen_pixels(scale.sensor, other, torch.isfinite(other).all(dim=1, keepdim=True))
        other = fit_radiometry(coarse, lr[0].flatten(1).numpy(), valid).applied(other)
    return Observation(tile, lr, sensor, other, methods.consistency, scene.noise)


def _write_images(folder: Path, seen: Observation, images: dict[str, Tensor]) -> list[Path]:
    tile = seen.tile
    given = {"LR": seen.lr, "Ref": tile.ref.nan_to_num(), "mask": tile.mask.to(torch.float32)}
    written = []
    for name, image in {**given, **images, TRUTH: tile.truth}.items():
        make_folder(folder / name.replace("/", "_"))
        numbers = UINT8 if name == "mask" else tile.spec.numbers
        written.append(write_image(folder / name.replace("/", "_") / tile.spec.name, image, numbers))
    return written


def _draw(shown: _Shown, label: str, side: int, out: Path) -> list[Path]:
    files = []
    grid = [shown.rows[name] for name in shown.grid if name in shown.rows]
    if grid:
        files.append(out / f"grid_{label}.png")
        write_panels(files[-1], grid, side)
    for name in shown.full:
        if name in shown.rows:
            make_folder(out / "pictures" / label)
            files.append(out / "pictures" / label / f"{name}.png")
            pictures.write_full(files[-1], shown.rows[name], side)
    return files
