"""A whole run: dry runs of every preset, what it writes, fine-tuning, whose folder it is, and pairs that are broken."""

from __future__ import annotations

import csv
import json
import os
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from geo_refdiff.diffusion import checkpoint
from geo_refdiff.diffusion.checkpoint import describe_model, load_denoiser, model_digest
from geo_refdiff.errors import GeoRefDiffError, InputError, ModelError, OptionError, ResumeError
from geo_refdiff.train import model as models
from geo_refdiff.train import run as runs
from geo_refdiff.train.config import TrainConfig, load_config, presets
from geo_refdiff.train.loop import flushed
from geo_refdiff.train.model import new_denoiser
from geo_refdiff.train.run import train
from geo_refdiff.train.run_folder import locked, read_progress

Configs = Callable[..., TrainConfig]


def trained(config: TrainConfig, out: Path, **options: Any) -> list[str]:
    messages: list[str] = []
    train(config, out, device="cpu", log=messages.append, **options)
    return messages


def last(out: Path) -> int:
    return read_progress(out / "state").step


@pytest.mark.parametrize("name", sorted(presets()))
def test_every_preset_makes_a_batch(name: str, landscapes: Callable[..., Path], tmp_path: Path) -> None:
    index = landscapes("1-1")
    config = load_config(name, (f'data.train=["{index}"]', "data.weights=[]", "data.validation=[]"))
    # the same network in small
    thin = config.model.published | {"model_channels": 16, "num_blocks": 1} if config.model.published else {}
    model = replace(config.model, widths=(8,) * len(config.model.widths), published=thin, init="")
    small = replace(config, model=model, training=replace(config.training, batch=2, accumulate=1))
    messages = trained(small, tmp_path / "run", dry_run=True)
    assert messages[0] == f"{index}: 1 pairs"
    assert messages[-1].startswith("a batch of 2 at ")
    assert not (tmp_path / "run").exists()


def test_the_paper_s_network_has_its_size() -> None:
    with torch.device("meta"):
        described = load_config("paper").model.published | {"architecture": "published", "img_channels": 3}
        network = checkpoint.build_denoiser(checkpoint.decode_config(described)).network
    assert sum(p.numel() for p in network.parameters()) == 116_740_739


def test_a_run_leaves_a_model_and_all_that_is_known_of_it(
    tiny_config: Configs, landscapes: Callable[..., Path], tmp_path: Path
) -> None:
    validation = f'data.validation=["{landscapes("3-3")}"]'
    config = tiny_config(validation, "report.tensorboard=false", "training.steps=4")
    out = tmp_path / "my-run"
    messages = trained(config, out, command="geo-refdiff train tiny.toml")
    names = {"config.toml", "lock", "log.jsonl", "model", "model.json", "pictures", "state"}
    assert {path.name for path in out.iterdir()} == names
    assert load_config(out / "config.toml") == config
    model = out / "model"
    described = json.loads((model / "config.json").read_text())
    assert described["trained"]["config"]["training"]["steps"] == 4
    assert described["trained"]["steps"] == 4
    assert described["trained"]["command"] == "geo-refdiff train tiny.toml"
    assert described["receptive_field"] == load_denoiser(model).receptive_field
    sha256 = model_digest(model)
    assert json.loads((out / "model.json").read_text()) == {"folder": str(model), "sha256": sha256}
    assert messages[-1] == f"{model}: sha256 {sha256}"
    assert describe_model(model)["sha256"] == sha256

    card = (model / "README.md").read_text()
    for expected in (
        "# Model card: my-run",
        sha256,
        "    geo-refdiff train tiny.toml\n",
        "Seed 1.",
        "Made up for tests, CC0.",
        described["trained"]["fingerprint"],
        "6 pairs, weight 6",
        "| sample | ",
        "## Limits",
    ):
        assert expected in card
    toml = card.split("```toml\n")[1].split("```")[0]
    assert tomllib.loads(toml) == tomllib.loads(config.to_toml())

    denoiser = load_denoiser(model)
    x = torch.zeros(1, 4, 32, 32)
    mask = torch.full((1, 1, 32, 32), 255, dtype=torch.uint8)
    assert torch.isfinite(denoiser(x, torch.tensor([0.1]), x, x, mask)).all()


