"""Calibration of uncertainty: a model runs on pairs whose truth is known, as `upscale` would run it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray

from geo_refdiff.data import open_dataset
from geo_refdiff.engine.block import BlockComputer
from geo_refdiff.engine.workdir import check_output
from geo_refdiff.errors import OptionError
from geo_refdiff.evaluate.tiles import Tile, TileSource
from geo_refdiff.options import (
    CalibrateOptions,
    CountCallback,
    SamplingOptions,
    UpscaleOptions,
    fields_of,
    takes_options,
)
from geo_refdiff.plan.planning import make_plan
from geo_refdiff.plan.records import PREDICTORS, UncertaintyRecord
from geo_refdiff.plan.uncertainty import FILE, Calibration
from geo_refdiff.raster.files import write_json_atomic
from geo_refdiff.raster.gdal import gdal_env
from geo_refdiff.restore.models import Model, open_model
from geo_refdiff.sensor.sensor import SensorModel

Array = NDArray[np.float64]

COVERAGE = 0.9
_BORDER, _PIXELS = 8, 2048
_SIDE = 256
_WINDOW, _CORNER = 448, 16
"""With them a tile is in one window, which saves three quarters of the time."""
_ROUNDS = 8
_LEAST = 1e-6
_PROBE = (1.0,) + (0.0,) * (len(PREDICTORS) - 1)


@dataclass(frozen=True, slots=True)
class Trial:
    """A tile, upscaled.

    Attributes:
        errors: (C, H, W) truth - output before it was rounded to the file, digital numbers of uint8.
        widths: the same shape, half-widths by the plan's record; digital numbers.
        energies: for each predictor (C, H, W), model units squared.
        half_range: digital numbers of a model unit.
    """

    errors: NDArray[np.float32]
    widths: NDArray[np.float32]
    energies: list[NDArray[np.float32]]
    half_range: float


def run_trial(tile: Tile, model: Model, scale: int, runs: int, *, reference: bool, plain: bool, seed: int = 0) -> Trial:
    """Upscale what the sensor would have seen of a tile, through the engine, as files.

    Args:
        tile: (1, C, H, W) digital numbers of uint8.
        model: open.
        scale: divides the tile's sides.
        runs: with other noise.
        reference: whether the tile's reference, as it is, is given.
        plain: without the model's calibration.
        seed: of the noise.
    """
    observed = SensorModel(scale, model.psf_sigma).observe(tile.truth)[0].numpy()
    old = tile.raw[0].numpy()
    with TemporaryDirectory() as folder, gdal_env():
        scene = _write(Path(folder) / "scene.tif", np.clip(np.rint(observed), 0, 255), scale, model.bands)
        ref = _write(Path(folder) / "ref.tif", np.where(np.isfinite(old), np.clip(old, 1, 255), 0), 1, model.bands, 0)
        options = UpscaleOptions.of(
            model=model, scale=scale, seed=seed, device="cpu", window=_WINDOW, uncertainty=None if plain else runs,
            on_misregistration="no-ref", products=(),
        )  # fmt: skip
        planned = make_plan(scene, ref if reference else None, options)
        plan = planned.plan
        if plain:
            factors = ((1.0, 1.0),) * len(plan.bands.scene)
            count = runs if planned.restorer.stochastic else 1
            plan = replace(plan, uncertainty=UncertaintyRecord(count, 0.0, False, _PROBE, _PROBE, factors))
        with BlockComputer(plan, planned.restorer, with_energies=True) as computer:
            block = computer.compute(0)
    if block.widths is None or block.energies is None:
        raise OptionError(f"{tile.spec.name}: nothing in it is valid")
    return Trial(
        tile.truth[0].numpy() - block.pixels.astype(np.float32),
        block.widths,
        list(block.energies),
        plan.radiometry.half_range,
    )


@takes_options(fields_of(CalibrateOptions))
def calibrate(
    model: str | Path,
    data: str | Path,
    *,
    progress: CountCallback | None = None,
    **options: Any,
) -> Calibration:
    """Fit a model's uncertainty to pairs whose truth is known, and write uncertainty.json into its folder.

    Half of the places serve for the shares, the other half for the factors.

    Args:
        model: bundled name or folder, which must be writable; no URL.
        data: pairs as `open_dataset` takes them, which the model is never judged on.
        progress: called with (tiles done, tiles).
        options: as listed below.

    Raises:
        OptionError: numbers that make no sense, a model that is no diffusion model, or too few places.
        InputError, ModelError, OutputError: files that cannot be read or written, or a calibration that is there.
    """
    own = CalibrateOptions(**options)
    opened = open_model(SamplingOptions(model=model))
    if opened.folder is None:
        raise OptionError(f"model '{opened.name}' has no folder to keep a calibration in: choose a diffusion model")
    if opened.source:
        raise OptionError(
            f"model '{model}' is a copy in the cache, which is no place for a calibration: copy {opened.folder} to a "
            f"folder of your own, and give that"
        )
    file = opened.folder / FILE
    check_output(file, own.overwrite)
    for scale in own.scales:
        opened.check_scale(scale)
    tiles, total = _tiles(data, own, opened), own.places * len(own.scales) * 2
    tables: dict[str, dict[str, dict[str, list[float]]]] = {}
    done = 0
    for scale in own.scales:
        table = tables[str(scale)] = {}
        for part in ("known", "unknown"):
            rows, errors = [], []
            for number, tile in enumerate(tiles()):
                trial = run_trial(tile, opened, scale, own.runs, reference=part == "known", plain=True, seed=number)
                calibration = _sampled(trial, np.random.default_rng(number))
                rows.append(calibration[0])
                errors.append(calibration[1])
                done += 1
                if progress:
                    progress(done, total)
            table[part] = _fitted(rows, errors)
    result = Calibration(
        opened.sha256, opened.sampler, COVERAGE, own.runs, opened.bands, tables,
        {"data": Path(data).name, "places": own.places, "tile": _SIDE},
    )  # fmt: skip
    write_json_atomic(file, result.to_dict())
    return result


def _tiles(data: str | Path, own: CalibrateOptions, model: Model) -> Callable[[], Iterator[Tile]]:
    dataset = open_dataset(data, root=own.root, resident=False, pseudo_classes=False, match=False)
    source = TileSource(dataset, size=_SIDE, bands=model.bands)
    first = {spec.place: spec for spec in reversed(source.specs)}
    valid, places = sorted(first), own.places
    if len(valid) < places:
        raise OptionError(f"{data}: has {len(valid)} places, {places} are wanted; give less --places")
    chosen = [first[valid[k * len(valid) // places]] for k in range(places)]
    return lambda: (source.read(spec) for spec in chosen)


def _sampled(trial: Trial, rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(C, n, P) predictors and (C, n) errors of some pixels away from the border, in model units."""
    inner = (slice(None), *(slice(_BORDER, n - _BORDER) for n in trial.errors.shape[1:]))
    errors = trial.errors[inner].reshape(len(trial.errors), -1).astype(np.float64) / trial.half_range
    at = rng.choice(errors.shape[1], min(_PIXELS, errors.shape[1]), replace=False)
    rows = [energy[inner].reshape(len(errors), -1)[:, at] for energy in trial.energies]
    return np.stack(rows, axis=-1).astype(np.float64), errors[:, at]


