"""Outputs of noisy scenes: neither lattice nor blotches, hardly worse than without noise, the same however computed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from scipy import ndimage

from benchmarks.noise import chroma_energy
from geo_refdiff import upscale
from geo_refdiff.sensor.presets import psf_sigma_from_mtf
from geo_refdiff.sensor.sensor import SensorModel

SCALE, SIDE = 4, 88
MTF = {"red": 0.24, "green": 0.2, "blue": 0.26}
GAIN = 40
MakeRaster = Callable[..., Path]


def ground(kind: str, seed: int = 0) -> np.ndarray:
    """(3, SIDE SCALE, SIDE SCALE) in 20..230: fields in colours of their own, or houses close together."""
    rng = np.random.default_rng(seed)
    size = SIDE * SCALE
    lie = ndimage.gaussian_filter(rng.standard_normal((size, size)), 2)
    image = np.empty((3, size, size))
    plot = 44 if kind == "rural" else 11
    plots = rng.uniform(50, 150, (1, size // plot, size // plot)) + rng.uniform(
        -25, 25, (3, size // plot, size // plot)
    )
    for band in range(3):
        image[band] = np.kron(plots[band], np.ones((plot, plot))) + (100 if kind == "rural" else 250) * lie
    return np.clip(ndimage.gaussian_filter(image, (0, 0.8, 0.8)), 20, 230).astype("float32")


def delivered(truth: np.ndarray, percent: float) -> np.ndarray:
    """As Sentinel-2 would deliver it, uint16, with noise of some percent of dark fields."""
    images = [
        SensorModel(SCALE, psf_sigma_from_mtf(mtf)).observe(torch.from_numpy(truth[None, band : band + 1]))[0, 0]
        for band, mtf in enumerate(MTF.values())
    ]
    clean = torch.stack(images).numpy() * GAIN
    sigma = np.percentile(clean, 5, axis=(1, 2)) * percent / 100
    noise = np.random.default_rng(5).standard_normal(clean.shape) * sigma[:, None, None]
    return np.rint(clean + noise).astype("uint16")


def read(path: Path) -> np.ndarray:
    with rasterio.open(path) as dataset:
        return np.asarray(dataset.read(), dtype=np.float64) / GAIN


def psnr(image: np.ndarray, truth: np.ndarray) -> float:
    return float(20 * np.log10(255) - 10 * np.log10(((image - truth) ** 2).mean()))


@pytest.mark.parametrize("psf", [None, 0.45])
@pytest.mark.parametrize("model", ["bicubic-ibp", "matched-ref"])
@pytest.mark.parametrize("kind", ["rural", "city"])
def test_noise_costs_little(make_raster: MakeRaster, tmp_path: Path, kind: str, model: str, psf: float | None) -> None:
    truth = ground(kind)
    old = np.clip(0.9 * truth + 10 + 6 * np.random.default_rng(1).standard_normal(truth.shape), 1, 254).astype("uint8")
    options: dict[str, Any] = {"scale": SCALE, "products": "none", "overwrite": True, "out": tmp_path / "out.tif"}
    given = {"ref": make_raster("ref.tif", old, pixel=10.0, names=MTF), "coregister": "off"} if "ref" in model else {}
    chroma, quality = {}, {}
    for percent in (0.0, 1.0, 2.5):
        scene = make_raster("scene.tif", delivered(truth, percent), names=MTF)
        image = read(upscale(scene, model=model, psf=psf, **given, **options).out)
        chroma[percent], quality[percent] = chroma_energy(image, SCALE), psnr(image, truth)
        assert quality[percent] > psnr(read(upscale(scene, model="bicubic", **options).out), truth)
    assert chroma[1.0] < 1.15 * chroma[0.0]
    assert chroma[2.5] < 1.15 * chroma[0.0]
    assert quality[1.0] > quality[0.0] - 0.3


def test_blocks_of_any_layout_and_cut_outs_are_the_same(make_raster: MakeRaster, tmp_path: Path) -> None:
    scene = make_raster("scene.tif", delivered(ground("rural"), 2.5), names=MTF)
    options: dict[str, Any] = {"model": "bicubic-ibp", "scale": SCALE, "products": "none", "psf": 0.45}
    whole = upscale(scene, out=tmp_path / "whole.tif", **options)
    assert any("noise of the scene" in note for note in whole.notes)
    image = read(whole.out)
    blocks = read(upscale(scene, out=tmp_path / "blocks.tif", block_size=192, window=256, **options).out)
    assert np.abs(blocks - image).max() <= 1
    with rasterio.open(scene) as dataset:
        left, bottom = dataset.transform @ (20, 60)
        right, top = dataset.transform @ (55, 30)
    part = upscale(scene, out=tmp_path / "part.tif", aoi=f"{left},{bottom},{right},{top}", **options)
    assert np.abs(read(part.out) - image[:, 120:240, 80:220]).max() <= 1


def test_missing_pixels_stay_missing_and_do_not_matter(make_raster: MakeRaster, tmp_path: Path) -> None:
    lr = delivered(ground("rural"), 2.5)
    options: dict[str, Any] = {"model": "bicubic-ibp", "scale": SCALE, "products": "none", "noise": 40.0}
    images = []
    for hidden in (0, 9):
        lr[:, 20:23, 30:34] = 0
        lr[:, 21, 31] = hidden  # another hole if 0, an outlier if not
        images.append(read(upscale(make_raster("s.tif", lr, nodata=0), out=tmp_path / f"{hidden}.tif", **options).out))
    assert not images[0][:, 80:92, 120:136].any()
    far = np.ones(images[0].shape[1:], dtype=bool)
    far[20:152, 60:196] = False
    assert np.abs(images[0] - images[1])[:, far].max() < 0.2  # the bands' mixtures are those of the whole scene
