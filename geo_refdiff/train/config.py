"""The training configuration: TOML, strictly decoded into frozen dataclasses; an unknown key is an error."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, TypedDict, get_type_hints

import tomli_w
from msgspec import Meta

from geo_refdiff.diffusion.config import CompactConfig, PublishedConfig, SamplerConfig
from geo_refdiff.errors import OptionError
from geo_refdiff.nn.compact import CompactSize, Count
from geo_refdiff.raster.gdal import one_line
from geo_refdiff.records import decode

Share = Annotated[float, Meta(ge=0, le=1)]
NotNegative = Annotated[float, Meta(ge=0)]
Positive = Annotated[float, Meta(gt=0)]
WholeNumber = Annotated[int, Meta(ge=0)]

_WHOLE = ("averaged", "scales")
"""Tables that a config replaces whole where it extends another one."""


INFERENCE_KEYS = (
    "back_project", "copy_exponent", "detail", "halo", "optional_bands", "overlap", "psf_sigma", "sampler", "scales",
    "window",
)  # fmt: skip
"""What [inference] may say of a model's use, as config.json of a model does."""


def _some_of(record: type, keys: Iterable[str], **inner: Any) -> Any:
    """A TypedDict of fields of a record, none of them required; `inner`: types in place of the record's."""
    kinds = get_type_hints(record, include_extras=True) | inner
    return TypedDict(record.__name__, {key: kinds[key] for key in keys}, total=False)  # type: ignore[operator]


if TYPE_CHECKING:
    Published: TypeAlias = dict[str, Any]
    Inference: TypeAlias = dict[str, Any]
else:
    Published = _some_of(
        PublishedConfig,
        ("img_resolution", "model_channels", "channel_mult", "num_blocks", "attn_resolutions", "dropout"),
    )
    Inference = _some_of(CompactConfig, INFERENCE_KEYS, sampler=_some_of(SamplerConfig, get_type_hints(SamplerConfig)))


@dataclass(frozen=True, slots=True)
class ModelConfig(CompactSize):
    """What is trained; the size of the compact network is that of `CompactSize`.

    Attributes:
        architecture: "compact" or "published".
        texture: as of `CompactSize`; networks whose config does not say have none, new ones do.
        published: options of the published network, as its config.json holds them.
        sigma_data: standard deviation around the base, model units; 0.5 for the published network.
        init: model folder or bundled name whose weights are the start (fine-tuning), "" = fresh weights.
    """

    architecture: Literal["compact", "published"] = "compact"
    texture: bool = True
    published: Published = field(default_factory=dict)
    sigma_data: Positive = 0.14
    init: str = ""

    def network(self) -> CompactSize:
        """The size of the compact network, as config.json holds it."""
        return CompactSize(**{item.name: getattr(self, item.name) for item in fields(CompactSize)})


@dataclass(frozen=True, slots=True)
class DataConfig:
    """What is learned from.

    Attributes:
        train: sources as `open_dataset` takes them: index files, folders of published data sets; "#split"
            behind one takes one of its splits alone.
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
    resident_gib: NotNegative = 6.0
    device_gib: NotNegative = 8.0
    on_error: Literal["skip", "stop"] = "skip"
    attribution: str = ""

    def __post_init__(self) -> None:
        weights = self.weights
        if weights and not (len(weights) == len(self.train) and min(weights) >= 0 < max(weights)):
            raise ValueError(
                f"data.weights is {weights!r}: one weight of 0 or more for each of the {len(self.train)} sources in "
                f"data.train, not all 0, is needed"
            )


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
        shift_sigma: standard deviation of the misregistration, output pixels.
        ref_gain_sigma: of the reference's gain; ref_offset_sigma: of its offset, DN.
    """

    paste: Share = 0.5
    mask_unknown: Share = 0.4
    mask_wrong: Share = 0.3
    no_reference: Share = 0.08
    part_reference: Share = 0.06
    wrong_place: Share = 0.06
    no_nir: Share = 0.2
    exposure: bool = True
    season: Share = 0.0
    coarse: Share = 0.0
    shift_sigma: NotNegative = 0.6
    ref_gain_sigma: NotNegative = 0.06
    ref_offset_sigma: NotNegative = 4.0


