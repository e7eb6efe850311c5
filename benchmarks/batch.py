"""What a batch costs beside the work itself: seconds by workers, overhead a task, memory over many areas."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import click
import numpy as np

from benchmarks.private import markdown
from geo_refdiff.raster.process import cores

PIXEL, CORNER = 40.0, (485_904.0, 5_209_248.0)


def write_country(folder: Path, count: int, side: int, bands: tuple[str, ...]) -> tuple[Path, Path]:
    """A scene of noise with `count` square areas of `side` pixels in it.

    Returns:
        The areas, the scene.
    """
    import geopandas
    import rasterio
    import shapely
    from affine import Affine

    columns = max(1, round(count**0.5))
    rows = -(-count // columns)
    scene = folder / "scene.tif"
    values = np.random.default_rng(0).integers(20, 220, (len(bands), rows * side, columns * side), dtype=np.uint8)
    profile = {"driver": "GTiff", "count": len(bands), "height": rows * side, "width": columns * side, "dtype": "uint8"}
    affine = Affine(PIXEL, 0, CORNER[0], 0, -PIXEL, CORNER[1])
    with rasterio.open(scene, "w", crs="EPSG:26914", transform=affine, alpha="no", **profile) as dataset:
        dataset.write(values)
        dataset.descriptions = bands
    boxes = []
    for number in range(count):
        row, col = divmod(number, columns)
        west, north = CORNER[0] + col * side * PIXEL, CORNER[1] - row * side * PIXEL
        boxes.append(shapely.box(west + 1, north - side * PIXEL + 1, west + side * PIXEL - 1, north - 1))
    geopandas.GeoDataFrame(geometry=boxes, crs="EPSG:26914").to_file(folder / "areas.gpkg")
    return folder / "areas.gpkg", scene


class Clock:
    """A listener that notes when each area is finished, and the resident memory of this process then: of an embedded
    cluster's scheduler, too."""

    def __init__(self) -> None:
        import psutil

        self._process = psutil.Process()
        self.times: list[float] = []
        self.resident: list[int] = []
        self.handles: list[int] = []

    def total(self, done: int, failed: int, count: int) -> None:
        """Nothing."""

    def started(self, name: str, worker: str) -> None:
        """Nothing."""

    def progress(self, name: str, progress: object) -> None:
        """Nothing."""

    def message(self, text: str) -> None:
        """Shown."""
        click.echo(text)

    def finished(self, outcome: Any) -> None:
        """Noted."""
        if outcome.kind != "done":
            raise click.ClickException(f"{outcome.name}: {outcome.error}")
        self.times.append(perf_counter())
        self.resident.append(self._process.memory_info().rss)
        self.handles.append(self._process.num_fds())


def run_batch(folder: Path, count: int, side: int, model: str, workers: int | None) -> Clock:
    """One batch into a folder of its own."""
    from geo_refdiff.batch.run import batch
    from geo_refdiff.batch.workers import batch_runner
    from geo_refdiff.options import ClusterOptions, Sources
    from geo_refdiff.raster.process import steady_heap

    steady_heap()
    areas, scene = write_country(folder, count, side, ("red", "green", "blue", "nir"))
    clock = Clock()
    options = {"model": model, "scale": 8, "device": "cpu", "products": "none"}
    batch(
        areas,
        Sources((str(scene),)),
        folder / "out",
        options=options,
        threads=1,
        runner=batch_runner(ClusterOptions(workers=workers)),
        listener=clock,
    )
    return clock


def rows(cases: Callable[[], Iterator[tuple[str, int, int]]]) -> list[list[str]]:
    """A row of the table for each model and number of workers."""
    lines = []
    for model, count, side in cases():
        for workers in (None, 1, 2):
            with TemporaryDirectory() as folder:
                clock = run_batch(Path(folder), count, side, model, workers)
            pace = (clock.times[-1] - clock.times[0]) / max(count - 1, 1)
            name = "none, one process" if workers is None else str(workers)
            lines.append([model, name, str(count), f"{clock.times[-1] - clock.times[0]:.1f}", f"{1000 * pace:.0f}"])
    return lines


@click.command()
@click.option("--areas", default=60, show_default=True, help="Areas of 16 x 16 scene pixels with bicubic.")
@click.option(
    "--model-areas", default=8, show_default=True, help="Areas of 32 x 32 scene pixels with the model; 0: none."
)
@click.option(
    "--soak", default=0, show_default=True, help="Areas of a long run, for its memory and the scheduler's; 0: none."
)
def main(areas: int, model_areas: int, soak: int) -> None:
    """Scaling over workers and milliseconds a task; with --soak 500 memory and open files over a long run."""

    def cases() -> Iterator[tuple[str, int, int]]:
        if areas:
            yield "bicubic", areas, 16
        if model_areas:
            yield "default", model_areas, 32

    click.echo(f"{cores()} cores; from the first area finished to the last")
    click.echo(markdown(["model", "workers", "areas", "seconds", "ms an area"], rows(cases)))
    for workers in (None, 1) if soak else ():
        with TemporaryDirectory() as folder:
            clock = run_batch(Path(folder), soak, 8, "bicubic", workers)
        part = max(1, soak // 5)
        first, last = (fmean(clock.resident[s]) / 2**20 for s in (slice(0, part), slice(-part, None)))
        where = "one process" if workers is None else "client and scheduler, with a worker"
        click.echo(
            f"soak of {soak}, {where}: {first:.1f} MiB resident over the first {part}, {last:.1f} MiB over the last "
            f"({last / first - 1:+.1%}); open files {clock.handles[part]} and {clock.handles[-1]}"
        )


if __name__ == "__main__":
    main()
