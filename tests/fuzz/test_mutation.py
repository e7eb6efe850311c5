"""Spoiled files: it works, or one line says why not; nothing else, and never without bounds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CHILD = Path(__file__).with_name("child.py")
GROUPS = {
    "rasters": ("scene=40", "ref=8", "mask=8"),
    "records": ("plan=70", "config=45", "weights=25", "manifest=16"),
}
SEED = 7


@pytest.mark.parametrize("group", GROUPS)
def test_works_or_one_clear_line(job: Path, batch_done: Path, group: str) -> None:
    assert batch_done.parent == job
    child = subprocess.run(
        [sys.executable, str(CHILD), str(job), str(SEED), *GROUPS[group]],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert child.returncode == 0, child.stderr[-4000:]
    result = json.loads(child.stdout)
    wrong = [text for target in result.values() for text in target["wrong"]]
    assert not wrong, "\n\n".join(wrong[:3])
    for target, output in result.items():
        assert output["works"] >= 1, target
        assert output["refused"] >= 3, target
