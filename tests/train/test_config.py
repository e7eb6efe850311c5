"""Configs are strict: unknown keys, wrong kinds, senseless values are one line; presets load; what is written reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geo_refdiff.errors import OptionError
from geo_refdiff.records import decode
from geo_refdiff.train.config import TrainConfig, load_config, merged, override, presets


def read(text: str, tmp_path: Path, *overrides: str) -> TrainConfig:
    path = tmp_path / "some.toml"
    path.write_text(text)
    return load_config(path, overrides)


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        ("[training]\nstep = 3", "unknown key 'training.step'; the nearest known one is 'training.steps'"),
        ("[trainning]\nsteps = 3", "unknown key 'trainning'; the nearest known one is 'training'"),
        ("[training]\ncrop = 64", "unknown key 'training.crop'; the nearest known one is 'samples.crop'"),
        ("[samples.faults]\npatse = 1.0", "the nearest known one is 'samples.faults.paste'"),
        ("[inference.sampler]\nstep = 3", "the nearest known one is 'inference.sampler.steps'"),
        ("[inference]\nhallo = 3", "the nearest known one is 'inference.halo'"),
        ("[inference]\npsf_sigma = 5.0", "inference.psf_sigma is 5.0: expected `float` <= 4.0"),
        ("[inference.sampler]\nsteps = 2000", "inference.sampler.steps is 2000: expected `int` <= 1000"),
        ("[inference]\nscales = [100]", "inference.scales[0] is 100: expected `int` <= 64"),
        ("[model.published]\ndrop_out = 0.1", "the nearest known one is 'model.published.dropout'"),
        ("[training]\nsteps = 10.5", "training.steps is 10.5: expected `int`, got `float`"),
        ("[training]\nsteps = true", "training.steps is True: expected `int`, got `bool`"),
        ("[training]\nrate = 'fast'", "training.rate is 'fast': expected `float`, got `str`"),
        ("[training]\nrate = nan", "training.rate is nan: a finite number is needed"),
        ("[training]\nbf16 = 1", "training.bf16 is 1: expected `bool`, got `int`"),
        ("[model]\nwidths = 32", "model.widths is 32: expected `array`, got `int`"),
        ("[model]\nwidths = [32, 'a']", "model.widths[1] is 'a': expected `int`, got `str`"),
        ("[samples]\nscales = [8]", "samples.scales is [8]: expected `object`, got `array`"),
        ("[samples]\nscales = { 8 = 'a' }", "samples.scales[...] is {'8': 'a'}: expected `float`, got `str`"),
        ("training = 3", "training is 3: a section is needed"),
        ("[training]\nsteps = 0", "training.steps is 0: expected `int` >= 1"),
        ("[training]\nworkers = 0", "training.workers is 0: expected `int` >= 1"),
        ("[training]\ncompile = 'yes'", "training.compile is 'yes': choose auto, off, on"),
        ("[training]\ndecay = 1.5", "training.decay is 1.5: expected `float` <= 1.0"),
        ("[training]\nema = -0.1", "training.ema is -0.1"),
        ("[report]\nlog_steps = 0", "report.log_steps is 0"),
        ("[model]\narchitecture = 'unet'", "model.architecture is 'unet': choose compact, published"),
        ("[model]\nwidths = []", "model.widths is []: expected `array` of length >= 1"),
        ("[data]\non_error = 'continue'", "data.on_error is 'continue': choose skip, stop"),
        ("[data]\ntrain = ['a']\nweights = [1.0, 2.0]", "data.weights is (1.0, 2.0)"),
        ("[samples]\nscales = { 1 = 1.0 }", "samples.scales is {'1': 1.0}"),
        ("[samples]\nscales = { eight = 1.0 }", "at least one whole factor of 2 or more"),
        ("[samples]\nscales = { 8 = 0.0 }", "one weight above 0"),
        ("[samples.faults]\npaste = 1.1", "samples.faults.paste is 1.1"),
        ("[training", "is no readable TOML"),
        ("extends = 3", "extends is 3"),
        ("extends = 'nowhere'", "no config nowhere"),
        ("extends = 'some.toml'", "a config cannot extend itself"),
    ],
)
def test_a_wrong_config_is_one_line_with_the_way_out(text: str, messages: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError) as caught:
        read(text, tmp_path)
    assert messages in str(caught.value)
    assert "\n" not in str(caught.value)


def test_extending_lays_one_config_over_another(tmp_path: Path) -> None:
    base = load_config("cpu-hours")
    mine = read("extends = 'cpu-hours'\n[training]\nsteps = 7\n[inference.sampler]\nsteps = 3", tmp_path)
    assert mine.training.steps == 7
    assert mine.training.rate == base.training.rate
    assert mine.model == base.model
    assert mine.inference == {"sampler": {"steps": 3}}
    (tmp_path / "above.toml").write_text("extends = 'some.toml'\n[samples]\nscales = { 8 = 1.0 }")
    above = load_config(tmp_path / "above.toml")
    assert above.samples.scales == {"8": 1.0}  # replaced, not mixed with those of cpu-hours
    assert above.training.steps == 7


def test_overrides_come_last_and_need_no_quotes(tmp_path: Path) -> None:
    text = "[training]\nsteps = 3\n[samples]\nscales = { 4 = 1.0 }"
    config = read(
        text, tmp_path, "training.steps=5", "training.compile=off", 'data.train=["a b"]', "samples.scales.8=2"
    )
    assert (config.training.steps, config.training.compile) == (5, "off")
    assert config.data.train == ("a b",)
    assert config.samples.scales == {"4": 1.0, "8": 2.0}
    for wrong in ("steps=5", "training.steps", "training.=5", "training.steps.x=5", "training.steps=5\nbatch=3"):
        with pytest.raises(OptionError, match="'"):
            read(text, tmp_path, wrong)


@pytest.mark.parametrize("name", sorted(presets()))
def test_a_preset_loads_and_comes_back_from_what_is_written_of_it(name: str, tmp_path: Path) -> None:
    config = load_config(name)
    assert bool(config.data.train) == (name not in ("cpu-hours", "gpu-half-hour"))  # those are for data of one's own
    path = tmp_path / "copy.toml"
    path.write_text(config.to_toml())
    assert load_config(path) == config


def test_the_paper_learns_from_images_as_they_are() -> None:
    faults = load_config("paper").samples.faults
    assert not faults.exposure
    chances = [value for key, value in load_config("paper").to_dict()["samples"]["faults"].items() if key != "exposure"]
    assert set(chances) == {0.0}
    assert TrainConfig().samples.faults.exposure


_TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=8)
_VALUES = st.one_of(
    st.booleans(), st.integers(-(2**60), 2**60), st.floats(allow_nan=False, allow_infinity=False), _TEXTS
)
_TABLES: st.SearchStrategy[dict[str, Any]] = st.recursive(
    st.dictionaries(_TEXTS, st.one_of(_VALUES, st.lists(_VALUES, max_size=3)), max_size=4),
    lambda inner: st.dictionaries(_TEXTS, st.one_of(_VALUES, inner), max_size=3),
    max_leaves=8,
)


@given(_TABLES, _TABLES)
def test_a_table_laid_over_another_holds_all_of_its_own(below: dict[str, Any], above: dict[str, Any]) -> None:
    both = merged(below, above)
    assert set(both) == set(below) | set(above)
    assert merged(both, above) == both
    assert merged({}, above) == above


def test_a_setting_reaches_into_sections_that_are_not_there() -> None:
    raw: dict[str, Any] = {}
    override(raw, "samples.faults.paste = 0.25")
    assert decode(TrainConfig, raw, "x").samples.faults.paste == 0.25
