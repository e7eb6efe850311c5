"""Batches made ahead by threads; on a GPU beside the network, in streams of their own."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import Future
from itertools import islice
from typing import Any

import torch

from geo_refdiff.raster.gdal import gdal_threads
from geo_refdiff.train.samples import Batch, SampleMaker

Job = tuple[int, Sequence[int]]
"""A step, and the numbers of its samples that make one batch."""

_AHEAD = 3


class Lane:
    """Where batches are made: on a GPU in a stream for each thread, so that the network's work does not hold them up.

    Args:
        device: where the batches are.
        cuda: torch.cuda, or what behaves like it.
    """

    def __init__(self, device: str, cuda: Any = torch.cuda) -> None:
        self.device, self.cuda = device, cuda
        self.beside = device.startswith("cuda")
        self._own = threading.local()

    def make(self, maker: SampleMaker, job: Job) -> tuple[Batch, Any]:
        """A batch, and the event after which it is there (None: it is there)."""
        if not self.beside:
            return maker.batch(*job), None
        if not hasattr(self._own, "stream"):
            self._own.stream = self.cuda.Stream(self.device)
        with self.cuda.stream(self._own.stream):
            batch = maker.batch(*job)
            return batch, self._own.stream.record_event()

    def take(self, made: tuple[Batch, Any]) -> Batch:
        """The batch, for work in the current stream."""
        batch, ready = made
        if ready is not None:
            stream = self.cuda.current_stream(self.device)
            stream.wait_event(ready)
            for tensor in batch.tensors():
                tensor.record_stream(stream)  # else its memory might be given to the next batch too soon
        return batch


def feed(
    maker: SampleMaker, jobs: Iterable[Job], workers: int, lane: Lane
) -> Generator[tuple[Batch, float], None, None]:
    """The batches of the jobs in order, each with the seconds that it was waited for.

    Args:
        maker: of the batches.
        jobs: which ones.
        workers: threads.
        lane: where they are made.
    """
    todo = iter(jobs)
    with gdal_threads(workers, "samples") as pool:
        coming: deque[Future[tuple[Batch, Any]]] = deque()
        try:
            while True:
                missing = _AHEAD * workers - len(coming)
                coming.extend(pool.submit(lane.make, maker, job) for job in islice(todo, missing))
                if not coming:
                    return
                begun = time.perf_counter()
                batch = lane.take(coming.popleft().result())
                yield batch, time.perf_counter() - begun
        finally:
            for future in coming:
                future.cancel()
