"""Settings of a run in a file: --config reads them, --plan-only writes them and blocks no later run."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from geo_refdiff.cli.main import run
from geo_refdiff.plan.file import differences, read_plan

Told = pytest.CaptureFixture[str]


@pytest.fixture
def settings(make_pair: Any, tmp_path: Path) -> dict[str, str]:
    """Lines of a file for a small run."""
    scene, ref = make_pair(16, 20)
    return {
        "scene": f'"{scene}"', "ref": f'"{ref}"', "out": f'"{tmp_path / "o.tif"}"', "model": '"matched-ref"',
        "coregister": '"off"', "products": '"none"', "device": '"cpu"',
    }  # fmt: skip


def written(folder: Path, lines: dict[str, str]) -> str:
    path = folder / "my.toml"
    path.write_text("".join(f"{key} = {value}\n" for key, value in lines.items()))
    return str(path)


def test_a_file_stands_for_the_command_line_which_wins(settings: dict[str, str], tmp_path: Path, capsys: Told) -> None:
    more = {"bands": '["green", 1]', "scene-range": "[0, 200]", "psf": "0.4", "seed": "3"}
    file = written(tmp_path, settings | more)
    assert run(["upscale", "--config", file, "--plan-only", "--bands", "red"]) == 0
    plan = read_plan(tmp_path / "o.tif.parts" / "plan.json")
    assert plan.bands.names == ("red",)
    assert (plan.seed, plan.psf_sigma) == (3, 0.4)
    assert run(["upscale", "--config", file, "--keep"]) == 0
    assert read_plan(tmp_path / "o.tif.parts" / "plan.json").bands.names == ("green", "red")
    assert (tmp_path / "o.tif").exists()


@pytest.mark.parametrize(
    ("lines", "code", "output"),
    [
        ({"scal": "8"}, 2, "unknown option 'scal': did you mean scale?"),
        ({"scale": '"8"'}, 2, "scale '8': give a whole number from 1 to 64"),
        ({"scale": "8.5"}, 2, "scale 8.5: give a whole number from 1 to 64"),
        ({"overwrite": '"yes"'}, 2, "overwrite 'yes': give true or false"),
        ({"workers": "2.5"}, 2, "workers 2.5: give a whole number"),
        ({"resource": "[1]"}, 2, "resource 1: give a text"),
        ({"mask-field": '"a"', "mask_field": '"b"'}, 2, "option 'mask_field' is given twice"),
        ({"out": "3"}, 2, "out 3: give a text"),
        ({"config": '"other.toml"'}, 2, "unknown option 'config'"),
        ({"scale": ""}, 1, "is no TOML"),
    ],
)
def test_a_file_is_read_strictly(
    lines: dict[str, str], code: int, output: str, settings: dict[str, str], tmp_path: Path, capsys: Told
) -> None:
    file = written(tmp_path, settings | lines)
    before = sorted(tmp_path.iterdir())
    assert run(["upscale", "--config", file]) == code
    result = capsys.readouterr().err
    assert result.startswith(f"error: --config {file}: ")
    assert output in result
    assert result.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


def test_a_missing_file_is_named(capsys: Told) -> None:
    assert run(["upscale", "--config", "gone.toml"]) == 1
    assert "gone.toml: No such file" in capsys.readouterr().err


def test_a_planned_run_is_repeated_from_its_file(
    make_pair: Any, tmp_path: Path, capsys: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene, ref = make_pair(16, 20)
    monkeypatch.chdir(tmp_path)
    command = ["upscale", scene.name, "--ref", ref.name, "--model", "matched-ref", "--scene-range", "0", "200"]
    assert run([*command, "--mask", "none", "--noise", "1.5", "-o", "o.tif", "--plan-only"]) == 0
    file = tmp_path / "o.run.toml"
    assert f"--config {file}" in capsys.readouterr().out
    kept = tomllib.loads(file.read_text())
    assert (kept["scale"], kept["scene"], kept["mask"]) == (8, str(scene), "none")
    assert "plan_only" not in kept
    first = read_plan(tmp_path / "o.tif.parts" / "plan.json")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert run(["upscale", "--config", str(file), "--keep"]) == 0
    assert not differences(first, read_plan(tmp_path / "o.tif.parts" / "plan.json"))


def test_a_plan_blocks_no_later_run(settings: dict[str, str], tmp_path: Path, capsys: Told) -> None:
    file = written(tmp_path, settings)
    for more in (["--plan-only"], ["--plan-only", "--scale", "4"], []):
        assert run(["upscale", "--config", file, *more]) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["my.toml", "o.run.toml", "o.tif", "ref.tif", "scene.tif"]


def test_settings_of_people_are_not_replaced(settings: dict[str, str], tmp_path: Path, capsys: Told) -> None:
    (tmp_path / "o.run.toml").write_text("scale = 8  # mine\n")
    assert run(["upscale", "--config", written(tmp_path, settings), "--plan-only"]) == 1
    assert "o.run.toml: was not written by --plan-only, which would replace it" in capsys.readouterr().err
    assert (tmp_path / "o.run.toml").read_text() == "scale = 8  # mine\n"


def test_a_batch_has_a_file_too(make_pair: Any, tmp_path: Path, capsys: Told) -> None:
    import geopandas
    import shapely

    scene, ref = make_pair(16, 16)
    areas = tmp_path / "areas.gpkg"
    outline = shapely.box(486_000, 5_208_800, 486_200, 5_209_100)
    geopandas.GeoDataFrame({"town": ["a"]}, geometry=[outline], crs="EPSG:26914").to_file(areas)
    out = tmp_path / "many"
    command = ["batch", str(areas), "--scene", str(scene), "--ref", str(ref), "--out", str(out), "--model", "bicubic"]
    assert run([*command, "--scale", "2", "--name-field", "town", "--products", "none", "--plan-only"]) == 0
    assert not out.exists()
    file = tmp_path / "many.run.toml"
    kept = tomllib.loads(file.read_text())
    assert (kept["scene"], kept["ref"], kept["name_field"], kept["scale"]) == ([str(scene)], [str(ref)], "town", 2)
    assert run(["batch", "--config", str(file)]) == 0
    assert (out / "a.tif").exists()
    file.write_text(file.read_text().replace("name_field", "name_fild"))
    assert run(["batch", "--config", str(file)]) == 2
    assert "unknown option 'name_fild': did you mean name_field?" in capsys.readouterr().err
