"""The options of an evaluation, each said once: the command's flags and the keywords of `evaluate` come from here."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from geo_refdiff.errors import OptionError
from geo_refdiff.options import (
    MAX_SCALE,
    ComputeOptions,
    DatasetOptions,
    Option,
    OptionRecords,
    Options,
    SamplingOptions,
    comma_separated,
)

if TYPE_CHECKING:
    from geo_refdiff.sensor.sensor import SensorModel

Degradation = Literal["psf", "bicubic"]
Reference = Literal["given", "raw", "none", "other"]
Consistency = Literal["window", "standard", "strict"]
Dtype = Literal["float32", "bfloat16"]

OWN_LR = "own"
"""In place of a folder: the LR images that come with the data set."""

MIN_SCALE = 2

SHARED = ("device", "sampler", "steps", "seed")
"""Options of `upscale` that mean the same here."""

DATASET = ("root", "split", "only", "exclude")
"""Options of `open_dataset`."""


def _named_folders(given: Any) -> Any:
    """Texts NAME=DIR from a mapping."""
    return tuple(f"{name}={folder}" for name, folder in given.items()) if isinstance(given, Mapping) else given


def folders_by_name(texts: tuple[str, ...]) -> dict[str, Path]:
    """Folders from texts NAME=DIR.

    Raises:
        OptionError: another text, or a name that comes twice.
    """
    folders: dict[str, Path] = {}
    for text in texts:
        name, equals, folder = text.partition("=")
        if not (name and equals and folder) or name in folders:
            raise OptionError(f"outputs '{text}': give NAME=DIR, each name once")
        folders[name] = Path(folder)
    return folders


def _distinct(values: tuple[Any, ...]) -> bool:
    return len(set(values)) == len(values)


def _some_distinct(values: tuple[Any, ...]) -> bool:
    return bool(values) and _distinct(values)


_ONCE = "each once, and at least one"


class DataOptions(Options, frozen=True, kw_only=True):
    """Which pictures of the data are compared."""

    group: ClassVar[str] = "Data"

    bands: Annotated[
        tuple[str, ...], Option(help="Bands to use, by name.", default="all", metavar="B,B,...", parse=comma_separated)
    ] = ()
    places: Annotated[int | None, Option(help="The first N places.", default="all", metavar="N", low=1)] = None
    tile: Annotated[int, Option(help="Side of a tile, output pixels.", metavar="PIXELS", low=32)] = 256
    average: Annotated[int, Option(help="Average N x N pixels first: coarser images.", metavar="N", low=1)] = 1


class SceneOptions(Options, frozen=True, kw_only=True):
    """How the coarse image (LR) of a tile is made."""

    group: ClassVar[str] = "Coarse image"

    scale: Annotated[
        tuple[int, ...],
        Option(
            help="Output pixels along a scene pixel.", default="8; of triplets as their grids have it", repeated=True,
            fits=_distinct, give="each once",
        ),
    ] = ()  # fmt: skip
    degradation: Annotated[Degradation, Option(help="How the coarse image (LR) of a tile is made.")] = "psf"
    psf_sigma: Annotated[
        float | None, Option(help="Width of the PSF, scene pixels.", default="0.35", low=0, high=4)
    ] = None
    declared_psf: Annotated[
        float | None,
        Option(help="Width of the PSF that is declared to the methods.", default="the true one", low=0, high=4),
    ] = None
    noise: Annotated[
        float,
        Option(
            help="Standard deviation of the noise of the coarse image.", metavar="DN", low=0, high=255,
            give="a standard deviation of 0 to 255 DN",
        ),
    ] = 0.0  # fmt: skip
    lr: Annotated[
        str | None, Option(help="Coarse images by the tile's name, or the data set's own, instead.", metavar="DIR|own")
    ] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for scale in self.scale:
            if not MIN_SCALE <= scale <= MAX_SCALE:
                raise OptionError(f"scale {scale}: give {MIN_SCALE} to {MAX_SCALE}")
        if self.noise and self.lr is not None:
            raise OptionError(
                f"noise {self.noise:g}: goes with LR images that are simulated; leave --noise or --lr out"
            )

    @property
    def scales(self) -> tuple[int, ...]:
        """The factors of simulated LR."""
        return self.scale or (8,)

    def sensor(self, scale: int) -> "SensorModel":
        """The operator that makes the LR."""
        from geo_refdiff.sensor.sensor import DEFAULT_PSF_SIGMA, SensorModel

        return SensorModel(scale, DEFAULT_PSF_SIGMA if self.psf_sigma is None else self.psf_sigma, self.degradation)


class MethodOptions(Options, frozen=True, kw_only=True):
    """What is compared, and what models are given."""

    group: ClassVar[str] = "Methods"

    mask: Annotated[
        tuple[str, ...],
        Option(
            help="Change mask that models are given; auto: as upscale finds it; true: the data's; DIR: class indices "
            "by the tile's name.",
            default="none; of triplets the index's, else auto", metavar="none|auto|true|wrong|DIR", repeated=True,
            fits=_distinct, give="each once",
        ),
    ] = ()  # fmt: skip
    reference: Annotated[
        tuple[Reference, ...],
        Option(
            help="Reference that models are given: the matched one, as it is (raw), none, or of another place.",
            repeated=True, fits=_some_distinct, give=_ONCE,
        ),
    ] = ("given",)  # fmt: skip
    paste: Annotated[bool, Option(help="Paste other places into the references; the true mask is then exact.")] = False
    consistency: Annotated[
        Consistency,
        Option(
            help="upscale's correction of the whole (standard knows the noise), or each tile's own back-projection."
        ),
    ] = "standard"
    outputs: Annotated[
        tuple[str, ...],
        Option(
            help="Results of another method by the tile's name.", metavar="NAME=DIR", repeated=True,
            parse=_named_folders, check=folders_by_name,
        ),
    ] = ()  # fmt: skip
    detail: Annotated[
        tuple[float, ...],
        Option(
            help="As upscale takes it.", default="the model's", metavar="0..1", repeated=True, fits=_distinct,
            give="each once",
        ),
    ] = ()  # fmt: skip
    dtype: Annotated[Dtype, Option(help="In which models run.", group="Compute")] = "float32"

    @property
    def masks(self) -> tuple[str, ...]:
        """What models are given for tiles of pairs."""
        return self.mask or ("none",)


class ReportOptions(Options, frozen=True, kw_only=True):
    """What is measured and written."""

    group: ClassVar[str] = "Report"

    alexnet: Annotated[str | None, Option(help="AlexNet as torchvision's state dict, for LPIPS.", metavar="FILE")] = (
        None
    )
    lpips: Annotated[str | None, Option(help="Linear weights of LPIPS (AlexNet, version 0.1).", metavar="FILE")] = None
    inception: Annotated[str | None, Option(help="Inception for FID: a TorchScript module.", metavar="FILE")] = None
    windows: Annotated[bool, Option(help="Measure how far two windows of a model disagree, too.")] = False
    grid: Annotated[int, Option(help="Tiles in the picture grid.", metavar="N", low=0)] = 6
    show: Annotated[
        tuple[str, ...],
        Option(help="Tiles or pairs to show, in place of random ones.", metavar="NAME", repeated=True),
    ] = ()
    pictures: Annotated[int, Option(help="Tiles to draw at full size each, too.", metavar="N", low=0)] = 0
    images: Annotated[bool, Option(help="Write LR, Ref, mask, truth and results as image files, too.")] = False
    overwrite: Annotated[bool, Option(help="Replace an earlier report.")] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.alexnet is None) != (self.lpips is None):
            raise OptionError("LPIPS needs two files: give both --alexnet and --lpips")


class EvaluateOptions(OptionRecords, frozen=True, kw_only=True):
    """All options of `evaluate`, in records."""

    taken: ClassVar[dict[str, tuple[str, ...]]] = {
        "dataset": DATASET,
        "sampling": ("sampler", "steps", "seed"),
        "compute": ("device",),
    }

    data: DataOptions = DataOptions()
    scene: SceneOptions = SceneOptions()
    methods: MethodOptions = MethodOptions()
    report: ReportOptions = ReportOptions()
    dataset: DatasetOptions = DatasetOptions()
    sampling: SamplingOptions = SamplingOptions()
    compute: ComputeOptions = ComputeOptions()
