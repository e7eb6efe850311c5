"""The training loop learns, writes a model that loads, and stops with a word when the loss is lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from geo_refdiff.diffusion.checkpoint import load_denoiser
from geo_refdiff.errors import GeoRefDiffError
from geo_refdiff.nn.compact import CompactNet, CompactSize
from geo_refdiff.train.__main__ import model_config
from geo_refdiff.train.loop import Recipe, train
from geo_refdiff.train.pairs import generated_pairs
from geo_refdiff.train.samples import SampleMaker

SIZE = CompactSize(widths=(16, 16), full_width=8, hidden=8, embedding=16)


def make() -> tuple[CompactNet, SampleMaker]:
    torch.manual_seed(0)
    pairs = list(generated_pairs([1, 2], size=128))
    return CompactNet(4, 6, SIZE), SampleMaker(pairs, {4: 1.0}, SIZE.multiple, 48, 6, seed=0)


def test_a_few_steps_of_training_lower_the_loss_and_leave_a_model(tmp_path: Path) -> None:
    network, maker = make()
    recipe = Recipe(minutes=5, steps=150, batch=4, rate=2e-3, warmup=10)
    folder = train(network, model_config(SIZE), maker, recipe, tmp_path / "m", "# card")
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [50, 100, 150]
    assert lines[-1]["mean"] < 0.96 * lines[0]["mean"]
    assert lines[-1]["edm"] < lines[0]["edm"]
    denoiser = load_denoiser(folder)
    assert denoiser.config["trained"]["steps_done"] == 150
    x = torch.zeros(1, 4, 32, 32)
    out = denoiser(x, torch.tensor([0.1]), x, x, torch.full((1, 1, 32, 32), 255, dtype=torch.uint8))
    assert out.shape == x.shape
    assert torch.isfinite(out).all()


def test_a_lost_loss_stops_with_the_step(tmp_path: Path) -> None:
    network, maker = make()
    with torch.no_grad():
        next(network.parameters()).fill_(torch.nan)
    with pytest.raises(GeoRefDiffError, match="step 1"):
        train(network, model_config(SIZE), maker, Recipe(minutes=1), tmp_path / "m", "# card")
