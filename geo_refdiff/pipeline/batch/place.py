"""Where the work is done: in this process, in workers of this machine, or on a cluster that is there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from geo_refdiff.errors import OptionError


@dataclass(frozen=True)
class Place:
    """Where workers are.

    Attributes:
        workers: processes of this machine to start.
        scheduler: address of a cluster that is there.
        scheduler_file: with its address.
        resources: that a worker needs for a task.
    """

    workers: int | None = None
    scheduler: str | None = None
    scheduler_file: str | None = None
    resources: Mapping[str, float] = field(default_factory=dict)


def place_of(
    workers: int | None, scheduler: str | None, scheduler_file: str | None, resources: Iterable[str]
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
    needed = {}
    for text in resources:
        name, _, number = text.partition("=")
        try:
            needed[name.strip()] = float(number or 1)
        except ValueError:
            raise OptionError(f"resource '{text}': give NAME=NUMBER, for example GPU=1") from None
    if not given and needed:
        raise OptionError("--resource needs workers: give --scheduler, --scheduler-file or --workers, too")
    return Place(workers, scheduler, scheduler_file, needed) if given else None
