"""Several processes of one training run, as torchrun starts them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from geo_refdiff.errors import OptionError
from geo_refdiff.nn.device import chosen_device

_PATIENCE = timedelta(hours=2)
"""How long a process waits for the others: while one validates or saves, they do."""


@dataclass(frozen=True, slots=True)
class Team:
    """One process of the run.

    Attributes:
        rank, world: its number and how many there are.
        device: where it computes.
    """

    rank: int
    world: int
    device: str

    @property
    def leads(self) -> bool:
        """Whether this process writes and tells."""
        return self.rank == 0

    def shares(self, batch: int, accumulate: int) -> list[range]:
        """The parts of a global batch that this process takes, one after the other, as numbers of samples.

        The batch is cut into world x accumulate shares, whoever takes them.

        Raises:
            OptionError: the batch cannot be cut into so many alike.
        """
        count = self.world * accumulate
        if batch % count:
            raise OptionError(
                f"training.batch {batch} cannot be shared by {self.world} process(es) x training.accumulate "
                f"{accumulate} alike: give a multiple of {count}"
            )
        return [range(k, batch, count) for k in range(self.rank, count, self.world)]

    def mean(self, values: Tensor) -> Tensor:
        """The mean over all processes, the same in each."""
        if self.world == 1:
            return values
        total = values.clone()
        dist.all_reduce(total)
        return total / self.world

    def gather(self, item: Any) -> list[Any]:
        """What each process gives, in the order of their numbers."""
        found = [item] * self.world
        if self.world > 1:
            dist.all_gather_object(found, item)
        return found

    def wait(self) -> None:
        """Go on when all have come here."""
        if self.world > 1:
            dist.barrier()


@contextmanager
def team(device: str) -> Iterator[Team]:
    """The process's place among those of torchrun; alone where it was not started by that.

    Args:
        device: "auto", "cpu" or "cuda".

    Raises:
        OptionError: a device that is not there.
    """
    chosen = chosen_device(device)
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Team(0, 1, chosen)
        return
    if chosen == "cuda":
        local, there = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        if local >= there:
            raise OptionError(
                f"process {local} has no GPU of its own: start {there} processes on this machine, not more"
            )
        torch.cuda.set_device(local)
        chosen = f"cuda:{local}"
    dist.init_process_group("nccl" if chosen.startswith("cuda") else "gloo", timeout=_PATIENCE)
    try:
        yield Team(dist.get_rank(), world, chosen)
    finally:
        dist.destroy_process_group()
