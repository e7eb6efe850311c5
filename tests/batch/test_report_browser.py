"""The report of a batch as a browser shows it."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import shapely
from PIL import Image

from geo_refdiff.batch.run import batch

from .conftest import OPTIONS, Country, square, write_areas

AREAS = (
    ("plain", 2, 2, 8),
    ("seam", 4, 16, 10),
    ("far_east", 10, 30, 9),
    ("south", 14, 3, 6),
    ("nowhere", 200, 200, 5),
)

ASK = """<script>addEventListener("load", () => {
  const map = document.getElementById("map").getBoundingClientRect();
  document.title = JSON.stringify({
    mode: document.compatMode,
    images: [...document.images].map(i => [i.complete, i.naturalWidth, i.naturalHeight, i.alt]),
    areas: [...document.querySelectorAll("#map path")].map(p => {
      const box = p.getBoundingClientRect();
      return [p.textContent, box.left - map.left, box.top - map.top, box.width, box.height];
    }),
    map: [map.left, map.top, map.width, map.height],
    outliers: document.getElementById("outliers").textContent,
    rows: document.querySelectorAll("tbody tr").length,
    loaded: performance.getEntriesByType("resource").filter(r => !r.name.startsWith("data:")).length,
    wide: document.documentElement.scrollWidth - innerWidth,
  });
});</script></head>"""


def test_report_in_a_browser(country: Country, tmp_path: Path, browse: Callable[..., str]) -> None:
    page = tmp_path / "report.html"
    areas = {name: square(row, col, side) for name, row, col, side in AREAS}
    areas["sliver"] = shapely.affinity.scale(square(4, 12, 8), 1, 1e-4)  # between pixel centres
    actual = write_areas(tmp_path / "six.gpkg", areas)
    result = batch(actual, country.sources(), tmp_path / "out", options=OPTIONS, report=page)
    assert [name for name, _ in result.errors] == ["nowhere", "sliver"]
    asking = tmp_path / "asking.html"
    asking.write_text(page.read_text(encoding="utf-8").replace("</head>", ASK, 1), encoding="utf-8")
    output = re.search(r"<title>(\{.*?\})</title>", browse(asking, "--dump-dom"), re.DOTALL)
    assert output is not None
    seen = json.loads(html.unescape(output[1]))
    assert seen["mode"] == "CSS1Compat"
    assert seen["loaded"] == 0
    assert seen["wide"] <= 0
    assert seen["rows"] == 6
    assert len(seen["images"]) == 8
    assert all(complete and width > 0 and height > 0 and name for complete, width, height, name in seen["images"])
    areas = {text.partition(":")[0]: box for text, *box in seen["areas"]}
    assert set(areas) == {"plain", "seam", "far_east", "south", "sliver"}
    assert seen["outliers"].endswith("nowhere (failed)")
    _, _, width, height = seen["map"]
    assert all(x >= -1 and y >= -1 and x + w <= width + 1 and y + h <= height + 1 for x, y, w, h in areas.values())
    assert areas["far_east"][0] > areas["plain"][0]
    assert areas["far_east"][1] > areas["plain"][1]
    shot = tmp_path / "shot.png"
    browse(page, f"--screenshot={shot}")
    left, top, *_ = seen["map"]
    pixels = np.asarray(Image.open(shot).convert("RGB")).astype(int)
    x, y, w, h = areas["sliver"]
    red, green, blue = pixels[int(top + y + h / 2), int(left + x + w / 2)]
    assert red > green + 50
    assert red > blue + 50
