"""Small rasters and models for every test."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from rasterio.warp import Resampling, calculate_default_transform, reproject

sys.path.insert(0, str(Path(__file__).parent))
from rasters import write_raster

torch.set_num_threads(1)
hypothesis.settings.register_profile("house", deadline=None)  # a busy machine is no failure
hypothesis.settings.load_profile("house")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as behind a shell's &, which processes inherit
    signal.signal(signal.SIGINT, signal.default_int_handler)

UTM = "EPSG:26914"
CORNER = (485_904.0, 5_209_248.0)
"""On the lattice of 40 m pixels, as of 5 m pixels."""

MakeRaster = Callable[..., Path]


@pytest.fixture(scope="session", autouse=True)
def affines_without_matmul() -> Iterator[None]:
    """The package does not use `@` on affines, which affine 2.4 does not have; tests may."""
    matmul = Affine.__matmul__

    def checked(self: Affine, other: Any) -> Any:
        caller = sys._getframe(1).f_globals["__name__"]
        assert not caller.startswith("geo_refdiff."), f"{caller}: use grid/affine.py, not @"
        return matmul(self, other)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Affine, "__matmul__", checked)
        yield


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """What runs take is not remembered beyond a test, and nothing from before is known."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "caches" / secrets.token_hex(8)))


@pytest.fixture(scope="session", autouse=True)
def no_fsync() -> Iterator[None]:
    """Nothing waits for the disk: files of tests need not outlive a power cut."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="session")
def landscapes(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Paints the landscapes of some seeds, each set once, and gives their index."""
    from sample_tiles.painter.__main__ import parse_seeds
    from sample_tiles.painter.pairs import write_pairs

    folder = tmp_path_factory.mktemp("landscapes")

    def paint(seeds: str, size: int = 256) -> Path:
        index = folder / f"{seeds}-{size}.csv"
        if not index.exists():
            write_pairs(index, parse_seeds(seeds), size)
        return index

    return paint


def texture(shape: tuple[int, ...], seed: int = 0, smooth: float = 1.5) -> np.ndarray:
    """Values in 0..1, (..., height, width), with structure at all sizes."""
    return _texture(shape, seed, smooth).copy()


@lru_cache(maxsize=16)
def _texture(shape: tuple[int, ...], seed: int, smooth: float) -> np.ndarray:
    from scipy import ndimage

    rng = np.random.default_rng(seed)
    total = np.zeros(shape)
    for octave in range(4):
        sigma = [0.0] * (len(shape) - 2) + [smooth * 2**octave] * 2
        layer = ndimage.gaussian_filter(rng.standard_normal(shape), sigma)
        total += layer / max(layer.std(), 1e-9) * (octave + 1)
    low, high = np.percentile(total, [1, 99])
    return np.clip((total - low) / (high - low), 0, 1)


@pytest.fixture(scope="session")
def make_texture() -> Callable[..., np.ndarray]:
    """`texture` for tests that need no file."""
    return texture


@pytest.fixture
def make_raster(tmp_path: Path) -> MakeRaster:
    """Writes a GeoTIFF: make_raster(name, array (C, h, w), pixel=40.0, ...) -> path."""

    def make(
        name: str,
        array: np.ndarray,
        *,
        pixel: float = 40.0,
        transform: Affine | None = None,
        crs: str | None = UTM,
        **more: Any,
    ) -> Path:
        place = transform or Affine(pixel, 0, CORNER[0], 0, -pixel, CORNER[1])
        return write_raster(tmp_path / name, array, place, crs=crs, **more)

    return make


@pytest.fixture
def make_pair(make_raster: MakeRaster) -> Callable[..., tuple[Path, Path]]:
    """A scene of 40 m and a reference of 5 m of the same ground: make_pair(height, width) -> (scene, reference)."""

    def make(height: int = 40, width: int = 48, bands: int = 3, scale: int = 8) -> tuple[Path, Path]:
        fine = texture((bands, height * scale, width * scale), seed=1)
        coarse = fine.reshape(bands, height, scale, width, scale).mean((2, 4))
        names = ("red", "green", "blue", "nir")[:bands]
        scene = make_raster("scene.tif", np.round(20 + 200 * coarse).astype("uint8"), names=names)
        old = np.round(10 + 180 * np.clip(fine + 0.05 * texture(fine.shape, seed=2), 0, 1)).astype("uint8")
        return scene, make_raster("ref.tif", old, pixel=40.0 / scale, names=names)

    return make


