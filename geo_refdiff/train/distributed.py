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

_TIMEOUT = timedelta(hours=2)
"""How long a process waits for the others: while one validates or saves, they do."""


@dataclass(frozen=True, slots=True)
class DistributedContext:
    """One process of a training run.

    Attributes:
        rank: number of the process; world_size: how many processes there are.
        device: where it computes.
    """

    rank: int
    world_size: int
    device: str

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files and prints."""
        return self.rank == 0

    def shares(self, batch: int, accumulate: int) -> list[range]:
        """The parts of a global batch that this process takes, one after the other, as numbers of samples.

        The batch is cut into world_size x accumulate shares, whichever process takes them.

        Raises:
            OptionError: the batch cannot be cut into so many alike.
        """
        count = self.world_size * accumulate
        if batch % count:
            raise OptionError(
                f"training.batch {batch} cannot be shared by {self.world_size} process(es) x training.accumulate "
                f"{accumulate} alike: give a multiple of {count}"
            )
        return [range(k, batch, count) for k in range(self.rank, count, self.world_size)]

    def all_reduce_mean(self, values: Tensor) -> Tensor:
        """The mean over all processes, the same in each."""
        if self.world_size == 1:
            return values
        total = values.clone()
        dist.all_reduce(total)
        return total / self.world_size

    def all_gather(self, item: Any) -> list[Any]:
        """The items of all processes, by rank."""
        items = [item] * self.world_size
        if self.world_size > 1:
            dist.all_gather_object(items, item)
        return items

    def barrier(self) -> None:
        """Return once every process has called it."""
        if self.world_size > 1:
            dist.barrier()


@contextmanager
def distributed_context(device: str) -> Iterator[DistributedContext]:
    """This process among those of torchrun; a single one where torchrun did not start it.

    Args:
        device: "auto", "cpu" or "cuda".

    Raises:
        OptionError: a device that is not there.
    """
    chosen = chosen_device(device)
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size == 1:
        yield DistributedContext(0, 1, chosen)
        return
    if chosen == "cuda":
        local_rank, gpus = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        if local_rank >= gpus:
            raise OptionError(
                f"process {local_rank} has no GPU of its own: start {gpus} processes on this machine, not more"
            )
        torch.cuda.set_device(local_rank)
        chosen = f"cuda:{local_rank}"
    dist.init_process_group("nccl" if chosen.startswith("cuda") else "gloo", timeout=_TIMEOUT)
    try:
        yield DistributedContext(dist.get_rank(), world_size, chosen)
    finally:
        dist.destroy_process_group()