@dataclass(frozen=True, slots=True)
class SamplesConfig:
    """How samples are cut.

    Attributes:
        crop: side to aim at, output pixels.
        scales: factor -> weight, factors as text.
        averaged: side of the square of pixels that is averaged to one, as text -> weight: coarser images of the same
            places. Crops are as much smaller as a pair needs.
        degradation: name of a recipe of `sensor.recipe.RECIPES`.
        psf_error: how far the PSF that is declared for a sample may be from its own, scene pixels.
        noise_error: standard deviation of the logarithm of its declared noise over its own.
        faults: see `FaultsConfig`.
    """

    crop: Annotated[int, Meta(ge=8)] = 144
    scales: dict[str, NotNegative] = field(
        default_factory=lambda: {"8": 0.6, "16": 0.2, "4": 0.07, "12": 0.07, "6": 0.06}
    )
    averaged: dict[str, NotNegative] = field(default_factory=lambda: {"1": 1.0})
    degradation: str = "sensor"
    psf_error: NotNegative = 0.0
    noise_error: NotNegative = 0.0
    faults: FaultsConfig = field(default_factory=FaultsConfig)

    def __post_init__(self) -> None:
        for name, table, least in (("scales", self.scales, 2), ("averaged", self.averaged, 1)):
            if not table or not all(key.isascii() and key.isdigit() and int(key) >= least for key in table):
                raise ValueError(f"samples.{name} is {table!r}: at least one whole factor of {least} or more is needed")
            if not max(table.values()) > 0:
                raise ValueError(f"samples.{name} is {table!r}: one weight above 0 is needed")

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

    steps: Count = 1000
    batch: Count = 4
    accumulate: Count = 1
    rate: Positive = 4e-4
    warmup: WholeNumber = 200
    decay: Share = 0.3
    beta1: Annotated[float, Meta(ge=0, lt=1)] = 0.9
    beta2: Annotated[float, Meta(ge=0, lt=1)] = 0.99
    clip: NotNegative = 1.0
    ema: Share = 0.999
    gradient_weight: NotNegative = 0.5
    gate_weight: NotNegative = 0.5
    edm_weight: NotNegative = 0.5
    wavelet_weight: NotNegative = 1.0
    start_weight: NotNegative = 0.25
    edm_share: Share = 0.5
    p_mean: float = -2.4
    p_std: Positive = 1.2
    seed: WholeNumber = 1
    bf16: bool = True
    channels_last: bool = True
    compile: Literal["auto", "off", "on"] = "auto"
    workers: Count = 1

    def learning_rate(self, step: int) -> float:
        """Of step 1, 2, ...: linear warm-up, constant, cosine to 0 over the last share `decay` of the steps."""
        rate = self.rate * min(1.0, step / max(self.warmup, 1))
        if self.decay == 0:
            return rate
        remaining = (self.steps - step) / (self.decay * self.steps)
        return rate if remaining >= 1.0 else rate * 0.5 * (1.0 - math.cos(math.pi * max(remaining, 0.0)))


