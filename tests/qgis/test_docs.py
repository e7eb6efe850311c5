"""docs/qgis.md: its commands run as they stand, one after the other, in one folder."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import geopandas
import rasterio
import shapely

from .conftest import PROCESS, ROOT

PAGE = ROOT / "docs" / "qgis.md"


def test_the_commands_of_the_page_run(qgis_env: dict[str, str], make_pair: Any, tmp_path: Path) -> None:
    scene, _ = make_pair(24, 24)
    with rasterio.open(scene) as dataset:
        left, _, _, top = dataset.bounds
        crs = dataset.crs
    for layer in ("my fields", "changes"):
        frame = geopandas.GeoDataFrame(
            {"class": [1]}, geometry=[shapely.box(left, top - 400, left + 400, top)], crs=crs
        )
        frame.to_file(tmp_path / "work.gpkg", layer=layer)
    fresh = qgis_env | {"HOME": str(tmp_path / "home")}  # the plugin is not enabled yet
    plugins = tmp_path / "home/.local/share/QGIS/QGIS3/profiles/default/python/plugins"
    blocks = re.findall(r"```\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    assert len(lines) == 6
    own = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    for line in lines:
        words = shlex.split(line)
        env, cwd = own, tmp_path
        if words[0] == "make":
            cwd, words = ROOT, [*words, f"PYTHON={sys.executable}"]
        if words[0] == "qgis_process":
            env, words = fresh, [str(PROCESS), *words[1:]]
        run = subprocess.run(words, env=env, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)
        assert run.returncode == 0, f"{line}\n{run.stdout}\n{run.stderr}"
        if words[0] == "make":
            (packed,) = (ROOT / "dist").glob("geo_refdiff_qgis-*.zip")
            shutil.unpack_archive(packed, plugins)
    assert "all promises are kept" in run.stdout + run.stderr
    for name in ("field.tif", "masked.tif", "sharp.tif", "sharp.qml"):
        assert (tmp_path / name).exists()
