"""A batch as a person sees it in a terminal."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import Country

ERASE, UP = "\033[2K", "\033[1A"


def screens(output: str) -> list[list[str]]:
    """What a terminal shows after each change, by the few codes that are used."""
    lines, row, col, shown = [""], 0, 0, []
    for part in re.split(r"(\r|\n|\033\[2K|\033\[1A)", re.sub(r"\033\[(\d+(;\d+)*m|\?25[lh])", "", output)):
        if part == "\r":
            col = 0
        elif part == "\n":
            row, col = row + 1, 0
            lines += [""] * (row + 1 - len(lines))
        elif part == UP:
            assert row > 0
            row -= 1
        elif part == ERASE:
            lines[row] = ""
        elif part:
            assert "\033" not in part
            lines[row] = lines[row][:col].ljust(col) + part + lines[row][col + len(part) :]
            col += len(part)
            shown.append([line for line in lines if line])
    return [*shown, [line for line in lines if line]]


@pytest.mark.skipif(sys.platform == "win32", reason="needs pseudo-terminals")
def test_live_lines_come_and_go(country: Country, tmp_path: Path) -> None:
    command = [
        sys.executable, "-m", "geo_refdiff.cli.main", "batch", str(country.areas), "--scene", str(country.scenes),
        "--out", str(tmp_path / "out"), "--model", "bicubic-ibp", "--scale", "4", "--block-size", "32",
        "--threads", "1", "--products", "none",
    ]  # fmt: skip
    ours, theirs = pty.openpty()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs, env=os.environ | {"COLUMNS": "100"}) as run:
        os.close(theirs)
        seen = b""
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # Linux's way to say that the other end is closed
                break
            if not part:
                break
            seen += part
    os.close(ours)
    assert run.returncode == 1  # one area is nowhere
    result = screens(seen.decode())
    assert any("0 of 6 areas" in line for screen in result for line in screen)
    assert any(re.match(r"  \w+(: block \d+ of \d+|: writing| ) +━", line) for screen in result for line in screen)
    assert all(sum(" of 6 areas" in line for line in screen) <= 1 for screen in result)
    assert all(len(line) <= 100 for screen in result for line in screen if " of 6 areas" in line)
    assert not any(" of 6 areas" in line or re.match(r"  \w+: ", line) for line in result[-1])
    assert any("nowhere failed: no scene of 2 overlaps the area" in line for line in result[-1])
