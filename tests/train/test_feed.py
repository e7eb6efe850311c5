"""Batches come in order, made ahead by threads; on a (fake) GPU in streams of their own, from pinned memory."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch

from geo_refdiff.train.config import SamplesConfig
from geo_refdiff.train.pixels import to_device
from geo_refdiff.train.samples import DeviceStream, SampleMaker, Source, prefetch


class Maker:
    """Notes what it is asked for; a batch is the step's number."""

    def __init__(self, fails_at: int = -1) -> None:
        self.fails_at, self.asked, self.threads = fails_at, list[int](), set[int]()

    def batch(self, step: int, numbers: Any) -> Any:
        self.asked.append(step)
        self.threads.add(threading.get_ident())
        time.sleep(0.002 * (step % 3))
        if step == self.fails_at:
            raise RuntimeError(f"step {step}")
        return step


def test_batches_come_in_order_and_no_more_than_a_few_ahead() -> None:
    maker: Any = Maker()
    taken = []
    for batch, waited in prefetch(maker, ((step, range(2)) for step in range(20)), 2, DeviceStream("cpu")):
        assert len(maker.asked) <= len(taken) + 6
        assert waited >= 0
        taken.append(batch)
    assert taken == list(range(20))
    assert threading.get_ident() not in maker.threads


def test_what_fails_in_a_thread_is_raised_where_the_batch_is_due() -> None:
    maker: Any = Maker(fails_at=4)
    coming = prefetch(maker, ((step, range(2)) for step in range(20)), 2, DeviceStream("cpu"))
    assert [next(coming)[0] for _ in range(4)] == [0, 1, 2, 3]
    with pytest.raises(RuntimeError, match="step 4"):
        next(coming)


def test_a_reader_that_leaves_early_leaves_no_thread_behind() -> None:
    before = threading.active_count()
    maker: Any = Maker()
    coming = prefetch(maker, ((step, range(2)) for step in range(1000)), 3, DeviceStream("cpu"))
    next(coming)
    coming.close()
    assert threading.active_count() == before


class FakeStream:
    """What `DeviceStream` asks of a CUDA stream."""

    def __init__(self, log: list[Any], name: str) -> None:
        self.log, self.name = log, name

    def record_event(self) -> str:
        self.log.append(("event", self.name))
        return f"event of {self.name}"

    def wait_event(self, event: str) -> None:
        self.log.append(("waits", self.name, event))


class FakeCuda:
    """What `DeviceStream` asks of torch.cuda."""

    def __init__(self) -> None:
        self.log: list[Any] = []
        self.main = FakeStream(self.log, "main")
        self.made = 0

    def Stream(self, device: str) -> FakeStream:  # noqa: N802
        self.made += 1
        return FakeStream(self.log, f"side {self.made} on {device}")

    @contextmanager
    def stream(self, stream: FakeStream) -> Any:
        self.log.append(("enter", stream.name))
        yield
        self.log.append(("leave", stream.name))

    def current_stream(self, device: str) -> FakeStream:
        return self.main


def test_on_a_gpu_batches_are_made_beside_the_network(textures: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded: list[Any] = []
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: recorded.append((id(tensor), stream)))
    cuda = FakeCuda()
    maker = SampleMaker([Source(textures((1,)), 1.0)], SamplesConfig(crop=32, scales={"4": 1.0}), 4, 1)
    stream = DeviceStream("cuda:1", cuda)
    batches = [batch for batch, _ in prefetch(maker, [(1, range(2)), (2, range(2))], 1, stream)]
    side = "side 1 on cuda:1"
    assert cuda.made == 1  # one stream a thread, not one a batch
    work = [entry for entry in cuda.log if entry[0] != "waits"]
    assert work == [("enter", side), ("event", side), ("leave", side)] * 2
    assert [entry for entry in cuda.log if entry[0] == "waits"] == [("waits", "main", f"event of {side}")] * 2
    assert recorded == [(id(tensor), cuda.main) for batch in batches for tensor in batch.tensors()]


def test_arrays_go_to_a_gpu_from_pinned_memory_without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: calls.append("pinned") or tensor)
    monkeypatch.setattr(torch.Tensor, "to", lambda tensor, device, **how: calls.append((device, how)) or tensor)
    to_device(np.zeros((2, 3), np.uint8)[:, ::-1], torch.device("cuda:1"))
    assert calls == ["pinned", (torch.device("cuda:1"), {"non_blocking": True})]
    calls.clear()
    to_device(np.zeros(3, np.uint8), torch.device("cpu"))
    assert calls == [(torch.device("cpu"), {})]
