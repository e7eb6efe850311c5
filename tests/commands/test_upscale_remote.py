"""Rasters on a server that stops to give them."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pytest

from geo_refdiff import upscale
from geo_refdiff.cli.main import run
from geo_refdiff.engine.run import Progress
from geo_refdiff.errors import InputError, ResumeError

SERVER = Path(__file__).parents[1] / "batch" / "file_server.py"
OPTIONS: dict[str, Any] = {"model": "bicubic", "scale": 2, "block_size": 256, "device": "cpu", "products": "none"}
BLOCKS = 36


@pytest.fixture
def scene(make_raster: Any) -> Path:
    """1.7 MB in tiles, so that it is asked for in many parts."""
    noise = np.random.default_rng(0).integers(1, 255, (3, 768, 768), np.uint8)
    return Path(make_raster("scene.tif", noise, tiled=True, blockxsize=64, blockysize=64, interleave="pixel"))


@pytest.fixture
def server(scene: Path, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """GDAL's name of the scene on a server, and a file: while it is there, its number is the status of all answers."""
    log = tmp_path / "asked.txt"
    command = [sys.executable, str(SERVER), str(tmp_path), str(log)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield f"/vsicurl/http://127.0.0.1:{int(process.stdout.readline())}/{scene.name}", Path(f"{log}.status")
        process.kill()


def spoils(status: Path, number: int, after: float) -> Callable[[Progress], None]:
    """A progress callback that has the server answer with a status once so many blocks are done."""

    def tell(progress: Progress) -> None:
        if progress.stage == "blocks" and progress.done >= after and not status.exists():
            status.write_text(str(number))

    return tell


def test_finished_blocks_outlive_a_server_that_refuses(scene: Path, server: tuple[str, Path], tmp_path: Path) -> None:
    name, status = server
    out = tmp_path / "out.tif"
    with pytest.raises(InputError, match="its server does not give it") as caught:
        upscale(name, out=out, progress=spoils(status, 403, 12), **OPTIONS)
    kept = len(list((tmp_path / "out.tif.parts" / "blocks").glob("r*.tif")))
    assert 12 <= kept < BLOCKS
    assert f"; {kept} of {BLOCKS} blocks are finished in {out}.parts; continue with --resume" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not out.exists()
    with pytest.raises(InputError):  # the server still refuses: nothing is lost
        upscale(name, out=out, resume=True, **OPTIONS)
    assert len(list((tmp_path / "out.tif.parts" / "blocks").glob("r*.tif"))) == kept
    status.unlink()
    assert upscale(name, out=out, resume=True, **OPTIONS).counts["blocks_resumed"] == kept
    assert not (tmp_path / "out.tif.parts").exists()
    assert out.stat().st_size > 0


def test_a_busy_server_is_reported_and_given_up_soon(
    server: tuple[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, status = server
    status.write_text("503")
    started = perf_counter()
    assert run(["upscale", name, "--model", "bicubic", "--scale", "2", "-o", str(tmp_path / "out.tif")]) == 1
    assert perf_counter() - started < 30
    *notes, error = capsys.readouterr().err.splitlines()
    assert notes
    assert all(re.fullmatch(r"note: HTTP status 503 from http://.*; asking again in [0-9.]+ s", line) for line in notes)
    assert error.startswith(f"error: {name}: cannot be opened as a raster (")
    assert "its server does not give it" in error


def test_a_server_busy_in_mid_run_is_reported_and_given_up_soon(
    server: tuple[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    name, status = server
    options = OPTIONS | {"model": "bicubic-ibp", "window": 160, "block_size": 128}
    spoil, began = spoils(status, 503, 12), []

    def tell(progress: Progress) -> None:
        spoil(progress)
        if status.exists() and not began:
            began.append(perf_counter())

    with pytest.raises(InputError, match=r"its server does not give it.*; continue with --resume$"):
        upscale(name, out=tmp_path / "out.tif", progress=tell, **options)
    assert perf_counter() - began[0] < 30
    assert "Retrying again" in caplog.text


def test_a_url_that_was_signed_anew_is_the_same_input(
    server: tuple[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, status = server
    first, second = f"{name}?sv=1&sig=SECRETone", f"{name}?sv=2&se=2031&sig=SECRETtwo"
    out, options = tmp_path / "out.tif", OPTIONS | {"products": "stac,report"}
    with pytest.raises(InputError) as caught:
        upscale(first, out=out, progress=spoils(status, 403, 12), **options)
    status.unlink()
    with pytest.raises(ResumeError, match=r"scene\.path"):
        upscale(f"{name}?version=2", out=out, resume=True, **options)
    kept = upscale(second, out=out, resume=True, keep=True, **options)
    assert kept.counts["blocks_resumed"] >= 12
    written = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "asked.txt"]
    assert len(written) > BLOCKS
    assert not [path for path in written if b"SECRET" in path.read_bytes()]
    assert "SECRET" not in f"{caught.value}{kept.to_dict()}"
    assert run(["upscale", f"{name}.missing?sig=SECRET", "-o", str(tmp_path / "none.tif")]) == 1
    assert "SECRET" not in capsys.readouterr().err
    log, planned = tmp_path / "log.txt", tmp_path / "planned.tif"
    command = ["upscale", second, "--model", "bicubic", "--scale", "2", "--plan-only", "-o", str(planned)]
    assert run([*command, "--log-file", str(log)]) == 0
    settings = (tmp_path / "planned.run.toml").read_text()
    assert "SECRET" not in log.read_text() + settings
    assert "give those inputs again on the command line" in settings
