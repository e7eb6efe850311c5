"""No file can bring code: no YAML, no pickle, no eval in the package, and hostile files run nothing."""

from __future__ import annotations

import ast
import io
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch

from geo_refdiff import upscale
from geo_refdiff.diffusion.checkpoint import load_denoiser
from geo_refdiff.diffusion.foreign import read_foreign
from geo_refdiff.errors import GeoRefDiffError

ROOT = Path(__file__).parents[2]
SOURCES = [path for folder in ("geo_refdiff", "cli", "qgis_plugin") for path in sorted((ROOT / folder).rglob("*.py"))]

MODULES = {
    "yaml",
    "ruamel",
    "pickle",
    "cPickle",
    "_pickle",
    "cloudpickle",
    "dill",
    "marshal",
    "shelve",
    "joblib",
    "jsonpickle",
}
BUILTINS = {"eval", "exec", "compile", "__import__"}
METHODS = {"read_pickle", "unsafe_load", "full_load", "full_load_all"}
HARMLESS = {"pickle.UnpicklingError"}
"""Names that may be had of those modules: an error to be caught."""


def forbidden(source: str) -> list[str]:
    """What in a module's source loads code, or could."""
    result = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            result += [alias.name for alias in node.names if alias.name.partition(".")[0] in MODULES]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in MODULES:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            result += [name for name in names if name not in HARMLESS]
        elif isinstance(node, ast.Call):
            result += _called(node)
    return result


def _called(node: ast.Call) -> list[str]:
    if isinstance(node.func, ast.Name):
        return [node.func.id] if node.func.id in BUILTINS else []
    name = ast.unparse(node.func)
    given = {word.arg: ast.unparse(word.value) for word in node.keywords}
    if name == "torch.load" and given.get("weights_only") != "True":
        return [name]
    if given.get("allow_pickle", "False") != "False":
        return [name]
    return [name] if name.rpartition(".")[2] in METHODS else []


def test_no_module_loads_yaml_or_pickle() -> None:
    assert len(SOURCES) > 150
    output = {str(path.relative_to(ROOT)): forbidden(path.read_text(encoding="utf-8")) for path in SOURCES}
    assert not {path: names for path, names in output.items() if names}


@pytest.mark.parametrize(
    "line",
    [
        "import yaml", "from pickle import loads", "torch.load('x')", "torch.load('x', weights_only=False)",
        "np.load('x', allow_pickle=True)", "eval('1')", "pandas.read_pickle('x')", "from ruamel.yaml import YAML",
    ],
)  # fmt: skip
def test_scan_finds_what_it_looks_for(line: str) -> None:
    assert forbidden(line)


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.makedirs, (str(self.canary), 0o755, True)


def hostile(kind: str, canary: Path) -> bytes:
    """A file that runs something in whoever unpickles it."""
    payload = {"ema": Touch(canary), "state_dict": Touch(canary)}
    if kind == "plain":
        return pickle.dumps(payload)
    stream = io.BytesIO()
    if kind == "torch":
        torch.save(payload, stream)
    else:
        with zipfile.ZipFile(stream, "w") as archive:
            archive.writestr("archive/data.pkl", pickle.dumps(payload))
            archive.writestr("archive/version", "3\n")
    return stream.getvalue()


@pytest.mark.parametrize("kind", ["plain", "torch", "zip"])
def test_pickled_payload_is_nowhere_run(
    make_raster: Callable[..., Path], tiny_compact: Path, tmp_path: Path, kind: str
) -> None:
    canary, scene = tmp_path / "canary", make_raster("scene.tif", np.full((3, 8, 8), 9, np.uint8))
    evil = tmp_path / "evil.pt"
    evil.write_bytes(hostile(kind, canary))
    if kind == "plain":
        pickle.loads(evil.read_bytes())
        assert canary.is_dir()  # it is what it is taken for
        canary.rmdir()
    (tmp_path / "folder").mkdir()
    for name in ("config.json", "model.safetensors", "weights.safetensors", "uncertainty.json"):
        (tmp_path / "folder" / name).write_bytes(evil.read_bytes())
    (tiny_compact / "model.safetensors").write_bytes(evil.read_bytes())
    known: dict[str, Any] = {"scale": 4, "out": tmp_path / "out.tif", "device": "cpu", "model": "bicubic"}
    attempts: list[Callable[[], Any]] = [
        lambda: read_foreign(evil),
        lambda: load_denoiser(evil),
        lambda: load_denoiser(tmp_path / "folder"),
        lambda: load_denoiser(tiny_compact),
        lambda: upscale(scene, **(known | {"model": evil})),
        lambda: upscale(evil, **known),
        lambda: upscale(scene, ref=evil, **known),
        lambda: upscale(scene, mask=evil, **known),
        lambda: upscale(scene, aoi=str(evil), **known),
    ]
    for attempt in attempts:
        with pytest.raises(GeoRefDiffError) as caught:
            attempt()
        assert "\n" not in str(caught.value)
    assert not canary.exists()
    assert not (tmp_path / "out.tif").exists()


def test_python_in_a_virtual_raster_is_not_run(make_raster: Callable[..., Path], tmp_path: Path) -> None:
    scene = make_raster("scene.tif", np.full((1, 8, 8), 9, np.uint8))
    canary, vrt = tmp_path / "canary", tmp_path / "evil.vrt"
    with rasterio.open(scene) as dataset:
        rasterio.shutil.copy(dataset, vrt, driver="VRT")
    code = f"import os\nos.mkdir({str(canary)!r})\ndef f(a, out, *b, **c): out[:] = 1"
    derived = (
        '<VRTRasterBand dataType="Byte" band="1" subClass="VRTDerivedRasterBand">'
        f"<PixelFunctionType>f</PixelFunctionType><PixelFunctionLanguage>Python</PixelFunctionLanguage>"
        f"<PixelFunctionCode><![CDATA[{code}]]></PixelFunctionCode>"
    )
    text = vrt.read_text()
    start = text.index("<VRTRasterBand")
    vrt.write_text(text[:start] + derived + text[text.index(">", start) + 1 :])
    with pytest.raises(GeoRefDiffError, match="cannot be"):
        upscale(vrt, model="bicubic", scale=2, out=tmp_path / "out.tif", device="cpu")
    assert not canary.exists()
