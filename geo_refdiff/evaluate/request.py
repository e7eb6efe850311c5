"""What an evaluation is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from geo_refdiff.errors import OptionError
from geo_refdiff.sensor.sensor import DEFAULT_PSF_SIGMA, Kernel

REFERENCES = ("given", "raw", "none", "other")
"""Which reference a model is given: the data set's, registered and in the radiometry of the new date; as the files hold
it; none; or that of another place."""

OWN_LR = "own"
"""In place of a folder: the LR images that come with the data set."""

CONSISTENCY = ("window", "wiener", "standard", "strict")

DTYPES = ("float32", "bfloat16")


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be evaluated.

    Attributes:
        models: bundled names or model folders.
        data: as `open_dataset` takes it.
        root, split, only, exclude: of the data, as `open_dataset` takes them.
        bands: names of those to take, in this order; empty: all.
        scales: output pixels along a scene pixel, each evaluated by itself.
        degradation: kernel of the sensor that makes the LR.
        psf_sigma: of the kernel "psf", scene pixels.
        declared_psf: what methods are told of it; None: as it is.
        noise: standard deviation of the noise of simulated LR, DN.
        lr: LR images in place of simulated ones: a folder of them by the tile's name (DIR/8x where it is there), or
            "own".
        masks: which change masks the models are given: "none", "true", "wrong", "auto", or folders of class indices.
        references: which reference, see `REFERENCES`.
        paste: paste other places into the references, with exact masks.
        consistency: how models and back-projected baselines are held to the LR: "window": back-projection of the tile
            by the restorer; "wiener": correction of the tile by a Wiener filter that knows the noise; "standard",
            "strict": as `upscale --consistency` corrects a whole scene.
        outputs: name -> folder of results of another method.
        places: the first so many places; None: all.
        tile: side, output pixels.
        average: side of the squares of pixels that are averaged to one first: a coarser ground sampling distance.
        sampler, steps: of the models; None: their own.
        details: amounts of detail 0..1, each a run of its own; empty: the models' own.
        seed: of noise, pasted change and the choice of tiles to show.
        alexnet, lpips: weights for LPIPS.
        inception: weights for FID.
        windows: measure how far windows disagree, too.
        device, dtype: where and in what the networks run.
        show: tiles or pairs for the picture grid; empty: `grid` of them drawn by the seed.
        grid: rows of the picture grid, 0 = none.
        pictures: tiles of which a full-size picture is written.
        images: write LR, reference, mask, truth and all results as image files, too.
        overwrite: replace an earlier report.
    """

    data: str
    models: tuple[str, ...] = ()
    root: Path | None = None
    split: str | None = None
    only: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    bands: tuple[str, ...] = ()
    scales: tuple[int, ...] = (8,)
    degradation: Kernel = "psf"
    psf_sigma: float = DEFAULT_PSF_SIGMA
    declared_psf: float | None = None
    noise: float = 0.0
    lr: Path | None = None
    masks: tuple[str, ...] = ("none",)
    references: tuple[str, ...] = ("given",)
    paste: bool = False
    consistency: str = "window"
    outputs: Mapping[str, Path] = field(default_factory=dict)
    places: int | None = None
    tile: int = 256
    average: int = 1
    sampler: str | None = None
    steps: int | None = None
    details: tuple[float, ...] = ()
    seed: int = 0
    alexnet: Path | None = None
    lpips: Path | None = None
    inception: Path | None = None
    windows: bool = False
    device: str = "auto"
    dtype: str = "float32"
    show: tuple[str, ...] = ()
    grid: int = 6
    pictures: int = 0
    images: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        named = {"scale": self.scales, "mask": self.masks, "reference": self.references}
        for name, values in {**named, "detail": self.details}.items():
            if (name in named and not values) or len(set(values)) < len(values):
                raise OptionError(f"{name} {', '.join(map(str, values)) or 'none'}: give each once, and at least one")
        for scale in self.scales:
            if not 2 <= scale <= 64 or self.tile % scale:
                raise OptionError(
                    f"scale {scale}: give 2 to 64, and a --tile that is a multiple of it, not {self.tile}"
                )
        if self.degradation not in get_args(Kernel):
            raise OptionError(f"degradation '{self.degradation}': give {' or '.join(get_args(Kernel))}")
        if self.consistency not in CONSISTENCY:
            raise OptionError(f"consistency '{self.consistency}': give {', '.join(CONSISTENCY)}")
        for reference in self.references:
            if reference not in REFERENCES:
                raise OptionError(f"reference '{reference}': give {', '.join(REFERENCES)}")
        if not 0.0 <= self.noise <= 255.0 or (self.noise and self.lr is not None):
            raise OptionError(f"noise {self.noise:g}: give a standard deviation of 0 to 255 DN, and no --lr beside it")
        if (self.alexnet is None) != (self.lpips is None):
            raise OptionError("LPIPS needs two files: give both --alexnet and --lpips")
        if self.average < 1:
            raise OptionError(f"average {self.average}: give 1 (as it is) or more pixels")
        if self.places is not None and self.places < 1:
            raise OptionError(f"places {self.places}: give at least 1")
        if self.dtype not in DTYPES:
            raise OptionError(f"dtype '{self.dtype}': give {' or '.join(DTYPES)}")
