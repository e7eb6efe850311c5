"""Evaluates models, classical baselines and results of other methods on a data set, and writes the report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from geo_refdiff.data.dataset import Numbers
from geo_refdiff.errors import InputError, OutputError
from geo_refdiff.evaluate import efficientnet, pictures
from geo_refdiff.evaluate.describe import Tally, as_json, as_lines
from geo_refdiff.evaluate.figures import measure
from geo_refdiff.evaluate.frechet import LEAST_TILES, frechet_distance, jackknifed
from geo_refdiff.evaluate.image_folder import in_own_dtype, write_image
from geo_refdiff.evaluate.job import Job
from geo_refdiff.evaluate.methods import ModelRun
from geo_refdiff.evaluate.opening import ScaleSetup, Setup, open_all, open_scale
from geo_refdiff.evaluate.report import ScaleResult, tables
from geo_refdiff.evaluate.request import Request
from geo_refdiff.evaluate.tiles import UINT8, Tile, read_ahead
from geo_refdiff.evaluate.windows import disagreement
from geo_refdiff.nn.device import torch_settings
from geo_refdiff.raster.files import output_error, write_bytes_atomic, write_json_atomic
from geo_refdiff.raster.gdal import gdal_env
from geo_refdiff.raster.picture import Panel, write_panels
from geo_refdiff.registration.radiometry import fit_radiometry
from geo_refdiff.sensor.sensor import SensorModel

Progress = Callable[[int, int], None]
TRUTH = "truth"


@dataclass(slots=True)
class _Seen(Tally):
    """A tally, with what pictures, FID and FD are made from."""

    grid: list[str] = field(default_factory=list)
    full: list[str] = field(default_factory=list)
    rows: dict[str, list[Panel]] = field(default_factory=dict)
    features: dict[str, list[Tensor]] = field(default_factory=dict)
    judged: dict[str, list[Tensor]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What an evaluation found and wrote.

    Attributes:
        text: the tables, Markdown.
        told: what metrics.json holds.
        files: written, metrics.json and table.md first.
    """

    text: str
    told: dict[str, Any]
    files: tuple[Path, ...]

    def summary(self) -> list[str]:
        """The files, those of one folder of images or pictures as one."""
        told: dict[str, int] = {}
        for path in self.files:
            single = path.parent == self.files[0].parent
            told[str(path if single else path.parent)] = told.get(str(path if single else path.parent), 0) + 1
        return [f"{name} ({number} files)" if number > 1 else name for name, number in told.items()]


def evaluate(request: Request, out: Path, progress: Progress = lambda done, total: None) -> Evaluation:
    """Run everything on the same tiles, measure, and write metrics.json, table.md and pictures to the folder `out`.

    Args:
        request: what to do.
        out: made if missing.
        progress: called with (tiles done, tiles in all).

    Raises:
        GeoRefDiffError: bad input, options or models; the report exists; it cannot be written.
    """
    _check_out(out, request.overwrite)
    setup = open_all(request)
    scales = [open_scale(setup, scale) for scale in request.scales]
    total, done = sum(len(scale.specs) for scale in scales), 0
    tallies: list[_Seen] = []
    files: list[Path] = []
    with torch.inference_mode(), torch_settings(), gdal_env():
        for scale in scales:
            tally = _Seen(scale, ScaleResult(scale.sensor.scale, kinds={m.name: m.kind for m in scale.methods}))
            tally.grid = pictures.choose(scale.specs, request.show, request.grid, request.seed)
            tally.full = pictures.choose(scale.specs, request.show, request.pictures, request.seed)
            for spec, tile in read_ahead(setup.source, scale.specs):
                if isinstance(tile, Tile):
                    files += _tile(setup, tally, tile, out)
                else:
                    tally.left_out[spec.name] = str(tile)
                done += 1
                progress(done, total)
            if not tally.result.tiles:
                name, reason = next(iter(tally.left_out.items()))
                raise InputError(f"none of {len(scale.specs)} tiles can be used; the first: {name}: {reason}")
            _finish(tally)
            files += _draw(request, tally, out)
            tallies.append(tally)
    told = as_json(setup, tallies)
    parts = ["# Evaluation", "", as_lines(setup, tallies), "", *(tables(tally.result) for tally in tallies)]
    text = "\n".join(parts)
    write_json_atomic(out / "metrics.json", told)
    write_bytes_atomic(out / "table.md", text.encode())
    return Evaluation(text, told, (out / "metrics.json", out / "table.md", *files))


def _check_out(out: Path, overwrite: bool) -> None:
    if (out / "metrics.json").exists() and not overwrite:
        raise OutputError(f"{out}: holds a report already; give another folder, or --overwrite")
    _make(out)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(folder, error) from error