@pytest.fixture
def reprojected(tmp_path: Path) -> Callable[[Path, str], Path]:
    """Writes a raster in another CRS, with nodata 0 around it."""

    def make(path: Path, crs: str) -> Path:
        out = tmp_path / f"{path.stem}_{crs.replace(':', '')}.tif"
        with rasterio.open(path) as source, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # rasterio's own use of affine
            transform, width, height = calculate_default_transform(
                source.crs, crs, source.width, source.height, *source.bounds
            )
            profile = source.profile | {
                "crs": crs, "transform": transform, "width": width, "height": height, "nodata": 0,
            }  # fmt: skip
            with rasterio.open(out, "w", **profile) as target:
                for band in range(1, source.count + 1):
                    reproject(
                        rasterio.band(source, band),
                        rasterio.band(target, band),
                        resampling=Resampling.cubic,
                        dst_nodata=0,
                    )
                target.descriptions = source.descriptions
        return out

    return make


def _tiny(config: dict[str, Any], folder: Path, seed: int = 0) -> Path:
    from geo_refdiff.diffusion.checkpoint import build_denoiser, decode_config, save_model

    denoiser = build_denoiser(decode_config(config))
    generator = torch.Generator().manual_seed(seed)
    state = {
        key: torch.randn(value.shape, generator=generator) * 0.1 if value.is_floating_point() else value
        for key, value in denoiser.network.state_dict().items()
    }
    return save_model(folder, denoiser.config, state, "A model with random weights, for tests.\n")


@pytest.fixture
def tiny_compact(tmp_path: Path) -> Path:
    """A compact model with random weights: red, green, blue and three classes."""
    config = {
        "architecture": "compact",
        "bands": ["red", "green", "blue"],
        "classes": ["no change", "water", "building"],
        "network": {"unshuffle": 2, "widths": [8, 8], "full_width": 4, "hidden": 8, "embedding": 8},
        "halo": 16,
        "window": 96,
        "overlap": 16,
        "scales": [4, 8],
        "sigma_data": 0.5,
        "sampler": {"name": "better-start", "steps": 2, "sigma_start": 0.6, "sigma_min": 0.1, "rho": 7},
    }
    return _tiny(config, tmp_path / "tiny-compact")


@pytest.fixture
def tiny_published(tmp_path: Path) -> Path:
    """A published-architecture model with random weights."""
    config = {
        "img_resolution": 32, "img_channels": 3, "model_channels": 16, "channel_mult": [1, 2], "num_blocks": 1,
        "attn_resolutions": [16], "dropout": 0.0, "sigma_data": 0.5, "halo": 8, "overlap": 8, "window": 64,
        "sampler": {"sigma_min": 0.002, "sigma_max": 80, "rho": 7},
    }  # fmt: skip
    return _tiny(config, tmp_path / "tiny-published")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real test data; skips where it is missing."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("GEO_REFDIFF_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}: set GEO_REFDIFF_DATA")
    return folder


@pytest.fixture
def start_cluster() -> Iterator[Callable[[int], Any]]:
    """Starts a dask cluster of this machine, closed with the test: start_cluster(workers) -> LocalCluster."""
    with contextlib.ExitStack() as running:

        def start(workers: int) -> Any:
            distributed = pytest.importorskip("distributed")
            cluster = distributed.LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                memory_limit=0,
                dashboard_address=None,
                scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},  # tests run side by side: never port 8787
                silence_logs=50,
            )
            return running.enter_context(cluster)

        yield start


@pytest.fixture
def browse() -> Callable[..., str]:
    """What a headless browser without a network prints of a page: browse(page, "--dump-dom", ..., query="") -> text."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("needs a browser: apt-get install chromium")

    def browse(page: Path, *options: str, query: str = "") -> str:
        command = [
            chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
            f"--user-data-dir={page.parent / 'profile'}", "--proxy-server=127.0.0.1:9", "--window-size=1200,1400",
            "--virtual-time-budget=10000", *options, page.as_uri() + query,
        ]  # fmt: skip
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout

    return browse
