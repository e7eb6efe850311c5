"""The options of `upscale`: the same names, defaults and checks for Python, command, arrays and forms."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest

import geo_refdiff
from geo_refdiff.cli.batch import batch
from geo_refdiff.cli.calibrate import calibrate as calibrate_command
from geo_refdiff.cli.coregister import coregister as coregister_command
from geo_refdiff.cli.detect_change import detect_change as detect_change_command
from geo_refdiff.cli.index import index
from geo_refdiff.cli.main import run
from geo_refdiff.cli.options import GroupedCommand
from geo_refdiff.cli.simulate import simulate
from geo_refdiff.cli.train import train
from geo_refdiff.cli.train_detector import train_detector
from geo_refdiff.cli.upscale import upscale as command
from geo_refdiff.commands.calibrate import calibrate
from geo_refdiff.commands.coregister import coregister
from geo_refdiff.commands.detect_change import detect_change
from geo_refdiff.commands.simulate import simulate as simulate_scene
from geo_refdiff.data import open_dataset
from geo_refdiff.data.make_index import make_index
from geo_refdiff.errors import OptionError
from geo_refdiff.options import (
    FIELDS,
    GROUPS,
    PRODUCTS,
    CalibrateOptions,
    ComputeOptions,
    CoregisterOptions,
    DatasetOptions,
    DetectChangeOptions,
    DetectorOptions,
    IndexOptions,
    MaskOptions,
    Options,
    RunOptions,
    SimulateOptions,
    Sources,
    TrainOptions,
    UpscaleOptions,
    as_forms,
    fields_of,
)
from geo_refdiff.train.detector import train_detector as train_detector_model
from geo_refdiff.train.run import train as train_model

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("of", "words", "other"),
    [(command, "scene.tif", ()), (batch, "areas.gpkg --scene scenes --out out", ("mask", "aoi", "scene_date"))],
)
def test_a_command_has_the_options_and_defaults_of_the_records(
    of: click.Command, words: str, other: tuple[str, ...]
) -> None:
    result = of.make_context("geo-refdiff", words.split()).params
    assert FIELDS.keys() - result.keys() == set(other) - set(result)
    shared = {name: result[name] for name in FIELDS if name not in other and result[name] is not None}
    assert UpscaleOptions.of(**shared) == UpscaleOptions()


@pytest.mark.parametrize(
    ("of", "words", "record"),
    [
        (index, "folder -o i.csv", IndexOptions),
        (simulate, "hr.tif -o lr.tif --scale 8", SimulateOptions),
        (train, "cpu-minutes", TrainOptions),
        (train_detector, "-o out --data pairs.csv 3", DetectorOptions),
        (command, "scene.tif", RunOptions),
        (coregister_command, "scene.tif ref.tif", CoregisterOptions),
        (detect_change_command, "scene.tif ref.tif -o mask.tif", DetectChangeOptions),
        (calibrate_command, "model --data pairs.csv", CalibrateOptions),
    ],
)
def test_other_commands_have_the_options_and_defaults_of_their_records(
    of: click.Command, words: str, record: type[Options]
) -> None:
    params = of.make_context("geo-refdiff", words.split()).params
    required = {name: params[name] for name, field in fields_of(record).items() if field.required}
    assert record(**{name: params[name] for name in fields_of(record)}) == record(**required)
    help_texts = {option.name: option.help for option in of.params if isinstance(option, click.Option)}
    assert all(help_texts[name] == field.help for name, field in fields_of(record).items())


@pytest.mark.parametrize(
    ("of", "record"),
    [
        (open_dataset, DatasetOptions),
        (make_index, IndexOptions),
        (simulate_scene, SimulateOptions),
        (geo_refdiff.upscale, RunOptions),
        (coregister, CoregisterOptions),
        (detect_change, DetectChangeOptions),
        (calibrate, CalibrateOptions),
        (train_model, TrainOptions),
        (train_detector_model, DetectorOptions),
    ],
)
def test_functions_show_the_options_of_their_records(of: Any, record: type[Options]) -> None:
    shown, given = inspect.signature(of).parameters, {"out": "b.tif", "scale": 8, "ref": "c.tif", "data": "d.csv"}
    for name, field in fields_of(record).items():
        assert shown[name].default == (inspect.Parameter.empty if field.required else field.default)
        assert f"\n    {name}: " in of.__doc__
    with pytest.raises(OptionError, match="unknown option 'sizes'"):
        of("a", **{name: value for name, value in given.items() if name in shown}, sizes=3)


def test_help_shows_options_in_groups(capsys: pytest.CaptureFixture[str]) -> None:
    assert isinstance(command, GroupedCommand)
    assert run(["upscale", "--help"]) == 0
    reported = capsys.readouterr().out
    assert [reported.index(f"\n{name}:\n") for name in GROUPS] == sorted(
        reported.index(f"\n{name}:\n") for name in GROUPS
    )
    for name, field in FIELDS.items():
        assert f"\n  {field.flag} " in reported, name


def test_python_shows_all_options_with_their_defaults() -> None:
    shown = inspect.signature(geo_refdiff.upscale).parameters
    assert {name: shown[name].default for name in FIELDS} == {name: f.default for name, f in FIELDS.items()}
    for name in FIELDS:
        assert f"\n    {name}: " in str(geo_refdiff.upscale.__doc__)
    assert "psf" in inspect.signature(coregister).parameters
    assert "no_change" not in inspect.signature(detect_change).parameters


def test_python_and_the_command_write_the_same_files(make_pair: Any, tmp_path: Path) -> None:
    scene = make_pair(16, 16)[0]
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    geo_refdiff.upscale(scene, model="bicubic", scale=2, out=tmp_path / "a" / "o.tif")
    assert run(["upscale", str(scene), "--model", "bicubic", "--scale", "2", "-o", str(tmp_path / "b" / "o.tif")]) == 0
    names = sorted(p.name for p in (tmp_path / "a").iterdir())
    assert names == sorted(p.name for p in (tmp_path / "b").iterdir())
    assert {"o.tif", "o.source.tif", "o.qml", "o.json", "o.png"} <= set(names)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: geo_refdiff.upscale("a.tif", resme=True), "unknown option 'resme': did you mean resume?"),
        (lambda: coregister("a.tif", "b.tif", overwite=True), "unknown option 'overwite': did you mean overwrite?"),
        (lambda: detect_change("a.tif", "b.tif", "c.tif", gird="scene"), "unknown option 'gird': did you mean grid?"),
        (lambda: geo_refdiff.upscale("a.tif", keep=1), "keep 1: give True or False"),
    ],
)
def test_options_of_a_run_are_checked_like_the_others(call: Callable[[], object], said: str) -> None:
    with pytest.raises(OptionError) as caught:
        call()
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"scal": 3}, "unknown option 'scal': did you mean scale?"),
        ({"zzz": 3}, "unknown option 'zzz': choose of aoi, scale"),
        ({"scale": "8"}, "scale '8': give a whole number from 1 to 64"),
        ({"scale": 65}, "scale 65: give a whole number from 1 to 64"),
        ({"scale": True}, "scale True: give a whole number"),
        ({"steps": 2.5}, "steps 2.5: give a whole number"),
        ({"seed": None}, "seed None: give a whole number"),
        ({"detail": 1.5}, "detail 1.5: give a number from 0"),
        ({"detail": float("nan")}, "detail nan: give a number from 0"),
        ({"max_residual": 0}, "max residual 0: give a number of scene pixels above 0"),
        ({"scene_range": (5, 3)}, "scene range 5, 3: give two numbers, the lower one first"),
        ({"scene_range": (5, float("inf"))}, "scene range 5, inf: give two numbers"),
        ({"noise": -1}, "noise -1.0: give auto, a standard deviation of 0 or more, or SNR:RATIO"),
        ({"noise": "snr:0"}, "noise 'snr:0': give auto"),
        ({"noise": "low"}, "noise 'low': give auto"),
        ({"noise": float("nan")}, "noise nan: give auto"),
        ({"scene_range": 5}, "scene range 5: give two numbers"),
        ({"coregister": "on"}, "coregister 'on': choose auto, global, local, off"),
        ({"other_bands": "keep"}, "other bands 'keep': choose transfer or drop"),
        ({"dtype": "float16"}, "dtype 'float16': choose auto, float32, bfloat16"),
        ({"products": "pdf"}, "products 'pdf': choose of source, style, stac, quicklook, report, or all, or none"),
        ({"uncertainty": 1}, "uncertainty 1: give a number of runs from 2 to 64"),
        ({"batch_size": 0}, "batch size 0: give 1 or more"),
        ({"scene_date": "soon"}, "--scene-date 'soon': give a date"),
        ({"no_change": 3}, "--no-change goes with a mask from a file: give --mask FILE, or leave it out"),
    ],
)
def test_what_makes_no_sense_is_reported_with_the_way_out(given: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionError) as caught:
        UpscaleOptions.of(**given)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_spellings_become_one_value() -> None:
    made = UpscaleOptions.of(
        bands="3, 2,1",
        products=["stac", "source"],
        dtype="bf16",
        sampler="better_start",
        noise="SNR:150",
        mask=Path("m.gpkg"),
        scale=np.int64(4),
        max_residual=2,
    )
    assert made.radiometry.bands == ("3", "2", "1")
    assert made.output.products == ("source", "stac")
    assert (made.compute.dtype, made.sampling.sampler) == ("bfloat16", "better-start")
    assert made.radiometry.noise == "snr:150"
    assert (UpscaleOptions.of(noise="12").radiometry.noise, UpscaleOptions().radiometry.noise) == (12.0, "auto")
    assert (made.mask.mask, made.grid.scale, made.registration.max_residual) == ("m.gpkg", 4, 2.0)
    assert UpscaleOptions.of(products="all").output.products == PRODUCTS
    assert UpscaleOptions().output.products == tuple(p for p in PRODUCTS if p != "report")
    assert UpscaleOptions.of(products=None).output.products == UpscaleOptions.of(products="none").output.products == ()


def test_keywords_survive_json() -> None:
    made = UpscaleOptions.of(bands=[1, "red"], scene_range=(0, 10000), mask="m.tif", psf=0.4, aoi="1,2,3,4")
    assert UpscaleOptions.of(**json.loads(json.dumps(made.flat()))) == made
    assert ComputeOptions.among(made.flat() | {"more": 1}) == made.compute
    assert list(fields_of(MaskOptions)) == [name for name in made.flat() if name in fields_of(MaskOptions)]


def test_the_forms_of_qgis_know_the_options_as_they_are() -> None:
    file = ROOT / "qgis_plugin" / "geo_refdiff_qgis" / "options.json"
    kept = json.loads(file.read_text(encoding="utf-8"))
    assert kept == as_forms(), f"write {file.name} again: python qgis_plugin/pack.py --options"


def test_a_single_text_is_no_list_of_them() -> None:
    with pytest.raises(OptionError, match=r"scenes 'a\.tif': give a list of texts"):
        Sources(scenes="a.tif")  # type: ignore[arg-type]
    assert Sources(scenes=["a.tif"]).scenes == ("a.tif",)  # type: ignore[arg-type]
