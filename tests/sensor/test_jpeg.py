"""JPEG's loss: Pillow's own files are the oracle."""

from __future__ import annotations

import io

import numpy as np
import pytest
import rasterio
import torch
from PIL import Image

from geo_refdiff.errors import OptionError
from geo_refdiff.sensor.jpeg import BLOCK, MCU, jpeg, quantisation_table


def coded(image: np.ndarray, quality: int) -> np.ndarray:
    """(C, H, W) uint8 through a file of Pillow's, one or three bands."""
    buffer = io.BytesIO()
    shown = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
    Image.fromarray(shown).save(buffer, "JPEG", quality=quality, subsampling=2)
    back = np.asarray(Image.open(buffer))
    return back[None] if len(image) == 1 else back.transpose(2, 0, 1)


def land(height: int, width: int) -> np.ndarray:
    from scipy import ndimage

    noise = ndimage.gaussian_filter(np.random.default_rng(5).standard_normal((3, height, width)), (0, 2, 2))
    shared = ndimage.gaussian_filter(np.random.default_rng(6).standard_normal((height, width)), 1.5)
    image = 120 + 150 * noise + 220 * shared
    image[:, height // 3 : height // 2, width // 4 : width // 2] += 60
    return np.clip(image, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("quality", [1, 7, 20, 49, 50, 75, 90, 100])
def test_tables_are_the_ones_that_pillow_writes(quality: int) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, "JPEG", quality=quality)
    written = Image.open(buffer).quantization  # type: ignore[attr-defined]
    for index, chroma in ((0, False), (1, True)):
        assert sorted(written[index]) == sorted(quantisation_table(quality, chroma))
        assert written[index][0] == quantisation_table(quality, chroma)[0]


@pytest.mark.parametrize("bands", [1, 3])
@pytest.mark.parametrize("shape", [(96, 128), (61, 77)])
@pytest.mark.parametrize("quality", [30, 60, 90])
def test_close_to_pillow(bands: int, shape: tuple[int, int], quality: int) -> None:
    image = land(*shape)[:bands]
    there = coded(image, quality).astype(float)
    here = jpeg(torch.from_numpy(image.astype(np.float32))[None], [quality])[0].numpy()
    loss = np.abs(there - image).mean()
    assert np.abs(here - there).mean() < min(0.5, 0.25 * loss)
    assert np.percentile(np.abs(here - there), 99) <= 4


@pytest.mark.parametrize("quality", [50, 75, 92])
def test_close_to_pillow_on_real_land(shared_data: object, quality: int) -> None:
    with rasterio.open(f"{shared_data}/naip-knox/2015.tif") as source:
        image = source.read((1, 2, 3), window=rasterio.windows.Window(200, 150, 208, 192))
    there = coded(image, quality).astype(float)
    here = jpeg(torch.from_numpy(image.astype(np.float64))[None], [quality])[0].numpy()
    assert np.abs(here - there).mean() < 0.6 < np.abs(there - image).mean()


def test_bands_that_are_no_colours_are_coded_one_by_one() -> None:
    image = torch.from_numpy(np.concatenate([land(40, 48), land(40, 48)[:1] // 2]).astype(np.float32))[None]
    together = jpeg(image, [60])
    for band in range(4):
        assert torch.equal(together[:, band : band + 1], jpeg(image[:, band : band + 1], [60]))


def test_each_image_has_its_quality() -> None:
    image = torch.from_numpy(land(32, 32).astype(np.float32))[None]
    both = jpeg(image.repeat(2, 1, 1, 1), [20, 95])
    assert torch.equal(both[:1], jpeg(image, [20]))
    assert torch.equal(both[1:], jpeg(image, [95]))
    error = (both - image).square().mean(dim=(1, 2, 3))
    assert error[0] > 3 * error[1]


@pytest.mark.parametrize("bands", [1, 3])
def test_what_lies_a_square_away_does_not_matter(bands: int) -> None:
    image = torch.from_numpy(land(96, 96)[:bands].astype(np.float64))[None]
    whole = jpeg(image, [40])
    part = jpeg(image[..., MCU : 5 * MCU, 2 * MCU : 6 * MCU], [40])
    assert torch.equal(part[..., MCU:-MCU, MCU:], whole[..., 2 * MCU : 4 * MCU, 3 * MCU : 6 * MCU])


def test_a_flat_image_stays_and_values_are_whole_and_in_range() -> None:
    assert torch.equal(jpeg(torch.full((1, 3, 17, 9), 77.0), [80]), torch.full((1, 3, 17, 9), 77.0))
    wild = torch.randn(2, 1, 3 * BLOCK, 2 * BLOCK, generator=torch.Generator().manual_seed(0)) * 300 + 100
    done = jpeg(wild, [10, 90])
    assert torch.equal(done, done.round())
    assert 0 <= float(done.min()) <= float(done.max()) <= 255


def test_a_quality_that_is_none() -> None:
    with pytest.raises(OptionError, match="JPEG quality 0"):
        jpeg(torch.zeros(1, 1, 8, 8), [0])
