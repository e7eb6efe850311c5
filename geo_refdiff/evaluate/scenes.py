"""Real scenes: coarse scene, sharp reference and a sharp truth of other sensors, upscaled as the product does it.

Every method goes through plan and engine as `upscale` does: band pairing, registration and radiometry of the reference,
noise, mask, correction to the scene. The truth is of another sensor, so the results are brought into its numbers first,
by one gain and offset a band that are the same for all methods: those between the scene and the truth as the scene's
sensor would see it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import hypot
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from geo_refdiff.data.dataset import Numbers
from geo_refdiff.data.index import chosen_places, is_index, read_records
from geo_refdiff.data.opening import data_root
from geo_refdiff.engine.block import BlockComputer
from geo_refdiff.errors import GeoRefDiffError, InputError, ModelError, OptionError
from geo_refdiff.evaluate import metrics, perceptual
from geo_refdiff.evaluate.figures import image_figures
from geo_refdiff.evaluate.image_folder import as_written
from geo_refdiff.evaluate.methods import Variant, variants
from geo_refdiff.evaluate.options import MIN_SCALE, SHARED, EvaluateOptions
from geo_refdiff.evaluate.perceptual import STRIDE, Compared, Networks
from geo_refdiff.nn.device import chosen_device
from geo_refdiff.options import MAX_SCALE, SamplingOptions, UpscaleOptions
from geo_refdiff.plan.planning import make_plan
from geo_refdiff.products.opening import inspect
from geo_refdiff.raster.band_names import band_keys, band_name
from geo_refdiff.raster.band_pairs import comparable_bands
from geo_refdiff.raster.crs import find_overlap
from geo_refdiff.raster.geobox import output_geobox, scene_geobox
from geo_refdiff.raster.info import RasterInfo
from geo_refdiff.raster.reader import RasterReader
from geo_refdiff.raster.warp import WarpedReader
from geo_refdiff.raster.window import Window, repeated
from geo_refdiff.registration.radiometry import RadiometricFit, fit_radiometry
from geo_refdiff.registration.rasters import register_rasters
from geo_refdiff.restore.models import Model, open_model
from geo_refdiff.sensor.resize import upsample
from geo_refdiff.sensor.sensor import SensorModel

COLUMNS = ("lr", "ref", "truth", "lr_t1", "mask", "name", "place")
APPLICABLE = (
    "root", "only", "exclude", "scale", "mask", "reference", "detail", "dtype", "alexnet", "lpips", "inception", "grid",
    "show", "pictures", "overwrite",
)  # fmt: skip
"""Options that make sense for real scenes; the others make or choose tiles of pairs."""

BASELINES = ("bicubic", "bicubic-ibp", "matched-ref")
DIFFERENCE = "ref+difference"
"""The reference, plus what has changed between the coarse scenes of both dates, enlarged."""

CELL = 128
"""Side of the parts of a picture, output pixels, that FD takes for images of their own."""

_WHOLE = 0.02
"""How far a ratio of pixel sizes may be from a whole factor, of itself."""
_MOVED = 0.5
"""Output pixels of shift above which a truth is moved; a smaller one costs more sharpness than it gains."""
_RANGE = (0.002, 0.998)
"""Quantiles of a truth that is not uint8 that become 0 and 255."""
_SEEN = 0.999
"""Part of what the sensor sees of the truth that must be valid for a scene pixel to be fitted."""


@dataclass(frozen=True, slots=True)
class Triplet:
    """A coarse scene, and what goes with it; names of files, "" = none.

    Attributes:
        name: in tables.
        lr: the coarse scene.
        ref: a sharp image of another date.
        truth: a sharp image near the scene's date.
        lr_t1: a coarse scene near the reference's date.
        mask: a change mask.
    """

    name: str
    lr: str
    ref: str = ""
    truth: str = ""
    lr_t1: str = ""
    mask: str = ""


def is_triplets(source: str | Path) -> bool:
    """Whether a source of data is an index of triplets: a table with columns lr and truth."""
    return is_index(source) and Path(source).is_file() and {"lr", "truth"} <= set(read_records(Path(source))[0])


def read_triplets(source: str | Path, options: EvaluateOptions) -> list[Triplet]:
    """The rows of an index of triplets, as far as they are chosen, with paths that can be opened.

    Raises:
        InputError: the index cannot be read, or a row lacks a file name.
        OptionError: an option that does not go with real scenes, or chooses nothing.
    """
    asked, plain = options.flat(), EvaluateOptions().flat()
    unfit = [name for name in asked if asked[name] != plain[name] and name not in (*APPLICABLE, *SHARED)]
    if unfit:
        flag = unfit[0].replace("_", "-")
        raise OptionError(f"--{flag} goes with pairs, not with triplets of real scenes: leave it out")
    path = Path(source)
    records = [{key: str(row.get(key) or "").strip() for key in COLUMNS} for row in read_records(path)[1]]
    triplets = []
    root = data_root(path, [row["lr"] for row in records], options.dataset.root)
    for number, row in enumerate(records, 1):
        if not row["lr"]:
            raise InputError(f"{path}, row {number}: 'lr' is empty; give the path of a raster")
        files = {key: str(root / row[key]) if row[key] else "" for key in ("lr", "ref", "truth", "lr_t1", "mask")}
        triplets.append(
            Triplet(row["name"] or row["place"] or Path(row["lr"]).parent.name or Path(row["lr"]).stem, **files)
        )
    names = [triplet.name for triplet in triplets]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{path}: two rows are called '{name}'; give each a name of its own in a column name")
    chosen = chosen_places(names, options.dataset.only, options.dataset.exclude)
    kept = [triplet for triplet in triplets if triplet.name in chosen]
    if not kept:
        raise OptionError(f"{path}: no triplet remains after only and exclude; ask for more")
    return kept


def scene_methods(models: Sequence[str], options: EvaluateOptions) -> list[Variant]:
    """The baselines, and each model with each mask, reference and amount of detail.

    Raises:
        ModelError, OptionError: unknown or damaged, or options that make no sense for it.
    """
    for name in options.methods.mask:
        if name not in ("none", "auto", "true"):
            raise OptionError(f"mask {name}: of real scenes give none, auto or true (the index's)")
    if "other" in options.methods.reference:
        raise OptionError("reference other: of real scenes give given, raw or none")
    device = chosen_device(options.compute.device)
    baselines = [
        Variant(name, open_model(SamplingOptions(model=name), device=device), kind="baseline") for name in BASELINES
    ]
    return baselines + variants(models, options, options.methods.mask or (None,))


@dataclass(frozen=True, slots=True)
class Truth:
    """A truth on the output grid, and how the scene is brought into its numbers.

    Attributes:
        image: (1, C, H, W) float32, 0..255; what is missing holds the mean of its band.
        valid: (1, 1, H, W) bool.
        numbers: of its file.
        fit: of the scene to it.
        shift: (rows, columns), output pixels by which it is off; None: not registered.
    """

    image: Tensor
    valid: Tensor
    numbers: Numbers
    fit: RadiometricFit
    shift: tuple[float, float] | None

    @property
    def moved(self) -> bool:
        """Whether it was moved back, which costs a little sharpness."""
        return self.shift is not None and hypot(*self.shift) > _MOVED

    def fitted(self, image: Tensor) -> Tensor:
        """An image in the scene's numbers -> 0..255 as `image`, rounded and clipped as the truth's file is."""
        return as_written(self.numbers.scaled(self.fit.applied(image)), self.numbers)


@dataclass(frozen=True, slots=True)
class ScenePicture:
    """A triplet, opened.

    Attributes:
        triplet: as the index has it.
        scene: the coarse raster.
        factor: output pixels along a scene pixel.
        bands: of the scene that are compared, 1-based; red, green, blue first where they are among them.
        rgb: whether the first three are red, green, blue.
        truth: None where there is none.
    """

    triplet: Triplet
    scene: RasterInfo
    factor: int
    bands: tuple[int, ...]
    rgb: bool
    truth: Truth | None = None

    @property
    def sensor(self) -> SensorModel:
        """The operator by which scene and sharp images are compared."""
        return SensorModel(self.factor)

    @property
    def whole(self) -> Window:
        """All of the scene, scene pixels."""
        return Window(0, 0, self.scene.height, self.scene.width)


@dataclass(frozen=True, slots=True)
class Restored:
    """What a method made of a scene.

    Attributes:
        image: (1, C, H, W) float32 in the scene's digital numbers, for `ScenePicture.bands`.
        valid: (1, 1, H, W) bool.
        scale: factor at which the method worked.
        notes: what its plan says.
    """

    image: Tensor
    valid: Tensor
    scale: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SceneRun:
    """Everything that was made of a triplet.

    Attributes:
        picture: the triplet, opened.
        restored: by method.
        seconds: by method.
        left_out: method -> why it could not be run.
    """

    picture: ScenePicture
    restored: dict[str, Restored]
    seconds: dict[str, float]
    left_out: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        picture, truth = self.picture, self.picture.truth
        fit = None if truth is None else truth.fit
        return {
            "factor": picture.factor,
            "bands": [_name(picture.scene, band) for band in picture.bands],
            "range": None if truth is None else [truth.numbers.low, truth.numbers.high],
            "gain": None if fit is None else list(fit.gain),
            "offset": None if fit is None else list(fit.offset),
            "correlation": None if fit is None else list(fit.correlation),
            "truth_shift": None if truth is None or truth.shift is None else list(truth.shift),
            "scales": {name: restored.scale for name, restored in self.restored.items()},
            "notes": {name: list(restored.notes) for name, restored in self.restored.items()},
            "left_out": self.left_out,
        }


def open_picture(triplet: Triplet, scale: int | None) -> ScenePicture:
    """Open a triplet and read its truth.

    Args:
        triplet: with names of files.
        scale: the factor; None: as the grids of truth (or reference) and scene have it.

    Raises:
        InputError, GridError, OptionError: one line each.
    """
    scene = inspect(triplet.lr, "scene")
    sharp = triplet.truth or triplet.ref
    if not sharp:
        raise InputError(f"{triplet.name}: has neither truth nor ref; give one of them")
    other = inspect(sharp, "reference")
    factor = scale or whole_factor(scene, other)
    own, theirs = comparable_bands(scene, other)
    keys = band_keys(scene).keys
    colours = [scene.data_bands[keys.index(c)] for c in ("red", "green", "blue") if c in keys]
    rgb = len(colours) == 3 and set(colours) <= set(own)
    order = sorted(range(len(own)), key=lambda k: colours.index(own[k]) if rgb and own[k] in colours else 3 + k)
    bands, chosen = tuple(own[k] for k in order), tuple(theirs[k] for k in order)
    picture = ScenePicture(triplet, scene, factor, bands, rgb)
    return replace(picture, truth=_read_truth(picture, other, chosen)) if triplet.truth else picture


def whole_factor(scene: RasterInfo, sharp: RasterInfo) -> int:
    """How many pixels of the sharp raster are along one of the scene.

    Raises:
        GridError: no overlap.
        OptionError: no whole number of at least 2.
    """
    ratio = 1.0 / find_overlap(sharp, scene_geobox(scene)).gsd_ratio
    factor = round(ratio)
    if not MIN_SCALE <= factor <= MAX_SCALE or abs(ratio - factor) > _WHOLE * ratio:
        raise OptionError(
            f"{sharp.path}: its pixels are {ratio:.3g} times finer than the scene's; give a whole factor of "
            f"{MIN_SCALE} to {MAX_SCALE} with --scale"
        )
    return factor


def _read_truth(picture: ScenePicture, truth: RasterInfo, chosen: tuple[int, ...]) -> Truth:
    image, valid, shift = _on_output_grid(picture, truth, chosen, _MOVED)
    with RasterReader(picture.scene, picture.bands) as reader:
        coarse, coarse_valid = reader.read(picture.whole)
    if not valid.any():
        raise InputError(f"{truth.path}: has no valid pixel over the scene; give another truth")
    values = image[0, :, valid[0, 0]].numpy()
    low, high = (0.0, 255.0) if truth.dtype == "uint8" else (float(q) for q in np.quantile(values, _RANGE))
    numbers = Numbers(truth.dtype, low, high if high > low else low + 1.0)
    means = torch.from_numpy(values.mean(axis=1, dtype=np.float64).astype(np.float32))[:, None, None]
    image = torch.where(valid, image, means)
    seen, whole = seen_pixels(picture.sensor, image, valid)
    fit = fit_radiometry(_flat(coarse), seen, whole & coarse_valid.all(axis=0).ravel())
    return Truth(numbers.scaled(image), valid, numbers, fit, shift)


def _on_output_grid(
    picture: ScenePicture, sharp: RasterInfo, bands: tuple[int, ...], least: float
) -> tuple[Tensor, Tensor, tuple[float, float] | None]:
    """A sharp raster on the output grid, moved by the shift against the scene where that is more than `least`.

    Returns:
        (1, C, H, W) float32, (1, 1, H, W) bool, and the shift, output pixels; None where there is no clear one.
    """
    factor = picture.factor
    registration = register_rasters(picture.scene, picture.bands, sharp, bands, picture.sensor, "global")
    shift = (registration.shift[0] * factor, registration.shift[1] * factor) if registration.registered else None
    displacement = registration.displacement.scaled(factor) if shift is not None and hypot(*shift) > least else None
    target = output_geobox(scene_geobox(picture.scene), factor)
    with WarpedReader(sharp, bands, target, "cubic", displacement) as reader:
        values, valid = reader.read(picture.whole.multiply(factor))
    return torch.from_numpy(values.astype(np.float32))[None], torch.from_numpy(np.asarray(valid))[None, None], shift


def seen_pixels(sensor: SensorModel, image: Tensor, valid: Tensor) -> tuple[NDArray[np.floating], NDArray[np.bool_]]:
    """(C, n) what the sensor sees of an image (1, C, H, W), and (n,) which scene pixels see valid ones alone."""
    seen, weight = sensor.observe_valid(image, valid)
    return seen[0].flatten(1).numpy(), (weight[0, 0] > _SEEN).flatten().numpy()


def _flat(values: NDArray[Any]) -> NDArray[np.float64]:
    return values.astype(np.float64).reshape(len(values), -1)


def run_scale(model: Model, factor: int) -> int:
    """The factor at which a model makes pictures for another one: itself, or the least of its multiples that it knows.

    Raises:
        ModelError: it knows none.
    """
    if not model.scales or factor in model.scales:
        return factor
    multiples = [scale for scale in sorted(model.scales) if scale % factor == 0]
    if not multiples:
        scales = ", ".join(str(s) for s in model.scales)
        raise ModelError(f"model '{model.name}' has neither scale {factor} nor a multiple of it, only {scales}")
    return multiples[0]


def restore(picture: ScenePicture, method: Variant, seed: int = 0) -> Restored:
    """Upscale a scene by a method, as `upscale` does it but for the file.

    A model that does not know the factor works at a multiple of it, and its pixels are averaged.

    Raises:
        GeoRefDiffError: it cannot be done; one line.
    """
    triplet, scale = picture.triplet, run_scale(method.model, picture.factor)
    ref = None if method.reference == "none" else triplet.ref or None
    mask = triplet.mask or None if method.mask is None else method.mask
    if mask == "true":
        if not triplet.mask:
            raise InputError(f"{triplet.name}: the index names no mask for it")
        mask = triplet.mask
    if mask == "auto" and ref is None:
        mask = "none"
    options = UpscaleOptions.of(
        model=method.model, scale=scale, mask=mask, seed=seed, products=(), on_misregistration="no-ref",
        coregister="off" if method.reference == "raw" else "auto",
    )  # fmt: skip
    planned = make_plan(triplet.lr, ref, options)
    plan = planned.plan
    missing = [band for band in picture.bands if band not in plan.bands.output]
    if missing:
        raise InputError(
            f"{triplet.name}: {method.name} makes no band {', '.join(_name(picture.scene, b) for b in missing)}"
        )
    places = [plan.bands.output.index(band) for band in picture.bands]
    values = np.zeros((len(places), *plan.shape), np.float32)
    valid = np.zeros(plan.shape, np.bool_)
    with BlockComputer(plan, planned.restorer) as computer:
        for index in range(plan.blocks.count):
            block = computer.compute(index)
            at = (slice(block.window.row, block.window.stop_row), slice(block.window.col, block.window.stop_col))
            values[:, *at] = block.pixels[places]
            valid[at] = True if block.valid is None else block.valid[places].all(axis=0)
    image, whole = torch.from_numpy(values)[None], torch.from_numpy(valid)[None, None]
    step = scale // picture.factor
    if step > 1:
        image, whole = F.avg_pool2d(image, step), F.avg_pool2d(whole.to(torch.float32), step) == 1.0
    return Restored(image, whole, scale, planned.notes)


def difference_baseline(picture: ScenePicture) -> Restored:
    """The reference, fitted to the coarse scene of its own date, plus the enlarged difference of the coarse scenes.

    The simplest of the methods that fuse images of two sensors over time (Gao et al. 2006 and what came after it).

    Raises:
        GeoRefDiffError: the rasters do not fit together; one line.
    """
    scene, factor = picture.scene, picture.factor
    before, ref = inspect(picture.triplet.lr_t1, "scene"), inspect(picture.triplet.ref, "reference")
    image, valid, _ = _on_output_grid(picture, ref, bands_in(picture, ref), 0.0)
    with (
        RasterReader(scene, picture.bands) as now,
        WarpedReader(before, bands_in(picture, before), scene_geobox(scene), "cubic") as then,
    ):
        (lr, lr_valid), (old, old_valid) = now.read(picture.whole), then.read(picture.whole)
    coarse_valid = lr_valid.all(axis=0) & old_valid
    seen, whole = seen_pixels(picture.sensor, image, valid)
    fit = fit_radiometry(seen, _flat(old), whole & coarse_valid.ravel())
    change = np.where(coarse_valid, lr.astype(np.float32) - old.astype(np.float32), 0.0).astype(np.float32)
    result = fit.applied(image) + upsample(torch.from_numpy(change)[None], factor)
    return Restored(result, valid & torch.from_numpy(repeated(coarse_valid, factor))[None, None], factor)


def score(run: SceneRun, networks: Networks) -> tuple[dict[str, dict[str, float]], Compared]:
    """The figures of what methods made, over the pixels that are valid in all of it and in the truth.

    Args:
        run: of a triplet with a truth.
        networks: those that judge images; used where the picture is red, green, blue.

    Returns:
        method -> figure -> value; and what networks say of them, by parts of `CELL` pixels.

    Raises:
        InputError: there is no truth, or no such pixel.
    """
    picture, truth = run.picture, run.picture.truth
    if truth is None:
        raise InputError(f"{picture.triplet.name}: has no truth to be measured against")
    valid = truth.valid
    for restored in run.restored.values():
        valid = valid & restored.valid
    if not valid.any():
        raise InputError(f"{picture.triplet.name}: scene and truth have no valid pixel in common")
    images = torch.cat([torch.where(valid, truth.fitted(r.image), truth.image) for r in run.restored.values()])
    figures = image_figures(images, truth.image, {"": None if valid.all() else valid}, Compared({}, {}))
    compared = Compared({}, {})
    if picture.rgb:
        height, width = (n // STRIDE * STRIDE for n in truth.image.shape[-2:])
        cut = (..., slice(height), slice(width))
        compared = networks.compare(images[cut], truth.image[cut], CELL)
        for key, layers in compared.layers.items():
            distances = perceptual.layers_map(layers, (height, width)).cpu()
            figures[key] = metrics.mean_where(distances, valid[cut])
    else:
        del figures["chroma"]
    return {
        name: {key: float(values[number]) for key, values in figures.items()}
        for number, name in enumerate(run.restored)
    }, compared


def run_triplet(triplet: Triplet, methods: Sequence[Variant], options: EvaluateOptions) -> SceneRun:
    """Open a triplet and run every method that can be run on it.

    Raises:
        GeoRefDiffError: the triplet cannot be opened, or no method can be run on it.
    """
    picture = open_picture(triplet, options.scene.scale[0] if options.scene.scale else None)
    work = {method.name: partial(restore, picture, method, options.sampling.seed) for method in methods}
    if triplet.lr_t1 and triplet.ref:
        work[DIFFERENCE] = partial(difference_baseline, picture)
    run = SceneRun(picture, {}, {}, {})
    for name, method in work.items():
        started = perf_counter()
        try:
            run.restored[name] = method()
            run.seconds[name] = perf_counter() - started
        except GeoRefDiffError as error:
            run.left_out[name] = str(error)
    if not run.restored:
        raise InputError(f"{triplet.name}: no method can be run on it; {next(iter(run.left_out.values()))}")
    return run


def bands_in(picture: ScenePicture, other: RasterInfo) -> tuple[int, ...]:
    """The bands of another raster that belong to those compared."""
    pairs = dict(zip(*comparable_bands(picture.scene, other), strict=True))
    missing = [band for band in picture.bands if band not in pairs]
    if missing:
        raise InputError(f"{other.path}: lacks the scene's {', '.join(_name(picture.scene, b) for b in missing)}")
    return tuple(pairs[band] for band in picture.bands)


def _name(info: RasterInfo, band: int) -> str:
    return band_name(info, info.data_bands.index(band))
