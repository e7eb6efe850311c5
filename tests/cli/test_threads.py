"""Commands load numpy with one thread: its products are small, and threads would wait for each other."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from geo_refdiff.raster.process import cores

_THREADS = (
    "import os; from geo_refdiff.cli.main import run; run(['models', '--help']); import numpy; "
    "print(len(os.listdir('/proc/self/task')))"
)


@pytest.mark.skipif(cores() < 2 or not Path("/proc/self/task").exists(), reason="one core, or another system")
def test_numpy_starts_no_threads() -> None:
    given = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    out = subprocess.run([sys.executable, "-c", _THREADS], env=given, capture_output=True, text=True, check=True)
    assert out.stdout.split()[-1] == "1"
