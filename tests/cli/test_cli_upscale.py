"""The command line: output, errors, exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from geo_refdiff.cli.main import run


def test_summary_for_people_and_machines(make_pair: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scene, _ = make_pair(16, 20)
    assert run(["upscale", str(scene), "--model", "bicubic", "--scale", "2", "-o", str(tmp_path / "a.tif")]) == 0
    reported = capsys.readouterr()
    assert "40 x 32 pixels of 20 metres in EPSG:26914" in reported.out
    assert reported.err.startswith("0.00128 megapixels in 1 block: about ")
    assert reported.err.count("\n") == 1  # nothing was decided without being asked
    assert (
        run(["upscale", str(scene), "--model", "bicubic", "--json", "-o", str(tmp_path / "b.tif"), "--bands", "3,1"])
        == 0
    )
    reported = capsys.readouterr()
    data = json.loads(reported.out)
    assert data["grid"]["shape"] == [128, 160]
    assert data["bands"] == ["blue", "red"]
    assert data["counts"]["pixels"] == 128 * 160
    assert data["timings"]["total"] > 0
    costs, *notes = reported.err.splitlines()
    assert costs.startswith("0.0205 megapixels in 1 block: about ")
    assert notes == [f"note: {note}" for note in data["notes"]]


def test_default_output_lies_beside_the_scene(make_pair: Any) -> None:
    scene, _ = make_pair(16, 20)
    assert run(["upscale", str(scene), "--model", "bicubic"]) == 0
    assert scene.with_name("scene_8x.tif").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["upscale"], 2, "Missing argument 'SCENE'"),
        (["upscale", "SCENE", "--scale", "big"], 2, "'big' is not a valid integer"),
        (["upscale", "SCENE", "--nonsense"], 2, "--nonsense"),
        (["nonsense"], 2, "no command 'nonsense': choose of upscale, batch"),
        (["upscal", "SCENE"], 2, "no command 'upscal': did you mean upscale?"),
        (["detect_change"], 2, "did you mean detect-change?"),
        (["upscale", "SCENE", "--model", "bicubic", "--scale", "-3"], 2, "scale -3"),
        (["upscale", "none.tif", "--model", "bicubic"], 1, "no such file"),
        (["upscale", "SCENE", "--model", "unheard-of"], 1, "unknown model"),
        (["upscale", "SCENE", "--model", "bicubic", "--aoi", "1,2,3,4"], 1, "outside"),
    ],
)
def test_errors_are_one_line(
    make_pair: Any, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, text: str
) -> None:
    scene, _ = make_pair(16, 20)
    assert run([str(scene) if a == "SCENE" else a for a in arguments]) == code
    reported = capsys.readouterr()
    assert reported.out == ""
    assert reported.err.startswith("error: ")
    assert reported.err.count("\n") == 1
    assert text in reported.err


def test_debug_shows_where(make_pair: Any) -> None:
    with pytest.raises(Exception, match="no such file"):
        run(["--debug", "upscale", "none.tif", "--model", "bicubic"])


def test_a_run_imports_only_what_it_needs(make_pair: Any, tmp_path: Path) -> None:
    """Vector files, pictures and clusters have libraries that take longer to import than a small area to compute."""
    scene, reference = map(str, make_pair(32, 32))
    aoi = "486000,5208600,486600,5209000"
    command = [
        "upscale",
        scene,
        "--ref",
        reference,
        "--aoi",
        aoi,
        "--out",
        str(tmp_path / "o.tif"),
        "--products",
        "none",
    ]
    dear = ("geopandas", "pandas", "pyarrow", "scipy.ndimage", "PIL", "distributed", "geo_refdiff.batch.run")
    code = (
        f"import sys; from geo_refdiff.cli.main import run; code = run({command!r});"
        f"print(code, [name for name in {dear!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 []", done.stderr


def test_help_and_version_are_quick_and_plain() -> None:
    code = "import sys; from geo_refdiff.cli.main import run; run(sys.argv[1:]); assert 'torch' not in sys.modules"
    for arguments in (["--help"], ["--version"], ["upscale", "--help"]):
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
        assert done.stdout
        assert done.stderr == ""