def _tile(setup: Setup, tally: _Seen, tile: Tile, out: Path) -> list[Path]:
    """Everything for one tile; the image files that were written."""
    request, scale, result = setup.request, tally.setup, tally.result
    job = _job(setup, scale, tile)
    images: dict[str, Tensor] = {}
    for method in scale.methods:
        started = perf_counter()
        images[method.name] = as_written(method.restore(job), tile.spec.numbers)
        result.seconds.setdefault(method.name, []).append(perf_counter() - started)
    compared, distances = torch.cat(list(images.values())), None
    if setup.judge is not None:
        features = setup.judge.features(torch.cat([tile.truth, compared]))
        distances = efficientnet.distances([f[1:] for f in features], [f[:1] for f in features])
        for name, row in zip((TRUTH, *images), efficientnet.pooled(features).cpu(), strict=True):
            tally.judged.setdefault(name, []).append(row)
    found = measure(compared, tile, job.lr, scale.sensor, setup.perceptual, distances)
    for number, method in enumerate(scale.methods):
        figures = {key: values[number] for key, values in found.items()}
        if request.windows and isinstance(method, ModelRun):
            figures["windows"] = disagreement(method, job)
        for key, value in figures.items():
            result.values.setdefault(method.name, {}).setdefault(key, []).append(value)
    result.tiles.append(tile.spec.name)
    tally.labelled += tile.labelled
    if setup.inception is not None:
        for name, image in {TRUTH: tile.truth, **images}.items():
            tally.features.setdefault(name, []).append(setup.inception.features(image)[0])
    if tile.spec.name in (*tally.grid, *tally.full):
        order = [*result.compared, *(n for n in images if n not in result.compared)]
        tally.rows[tile.spec.name] = pictures.panels(tile, job.lr, {n: images[n] for n in order}, order[0])
    return _write_images(out / "images" / f"{job.sensor.scale}x", job, images) if request.images else []


def as_written(image: Tensor, numbers: Numbers = UINT8) -> Tensor:
    """An image as the product delivers it: rounded and clipped as the scene's own dtype holds it, still 0..255."""
    return numbers.scaled(in_own_dtype(image, numbers))


def _job(setup: Setup, scale: ScaleSetup, tile: Tile) -> Job:
    request, sensor = setup.request, scale.sensor
    lr = sensor.observe(tile.truth) if scale.lr is None else scale.lr.read(tile.spec)
    if request.noise:
        draw = torch.Generator().manual_seed(tile.spec.index * 65537 + request.seed)
        lr = lr + request.noise * torch.randn(lr.shape, generator=draw)
    if request.declared_psf is not None:
        sensor = replace(sensor, psf_sigma=request.declared_psf)
    other = None
    if "other" in request.references:
        other = _fitted(setup.source.read(setup.source.elsewhere(tile.spec)).ref, lr, scale.sensor)
    return Job(tile, lr, sensor, other, request.consistency, request.noise)


def _fitted(ref: Tensor, lr: Tensor, sensor: SensorModel) -> Tensor:
    """A reference in the radiometry of the LR, as the product fits it."""
    known = torch.isfinite(ref).all(dim=1, keepdim=True)
    seen = sensor.observe(torch.where(known, ref, 0.0))[0].flatten(1).numpy()
    valid = (sensor.observe(known.to(ref.dtype))[0, 0] > 0.999).flatten().numpy()
    fit = fit_radiometry(seen, lr[0].flatten(1).numpy(), np.asarray(valid, dtype=np.bool_))
    gain, offset = (torch.tensor(v, dtype=ref.dtype).view(1, -1, 1, 1) for v in (fit.gain, fit.offset))
    return gain * ref + offset


def _write_images(folder: Path, job: Job, images: dict[str, Tensor]) -> list[Path]:
    given = {"LR": job.lr, "Ref": job.tile.ref.nan_to_num(), "mask": job.tile.mask.to(torch.float32)}
    written = []
    for name, image in {**given, **images, TRUTH: job.tile.truth}.items():
        _make(folder / name.replace("/", "_"))
        numbers = UINT8 if name == "mask" else job.tile.spec.numbers
        written.append(write_image(folder / name.replace("/", "_") / job.tile.spec.name, image, numbers))
    return written


def _finish(tally: _Seen) -> None:
    """FID and FD, once all tiles are there."""
    features = {name: torch.stack(rows).numpy() for name, rows in tally.features.items()}
    if features and len(tally.result.tiles) > 1:
        truth = features.pop(TRUTH)
        tally.result.fid = {name: frechet_distance(rows, truth) for name, rows in features.items()}
    judged = {name: torch.stack(rows).double().numpy() for name, rows in tally.judged.items()}
    if judged and len(tally.result.tiles) >= LEAST_TILES:
        truth = judged.pop(TRUTH)
        tally.result.fd = {name: jackknifed(rows, truth) for name, rows in judged.items()}


def _draw(request: Request, tally: _Seen, out: Path) -> list[Path]:
    label, files = f"{tally.result.scale}x", []
    grid = [tally.rows[name] for name in tally.grid if name in tally.rows]
    if grid:
        files.append(out / f"grid_{label}.png")
        write_panels(files[-1], grid, request.tile)
    for name in tally.full:
        if name in tally.rows:
            _make(out / "pictures" / label)
            files.append(out / "pictures" / label / f"{name}.png")
            pictures.write_full(files[-1], tally.rows[name], request.tile)
    return files
