"""The Processing plugin: packed, installed and run without a screen; its progress and its cancelling."""

from __future__ import annotations

import configparser
import importlib.util
import re
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
import shapely

import geo_refdiff
from geo_refdiff import upscale

from .conftest import PROCESS, ROOT

PLUGIN = ROOT / "qgis_plugin" / "geo_refdiff_qgis"
Run = Callable[..., dict[str, str]]


def module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def metadata() -> configparser.SectionProxy:
    parser = configparser.ConfigParser()
    parser.read_string((PLUGIN / "metadata.txt").read_text(encoding="utf-8"))
    return parser["general"]


@pytest.fixture
def process(qgis_env: dict[str, str], tmp_path: Path) -> Run:
    """`process(algorithm, NAME=value, ...)` runs an algorithm with the plugin installed from its zip; its results."""
    profile = Path(qgis_env["HOME"]) / ".local/share/QGIS/QGIS3/profiles/default/python/plugins"
    assert PROCESS is not None

    def call(*words: str) -> str:
        run = subprocess.run(
            [str(PROCESS), *words], env=qgis_env, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
        )
        assert "Python support will be disabled" not in run.stderr, run.stderr
        return run.stdout + run.stderr

    if not (profile / "geo_refdiff_qgis").exists():
        packed = module(ROOT / "qgis_plugin" / "pack.py").pack(tmp_path / "dist")
        zipfile.ZipFile(packed).extractall(profile)
        call("plugins", "enable", "geo_refdiff_qgis")
        assert set(re.findall(r"georefdiff:(\w+)", call("list"))) == {"upscale", "batch", "detectchange", "validate"}

    def run(algorithm: str, **parameters: Any) -> dict[str, str]:
        words = [f"{k}={v}" for k, v in parameters.items()]
        text = call("run", f"georefdiff:{algorithm}", "--", *words)
        results = text.partition("Results\n")[2]
        return {"log": text, **dict(re.findall(r"^(\w+):\t(.*)$", results, re.MULTILINE))}

    return run


def test_metadata_is_complete() -> None:
    output = metadata()
    needed = ("name", "description", "about", "author", "email", "homepage", "tracker", "repository", "license", "tags")
    assert all(output[key].strip() for key in needed)
    assert output["qgisMinimumVersion"] == "3.22"
    assert output["version"] == geo_refdiff.__version__
    assert output["hasProcessingProvider"] == "yes"
    assert (PLUGIN / output["icon"]).exists()


def test_the_zip_is_the_same_every_time(tmp_path: Path) -> None:
    pack = module(ROOT / "qgis_plugin" / "pack.py").pack
    first, second = pack(tmp_path / "a"), pack(tmp_path / "b")
    assert first.read_bytes() == second.read_bytes()
    names = zipfile.ZipFile(first).namelist()
    assert {n.partition("/")[0] for n in names} == {"geo_refdiff_qgis"}
    assert {"geo_refdiff_qgis/metadata.txt", "geo_refdiff_qgis/LICENSE", "geo_refdiff_qgis/icon.svg"} <= set(names)


def test_upscale_and_validate(process: Run, make_pair: Any, tmp_path: Path) -> None:
    """With a mask and an area that were digitised in QGIS: layers of a GeoPackage, in degrees."""
    scene, reference = make_pair(40, 48)
    with rasterio.open(scene) as dataset:
        left, _, _, top = dataset.bounds
        crs = dataset.crs
    areas = tmp_path / "areas.gpkg"
    for name, box in (("my fields", (4, 4, 24, 20)), ("changes", (8, 6, 14, 12))):
        x0, y0, x1, y1 = (v * 40 for v in box)
        shape = shapely.box(left + x0, top - y1, left + x1, top - y0)
        frame = geopandas.GeoDataFrame({"now": [1]}, geometry=[shape], crs=crs)
        (frame.to_crs("EPSG:4326") if name == "my fields" else frame).to_file(areas, layer=name)
    output = process(
        "upscale", SCENE=scene, REF=reference, AOI=f"{areas}|layername=my fields", MASK=f"{areas}|layername=changes",
        MASK_FIELD="now", MODEL="matched-ref", COREGISTER="off", OUTPUT=tmp_path / "sharp.tif",
    )  # fmt: skip
    assert output.get("OUTPUT") == str(tmp_path / "sharp.tif"), output["log"]
    assert output["SOURCES"] == str(tmp_path / "sharp.source.tif")
    assert "block 1 of 1" in output["log"]
    assert output["log"].count("note: scale 8x (the reference") == 1
    upscale(
        scene, ref=reference, aoi=f"{areas}|layername=my fields", model="matched-ref", coregister="off",
        out=tmp_path / "same.tif",
    )  # fmt: skip
    with rasterio.open(tmp_path / "sharp.tif") as ours, rasterio.open(tmp_path / "same.tif") as same:
        np.testing.assert_array_equal(ours.read(), same.read())
    checked = process("validate", INPUT=tmp_path / "sharp.tif", SCENE=scene, REF=reference)
    assert (checked["OK"], checked["BROKEN"]) == ("true", "")
    assert f"--ref {reference}" in checked["log"]
    assert float(checked["LR_RMS"]) < 1.0


