"""Locks, on disks that have them and on those that do not."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from typing import Any

import pytest

from geo_refdiff.cli.main import run
from geo_refdiff.errors import BusyError, OutputError
from geo_refdiff.raster.files import held


@pytest.fixture
def flock_fails(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Has the system refuse every lock with an error."""

    def fail_with(number: int) -> None:
        def flock(*_: object) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(fcntl, "flock", flock)

    return fail_with


def test_a_lock_is_held_once(tmp_path: Path) -> None:
    with (
        held(tmp_path / "lock", "it", "wait"),
        pytest.raises(BusyError, match=rf"it: another run holds it \(process {os.getpid()} on .*\); wait"),
        held(tmp_path / "lock", "it", "wait"),
    ):
        pass


@pytest.mark.parametrize("number", [errno.EWOULDBLOCK, errno.EACCES])
def test_held_by_another(tmp_path: Path, flock_fails: Any, number: int) -> None:
    flock_fails(number)
    with pytest.raises(BusyError, match="another run holds it"), held(tmp_path / "lock", "it", "wait"):
        pass


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS])
def test_a_disk_without_locks_is_used_and_reported(
    tmp_path: Path, flock_fails: Any, number: int, caplog: pytest.LogCaptureFixture
) -> None:
    flock_fails(number)
    with held(tmp_path / "lock", "it", "wait"):
        pass
    (reported,) = caplog.messages
    assert reported.startswith("it: its disk knows no locks (")


def test_other_errors_are_reported_as_they_are(tmp_path: Path, flock_fails: Any) -> None:
    flock_fails(errno.EIO)
    with pytest.raises(OutputError, match=r"lock: cannot be written: .*nput/output"), held(tmp_path / "lock", "it", ""):
        pass


def test_the_command_says_it_in_one_line(
    make_pair: Any, tmp_path: Path, flock_fails: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    scene, _ = make_pair(16, 20)
    flock_fails(errno.ENOLCK)
    out = tmp_path / "out.tif"
    assert run(["upscale", str(scene), "--model", "bicubic", "--scale", "2", "-o", str(out)]) == 0
    (line,) = (line for line in capsys.readouterr().err.splitlines() if "megapixels in" not in line)
    assert line.startswith(f"note: {out}.parts: its disk knows no locks (No locks available)")
