"""QGIS as it is installed, in processes of its own with a profile of their own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PYTHON = "/usr/bin/python3"
PROCESS = next((p for p in ("/usr/bin/qgis_process.bin", "/usr/bin/qgis_process") if os.path.exists(p)), None)


@pytest.fixture(scope="session")
def qgis_env(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a person without a screen; skips where QGIS is missing."""
    home = tmp_path_factory.mktemp("home")
    home.chmod(0o700)
    env = {
        "PATH": "/usr/bin:/bin",  # not this environment's: QGIS's Python would take itself for it
        "HOME": str(home),
        "XDG_RUNTIME_DIR": str(home),
        "QT_QPA_PLATFORM": "offscreen",
        "LC_ALL": "C.UTF-8",
        "OMP_NUM_THREADS": "1",
        "GEO_REFDIFF_COMMAND": shutil.which("geo-refdiff", path=str(Path(sys.executable).parent)) or "geo-refdiff",
    }
    if PROCESS is None or not os.path.exists(PYTHON):
        pytest.skip("QGIS is not installed: apt-get install qgis python3-qgis qgis-providers")
    result = subprocess.run([PYTHON, "-c", "import qgis.core"], env=env, capture_output=True, check=False)
    if result.returncode:
        pytest.skip("QGIS's Python is not installed: apt-get install python3-qgis")
    return env


@pytest.fixture
def look(qgis_env: dict[str, str], tmp_path: Path) -> Callable[[Sequence[Any]], list[dict[str, Any]]]:
    """Loads files in QGIS, as a person would, and gives what it says of each; the picture is `tmp_path / look.png`."""

    def make(paths: Sequence[Any]) -> list[dict[str, Any]]:
        command = [PYTHON, str(Path(__file__).with_name("look.py")), str(tmp_path / "look.png"), *map(str, paths)]
        run = subprocess.run(command, env=qgis_env, capture_output=True, text=True, timeout=200, check=False)
        assert run.returncode == 0, run.stderr
        output = json.loads(run.stdout.splitlines()[-1])
        return [output[str(path)] for path in paths]

    return make
