"""The ablation's presets: one architecture, one budget, and switches that do what their names say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from geo_refdiff.classes import UNKNOWN_CLASS
from geo_refdiff.data import open_dataset
from geo_refdiff.diffusion.checkpoint import load_denoiser
from geo_refdiff.diffusion.denoiser import GuidedDenoiser
from geo_refdiff.train.config import load_config, presets
from geo_refdiff.train.model import new_denoiser
from geo_refdiff.train.run import train
from geo_refdiff.train.samples import SampleMaker, Source

SWITCHES = {
    "ablation-lr": (False, False, False, False),
    "ablation-ref": (True, False, False, False),
    "ablation-mask": (True, True, False, False),
    "ablation-ref-sft": (True, True, True, False),
    "ablation-semantic-sft": (True, True, False, True),
    "ablation-both": (True, True, True, True),
}
NAMES = ("ref", "mask", "ref_sft", "semantic_sft")
BANDS = ("red", "green", "blue", "nir")
CLASSES = ("no change", "water", "bare ground", "low vegetation", "tree", "built-up")


def denoiser_of(name: str) -> GuidedDenoiser:
    """With random weights in the layers that begin at zero, too: whatever is connected then shows."""
    denoiser = new_denoiser(load_config(name), BANDS, CLASSES).eval().requires_grad_(False)
    assert isinstance(denoiser, GuidedDenoiser)
    draw = torch.Generator().manual_seed(0)
    for value in denoiser.network.parameters():
        value += 0.05 * torch.randn(value.shape, generator=draw)
    return denoiser


def outputs(denoiser: GuidedDenoiser, lr: Tensor, ref: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """(start, denoised), with the same noise each time."""
    noisy = lr + 0.2 * torch.randn(lr.shape, generator=torch.Generator().manual_seed(1))
    guidance = denoiser.guidance(lr, ref, mask)
    return denoiser.start(guidance), denoiser(noisy, torch.tensor(0.2), lr, ref, mask, guidance=guidance)


def differs(one: tuple[Tensor, ...], other: tuple[Tensor, ...]) -> list[bool]:
    return [not torch.equal(a, b) for a, b in zip(one, other, strict=True)]


def test_the_rows_are_all_there() -> None:
    result = {name for name in presets() if name.startswith("ablation-")}
    assert result == set(SWITCHES)


@pytest.mark.parametrize("name", SWITCHES)
def test_a_row_is_the_base_with_its_switches(name: str) -> None:
    row, base = load_config(name), load_config("ablation-lr")
    assert tuple(getattr(row.model, switch) for switch in NAMES) == SWITCHES[name]
    plain = dict.fromkeys(NAMES, True)
    assert replace(row, model=replace(row.model, **plain)) == replace(base, model=replace(base.model, **plain))


def test_every_sample_has_an_exact_mask_and_most_have_change(landscapes: Callable[..., Path]) -> None:
    base = load_config("ablation-lr")
    maker = SampleMaker([Source(open_dataset(landscapes("10000-10001")), 1.0)], base.samples, 8, seed=3)
    masks = [mask for step in range(1, 7) for mask in maker.batch(step, range(4)).mask]
    assert not any((mask == UNKNOWN_CLASS).any() for mask in masks)
    shares = np.array([float((mask > 0).float().mean()) for mask in masks])
    assert (shares > 0.05).mean() > 0.5
    assert (shares < 1.0).all()


@pytest.mark.parametrize("name", SWITCHES)
def test_reference_and_mask_count_where_the_row_has_them(name: str) -> None:
    ref_counts, mask_counts, _, _ = SWITCHES[name]
    denoiser = denoiser_of(name)
    draw = torch.Generator().manual_seed(2)
    lr, ref, other = (0.3 * torch.randn((1, 4, 32, 32), generator=draw) for _ in range(3))
    calm = torch.zeros((1, 1, 32, 32), dtype=torch.uint8)
    changed = calm.clone()
    changed[..., 8:24, 8:24] = 4
    before = outputs(denoiser, lr, ref, calm)
    assert differs(before, outputs(denoiser, lr, other, calm)) == [ref_counts] * 2
    assert differs(before, outputs(denoiser, lr, ref, changed)) == [mask_counts] * 2
    assert differs(before, outputs(denoiser, lr.flip(-1), ref, calm)) == [True] * 2


@pytest.mark.parametrize("name", SWITCHES)
def test_sft_modules_act_on_the_denoiser_alone(name: str) -> None:
    denoiser = denoiser_of(name)
    blocks = list(denoiser.network.decoder)
    _, _, ref_sft, semantic_sft = SWITCHES[name]
    assert [(block.sft_ref is not None, block.sft_lr is not None) for block in blocks] == [
        (ref_sft, semantic_sft)
    ] * len(blocks)
    draw = torch.Generator().manual_seed(4)
    lr, ref = (0.3 * torch.randn((1, 4, 32, 32), generator=draw) for _ in range(2))
    mask = torch.zeros((1, 1, 32, 32), dtype=torch.uint8)
    before = outputs(denoiser, lr, ref, mask)
    for block in blocks:
        for module in (block.sft_ref, block.sft_lr):
            if module is not None:
                module.to_maps.bias += 0.5
    assert differs(before, outputs(denoiser, lr, ref, mask)) == [False, ref_sft or semantic_sft]


def test_a_row_trains_and_its_folder_says_what_it_lacks(landscapes: Callable[..., Path], tmp_path: Path) -> None:
    small = (
        f'data.train=["{landscapes("10000-10000", 128)}"]', "data.weights=[]", "samples.crop=32", "training.steps=2",
        "training.batch=2", "model.widths=[8, 8]", "model.hidden=8", "model.full_width=4",
    )  # fmt: skip
    config = load_config("ablation-semantic-sft", small)
    folder = train(config, tmp_path, device="cpu", log=lambda line: None)
    assert folder is not None
    assert "Licence and attribution: the config names none" in (folder / "README.md").read_text()
    trained = load_denoiser(folder)
    assert [getattr(trained.config.network, name) for name in NAMES] == list(SWITCHES["ablation-semantic-sft"])
    assert trained.config.network.widths == (8, 8)