def _fitted(rows: list[NDArray[np.float64]], errors: list[NDArray[np.float64]]) -> dict[str, list[float]]:
    """Shares from every second tile, factors from the others."""
    shares = fit_shares(
        np.concatenate([r.reshape(-1, r.shape[-1]) for r in rows[::2]]),
        np.concatenate([e.ravel() for e in errors[::2]]),
    )
    spreads, far = np.sqrt(np.concatenate(rows[1::2], axis=1) @ shares), np.concatenate(errors[1::2], axis=1)
    factors = [conformal_factor(e, s, COVERAGE) for e, s in zip(far, spreads, strict=True)]
    return {"shares": [float(s) for s in shares], "factors": factors}


def _write(
    path: Path, image: NDArray[np.floating], pixel: float, names: tuple[str, ...], nodata: float | None = None
) -> Path:
    count, height, width = image.shape
    profile = {
        "driver": "GTiff", "count": count, "height": height, "width": width, "dtype": "uint8", "nodata": nodata,
        "crs": "EPSG:32633", "transform": Affine(pixel, 0, _CORNER, 0, -pixel, -_CORNER), "photometric": "minisblack",
        "alpha": "no",
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as dataset:
        dataset.write(image.astype(np.uint8))
        dataset.descriptions = names
    return path


def fit_shares(predictors: Array, errors: Array) -> Array:
    """Shares (P,) of the variance of errors, none negative, by iteratively reweighted non-negative least squares.

    That is the quasi-likelihood of a Gaussian whose variance is linear in the predictors; Lawson and Hanson 1974 for
    the inner problem.

    Args:
        predictors: (N, P), none negative, energies.
        errors: (N,), of the same unit, not squared.
    """
    from scipy.optimize import nnls

    size = np.maximum(predictors.mean(axis=0), 1e-12)
    scaled, squares = predictors / size, np.square(errors)
    shares = np.full(predictors.shape[1], squares.mean() / predictors.shape[1])
    for _ in range(_ROUNDS):
        weight = 1.0 / np.maximum(scaled @ shares, _LEAST)
        shares = nnls(scaled * weight[:, None], squares * weight)[0]
        if not shares.any():
            shares[0] = squares.mean()
    return np.asarray(shares / size)


def conformal_factor(errors: Array, spreads: Array, coverage: float) -> float:
    """What the spreads are to be multiplied by so that `coverage` of the errors are within: a conformal quantile
    (Lei et al. 2018), n + 1 rule included."""
    scores = np.sort(np.abs(errors) / np.maximum(spreads, 1e-12))
    return float(scores[min(len(scores), ceil((len(scores) + 1) * coverage)) - 1])
