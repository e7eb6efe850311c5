"""Where the work is done: in this process, in workers of this machine, or on a cluster that is there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import inf

from geo_refdiff.errors import OptionError

PATIENCE = 60.0
"""Minutes: a cluster that grows by demand may have to queue for its workers."""


@dataclass(frozen=True)
class Place:
    """Where workers are.

    Attributes:
        workers: processes of this machine to start.
        scheduler: address of a cluster that is there.
        scheduler_file: with its address.
        resources: that a worker needs for a task.
        patience: minutes to wait for a worker that can do a task at all, before giving up.
        gpus: of this machine, as CUDA_VISIBLE_DEVICES names them: each of `workers` sees one, the next one in turn;
            empty: all see what this process sees.
    """

    workers: int | None = None
    scheduler: str | None = None
    scheduler_file: str | None = None
    resources: Mapping[str, float] = field(default_factory=dict)
    patience: float = PATIENCE
    gpus: tuple[str, ...] = ()

    @property
    def elsewhere(self) -> bool:
        """Whether workers are not started by this process, and may be on other machines."""
        return self.workers is None

    def fits(self, offered: Mapping[str, float]) -> bool:
        """Whether a worker that offers these resources can do a task."""
        return all(offered.get(name, 0.0) >= number for name, number in self.resources.items())


def place_of(
    workers: int | None,
    scheduler: str | None,
    scheduler_file: str | None,
    resources: Iterable[str],
    patience: float = PATIENCE,
) -> Place | None:
    """Where the work is to be done; None: in this process.

    Raises:
        OptionError: more than one place, or resources that make no sense.
    """
    given = [v for v in (workers, scheduler, scheduler_file) if v is not None]
    if len(given) > 1:
        raise OptionError("give one of --workers, --scheduler and --scheduler-file")
    if workers is not None and workers < 1:
        raise OptionError(f"workers {workers}: give 1 or more")
    if not 0 <= patience < inf:
        raise OptionError(f"worker wait {patience:g}: give minutes, 0 or more")
    needed = {}
    for text in resources:
        name, _, number = text.partition("=")
        try:
            needed[name.strip()] = float(number or 1)
        except ValueError:
            needed[name.strip()] = 0.0
        if not name.strip() or not 0 < needed[name.strip()] < inf:
            raise OptionError(f"resource '{text}': give NAME=NUMBER, for example GPU=1")
    if not given and needed:
        raise OptionError("--resource needs workers: give --scheduler, --scheduler-file or --workers, too")
    return Place(workers, scheduler, scheduler_file, needed, patience) if given else None


def in_words(resources: Mapping[str, float]) -> str:
    """Resources as a worker is told of them: "GPU=1 MEMORY=32"."""
    return " ".join(f"{name}={number:g}" for name, number in sorted(resources.items())) or "nothing"
