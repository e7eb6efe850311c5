"""Model folders: what is written is what is read, and damage is reported in one line."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from published_files import SMALL, small_network
from safetensors.torch import load_file, save_file

from geo_refdiff.diffusion import model_folder
from geo_refdiff.diffusion.checkpoint import (
    build_denoiser,
    decode_config,
    describe_model,
    load_denoiser,
    model_digest,
    read_config,
    resolve_model,
    save_model,
)
from geo_refdiff.errors import ModelError, OutputError

COMPACT = {
    "architecture": "compact",
    "bands": ["red", "green", "blue", "nir"],
    "classes": ["unchanged", "building", "water"],
    "network": {"unshuffle": 2, "widths": [8, 16], "full_width": 8, "hidden": 8, "embedding": 8},
    "receptive_field": 40,
    "halo": 16,
    "sigma_data": 0.2,
}


@pytest.fixture
def folder(tmp_path) -> Path:
    return save_model(tmp_path / "model", decode_config(SMALL), small_network().state_dict(), "# card\n")


def test_what_is_saved_is_loaded(folder):
    network = small_network()
    denoiser = load_denoiser(folder)
    assert not denoiser.training
    assert denoiser.config == decode_config(SMALL)
    assert (denoiser.multiple, denoiser.receptive_field, denoiser.halo) == (2, None, 32)
    for key, value in network.state_dict().items():
        assert torch.equal(denoiser.network.state_dict()[key], value)
    assert not any(value.requires_grad for value in denoiser.parameters())
    assert (folder / "README.md").read_text() == "# card\n"


def test_loading_leaves_the_random_generator_alone(folder):
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    load_denoiser(folder)
    assert torch.equal(torch.rand(3), wanted)


def test_saving_is_deterministic(folder, tmp_path):
    again = save_model(
        tmp_path / "again", decode_config(SMALL), dict(reversed(small_network().state_dict().items())), "# card\n"
    )
    assert model_digest(folder) == model_digest(again)
    assert (folder / "model.safetensors").read_bytes() == (again / "model.safetensors").read_bytes()


def test_digest_is_what_sha256sum_says(folder):
    joined = (folder / "config.json").read_bytes() + (folder / "model.safetensors").read_bytes()
    assert model_digest(folder) == hashlib.sha256(joined).hexdigest()


def test_shards(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(model_folder, "SHARD_BYTES", 1)
    state = small_network().state_dict()
    save_model(folder, decode_config(SMALL), state, "# card\n", shard_bytes=50_000)
    shards = sorted(folder.glob("*.safetensors"))
    assert len(shards) > 2
    assert shards[0].name == f"model-00001-of-{len(shards):05d}.safetensors"
    assert all(shard.stat().st_size < 60_000 or len(load_file(shard)) == 1 for shard in shards)
    denoiser = load_denoiser(folder)
    assert all(torch.equal(denoiser.network.state_dict()[key], value) for key, value in state.items())
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in (folder / "config.json", *shards))).hexdigest()
    assert model_digest(folder) == digest
    shards[1].unlink()
    with pytest.raises(ModelError, match=f"lacks the shard {shards[1].name}"):
        load_denoiser(folder)
    shutil.copy(shards[0], folder / "model-00001-of-00099.safetensors")
    with pytest.raises(ModelError, match="different models"):
        load_denoiser(folder)
    save_model(folder, decode_config(SMALL), state, "# card\n")
    assert [file.name for file in folder.glob("*.safetensors")] == ["model.safetensors"]


def test_half_precision_weights_run_in_float32(folder):
    state = {key: value.half() for key, value in small_network().state_dict().items()}
    save_file(state, folder / "weights.safetensors")
    denoiser = load_denoiser(folder)
    assert denoiser.dtype == torch.float32
    assert torch.equal(denoiser.network.model.map_layer0.weight, state["model.map_layer0.weight"].float())


@pytest.mark.parametrize("config", [SMALL, COMPACT])
def test_bfloat16_stays_near_float32(tmp_path, config):
    torch.manual_seed(0)
    fresh = build_denoiser(decode_config(config))
    for value in fresh.parameters():
        torch.nn.init.normal_(value, std=0.15)
    folder = save_model(tmp_path / "m", fresh.config, fresh.network.state_dict(), "")
    bands = len(fresh.bands)
    x, lr, ref = (torch.randn(2, bands, 16, 16) * 0.5 for _ in range(3))
    mask = torch.randint(0, 3, (2, 1, 16, 16), dtype=torch.uint8)
    sigma = torch.tensor([0.3, 2.0])
    with torch.inference_mode():
        exact = load_denoiser(folder)(x, sigma, lr, ref, mask)
        rough = load_denoiser(folder, dtype=torch.bfloat16)(x, sigma, lr, ref, mask)
    assert exact.dtype == rough.dtype == torch.float32
    assert 0 < float((exact - rough).norm() / exact.norm()) < 0.03


def test_compact_architecture(tmp_path):
    made = build_denoiser(decode_config(COMPACT))
    folder = save_model(tmp_path / "c", made.config, made.network.state_dict(), "")
    denoiser = load_denoiser(folder)
    assert denoiser.bands == ("red", "green", "blue", "nir")
    assert (denoiser.receptive_field, denoiser.halo, denoiser.multiple) == (40, 16, 4)
    facts = describe_model(folder)
    assert facts["parameters"] == sum(value.numel() for value in denoiser.parameters())
    assert json.loads(json.dumps(facts)) == facts


def test_resolve_model(folder, tmp_path, monkeypatch):
    assert resolve_model(folder) == folder
    assert resolve_model(str(folder)) == folder
    with pytest.raises(ModelError, match="unknown model 'nonsense': give a model folder, a URL or a bundled name"):
        resolve_model("nonsense")
    with pytest.raises(ModelError, match=r"no config\.json"):
        resolve_model(tmp_path)
    monkeypatch.setattr(model_folder, "bundled_models", lambda: {"small": folder})
    assert resolve_model("small") == folder
    shutil.copytree(folder, tmp_path / "run" / "model")
    with pytest.raises(ModelError, match=r"no config\.json; give .*run/model"):
        resolve_model(tmp_path / "run")


def test_every_bundled_model_loads():
    for name, path in model_folder.bundled_models().items():
        assert load_denoiser(name).bands
        assert (path / "README.md").is_file()


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("{", "cannot be read"),
        ("[1]", "holds a list"),
        ("[" * 100_000, "cannot be read"),
        (b"\xff\xfe", "cannot be read"),
        ({"architecture": "transformer"}, "architecture is 'transformer': choose compact, published"),
        ({**SMALL, "colour": 1}, "config.json: unknown key 'colour'"),
        ({**SMALL, "sampler": {"stpes": 1}}, "unknown key 'sampler.stpes'; the nearest known one is 'sampler.steps'"),
        ({**SMALL, "sampler": {"sigma_max": float("inf")}}, "sampler.sigma_max is inf: a finite number"),
        ({**SMALL, "sigma_data": 0}, "sigma_data is 0: expected"),
        ({**SMALL, "sigma_data": "0.5"}, "sigma_data is '0.5': expected"),
        ({**SMALL, "provenance": {"file": 3, "sha256": ""}}, "provenance.file is 3: expected"),
        ({**COMPACT, "classes": ["a", "a"]}, "classes must be different names"),
        ({**COMPACT, "bands": ["red\u0000"]}, "bands must be different names that can be printed"),
        ({**COMPACT, "bands": []}, "bands is .*: expected"),
        ({**COMPACT, "network": {"widths": [8, 1 << 20]}}, "network.widths.*"),
        ({**COMPACT, "network": None}, "network is None: a section is needed"),
        ({**COMPACT, "network": {"unshuffle": True}}, "network.unshuffle is True: expected"),
        ({**COMPACT, "scales": [0]}, "scales"),
        ({**SMALL, "trained": "x" * 1000}, "trained is 'x{20,40}"),
        ({**SMALL, "num_blocks": True}, "num_blocks is True"),
        ({**SMALL, "num_blocks": 10**6}, "num_blocks is 1000000"),
        ({**SMALL, "model_channels": 7}, "no published network"),
        ({**SMALL, "channel_mult": []}, "channel_mult is"),
        ({**SMALL, "img_resolution": 15}, "no published network"),
        ({**SMALL, "dropout": 1.0}, "dropout is 1.0"),
        ({**SMALL, "model_channels": "8"}, "model_channels is '8'"),
        ({**SMALL, "model_channels": 16}, "map_layer0.weight is|is \\(|not"),
        ({**SMALL, "model_channels": 65536}, "do not fit"),
        ({**SMALL, "channel_mult": 5}, "channel_mult is 5: expected `array`"),
        ({**SMALL, "num_blocks": 2}, "missing model"),
        ({**SMALL, "sampler": [1]}, r"sampler is \[1\]: a section is needed"),
        ({**SMALL, "halo": "wide"}, "halo is 'wide'"),
        ({**SMALL, "bands": ["red"]}, "bands names 1 for img_channels = 3"),
        ({"architecture": "compact"}, "missing required field `bands`"),
    ],
)
def test_damaged_config(folder, content, text):
    raw = (
        content
        if isinstance(content, bytes)
        else (content if isinstance(content, str) else json.dumps(content)).encode()
    )
    (folder / "config.json").write_bytes(raw)
    with pytest.raises(ModelError, match=text) as caught:
        load_denoiser(folder)
    assert "\n" not in str(caught.value)


def test_damaged_weights(folder):
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    for damaged in (b"", whole[:5], whole[: len(whole) // 2], b"\xff" * 8 + whole[8:], whole[:20] + b"}" + whole[21:]):
        path.write_bytes(damaged)
        with pytest.raises(ModelError, match="no intact safetensors file") as caught:
            load_denoiser(folder)
        assert "\n" not in str(caught.value)
    path.unlink()
    with pytest.raises(ModelError, match="has no weights"):
        load_denoiser(folder)
    with pytest.raises(ModelError, match="has no weights"):
        model_digest(folder)


def test_weights_that_do_not_fit(folder):
    state = load_file(folder / "model.safetensors")
    first = next(iter(state))
    save_file({key: value for key, value in state.items() if key != first}, folder / "model.safetensors")
    with pytest.raises(ModelError, match=f"missing {first}"):
        load_denoiser(folder)
    save_file(state | {"x": torch.zeros(1)}, folder / "model.safetensors")
    with pytest.raises(ModelError, match="unexpected x"):
        load_denoiser(folder)
    save_file(state | {first: torch.zeros(7)}, folder / "model.safetensors")
    with pytest.raises(ModelError, match=r"\(7,\), not"):
        load_denoiser(folder)


def test_integer_dtype_is_refused(folder):
    with pytest.raises(ModelError, match=r"torch\.int8"):
        load_denoiser(folder, dtype=torch.int8)


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        save_model(tmp_path / "file", decode_config(SMALL), {}, "")
    with pytest.raises(OutputError):
        save_model(tmp_path / "file" / "below", decode_config(SMALL), {}, "")


def test_bands_of_a_published_model():
    assert decode_config({}).bands == ("red", "green", "blue")
    assert decode_config({"img_channels": 4}).bands == ("band1", "band2", "band3", "band4")
    assert decode_config({"img_channels": 1, "bands": ["nir"]}).bands == ("nir",)


def test_a_config_comes_back_as_it_was_written(tmp_path):
    config = decode_config(
        COMPACT | {"sampler": {"name": "heun", "S_churn": 0}, "trained": {"steps": 3, "list": [None]}}
    )
    folder = save_model(tmp_path / "c", config, {}, "")
    assert read_config(folder) == config
    assert "provenance" not in json.loads((folder / "config.json").read_text())


@pytest.mark.parametrize("key", ["trained", "sampler"])
def test_a_config_nested_without_end_is_one_line(folder, key):
    deep = "[" * 900 + "]" * 900 if key == "sampler" else '{"a":' * 900 + "1" + "}" * 900
    (folder / "config.json").write_text(json.dumps(SMALL)[:-1] + f', "{key}": {deep}}}')
    with contextlib.suppress(ModelError):
        read_config(folder)
