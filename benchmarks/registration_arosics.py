"""Beside AROSICS and scikit-image: `python -m benchmarks.registration_arosics --python /path/to/its/python`.

The random cases of `benchmarks.registration`, written as GeoTIFFs for an environment of its own that has AROSICS and
scikit-image. Both get the reference already seen by the scene's sensor on the scene's own grid, 16 LR pixels further
on each side, and the first band of each, which is all that they compare. Before anything is counted a pair without any
difficulty is registered: a method that does not find its known shift has been asked in a wrong way, and the run stops.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import hypot, inf
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import numpy as np
import rasterio
import torch
from numpy.typing import NDArray
from rasterio.transform import from_origin

from benchmarks.private import need_scenes, skip
from benchmarks.registration import SILENT, draw_cases, root_mean_square
from benchmarks.registration_cases import CITIES, PAD, Case, Image, make_pair, observed, view_pair
from benchmarks.tables import markdown
from geo_refdiff.registration.register import register_view
from geo_refdiff.registration.repeatable import repeatable_opencv
from geo_refdiff.sensor.sensor import SensorModel

OURS = "geo-refdiff"
NODATA = 0.0
CONTROL = Case(256, 8, "knox", (2012, 2012), ((0, 1, 2), (0, 1, 2)), (11, -7), 0.0, 0.0, 1.0, 0.0)
"""One year with itself, moved by 1.375 and -0.875 LR pixels."""

_EAST, _NORTH = 500_000.0, 4_000_000.0


@dataclass(frozen=True)
class Answer:
    """What one method says of one case: whether it claims a shift, and by how much that is wrong, LR pixels."""

    case: Case
    claims: bool
    error: float

    @property
    def silent(self) -> bool:
        """Whether it claims a shift that is more than half an LR pixel off."""
        return self.claims and not self.case.unrelated and self.error > SILENT


def answer(case: Case, claims: bool, shift: Sequence[float] | None) -> Answer:
    """A claimed shift against the injected one."""
    error = inf if shift is None else hypot(shift[0] - case.truth[0], shift[1] - case.truth[1])
    return Answer(case, claims, error)


def ours(case: Case, folder: Path) -> Answer:
    """Register a case and leave its files for the others."""
    scene, valid, reference, known = make_pair(case)
    sensor = SensorModel(case.scale)
    folder.mkdir()
    _write(folder / "scene.tif", scene[0], valid, 0, case.scale)
    seen = observed(known[None].astype(np.float32), sensor)[0] > 0.999
    _write(folder / "reference.tif", observed(reference[:1], sensor)[0], seen, PAD, case.scale)
    found = register_view(view_pair(case, scene, valid, reference, known))
    return answer(case, found.registered, found.shift)


def _write(path: Path, image: Image, known: NDArray[np.bool_], pad: int, size: int) -> None:
    """A band, its pixels of `size` metres, `pad` of them in front of where the scene begins; nodata where not known."""
    corner = from_origin(_EAST - pad * size, _NORTH + pad * size, size, size)
    profile = {"driver": "GTiff", "dtype": "float32", "count": 1, "crs": "EPSG:32611", "nodata": NODATA}
    height, width = image.shape
    with rasterio.open(path, "w", height=height, width=width, transform=corner, **profile) as file:
        file.write(np.where(known, np.maximum(image, 1.0), NODATA).astype(np.float32), 1)


def theirs(python: Path, folder: Path, cases: Sequence[Case]) -> tuple[dict[str, list[Answer]], dict[str, str]]:
    """What each method of the other environment says of the cases whose files lie in `folder`; and its versions."""
    peer = Path(__file__).with_name("registration_arosics_peer.py")
    command = [str(python), "-W", "ignore", str(peer), str(folder)]
    lines = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    told = [json.loads(line) for line in lines if line.startswith("{")]
    answers: dict[str, list[Answer]] = {}
    for line in told[1:]:
        case = cases[int(line["pair"])]
        answers.setdefault(line["method"], []).append(answer(case, line["claims"], line["shift"]))
    return answers, told[0]["versions"]


def tell(answers: dict[str, list[Answer]]) -> str:
    """The table, a row a method."""
    head = ["method", "claimed", "RMSE of these", "worst", "within half an LR pixel: RMSE"]
    head += ["of those that geo-refdiff claims", "silent errors", "other places accepted"]
    sure = {a.case for a in answers[OURS] if a.claims and not a.case.unrelated}
    return markdown(head, [_row(name, said, sure) for name, said in answers.items()])


def _row(name: str, said: Sequence[Answer], sure: Collection[Case]) -> list[str]:
    same = [a for a in said if not a.case.unrelated]
    errors = np.array([a.error for a in same if a.claims])
    shared = np.array([a.error for a in same if a.case in sure and a.claims and not a.silent])
    good = errors[errors <= SILENT]
    others = [a.claims for a in said if a.case.unrelated]
    return [
        name,
        f"{len(errors)} of {len(same)}",
        root_mean_square(errors),
        f"{errors.max():.2f}" if len(errors) else "-",
        f"{len(good)}: {root_mean_square(good)}",
        f"{len(shared)} of {len(sure)}: {root_mean_square(shared)}",
        str(sum(a.silent for a in same)),
        f"{sum(others)} of {len(others)}",
    ]


@click.command()
@click.option("--python", type=click.Path(path_type=Path, exists=True), help="Of AROSICS's environment.")
@click.option("--cases", default=150, show_default=True, help="Random cases.")
@click.option("--seed", default=20261125, show_default=True)
def main(python: Path | None, cases: int, seed: int) -> None:
    """Register random cases by all methods and tell how well it went."""
    need_scenes("naip-knox", "naip-ca")
    if python is None:
        raise skip("it needs --python of an environment with AROSICS and scikit-image")
    torch.set_num_threads(1)
    drawn = [CONTROL, *draw_cases(cases, seed)]
    with repeatable_opencv(), TemporaryDirectory() as name:
        folder = Path(name)
        own = [ours(case, folder / f"{k:06d}") for k, case in enumerate(drawn)]
        others, versions = theirs(python, folder, drawn)
    answers = {OURS: own, **others}
    for method, said in answers.items():
        if said[0].claims and not said[0].error < SILENT:
            raise click.ClickException(f"{method} is {said[0].error:.2f} LR pixels off where nothing is difficult")
    print("where nothing is difficult: " + ", ".join(f"{m} {s[0].error:.3f}" for m, s in answers.items()))
    print(", ".join(f"{k} {v}" for k, v in versions.items()) + "\n")
    for part, places in {"all": ("knox", *CITIES), "rural": ("knox",), "cities": CITIES}.items():
        print(f"{part}\n{tell({m: [a for a in s[1:] if a.case.place in places] for m, s in answers.items()})}\n")


if __name__ == "__main__":
    main()
