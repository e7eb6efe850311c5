"""The training configuration: strict TOML into frozen dataclasses; an unknown key is an error."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from geo_refdiff.errors import OptionError
from geo_refdiff.train.strict import (
    at_least,
    from_mapping,
    known_keys,
    merged,
    need,
    one_of,
    override,
    positive,
    shares,
    to_toml,
)

ARCHITECTURES = ("compact", "published")
COMPILE = ("auto", "off", "on")
PUBLISHED_KEYS = ("attn_resolutions", "channel_mult", "dropout", "img_resolution", "model_channels", "num_blocks")
INFERENCE_KEYS = (
    "back_project", "detail", "gate_gain", "halo", "optional_bands", "overlap", "psf_sigma", "sampler", "scales",
    "sharpen", "window",
)  # fmt: skip
SAMPLER_KEYS = (
    "name", "rho", "sigma_full", "sigma_max", "sigma_min", "sigma_start", "steps",
    "S_churn", "S_max", "S_min", "S_noise",
)  # fmt: skip
_WHOLE = ("averaged", "scales")
"""Tables that a config replaces whole where it extends another one."""


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """What is trained.

    Attributes:
        architecture: "compact" or "published".
        widths, unshuffle, full_width, half_width, hidden, embedding, texture, around_start: of the compact network
            (`CompactSize`).
        ref, mask, ref_sft, semantic_sft: conditions and modules that it has (the rows of the paper's ablation).
        published: options of the published network, as its config.json holds them.
        sigma_data: standard deviation around the base, model units; 0.5 for the published network.
        init: model folder or bundled name whose weights are the start (fine-tuning), "" = fresh weights.
    """

    architecture: str = "compact"
    widths: tuple[int, ...] = (48, 72, 96)
    unshuffle: int = 4
    full_width: int = 16
    half_width: int = 0
    hidden: int = 48
    embedding: int = 64
    texture: bool = True
    around_start: bool = False
    ref: bool = True
    mask: bool = True
    ref_sft: bool = True
    semantic_sft: bool = True
    published: dict[str, Any] = field(default_factory=dict)
    sigma_data: float = 0.14
    init: str = ""

    def __post_init__(self) -> None:
        one_of(self, "model", "architecture", ARCHITECTURES)
        positive(self, "model", "sigma_data", "unshuffle", "full_width", "hidden", "embedding")
        need(bool(self.widths) and min(self.widths) > 0, "model.widths", self.widths, "at least one width of 1 or more")
        known_keys(self.published, "model.published", PUBLISHED_KEYS)


@dataclass(frozen=True, slots=True)
class DataConfig:
    """What is learned from.

    Attributes:
        train: sources as `open_dataset` takes them: index files, RefSR folders; "#split" behind one takes one of its
            splits alone.
        weights: how often each source is drawn from; empty = by its number of pairs.
        validation: sources for the figures and the picture grid; empty = none.
        root: folder to which paths of an index are relative; "" = GEO_REFDIFF_DATA or the index's own folder.
        pseudo_change: change masks from pseudo-classes where a source has no labels.
        resident_gib: memory for data held in RAM, GiB.
        device_gib: memory of a GPU for data held there, GiB, for each process; what does not fit is streamed.
        on_error: "skip" or "stop" at a pair that is missing, unreadable or smaller than a crop.
        attribution: who made the data and under which licence; for the model card.
    """

    train: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()
    validation: tuple[str, ...] = ()
    root: str = ""
    pseudo_change: bool = True
    resident_gib: float = 6.0
    device_gib: float = 8.0
    on_error: str = "skip"
    attribution: str = ""

    def __post_init__(self) -> None:
        one_of(self, "data", "on_error", ("skip", "stop"))
        at_least(self, "data", 0, "resident_gib", "device_gib")
        fits = not self.weights or (len(self.weights) == len(self.train) and min(self.weights) >= 0 < max(self.weights))
        wanted = f"one weight of 0 or more for each of the {len(self.train)} sources in data.train, not all 0,"
        need(fits, "data.weights", self.weights, wanted)


@dataclass(frozen=True, slots=True)
class FaultsConfig:
    """How often a sample carries which fault; probabilities unless said otherwise.

    Attributes:
        paste: other places or dates pasted into the reference, labelled exactly.
        mask_unknown, mask_wrong: mask not given; mask with missed or invented changes, shifted borders, wrong classes.
        no_reference, part_reference, wrong_place: reference missing, missing in part, of another place.
        no_nir: the sample does without its near infrared band.
        exposure: whether every sample gets an exposure of its own: a gain and an offset a band, both dates alike.
        season: the reference's vegetation greener or drier than it is now.
        coarse: the reference up to twice as coarse as its pixels.
        shift_sigma: standard deviation of the misregistration, HR pixels.
        ref_gain_sigma: of the reference's gain; ref_offset_sigma: of its offset, DN.
    """

    paste: float = 0.5
    mask_unknown: float = 0.4
    mask_wrong: float = 0.3
    no_reference: float = 0.08
    part_reference: float = 0.06
    wrong_place: float = 0.06
    no_nir: float = 0.2
    exposure: bool = True
    season: float = 0.0
    coarse: float = 0.0
    shift_sigma: float = 0.6
    ref_gain_sigma: float = 0.06
    ref_offset_sigma: float = 4.0

    def __post_init__(self) -> None:
        masks, references = (
            ("mask_unknown", "mask_wrong"),
            ("no_reference", "part_reference", "wrong_place", "season", "coarse"),
        )
        shares(self, "samples.faults", "paste", "no_nir", *masks, *references)
        at_least(self, "samples.faults", 0, "shift_sigma", "ref_gain_sigma", "ref_offset_sigma")


@dataclass(frozen=True, slots=True)
class SamplesConfig:
    """How samples are cut.

    Attributes:
        crop: side to aim at, HR pixels.
        scales: factor -> weight, factors as text.
        averaged: side of the square of pixels that is averaged to one, as text -> weight: coarser images of the same
            places. Crops are as much smaller as a pair needs.
        degradation: name of a recipe of `sensor.recipe.RECIPES`.
        psf_error: how far the PSF that is declared for a sample may be from its own, LR pixels.
        noise_error: standard deviation of the logarithm of its declared noise over its own.
        faults: see `FaultsConfig`.
    """

    crop: int = 144
    scales: dict[str, float] = field(default_factory=lambda: {"8": 0.6, "16": 0.2, "4": 0.07, "12": 0.07, "6": 0.06})
    averaged: dict[str, float] = field(default_factory=lambda: {"1": 1.0})
    degradation: str = "sensor"
    psf_error: float = 0.0
    noise_error: float = 0.0
    faults: FaultsConfig = field(default_factory=FaultsConfig)

    def __post_init__(self) -> None:
        at_least(self, "samples", 8, "crop")
        at_least(self, "samples", 0, "psf_error", "noise_error")
        for name, table, least in (("scales", self.scales, 2), ("averaged", self.averaged, 1)):
            whole = all(key.isascii() and key.isdigit() and int(key) >= least for key in table)
            key = f"samples.{name}"
            need(whole and bool(table), key, table, f"at least one whole factor of {least} or more")
            need(min(table.values()) >= 0 < max(table.values()), key, table, "no weight below 0 and one above it")

    def factors(self) -> list[int]:
        """The factors that are drawn at all, in order."""
        return sorted(int(key) for key, weight in self.scales.items() if weight > 0)


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """How it is learned.

    Attributes:
        steps: optimizer steps in all.
        batch: samples a step over all processes; accumulate: parts that each process takes it in, one after the other.
            What is learned depends on processes x accumulate alone: one process with accumulate = 4 does what four do.
        rate: peak learning rate of Adam; warmup: steps of linear warm-up; decay: last share of the steps over which the
            rate falls to 0 by a cosine (0 = never).
        beta1, beta2: of Adam; clip: largest norm of the gradient, 0 = none.
        ema: decay of the averaged weights.
        gradient_weight, gate_weight, edm_weight, wavelet_weight, start_weight: of these losses beside the mean's L1.
        edm_share: share of a batch on which the EDM loss is taken; the first samples of it.
        p_mean, p_std: ln sigma ~ N(p_mean, p_std^2), model units.
        seed: of data, noise and fresh weights.
        bf16: convolutions in bfloat16; weights and losses stay in float32.
        channels_last: memory layout. compile: torch.compile; "auto" = on a GPU.
        workers: threads that make samples ahead.
    """

    steps: int = 1000
    batch: int = 4
    accumulate: int = 1
    rate: float = 4e-4
    warmup: int = 200
    decay: float = 0.3
    beta1: float = 0.9
    beta2: float = 0.99
    clip: float = 1.0
    ema: float = 0.999
    gradient_weight: float = 0.5
    gate_weight: float = 0.5
    edm_weight: float = 0.5
    wavelet_weight: float = 1.0
    start_weight: float = 0.25
    edm_share: float = 0.5
    p_mean: float = -2.4
    p_std: float = 1.2
    seed: int = 1
    bf16: bool = True
    channels_last: bool = True
    compile: str = "auto"
    workers: int = 1

    def __post_init__(self) -> None:
        at_least(self, "training", 1, "steps", "batch", "accumulate", "workers")
        at_least(self, "training", 0, "warmup", "clip", "seed")
        at_least(self, "training", 0, *(f"{name}_weight" for name in ("gradient", "gate", "edm", "wavelet", "start")))
        positive(self, "training", "rate", "p_std")
        shares(self, "training", "decay", "beta1", "beta2", "ema", "edm_share")
        need(max(self.beta1, self.beta2) < 1, "training.beta1, beta2", (self.beta1, self.beta2), "less than 1")
        one_of(self, "training", "compile", COMPILE)


@dataclass(frozen=True, slots=True)
class PerceptionConfig:
    """Losses on what images look like: of the start, and of samples as users get them, by one evaluation at `sigma`.

    All of them are taken after the noise-aware correction towards the scene, on features of a trunk that is not
    trained (`perceptual.Trunk`); without one above 0 it is not needed.

    Attributes:
        start, sample: weight of the perceptual distance of start and sample to the truth.
        strength: of the differences in the strength of features, and of grain, of the sample in windows of 16 px.
        fidelity: of the sample's L1.
        adversarial: of the discriminator on the sample; hold: steps for which its heads learn alone; rise: steps over
            which the weight then rises.
        heads_rate: learning rate of the heads' Adam.
        sigma: noise of the sample's one evaluation, model units.
    """

    start: float = 0.0
    sample: float = 0.0
    strength: float = 0.0
    fidelity: float = 0.1
    adversarial: float = 0.0
    hold: int = 100
    rise: int = 400
    heads_rate: float = 4e-4
    sigma: float = 0.5

    def __post_init__(self) -> None:
        weights = ("start", "sample", "strength", "fidelity", "adversarial")
        at_least(self, "perception", 0, *weights, "hold", "rise")
        positive(self, "perception", "heads_rate", "sigma")

    @property
    def active(self) -> bool:
        """Whether there is such a loss at all."""
        return max(self.start, self.sample, self.strength, self.adversarial) > 0

    def adversary(self, step: int) -> float:
        """The discriminator's weight at a step."""
        return self.adversarial * min(1.0, max(0.0, (step - self.hold) / max(self.rise, 1)))


@dataclass(frozen=True, slots=True)
class ReportConfig:
    """What is told and kept while it runs.

    Attributes:
        log_steps: steps between lines of log.jsonl and of the terminal.
        save_minutes: time between checkpoints.
        validate_steps: steps between validations, 0 = only at the end.
        validation_tiles: tiles of a validation; pictures: rows of the picture grid.
        tensorboard: write TensorBoard events, too.
    """

    log_steps: int = 50
    save_minutes: float = 5.0
    validate_steps: int = 2000
    validation_tiles: int = 16
    pictures: int = 4
    tensorboard: bool = False

    def __post_init__(self) -> None:
        at_least(self, "report", 1, "log_steps", "validation_tiles")
        at_least(self, "report", 0, "save_minutes", "validate_steps", "pictures")


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """All of it; the sections of the TOML file."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    samples: SamplesConfig = field(default_factory=SamplesConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    perception: PerceptionConfig = field(default_factory=PerceptionConfig)
    report: ReportConfig = field(default_factory=ReportConfig)
    inference: dict[str, Any] = field(default_factory=dict)
    """What config.json of the model says of its use: sampler, halo, window, scales... as it stands."""

    def __post_init__(self) -> None:
        known_keys(self.inference, "inference", INFERENCE_KEYS)
        sampler = self.inference.get("sampler", {})
        need(isinstance(sampler, Mapping), "inference.sampler", sampler, "a section")
        known_keys(sampler, "inference.sampler", SAMPLER_KEYS)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)

    def to_toml(self) -> str:
        """As a config file that `load_config` reads back."""
        return to_toml(self.to_dict()) + "\n"


def presets() -> dict[str, Path]:
    """Names and files of the presets that come with the package."""
    folder = Path(str(resources.files("geo_refdiff.train"))) / "presets"
    return {path.stem: path for path in sorted(folder.glob("*.toml"), key=lambda path: path.stem)}


def load_config(source: str | Path, overrides: tuple[str, ...] = ()) -> TrainConfig:
    """Read a TOML file, or a preset by its name; `extends = "preset or file"` lays it over another one.

    Args:
        source: file or preset.
        overrides: "section.key=value" with a TOML value, applied last.

    Raises:
        OptionError: unreadable, no TOML, an unknown key (with the nearest known one), a value of the wrong kind or one
            that makes no sense.
    """
    raw = _read(str(source), ())
    for text in overrides:
        override(raw, text)
    return from_mapping(TrainConfig, raw, str(source))


def _read(source: str, readers: tuple[str, ...]) -> dict[str, Any]:
    """A TOML file or preset as a mapping, laid over the one that it `extends`."""
    path = presets().get(source, Path(source))
    if source in readers:
        raise OptionError(f"{' -> '.join((*readers, source))}: a config cannot extend itself")
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise OptionError(f"no config {path}: give a TOML file or a preset ({', '.join(presets())})") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise OptionError(f"{path} is no readable TOML: {' '.join(str(error).split())}") from error
    base = raw.pop("extends", None)
    if base is None:
        return raw
    if not isinstance(base, str):
        raise OptionError(f"{path}: extends is {base!r}: the name of a preset or a TOML file is needed")
    beside = path.parent / base
    below = _read(base if base in presets() or not beside.is_file() else str(beside), (*readers, source))
    return merged(below, raw, _WHOLE)