@dataclass(frozen=True, slots=True)
class PerceptionConfig:
    """Losses on what images look like: of the start, and of samples as users get them, by one evaluation at `sigma`.

    All of them are taken after the noise-aware correction towards the scene, on features of a trunk that is not
    trained (`perceptual.Trunk`); without one above 0 it is not needed.

    Attributes:
        start, sample: weight of the perceptual distance of start and sample to the truth; without a sample (0) none is
            taken, and what is said of it below holds for the start.
        strength: of the differences in the strength of features, and of grain, of the sample in windows of 16 px.
        fidelity: of the sample's L1.
        adversarial: of the discriminator on the sample; hold: steps for which its heads learn alone; rise: steps over
            which the weight then rises.
        heads_rate: learning rate of the heads' Adam.
        sigma: noise of the sample's one evaluation, model units.
    """

    start: NotNegative = 0.0
    sample: NotNegative = 0.0
    strength: NotNegative = 0.0
    fidelity: NotNegative = 0.1
    adversarial: NotNegative = 0.0
    hold: WholeNumber = 100
    rise: WholeNumber = 400
    heads_rate: Positive = 4e-4
    sigma: Positive = 0.5

    @property
    def active(self) -> bool:
        """Whether there is such a loss at all."""
        return max(self.start, self.sample, self.strength, self.adversarial) > 0

    def adversary(self, step: int) -> float:
        """The discriminator's weight at a step."""
        return self.adversarial * min(1.0, max(0.0, (step - self.hold) / max(self.rise, 1)))


@dataclass(frozen=True, slots=True)
class ReportConfig:
    """What is logged and kept while it runs.

    Attributes:
        log_steps: steps between lines of log.jsonl and of the terminal.
        save_minutes: time between checkpoints.
        validate_steps: steps between validations, 0 = only at the end.
        validation_tiles: tiles of a validation; pictures: rows of the picture grid.
        tensorboard: write TensorBoard events, too.
    """

    log_steps: Count = 50
    save_minutes: NotNegative = 5.0
    validate_steps: WholeNumber = 2000
    validation_tiles: Count = 16
    pictures: WholeNumber = 4
    tensorboard: bool = False


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """All of it; the sections of the TOML file."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    samples: SamplesConfig = field(default_factory=SamplesConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    perception: PerceptionConfig = field(default_factory=PerceptionConfig)
    report: ReportConfig = field(default_factory=ReportConfig)
    inference: Inference = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)

    def to_toml(self) -> str:
        """As a config file that `load_config` reads back."""
        return tomli_w.dumps(self.to_dict())


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
        OptionError: unreadable, no TOML, an unknown key (with the nearest one), a value of the wrong kind or one
            that makes no sense.
    """
    raw = _read(str(source), ())
    for text in overrides:
        override(raw, text)
    return decode(TrainConfig, raw, str(source))


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
        raise OptionError(f"{path} is no readable TOML: {one_line(error)}") from error
    base = raw.pop("extends", None)
    if base is None:
        return raw
    if not isinstance(base, str):
        raise OptionError(f"{path}: extends is {base!r}: the name of a preset or a TOML file is needed")
    beside = path.parent / base
    below = _read(base if base in presets() or not beside.is_file() else str(beside), (*readers, source))
    return merged(below, raw, _WHOLE)


def merged(below: Mapping[str, Any], above: Mapping[str, Any], whole: tuple[str, ...] = ()) -> dict[str, Any]:
    """One tree of tables laid over another, key by key; tables whose key is in `whole` are replaced, not mixed."""
    both = dict(below)
    for key, value in above.items():
        old = both.get(key)
        mix = isinstance(old, Mapping) and isinstance(value, Mapping) and key not in whole
        both[key] = merged(old, value, whole) if mix and old is not None else value
    return both


def override(raw: dict[str, Any], text: str) -> None:
    """Set one value of a tree of tables: "section.key=VALUE", VALUE as in TOML, quotes may be left out.

    Raises:
        OptionError: it is not written so.
    """
    dotted, equals, value = text.partition("=")
    names = [name.strip() for name in dotted.split(".")]
    if not equals or len(names) < 2 or not all(names):
        raise OptionError(f"'{text}' is no setting: give section.key=value, as training.steps=500")
    try:
        parsed = tomllib.loads(f"value = {value}")
    except tomllib.TOMLDecodeError:
        parsed = {"value": value.strip()}
    if len(parsed) != 1:
        raise OptionError(f"'{text}' holds more than one setting: give each by itself")
    table = raw
    for name in names[:-1]:
        table = table.setdefault(name, {})
        if not isinstance(table, dict):
            raise OptionError(f"'{text}': {name} is no section")
    table[names[-1]] = parsed["value"]
