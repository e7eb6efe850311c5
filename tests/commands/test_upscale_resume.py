"""Killed, interrupted and resumed runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from geo_refdiff import upscale
from geo_refdiff.commands.upscale import Interrupted
from geo_refdiff.engine.run import run_blocks
from geo_refdiff.errors import InputError, OutputError, ResumeError
from geo_refdiff.restore.restorers import BicubicBackProjected, Conditions

OPTIONS: dict[str, Any] = {"scale": 4, "window": 160, "block_size": 32, "products": "none"}


HELD = """
import sys, time
from geo_refdiff.cli.main import main
from geo_refdiff.engine.block import BlockComputer

left, compute = int(sys.argv.pop(1)), BlockComputer.compute

def held(*args):
    global left
    left -= 1
    if left < 0:
        time.sleep(300)
    return compute(*args)

BlockComputer.compute = held
main()
"""
"""The command line, but that it waits for a signal once it has computed some blocks: it cannot end before one comes."""


def started(scene: Path, out: Path, blocks: int, *more: str, **streams: Any) -> subprocess.Popen[str]:
    """`geo-refdiff upscale` in a process that waits after so many blocks."""
    options = ["--model", "bicubic-ibp", "--scale", "4", "--window", "160", "--block-size", "32", "--products=none"]
    program = [sys.executable, "-c", HELD, str(blocks), "upscale", str(scene), *options, "-o", str(out)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen([*program, "--device", "cpu", *more], text=True, env=environment, **streams)


def wait_for(blocks: Path, count: int, process: subprocess.Popen[str]) -> None:
    """Until so many blocks lie there."""
    while len(list(blocks.glob("r*.tif"))) < count:
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)


def test_kill_and_resume_gives_the_same_file(make_pair: Any, tmp_path: Path) -> None:
    scene, _ = make_pair()
    expected = upscale(scene, model="bicubic-ibp", out=tmp_path / "whole.tif", **OPTIONS).out.read_bytes()
    out = tmp_path / "killed.tif"
    blocks = tmp_path / "killed.tif.parts" / "blocks"
    for wanted, held in ((1, 4), (7, 10), (16, 14)):  # of 30
        with started(scene, out, held, "--resume") as process:
            wait_for(blocks, wanted, process)
            process.kill()
        assert process.returncode == -signal.SIGKILL
        assert not out.exists()
        assert list(blocks.iterdir())
    result = upscale(scene, model="bicubic-ibp", out=out, resume=True, **OPTIONS)
    assert result.counts["blocks_resumed"] >= 16
    assert out.read_bytes() == expected
    assert not blocks.parent.exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["killed.tif", "ref.tif", "scene.tif", "whole.tif"]
    again = upscale(scene, model="bicubic-ibp", out=out, resume=True, **OPTIONS)
    assert "finished already" in again.notes[0]


class Stops(BicubicBackProjected):
    """Ctrl-C after some windows."""

    after = 5

    def restore(self, batch: Conditions) -> torch.Tensor:
        Stops.after -= 1
        if Stops.after < 0:
            raise KeyboardInterrupt
        return super().restore(batch)


def test_ctrl_c_leaves_a_resumable_state(make_pair: Any, tmp_path: Path) -> None:
    scene, _ = make_pair()
    expected = upscale(scene, model="bicubic-ibp", out=tmp_path / "whole.tif", **OPTIONS).out.read_bytes()
    out = tmp_path / "out.tif"
    with pytest.raises(Interrupted, match=r"of 30 blocks are finished .* --resume"):
        upscale(scene, model=Stops, out=out, **OPTIONS)
    assert not out.exists()
    with pytest.raises(ResumeError, match="continue with --resume or start over with --overwrite"):
        upscale(scene, model="bicubic-ibp", out=out, **OPTIONS)
    upscale(scene, model="bicubic-ibp", out=out, resume=True, **OPTIONS)
    assert out.read_bytes() == expected


@pytest.mark.parametrize(
    "error", [InputError("gone"), OutputError("full"), MemoryError(), RuntimeError("CUDA out of memory")]
)
@pytest.mark.parametrize("after", [0, 5])
def test_after_any_error_finished_blocks_stay_and_nothing_else(
    make_pair: Any, tmp_path: Path, error: Exception, after: int
) -> None:
    scene, _ = make_pair(16, 16)
    before = sorted(tmp_path.rglob("*"))

    def fails(plan: Any, workdir: Any, restorer: Any, **options: Any) -> Any:
        run_blocks(plan, workdir, restorer, order=range(after), **options)
        raise error

    out, options = tmp_path / "out.tif", OPTIONS | {"model": "bicubic", "block_size": 16}
    with pytest.raises(type(error)):
        upscale(scene, out=out, runner=fails, **options)
    assert not out.exists()
    if not after:
        assert sorted(tmp_path.rglob("*")) == before
    assert upscale(scene, out=out, resume=True, **options).counts["blocks_resumed"] == after


def test_ctrl_c_on_the_command_line_says_how_to_go_on(make_pair: Any, tmp_path: Path) -> None:
    scene, _ = make_pair(64, 64)
    out = tmp_path / "out.tif"
    blocks = tmp_path / "out.tif.parts" / "blocks"
    with started(scene, out, 1, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        wait_for(blocks, 1, process)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert stdout == ""
    *begun, stopped = stderr.splitlines()
    assert all(line.startswith("note: ") or "megapixels in" in line for line in begun)
    assert "blocks are finished" in stopped
    assert stopped.endswith("--resume")
    assert f"geo-refdiff upscale {scene}" in stopped
    assert upscale(scene, model="bicubic-ibp", out=out, resume=True, **OPTIONS).counts["blocks_resumed"] >= 1


def interrupted(scene: Path, out: Path, **options: Any) -> None:
    Stops.after = 3
    with pytest.raises(Interrupted):
        upscale(scene, model=Stops, out=out, **(OPTIONS | options))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"model": "bicubic"}, "model.name"),
        ({"seed": 5}, "seed: 0 -> 5"),
        ({"window": 320}, "windows.size"),
        ({"block_size": 64}, "blocks.size: 32 -> 64"),
        ({"psf": 0.5}, "psf_sigma: 0.35 -> 0.5"),
        ({"bands": [1]}, "bands.scene"),
    ],
)
def test_resume_is_refused_with_what_differs(
    make_pair: Any, tmp_path: Path, change: dict[str, Any], named: str
) -> None:
    scene, _ = make_pair()
    out = tmp_path / "out.tif"
    interrupted(scene, out)
    with pytest.raises(ResumeError) as caught:
        upscale(scene, out=out, resume=True, **({"model": "bicubic-ibp"} | OPTIONS | change))
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)
    assert (tmp_path / "out.tif.parts" / "plan.json").exists()


def test_resume_is_refused_for_a_changed_input(make_pair: Any, tmp_path: Path) -> None:
    scene, _ = make_pair()
    out = tmp_path / "out.tif"
    interrupted(scene, out)
    os.utime(scene, ns=(1, 1))
    with pytest.raises(ResumeError, match=r"scene\.mtime_ns: \d+ -> 1"):
        upscale(scene, model="bicubic-ibp", out=out, resume=True, **OPTIONS)


def test_two_runs_do_not_share_a_folder(make_pair: Any, tmp_path: Path) -> None:
    from geo_refdiff.engine.workdir import Workdir

    scene, _ = make_pair()
    with (
        Workdir(tmp_path / "out.tif.parts").locked(),
        pytest.raises(ResumeError, match=rf"another run holds it \(process {os.getpid()} on "),
    ):
        upscale(scene, model="bicubic", out=tmp_path / "out.tif", scale=2)


def test_plan_only_then_resume(make_pair: Any, tmp_path: Path) -> None:
    import json

    from geo_refdiff.plan.file import differences, parsed, read_plan

    scene, ref = make_pair()
    out = tmp_path / "out.tif"
    planned = upscale(scene, ref=ref, model="matched-ref", out=out, plan_only=True, **OPTIONS)
    assert not out.exists()
    assert planned.plan_path is not None
    data = json.loads(planned.plan_path.read_text())
    assert data["grid"]["shape"] == [160, 192]
    assert data["radiometry"]["gain"][0] == pytest.approx(1.1, rel=0.2)
    plan = read_plan(planned.plan_path)
    assert not differences(plan, parsed(json.dumps(plan.to_dict(), allow_nan=False)))
    assert "planned" in str(planned)
    done = upscale(scene, ref=ref, model="matched-ref", out=out, resume=True, **OPTIONS)
    assert done.out.exists()


def test_finished_output_is_not_overwritten_unasked(make_pair: Any, tmp_path: Path) -> None:
    scene, _ = make_pair()
    out = tmp_path / "out.tif"
    out.write_text("precious")
    for resume in (False, True):
        with pytest.raises(OutputError, match="--overwrite"):
            upscale(scene, model="bicubic", scale=2, out=out, resume=resume)
    assert out.read_text() == "precious"
    upscale(scene, model="bicubic", scale=2, out=out, overwrite=True)
    assert out.stat().st_size > 100


def test_foreign_files_in_the_way_are_left_alone(make_pair: Any, tmp_path: Path) -> None:
    scene, _ = make_pair()
    folder = tmp_path / "out.tif.parts"
    folder.mkdir()
    (folder / "thesis.txt").write_text("42")
    with pytest.raises(OutputError, match="holds something else"):
        upscale(scene, model="bicubic", scale=2, out=tmp_path / "out.tif", overwrite=True)
    assert (folder / "thesis.txt").read_text() == "42"