def test_an_error_of_the_command_is_the_algorithms(process: Run, make_pair: Any, tmp_path: Path) -> None:
    scene, reference = make_pair(16, 16)
    output = process("upscale", SCENE=reference, REF=scene, OUTPUT=tmp_path / "o.tif")
    assert "OUTPUT" not in output
    assert "the reference is coarser than the scene" in output["log"]
    assert not (tmp_path / "o.tif").exists()


def test_detect_change(process: Run, make_pair: Any, tmp_path: Path) -> None:
    scene, reference = make_pair(40, 48)
    output = process("detectchange", SCENE=scene, REF=reference, OUTPUT=tmp_path / "change.tif")
    assert output.get("OUTPUT") == str(tmp_path / "change.tif"), output["log"]
    assert output["CONFIDENCE"] == str(tmp_path / "change.confidence.tif")
    assert (tmp_path / "change.qml").exists()
    sharp = process(
        "upscale", SCENE=scene, REF=reference, MASK=output["OUTPUT"], MASK_CONFIDENCE=output["CONFIDENCE"],
        MODEL="matched-ref", OUTPUT=tmp_path / "sharp.tif",
    )  # fmt: skip
    assert sharp.get("OUTPUT") == str(tmp_path / "sharp.tif"), sharp["log"]
    assert f"--mask-confidence {output['CONFIDENCE']}" in sharp["log"]


def test_one_run_tells_no_uncertainty(process: Run, make_pair: Any, tmp_path: Path) -> None:
    scene, _ = make_pair(16, 16)
    output = process("upscale", SCENE=scene, MODEL="bicubic", SCALE=2, UNCERTAINTY=1, OUTPUT=tmp_path / "o.tif")
    assert "OUTPUT" not in output
    assert "Incorrect parameter value for UNCERTAINTY" in output["log"]
    assert "geo-refdiff upscale" not in output["log"]  # it was never started


def test_batch_and_its_manifest_as_a_layer(process: Run, make_pair: Any, look: Any, tmp_path: Path) -> None:
    scene, _ = make_pair(40, 48)
    with rasterio.open(scene) as dataset:
        left, _, _, top = dataset.bounds
        crs = dataset.crs
    boxes = [shapely.box(left + x, top - 400, left + x + 400, top) for x in (0, 800)]
    areas = tmp_path / "areas.gpkg"
    geopandas.GeoDataFrame({"parcel": ["north", "south"]}, geometry=boxes, crs=crs).to_file(areas, layer="parcels")
    output = process(
        "batch", AREAS=f"{areas}|layername=parcels", NAME_FIELD="parcel", SCENE_LAYERS=scene, MODEL="bicubic", SCALE=4,
        FOLDER=tmp_path / "sharp",
    )  # fmt: skip
    assert output.get("MANIFEST") == str(tmp_path / "sharp" / "manifest.gpkg"), output["log"]
    assert output["FAILED"] == "0"
    assert "[2/2]" in output["log"]
    (manifest,) = look([output["MANIFEST"]])
    assert manifest["valid"]
    assert manifest["features"] == 2
    assert {"name", "status", "error"} <= set(manifest["fields"])
    assert manifest["by"] == "status"
    assert ["done", "done", "#1b7837"] in manifest["classes"]


