"""The house itself: packages listed, imports pointing down, a quick import, a public surface."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import geo_refdiff

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SETUPTOOLS = PROJECT["tool"]["setuptools"]
MAPPED = {name: folder for name, folder in SETUPTOOLS["package-dir"].items() if name != "geo_refdiff"}
LEVELS = {
    "classes": 0,
    "errors": 0,
    "records": 0,
    "signed_urls": 0,
    "raster": 1,
    "options": 2,
    "products": 1,
    "nn": 2,
    "sensor": 2,
    "registration": 3,
    "diffusion": 3,
    "change": 4,
    "data": 4,
    "restore": 4,
    "plan": 5,
    "engine": 6,
    "evaluate": 7,
    "train": 7,
    "validate": 7,
    "commands": 8,
    "batch": 9,
    "cli": 10,
    "xarray": 10,
}
LEAVES = {"models", "sample_tiles"}
"""Data folders: anybody may import them; they look at nothing above room 2."""


def sources() -> list[tuple[str, Path]]:
    """(room, file) of every module of the package."""
    top = ROOT / "geo_refdiff"
    result = [(path.relative_to(top).parts[0], path) for path in top.glob("*/**/*.py")]
    result += [(path.stem, path) for path in top.glob("*.py") if path.stem in LEVELS]
    for name, folder in MAPPED.items():
        result += [(name.split(".")[1], path) for path in (ROOT / folder).glob("*.py")]
    return result


def imported_rooms(path: Path, room: str) -> set[str]:
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module] + [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "geo_refdiff" and len(parts) > 1 and parts[1] in LEVELS.keys() | LEAVES:
                rooms.add(parts[1])
    return rooms - {room}


def test_every_package_is_listed_for_the_wheel() -> None:
    listed = set(SETUPTOOLS["packages"])
    on_disk = {".".join(p.parent.relative_to(ROOT).parts) for p in (ROOT / "geo_refdiff").glob("**/__init__.py")}
    on_disk |= {name for name, folder in MAPPED.items() if (ROOT / folder / "__init__.py").exists()}
    assert on_disk == listed


def test_the_wheel_brings_the_valley_without_its_painter() -> None:
    assert not [name for name in SETUPTOOLS["packages"] if "painter" in name]
    folder = ROOT / MAPPED["geo_refdiff.sample_tiles"]
    patterns = SETUPTOOLS["package-data"]["geo_refdiff.sample_tiles"]
    shipped = [path for pattern in patterns for path in folder.glob(pattern)]
    assert {path.relative_to(folder).parts[0] for path in shipped} == {"valley"}
    assert len(shipped) == 8


def test_imports_point_down_only() -> None:
    wrong = []
    for room, path in sources():
        level = 2 if room in LEAVES else LEVELS[room]
        for other in imported_rooms(path, room):
            if other not in LEAVES and LEVELS[other] > level:
                wrong.append(f"{path.relative_to(ROOT)}: {room} imports {other}")
    assert not wrong


def test_rooms_do_not_import_each_other_in_a_circle() -> None:
    rooms: dict[str, set[str]] = {}
    for room, path in sources():
        rooms.setdefault(room, set()).update(imported_rooms(path, room))
    assert list(TopologicalSorter(rooms).static_order())  # raises CycleError


def test_import_is_quick_and_brings_nothing_heavy() -> None:
    code = (
        "import time, sys; t = time.perf_counter(); import geo_refdiff; s = time.perf_counter() - t;"
        "print(s, [m for m in ('torch', 'rasterio', 'geopandas', 'dask', 'numpy', 'cv2', 'scipy') if m in sys.modules])"
    )
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(3)]
    seconds = min(float(run.stdout.split()[0]) for run in runs)
    assert seconds < 0.3
    assert runs[0].stdout.split(maxsplit=1)[1].strip() == "[]"


def test_public_surface() -> None:
    assert set(geo_refdiff.__all__) == {"GeoRefDiffError", "UpscaleResult", "__version__", "load_denoiser", "upscale"}
    for name in geo_refdiff.__all__:
        assert getattr(geo_refdiff, name) is not None
    assert geo_refdiff.__version__ == PROJECT["project"]["version"]
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = geo_refdiff.nonsense


def test_the_readme_shows_the_two_commands() -> None:
    text = (ROOT / "README.md").read_text()
    assert "make demo" in text
    assert "make test" in text
