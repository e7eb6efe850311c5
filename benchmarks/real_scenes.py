"""Real coarse scenes with real sharp ones: `python -m benchmarks.real_scenes [MODEL]... [--write]`.

Runs `geo-refdiff evaluate` on the triplets of `GEO_REFDIFF_DATA`/real (or of another index) and prints the table of
docs/real-scenes.md; with --write it puts the table, and pictures of those scenes whose terms allow it, into docs, that
of README's head among them.
"""

from __future__ import annotations

import csv
import tempfile
from pathlib import Path
from typing import Any

import click
import numpy as np
import rasterio
from numpy.typing import NDArray
from PIL import Image
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT

from benchmarks.private import DATA, markdown, need_scenes
from geo_refdiff import upscale
from geo_refdiff.evaluate.run import evaluate
from geo_refdiff.raster.files import atomic_path, write_bytes_atomic
from geo_refdiff.raster.picture import Panel, stretch, write_panels

DOCS = Path(__file__).parents[1] / "docs"
PAGE = DOCS / "real-scenes.md"
PICTURE = DOCS / "real_scenes.webp"
BEGIN, END = "<!-- made by python -m benchmarks.real_scenes --write -->", "<!-- end -->"
FILES = ("lr", "ref", "truth", "lr_t1")

PICTURED = ("idaho", "cangzhou", "oli2msi")
"""Scenes of USGS, USDA and Copernicus alone, which anybody may show with the source named."""

HEAD = DOCS / "real_scene.webp"
HEAD_SCENE, HEAD_FACTOR, HEAD_AREA = "cangzhou", 3, (201, 201, 198)
"""The scene of README's first picture, and (row, col, side) of its close-up, output pixels."""
_HEAD_SIDE = 2 * HEAD_AREA[2]
_HEAD_CUT = (0.5, 99.5)

FIGURES = {"psnr": ("PSNR", 2), "ssim": ("SSIM", 3), "haarpsi": ("HaarPSI", 3), "efflp": ("effLP", 3)}


def write_index(root: Path, path: Path) -> int:
    """An index of the folders below `root` that hold an lr.tif; the number of triplets."""
    folders = sorted(file.parent for file in root.rglob("lr.tif"))
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["name", *FILES])
        for folder in folders:
            files = [folder / f"{kind}.tif" for kind in FILES]
            paths = [str(file.relative_to(root)) if file.exists() else "" for file in files]
            writer.writerow([folder.relative_to(root), *paths])
    return len(folders)


def table(metrics: dict[str, Any]) -> str:
    """A row a scene and method, then means over the scenes that every method was run on, with FD."""
    rows, methods = [], metrics["methods"]
    keys = [key for key in FIGURES if any(key in method["means"] for method in methods.values())]
    for number, scene in enumerate(metrics["tiles"]):
        first = f"{scene}, {metrics['scenes'][scene]['factor']}x"
        for name, method in methods.items():
            values = [method["per_tile"].get(key, [None] * (number + 1))[number] for key in keys]
            if any(value is not None for value in values):
                rows.append([first, _bold(name, method), *_cells(values, keys), ""])
                first = ""
    common = metrics["common"]
    first = f"mean of {len(common['tiles'])}"
    for name, method in common["methods"].items() if common["tiles"] else ():
        fd = "-" if method["fd"] is None else f"{method['fd']:.0f} ± {method['fd_standard_error']:.0f}"
        rows.append([first, _bold(name, method), *_cells([method["means"].get(key) for key in keys], keys), fd])
        first = ""
    return markdown(["", "", *(FIGURES[key][0] for key in keys), "FD"], rows)


def differences(metrics: dict[str, Any]) -> list[str]:
    """How each model compares with bicubic and matched-ref, in sentences."""
    sentences = []
    for name, others in metrics["differences"].items():
        for other in ("bicubic", "matched-ref"):
            parts = [
                f"{title} {value['mean']:+.{digits}f}" + (f" ± {error:.{digits + 1}f}" if error is not None else "")
                for key, (title, digits) in FIGURES.items()
                if (value := others.get(other, {}).get(key)) and value["mean"] is not None
                for error in (value["standard_error"],)
            ]
            if parts:
                count = others[other]["psnr"]["tiles"]
                sentences.append(f"- **{name}** less {other}, {count} scenes: {', '.join(parts)}")
    return sentences


