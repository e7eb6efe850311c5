"""How well a shift is recovered: `python -m benchmarks.registration [--cases 1000]`.

Random cases of real scenes (`registration_cases`): another year, red against near infrared, up to 20 output px, up to
30 % nodata and 20 % changed, gain and noise; one of seven shows another place altogether and must be refused.
An error counts as silent where the result is said to be registered and is more than half a scene pixel off.

Two years of a place need not have one true shift: shadows turn and buildings lean from flight to flight. So each pair
is also registered as it is, without shift, nodata, change, noise and gain, and the error is given less what it shows
then, too. What the method gets wrong alike in both is not seen in that figure; the error against the truth stands
beside it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from math import isfinite, nan
from pathlib import Path
from time import perf_counter, process_time

import click
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.private import markdown, need_scenes
from benchmarks.registration_cases import CITIES, CITY_YEARS, YEARS, Case, bump, make_case
from geo_refdiff.registration.estimate import estimate_shift
from geo_refdiff.registration.rasters import repeatable_opencv
from geo_refdiff.registration.register import register_view

SILENT = 0.5
"""scene pixels."""

LIMITS = {64: 0.2, 128: 0.08, 256: 0.03}
"""RMSE in scene pixels that is asked for, by the side of the scene grid."""

_SIDES = {64: 0.55, 128: 0.33, 256: 0.12}
_KNOX = 0.55
"""Part of the cases on the rural scene; the others are in cities."""

_BANDS = (((0, 1, 2), (0, 1, 2)), ((0,), (3,)), ((3,), (0,)), ((1, 3), (1, 3)))
_UNRELATED = 1 / 7


@dataclass(frozen=True)
class Outcome:
    """One case: whether it was registered, how, and errors in scene pixels.

    Attributes:
        case: what was registered.
        verdict, kind, score, disagreement: as in `Registration`.
        error: root mean square over the scene, against the injected shift; NaN unless registered.
        less_own: the same less the shift that the pair shows as it is; NaN if that is not registered.
    """

    case: Case
    verdict: str
    kind: str
    error: float
    less_own: float
    score: float
    disagreement: float

    @property
    def silent(self) -> bool:
        """Whether it claims what is wrong."""
        return self.verdict == "registered" and (self.case.unrelated or self.error > SILENT)


def draw_cases(count: int, seed: int) -> list[Case]:
    """Random cases; the same for a seed."""
    rng = np.random.default_rng(seed)
    cases = []
    for number in range(count):
        place = "knox" if rng.random() < _KNOX else str(rng.choice(CITIES))
        first, second = (int(y) for y in rng.choice(YEARS if place == "knox" else CITY_YEARS, 2, replace=False))
        cases.append(
            Case(
                side=int(rng.choice(list(_SIDES), p=list(_SIDES.values()))),
                scale=int(rng.choice((8, 16))),
                place=place,
                years=(first, second),
                bands=_BANDS[int(rng.integers(len(_BANDS)))],
                shift=(int(rng.integers(-20, 21)), int(rng.integers(-20, 21))),
                nodata=float(rng.uniform(0, 0.3)),
                changed=float(rng.uniform(0, 0.2)),
                gain=float(rng.uniform(0.7, 1.3)),
                noise=float(rng.uniform(0, 4)),
                unrelated=bool(rng.random() < _UNRELATED),
                seed=seed * 100_000 + number,
            )
        )
    return cases


def run_case(case: Case) -> Outcome:
    """Register one case."""
    view = make_case(case)
    registration = register_view(view)
    error = less_own = nan
    if registration.registered:
        d = registration.displacement.on_pixels(view.shape) - np.array(case.truth)[:, None, None]
        error = _rms(d)
        own = own_shift(case)
        less_own = nan if own is None else _rms(d - np.array(own)[:, None, None])
    return Outcome(
        case, registration.verdict, registration.kind, error, less_own, registration.score, registration.disagreement
    )


def own_shift(case: Case) -> tuple[float, float] | None:
    """What the pair of years shows as it is: no shift, nodata, change, gain or noise; None if it is not registered."""
    plain = estimate_shift(make_case(replace(case, shift=(0, 0), nodata=0.0, changed=0.0, gain=1.0, noise=0.0)))
    return plain.candidate if plain.registered else None


def _rms(field: NDArray[np.float64]) -> float:
    return float(np.sqrt((field**2).sum(axis=0).mean()))


def _row(name: str, outcomes: Sequence[Outcome]) -> list[str]:
    sure = [o for o in outcomes if not o.case.unrelated]
    errors = np.array([o.error for o in sure if o.verdict == "registered"])
    relative = np.array([o.less_own for o in sure if o.verdict == "registered" and isfinite(o.less_own)])
    less = f"{root_mean_square(relative)} ({len(relative)})"
    worst = f"{errors.max():.2f}" if len(errors) else "-"
    wrong = sum(o.silent for o in outcomes)
    refused = sum(o.verdict != "registered" for o in outcomes if o.case.unrelated)
    unrelated = len(outcomes) - len(sure)
    cells = f"{refused} of {unrelated}"
    return [name, str(len(sure)), f"{len(errors)}", root_mean_square(errors), worst, less, str(wrong), cells]


def root_mean_square(errors: NDArray[np.float64]) -> str:
    """For a table; "-" of none."""
    return f"{np.sqrt((errors**2).mean()):.3f}" if len(errors) else "-"


def table(outcomes: Sequence[Outcome]) -> str:
    """The table by grid and scale."""
    head = ["scene grid, scale", "cases", "registered", "RMSE", "worst"]
    head += ["RMSE less the pair's own (cases)", "silent errors", "other places refused"]
    rows = []
    for side in sorted(_SIDES):
        for scale in (8, 16):
            part = [o for o in outcomes if (o.case.side, o.case.scale) == (side, scale)]
            if part:
                rows.append(_row(f"{side}, {scale}x (asked: {LIMITS[side]})", part))
    for name in ("rural", "cities"):
        for side in sorted(_SIDES):
            for alike in (True, False):
                part = [
                    o
                    for o in outcomes
                    if (o.case.side, o.case.place == "knox", o.case.bands[0] == o.case.bands[1])
                    == (side, name == "rural", alike)
                ]
                if part:
                    rows.append(_row(f"{name}, {side}, {'same bands' if alike else 'red against nir'}", part))
    rows.append(_row("all", outcomes))
    return markdown(head, rows)


def time_large(repeats: int = 5) -> dict[str, tuple[float, float]]:
    """(seconds, CPU seconds) of ways to register a scene of 512 x 512 scene pixels at 8x, each the best of some."""
    case = Case(512, 8, "knox", (2012, 2015), ((0, 1, 2), (0, 1, 2)), (11, -7), seed=3)
    view = make_case(case)
    best: dict[str, tuple[float, float]] = {}
    ways: dict[str, Callable[[], object]] = {
        "one shift": lambda: estimate_shift(view),
        "global, with residuals": lambda: register_view(view, "global"),
        "auto": lambda: register_view(view),
        "local": lambda: register_view(view, "local"),
    }
    for name, way in ways.items():
        times = []
        for _ in range(repeats):
            begun, start = perf_counter(), process_time()
            way()
            times.append((perf_counter() - begun, process_time() - start))
        best[name] = min(times)
    return best


def recover_bump() -> list[list[str]]:
    """A bump of 1.5 scene pixels on 256 x 256: RMS error of the field and error at its top, scene pixels."""
    rows = []
    for years in ((2012, 2012), (2012, 2015), (2015, 2018)):
        for width in (32.0, 48.0, 64.0):
            case = Case(256, 8, "knox", years, ((1, 3), (1, 3)), (0, 0), seed=4)
            views = [make_case(case, bump(256, amplitude, width)) for amplitude in (1.5, 0.0)]
            at = np.arange(256) + 0.5
            truths = [
                np.stack(bump(256, amplitude, width)(*np.meshgrid(at, at, indexing="ij"))) for amplitude in (1.5, 0.0)
            ]
            results = [register_view(views[0], "auto"), register_view(views[1], "local")]
            wrong, own = (f.displacement.on_pixels((256, 256)) - t for f, t in zip(results, truths, strict=True))
            figures = [float(np.sqrt((e**2).sum(axis=0).mean())) for e in (wrong, wrong - own)]
            rows.append([f"{years[0]} / {years[1]}", f"{width:.0f}", results[0].kind, *(f"{v:.3f}" for v in figures)])
    return rows


@click.command()
@click.option("--cases", default=1000, show_default=True, help="Random cases.")
@click.option("--seed", default=1, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="JSON lines, one a case.")
def main(cases: int, seed: int, out: Path | None) -> None:
    """Register random cases and print how well it went."""
    need_scenes("naip-knox", "naip-ca")
    torch.set_num_threads(1)
    with repeatable_opencv():  # as in a run
        outcomes = list(_run(draw_cases(cases, seed), out))
        print(table(outcomes))
        print("\n" + markdown(["years", "width", "field", "RMS", "RMS less the years' own"], recover_bump()))
        times = (f"{name} {seconds:.3f} ({cpu:.3f})" for name, (seconds, cpu) in time_large().items())
        print("\nSeconds (CPU seconds) for 512 x 512: " + ", ".join(times))


def _run(cases: Iterable[Case], out: Path | None) -> Iterable[Outcome]:
    for case in cases:
        outcome = run_case(case)
        if outcome.silent:
            print(f"silent error: {outcome}", flush=True)
        if out is not None:
            with out.open("a") as file:
                file.write(json.dumps(asdict(outcome)) + "\n")
        yield outcome


if __name__ == "__main__":
    main()