class Feedback:
    """QGIS's, as far as it is used; cancels after so many lines of progress."""

    def __init__(self, cancel_after: int = 1000) -> None:
        self.shares: list[float] = []
        self.lines: list[str] = []
        self.cancel_after = cancel_after

    def isCanceled(self) -> bool:  # noqa: N802
        return len(self.shares) >= self.cancel_after

    def setProgress(self, share: float) -> None:  # noqa: N802
        self.shares.append(share)

    def setProgressText(self, text: str) -> None:  # noqa: N802
        self.lines.append(text)

    pushInfo = pushConsoleInfo = pushCommandInfo = setProgressText  # noqa: N815


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module that runs the command; instead of it, it runs this Python."""
    loaded = module(PLUGIN / "command.py")
    monkeypatch.setattr(loaded, "find_command", lambda: [sys.executable, "-c"])
    return loaded


def test_progress_and_results_of_a_run(command: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/nonsense")
    monkeypatch.setenv("PROJ_LIB", "/nonsense")
    code = (
        "import os, sys\n"
        "for line in ('block 1 of 2 (0%)', 'block 2 of 2 (50%), 3 s left', '[3/4] north done in 1.2 s', 'a word'):\n"
        "    print(line, file=sys.stderr)\n"
        "print(os.environ['GEO_REFDIFF_PROGRESS'], 'PYTHONPATH' in os.environ, 'PROJ_LIB' in os.environ)\n"
        "sys.exit('error: what is wrong')"
    )
    feedback = Feedback()
    assert command.run([code], feedback) == (1, "lines False False", "what is wrong")
    assert feedback.shares == [0.0, 50.0, 75.0]
    assert feedback.lines[-2:] == ["a word", "error: what is wrong"]


def gone(number: int) -> bool:
    try:
        state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state == "Z"


@pytest.mark.parametrize("stubborn", [False, True])
def test_cancelling_ends_the_process_and_what_it_started(
    command: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stubborn: bool
) -> None:
    monkeypatch.setattr(command, "_PATIENCE", 1.0)
    note = tmp_path / "pids"
    ignore = "signal.signal(signal.SIGINT, signal.SIG_IGN)\n" if stubborn else ""
    code = (
        f"import os, pathlib, signal, subprocess, sys, time\n{ignore}"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(300)'])\n"
        f"pathlib.Path({str(note)!r}).write_text(f'{{os.getpid()}} {{child.pid}}')\n"
        "print('block 1 of 9 (5%)', file=sys.stderr, flush=True)\n"
        "time.sleep(300)"
    )
    with pytest.raises(command.CancelledError):
        command.run([code], Feedback(cancel_after=1))
    numbers = [int(n) for n in note.read_text().split()]
    limit = time.monotonic() + 20
    while not all(gone(n) for n in numbers) and time.monotonic() < limit:
        time.sleep(0.05)
    assert all(gone(n) for n in numbers)


def test_a_cancelled_upscale_can_be_gone_on_with(make_pair: Any, tmp_path: Path) -> None:
    """Cancelling is Ctrl-C to the command: its folder stays, and the resumed run gives the same bytes."""
    loaded = module(PLUGIN / "command.py")
    loaded.find_command = lambda: [sys.executable, "-m", "geo_refdiff.cli.main"]  # type: ignore[attr-defined]
    scene, _ = make_pair(40, 40)
    words = ["upscale", str(scene), "--model", "bicubic-ibp", "--scale", "8", "--block-size", "64"]
    out = tmp_path / "out.tif"
    with pytest.raises(loaded.CancelledError):
        loaded.run([*words, "-o", str(out)], Feedback(cancel_after=1))
    assert not out.exists()
    assert (tmp_path / "out.tif.parts" / "plan.json").exists()
    assert loaded.run([*words, "-o", str(out), "--resume"], Feedback())[0] == 0
    assert loaded.run([*words, "-o", str(tmp_path / "whole.tif")], Feedback())[0] == 0
    assert out.read_bytes() == (tmp_path / "whole.tif").read_bytes()
