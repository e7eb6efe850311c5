"""docs/tutorial.ipynb runs from top to bottom, and what it shows is what it says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import rasterio

PAGE = Path(__file__).parents[2] / "docs" / "tutorial.ipynb"


def printed(notebook: Any) -> list[str]:
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    return "".join(output.text for output in outputs if output.output_type == "stream").splitlines()


def pictures(notebook: Any) -> list[str]:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return [kind for output in outputs for kind in output.get("data", {}) if kind.startswith("image/")]


@pytest.mark.filterwarnings("ignore")
def test_the_tutorial_runs(tmp_path: Path) -> None:
    for name in ("ipykernel", "matplotlib", "nbformat", "rioxarray", "dask"):
        pytest.importorskip(name, reason=f"the tutorial needs {name}: pip install 'geo-refdiff[dev]'")
    nbclient = pytest.importorskip("nbclient", reason="needs nbclient: pip install 'geo-refdiff[dev]'")
    import nbformat

    shown = nbformat.read(PAGE, 4)
    now = nbformat.read(PAGE, 4)
    nbclient.NotebookClient(now, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    with rasterio.open(tmp_path / "sharp.tif") as dataset:
        assert (dataset.count, *dataset.shape, str(dataset.crs)) == (4, 320, 320, "EPSG:32633")
    assert printed(now)[:-2] == printed(shown)[:-2]  # sizes and CRSs; the last two lines are of the model's quality
    bicubic, result = map(float, re.findall(r"(\d+\.\d) dB", "\n".join(printed(now))))
    assert result > bicubic + 2
    assert pictures(now) == pictures(shown) == ["image/jpeg"] * 2