def _bold(name: str, method: dict[str, Any]) -> str:
    return f"**{name}**" if method["kind"] == "model" else name


def _cells(values: list[float | None], keys: list[str]) -> list[str]:
    return ["-" if v is None else f"{v:.{FIGURES[key][1]}f}" for v, key in zip(values, keys, strict=True)]


def write_page(text: str, page: Path = PAGE) -> None:
    """Put a text between the marks of the page."""
    old = page.read_text(encoding="utf-8")
    before, _, rest = old.partition(BEGIN)
    _, mark, after = rest.partition(END)
    if not mark:
        raise click.ClickException(f"{page}: lacks the marks {BEGIN} and {END}")
    write_bytes_atomic(page, f"{before}{BEGIN}\n\n{text}\n\n{END}{after}".encode())


def draw_head(path: Path, folder: Path) -> None:
    """A close-up of a scene, its reference, its bicubic interpolation and what the bundled model makes of it."""
    scene, ref = (DATA / "real" / HEAD_SCENE / f"{kind}.tif" for kind in ("lr", "ref"))
    made = upscale(scene, ref=ref, scale=HEAD_FACTOR, out=folder / "head.tif").out
    shown = {
        "scene: Landsat 8, 30 m": _close_up(scene, made, Resampling.nearest),
        "reference: Sentinel-2, 10 m, another date": _close_up(ref, made, Resampling.cubic),
        "bicubic, 10 m": _close_up(scene, made, Resampling.cubic),
        "geo-refdiff, 10 m": _close_up(made, made, Resampling.nearest),
    }
    sheet = folder / "head.png"
    write_panels(sheet, [[Panel(title, pixels) for title, pixels in shown.items()]], _HEAD_SIDE)
    _save_webp(sheet, path)


def _close_up(path: Path, grid: Path, resampling: Resampling) -> NDArray[np.uint8]:
    """Red, green and blue of a raster on another's grid, stretched by its own range, cut to `HEAD_AREA`."""
    with rasterio.open(grid) as like, rasterio.open(path) as source:
        where = {"crs": like.crs, "transform": like.transform, "width": like.width, "height": like.height}
        with WarpedVRT(source, resampling=resampling, **where) as warped:
            image = warped.read((1, 2, 3))
    row, col, side = HEAD_AREA
    cut = image[:, row : row + side, col : col + side]
    return stretch(cut, *(np.percentile(cut, q, axis=(1, 2)) for q in _HEAD_CUT))


def _save_webp(png: Path, path: Path) -> None:
    with Image.open(png) as picture, atomic_path(path) as temporary:
        picture.save(temporary, format="WEBP", quality=82, method=6)


@click.command()
@click.argument("models", nargs=-1)
@click.option("--data", type=click.Path(path_type=Path), help="Index of triplets.  [default: the real ones]")
@click.option("--write", is_flag=True, help="Put table and pictures into docs.")
def main(models: tuple[str, ...], data: Path | None, write: bool) -> None:
    """Measure MODELS (default: the bundled one) on real scenes."""
    with tempfile.TemporaryDirectory() as folder:
        root = None
        if data is None:
            need_scenes("real")
            root, data = DATA / "real", Path(folder) / "real.csv"
            write_index(root, data)
        show = PICTURED if write else ()
        out = Path(folder) / "out"
        metrics = evaluate(data, models or ("default",), out=out, root=root, show=show, grid=int(write)).metrics
        models_used = [f"{name} (sha256 {model['sha256'][:12]})" for name, model in metrics["models"].items()]
        text = f"Models: {', '.join(models_used)}.\n\n{table(metrics)}\n\n" + "\n".join(differences(metrics))
        click.echo(text)
        if write:
            _save_webp(out / "grid.png", PICTURE)
            draw_head(HEAD, Path(folder))
            write_page(text)


if __name__ == "__main__":
    main()