def test_large_weights_are_cut_into_shards(
    tiny_config: Configs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def small(*args: Any) -> Path:
        return checkpoint.save_model(*args, shard_bytes=8_000)

    monkeypatch.setattr(models, "save_model", small)
    trained(tiny_config("training.steps=1"), tmp_path / "run")
    shards = sorted(path.name for path in (tmp_path / "run" / "model").glob("*.safetensors"))
    assert len(shards) > 2
    assert shards[0].startswith("model-00001-of-")
    assert model_digest(tmp_path / "run" / "model") in (tmp_path / "run" / "model" / "README.md").read_text()


def test_fine_tuning_begins_with_a_model_and_says_so(tiny_config: Configs, tmp_path: Path) -> None:
    first = tmp_path / "first"
    trained(tiny_config("training.steps=2", "inference.halo=7", "inference.sampler.steps=3"), first)
    weights = load_denoiser(first / "model").network.state_dict()
    config = tiny_config(f"model.init={first / 'model'}", "training.steps=2", "training.seed=2")
    begun = new_denoiser(config, *_names(first))
    assert all(torch.equal(weights[key], value) for key, value in begun.network.state_dict().items())
    assert all(p.requires_grad for p in begun.network.parameters())
    trained(config, tmp_path / "second")
    described = json.loads((tmp_path / "second" / "model" / "config.json").read_text())
    assert described["init"] == {"model": str(first / "model"), "sha256": model_digest(first / "model")}
    assert described["halo"] == 7  # how the model is used is taken over
    assert described["sampler"]["steps"] == 3
    assert model_digest(first / "model") in (tmp_path / "second" / "model" / "README.md").read_text()


def test_a_model_that_shuffles_begins_one_that_interpolates(tiny_config: Configs, tmp_path: Path) -> None:
    first = tmp_path / "first"
    trained(tiny_config("training.steps=2", "model.unshuffle=4"), first)
    before = load_denoiser(first / "model").network
    renewed = (f"model.init={first / 'model'}", "model.unshuffle=4", "model.half_width=4", "model.around_start=true")
    begun = new_denoiser(tiny_config(*renewed), *_names(first)).network
    widths = before.size.widths
    features = torch.randn(1, widths[-1], 3, 4)
    for old, new in ((before.ups[0], begun.ups[0]), (before.guide_net.ups[0], begun.guide_net.ups[0])):
        means = torch.nn.functional.avg_pool2d(old(features), 2)
        torch.testing.assert_close(torch.nn.functional.avg_pool2d(new[0](features), 1), means)
    same = {k: v for k, v in before.state_dict().items() if "head." not in k and "ups." not in k}
    assert all(torch.equal(begun.state_dict()[key], value) for key, value in same.items())
    lr, mask = torch.zeros(1, 4, 16, 16), torch.full((1, 1, 16, 16), 255.0)
    guidance = begun.guidance(lr, torch.full_like(lr, torch.nan), mask)
    assert torch.equal(guidance.mean, guidance.mean[:, :, :1, :1].expand_as(lr))  # fresh heads see nothing yet


def _names(folder: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    described = json.loads((folder / "model" / "config.json").read_text())
    return tuple(described["bands"]), tuple(described["classes"])


def test_a_use_of_another_architecture_is_refused(tiny_config: Configs) -> None:
    published = tiny_config("model.architecture=published", "inference.copy_exponent=0.5")
    with pytest.raises(ModelError, match=r"inference\.copy_exponent: a published model has no such setting"):
        new_denoiser(published, ("red", "green", "blue"), ("no change", "water"))


def test_a_model_of_another_make_cannot_be_begun_with(tiny_config: Configs, tmp_path: Path) -> None:
    trained(tiny_config("training.steps=1"), tmp_path / "run")
    model = tmp_path / "run" / "model"
    bands, classes = _names(tmp_path / "run")
    with pytest.raises(ModelError, match=r"model.widths = \[8, 8\] \(not \[16, 16\]\)"):
        new_denoiser(tiny_config(f"model.init={model}", "model.widths=[16,16]"), bands, classes)
    with pytest.raises(ModelError, match=r"bands = \['red', 'green', 'blue', 'nir'\] \(not \['red'\]\)"):
        new_denoiser(tiny_config(f"model.init={model}"), ("red",), classes)
    with pytest.raises(ModelError, match=r"model.architecture = 'compact'"):
        new_denoiser(tiny_config(f"model.init={model}", "model.architecture=published"), bands, classes)
    with pytest.raises(ModelError, match="unknown model 'nowhere'"):
        new_denoiser(tiny_config("model.init=nowhere"), bands, classes)


def test_a_run_is_neither_replaced_nor_mixed_with_another(
    tiny_config: Configs, landscapes: Callable[..., Path], tmp_path: Path
) -> None:
    config, out = tiny_config("training.steps=3", "training.decay=0"), tmp_path / "run"
    trained(config, out)
    with pytest.raises(ResumeError, match="holds a run at step 3: give --resume or --overwrite"):
        trained(config, out)
    for setting, messages in (
        ("training.rate=1e-4", "training.rate was 0.002, is 0.0001"),
        ("samples.faults.paste=0.1", "samples.faults.paste was 0.5, is 0.1"),
        ("training.accumulate=2", "processes x training.accumulate was 1, is 2"),
        ("training.steps=2", "is at step 3, past training.steps = 2"),
        (f'data.train=["{landscapes("1-1")}"]', "learned from other data"),
        ("training.decay=0.5", "training.decay was 0.0, is 0.5"),
    ):
        with pytest.raises(ResumeError, match=messages):
            trained(tiny_config("training.steps=3", "training.decay=0", setting), out, resume=True)
    assert last(out) == 3
    # what changes nothing that was learned may change
    free = tiny_config("training.steps=4", "training.decay=0", "training.workers=2", "report.log_steps=1")
    assert "continuing after step 3" in trained(free, out, resume=True)
    assert last(out) == 4
    messages = trained(tiny_config("training.steps=1"), out, overwrite=True)
    assert not any("continuing" in line for line in messages)
    assert last(out) == 1
    assert len((out / "log.jsonl").read_text().splitlines()) == 1


def test_more_steps_are_given_only_where_the_rate_would_have_been_the_same(
    tiny_config: Configs, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    trained(tiny_config("training.steps=4", "training.decay=0.5"), out)
    with pytest.raises(ResumeError, match=r"with training.steps = 40 instead of 4 the rate at step 4 would have been"):
        trained(tiny_config("training.steps=40", "training.decay=0.5"), out, resume=True)


def test_what_was_started_over_is_never_resumed_as_the_old_run(
    tiny_config: Configs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, out = tiny_config("training.steps=2"), tmp_path / "run"
    trained(config, out)

    def killed(*args: Any) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(runs.Trainer, "run", killed)
        with pytest.raises(MemoryError):
            trained(config, out, overwrite=True)
    assert not any("continuing" in line for line in trained(config, out, resume=True))


@pytest.mark.parametrize("before", [False, True])
def test_denormal_numbers_are_treated_as_before(tiny_config: Configs, tmp_path: Path, before: bool) -> None:
    seen: list[bool] = []
    torch.set_flush_denormal(before)
    try:
        train(tiny_config("training.steps=1"), tmp_path / "run", device="cpu", log=lambda line: seen.append(flushed()))
        after = flushed()
        with pytest.raises(OptionError):
            trained(tiny_config("training.accumulate=3"), tmp_path / "other")
        assert flushed() == after == before
    finally:
        torch.set_flush_denormal(False)
    assert any(seen)


def test_a_run_without_its_data_leaves_no_folder_of_its_own(tiny_config: Configs, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    for name in ("run", "mine"):
        with pytest.raises(InputError, match=r"nowhere\.csv"):
            trained(tiny_config('data.train=["nowhere.csv"]'), tmp_path / name)
    assert not (tmp_path / "run").exists()
    assert (tmp_path / "mine").is_dir()


def test_one_run_at_a_time(tiny_config: Configs, tmp_path: Path) -> None:
    with (
        locked(tmp_path / "run"),
        pytest.raises(ResumeError, match=rf"another run holds it \(process {os.getpid()} on "),
    ):
        trained(tiny_config(), tmp_path / "run")
    trained(tiny_config("training.steps=1"), tmp_path / "run")


def test_another_number_of_threads_is_reported(tiny_config: Configs, tmp_path: Path) -> None:
    out = tmp_path / "run"
    trained(tiny_config("training.steps=2"), out)
    progress = json.loads((out / "state" / "progress.json").read_text())
    (out / "state" / "progress.json").write_text(json.dumps(progress | {"threads": 5}))
    messages = trained(tiny_config("training.steps=2"), out, resume=True)
    assert "warning: 5 torch threads before, 1 now: the last bits will differ" in messages


def test_broken_pairs_are_listed_and_counted_or_stop_the_run(
    tiny_config: Configs, tiny_index: Path, tmp_path: Path
) -> None:
    with tiny_index.open(newline="") as file:
        rows = list(csv.DictReader(file))
    rows[0]["new"] = "dates/0/gone.tif"
    (tiny_index.parent / "dates" / "broken.tif").write_bytes(b"II*\0 but no more")
    rows[1]["ref"] = "dates/broken.tif"
    index = tiny_index.parent / "broken.csv"
    with index.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    source = f'data.train=["{index}"]'
    messages = trained(tiny_config(source, "training.steps=1"), tmp_path / "run")
    used = f"{index}: 4 of 6 pairs are used, 2 left out as missing or unreadable"
    line = next(line for line in messages if line.startswith(used))
    assert rows[0]["name"] in line
    assert rows[1]["name"] in line
    with pytest.raises(GeoRefDiffError, match=rows[0]["name"]):
        trained(tiny_config(source, "data.on_error=stop"), tmp_path / "other")
    assert not (tmp_path / "other" / "state").exists()


def test_pairs_too_small_for_a_crop_are_reported_at_the_start(
    tiny_config: Configs, tiny_index: Path, landscapes: Callable[..., Path], tmp_path: Path
) -> None:
    both = f'data.train=["{tiny_index}", "{landscapes("1-1")}"]'
    messages = trained(tiny_config(both, "samples.crop=128"), tmp_path / "run", dry_run=True)
    assert any(
        line.startswith("6 pair(s) passed over:\n") and "96 x 96 px, smaller than a crop of 128" in line
        for line in messages
    )
    with pytest.raises(InputError, match=r"6 pair\(s\) are too small"):
        trained(tiny_config(both, "samples.crop=128", "data.on_error=stop"), tmp_path / "run", dry_run=True)


def test_nothing_to_learn_from_is_reported(tiny_config: Configs, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"name sources under \[data\] train"):
        trained(tiny_config("data.train=[]"), tmp_path / "run")
    with pytest.raises(OptionError, match="cannot be shared"):
        trained(tiny_config("training.accumulate=3"), tmp_path / "run")
