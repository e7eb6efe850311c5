"""The command over odd and broken files as scene, reference and mask: one line or a right result, never a mess."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

DRIVER = """
import contextlib, io, json, os, re, sys, time
from pathlib import Path
import numpy as np, rasterio, warnings
warnings.simplefilter("ignore")
from geo_refdiff.cli.main import run
from geo_refdiff.raster.geobox import compose

role, good_scene, good_reference, folder, *files = sys.argv[1:]
for number, file in enumerate(files):
    out = Path(folder) / f"{role}{number}.tif"
    args = ["upscale", file if role == "scene" else good_scene, "-o", str(out), "--device", "cpu"]
    if role == "scene":
        args += ["--model", "bicubic", "--scale", "2"]
        with contextlib.suppress(Exception), rasterio.open(file) as source:
            if source.width * source.height > 2_000_000:  # a large one: its middle will do
                left, top = source.transform @ (source.width // 2, source.height // 2)
                right, bottom = source.transform @ (source.width // 2 + 64, source.height // 2 + 64)
                xs, ys = sorted((left, right)), sorted((top, bottom))
                args += ["--aoi", f"{xs[0]!r},{ys[0]!r},{xs[1]!r},{ys[1]!r}"]
    elif role == "reference":
        args += ["--model", "matched-ref", "--scale", "4", "--ref", file]
    else:
        args += ["--model", "matched-ref", "--scale", "4", "--ref", good_reference, "--mask", file]
    printed, errors, begun = io.StringIO(), io.StringIO(), time.monotonic()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(errors):
        code = run(args)
    record = {"file": file, "code": code, "errors": errors.getvalue(), "seconds": time.monotonic() - begun}
    record["left"] = sorted(p.name for p in Path(folder).iterdir())
    status = Path("/proc/self/status").read_text()  # ru_maxrss begins at what the parent had before exec
    record["rss"] = int(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1]) // 1024
    if code == 0:
        scene = file if role == "scene" else good_scene
        with rasterio.open(scene) as source, rasterio.open(out) as made:
            scale = 2 if role == "scene" else 4
            col, row = ~source.transform @ (made.transform.c, made.transform.f)
            fine = compose(source.transform, rasterio.Affine.translation(round(col), round(row)))
            fine = compose(fine, rasterio.Affine.scale(1 / scale))
            record["grid"] = bool(made.crs == source.crs and np.allclose(made.transform[:6], fine[:6], rtol=1e-9))
        for made in Path(folder).iterdir():
            made.unlink()
    print(json.dumps(record), flush=True)
"""


@pytest.mark.parametrize("role", ["scene", "reference", "mask"])
def test_every_awkward_file(shared_data: Path, make_pair, tmp_path: Path, role: str) -> None:  # type: ignore[no-untyped-def]
    files = [str(p) for p in sorted((shared_data / "awkward").glob("*/*")) if p.suffix != ".xml"]
    assert len(files) > 50
    scene, reference = make_pair(20, 24)
    folder = tmp_path / "out"
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, role, str(scene), str(reference), str(folder), *files],
        capture_output=True,
        text=True,
        timeout=550,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(records) == len(files)
    for record in records:
        assert record["code"] in (0, 1, 2), record
        assert "Traceback" not in record["errors"], record
        assert "unexpected" not in record["errors"], record
        assert record["seconds"] < 60, record
        assert record["rss"] < 2000, record
        if record["code"]:
            lines = record["errors"].splitlines()
            assert len(lines) == 1, record
            assert lines[0].startswith("error: "), record
            assert record["left"] == [], record
        else:
            assert record["grid"], record
    succeeded = {Path(record["file"]).parent.name for record in records if record["code"] == 0}
    if role == "scene":
        assert {"nodata", "mask-band", "non-square-px"} <= succeeded
    else:  # nothing is where the good scene is, but for two maps of the world
        assert succeeded <= {"non-square-px"}
