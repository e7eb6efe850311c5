"""Result images are found by name, cut where they hold a whole pair, and refused with a reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from pairs import Numbered
from PIL import Image

from geo_refdiff.errors import InputError
from geo_refdiff.evaluate.image_folder import ImageFolder, lacking, write_image
from geo_refdiff.evaluate.tiles import TileSource, TileSpec

NAMES = ["town/000 2016->2020", "town/001 2016->2020"]


@pytest.fixture
def specs() -> list[TileSpec]:
    return TileSource(Numbered(NAMES), size=32).specs


def picture(height: int, width: int, bands: int = 3) -> torch.Tensor:
    rows, cols = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([rows, cols, *([rows * 0 + 9] * (bands - 2))])[None].float()


@pytest.mark.parametrize("bands", [3, 4])
def test_what_is_written_is_read_again(tmp_path: Path, specs: list[TileSpec], bands: int) -> None:
    image = picture(32, 32, bands)
    written = write_image(tmp_path / specs[5].name, image)
    assert written.suffix == (".png" if bands == 3 else ".tif")
    assert torch.equal(ImageFolder(tmp_path, bands).read(specs[5]), image)


def test_values_are_rounded_and_clipped(tmp_path: Path, specs: list[TileSpec]) -> None:
    image = torch.tensor([-3.0, 0.6, 254.4, 300.0]).repeat(1, 3, 32, 8)
    write_image(tmp_path / specs[0].name, image)
    assert ImageFolder(tmp_path, 3).read(specs[0])[0, 0, 0, :4].tolist() == [0, 1, 254, 255]


def test_the_tile_is_cut_out_of_a_whole_pair(tmp_path: Path, specs: list[TileSpec]) -> None:
    write_image(tmp_path / "town_000_2016_2020", picture(96, 128))
    spec = specs[7]
    result = ImageFolder(tmp_path, 3).read(spec)
    assert result[0, 0, :, 0].tolist() == list(range(32, 64))
    assert result[0, 1, 0].tolist() == list(range(96, 128))
    small = tmp_path / "lr"
    small.mkdir()
    write_image(small / "town_000_2016_2020", picture(12, 16))
    lr = ImageFolder(small, 3, scale=8).read(spec)
    assert lr.shape == (1, 3, 4, 4)
    assert lr[0, :2, 0, 0].tolist() == [4, 12]


def test_alpha_is_left_out_and_masks_are_class_indices(tmp_path: Path, specs: list[TileSpec]) -> None:
    rgba = np.zeros((32, 32, 4), np.uint8)
    rgba[..., 1], rgba[..., 3] = 5, 77
    Image.fromarray(rgba).save(tmp_path / f"{specs[0].name}.png")
    assert ImageFolder(tmp_path, 3).read(specs[0])[0, :, 0, 0].tolist() == [0, 5, 0]
    masks = tmp_path / "masks"
    masks.mkdir()
    Image.fromarray(np.full((32, 32), 3, np.uint8)).save(masks / f"{specs[0].name}.png")
    mask = ImageFolder(masks, None).read(specs[0])
    assert mask.dtype == torch.uint8
    assert mask.shape == (1, 1, 32, 32)
    assert mask.unique().tolist() == [3]


def test_missing_and_unfit_images_are_reported_apart(tmp_path: Path, specs: list[TileSpec]) -> None:
    write_image(tmp_path / specs[0].name, picture(32, 32))
    write_image(tmp_path / specs[1].name, picture(16, 16))
    write_image(tmp_path / specs[2].name, picture(32, 32, 4))
    (tmp_path / f"{specs[3].name}.png").write_bytes(b"no picture")
    Image.fromarray(np.zeros((32, 32), np.uint16)).save(tmp_path / f"{specs[4].name}.png")
    missing = lacking(ImageFolder(tmp_path, 3), specs[:6])
    assert list(missing) == [spec.name for spec in specs[1:6]]
    reasons = list(missing.values())
    assert "is 16 x 16 px, the tile 32 x 32" in reasons[0]
    assert "has 4 bands, 3 are wanted; choose bands with --bands" in reasons[1]
    assert "cannot be read" in reasons[2]
    assert "has 1 bands" in reasons[3]
    assert f"has no image called {specs[5].name}.png or .tif" in reasons[4]
    assert not any("\n" in reason for reason in reasons)


def test_other_dtypes_are_refused(tmp_path: Path, specs: list[TileSpec]) -> None:
    Image.fromarray(np.zeros((32, 32), np.uint16)).save(tmp_path / f"{specs[0].name}.png")
    with pytest.raises(InputError, match="holds uint16; save it as uint8, values 0 to 255"):
        ImageFolder(tmp_path, None).read(specs[0])


def test_no_folder_and_an_empty_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        ImageFolder(tmp_path / "none", 3)
    with pytest.raises(InputError, match=r"holds no \.png, \.tif, \.tiff file"):
        ImageFolder(tmp_path, 3)
