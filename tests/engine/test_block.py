"""Batches: padded to a fixed shape off the CPU, halved where memory does not suffice."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from rasterio._env import get_gdal_config

from geo_refdiff.engine.block import BlockComputer
from geo_refdiff.engine.conditions import ConditionReader
from geo_refdiff.errors import OptionError
from geo_refdiff.options import UpscaleOptions
from geo_refdiff.plan.planning import Planned, make_plan
from geo_refdiff.restore.restorers import BicubicBackProjected, Conditions


class Small(BicubicBackProjected):
    """Has memory for `room` windows."""

    room = 2
    shapes: ClassVar[set[int]] = set()

    def restore(self, batch: Conditions) -> torch.Tensor:
        if len(batch.windows) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.shapes.add(len(batch.windows))
        return super().restore(batch)


@pytest.fixture
def small(make_pair: Any) -> Planned:
    options = UpscaleOptions.of(model=Small, scale=4, window=128, block_size=128, products=())
    return make_plan(make_pair(30, 30)[0], None, options)


@pytest.mark.parametrize("room", [1, 2])
def test_the_batch_is_halved_until_it_fits(small: Planned, room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with BlockComputer(small.plan, small.restorer, 1) as computer:
        expected = computer.compute(0).pixels
    monkeypatch.setattr(Small, "room", room)
    monkeypatch.setattr(Small, "shapes", set())
    with BlockComputer(replace(small.plan, device="cuda"), small.restorer, 8) as computer:
        found = computer.compute(0).pixels
        assert computer.batch_size == room
    assert Small.shapes == {room}
    np.testing.assert_array_equal(found, expected)


def test_one_window_too_many_is_told(small: Planned, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Small, "room", 0)
    with (
        BlockComputer(replace(small.plan, device="cuda"), small.restorer, 4) as computer,
        pytest.raises(OptionError, match="smaller --window"),
    ):
        computer.compute(0)


def test_windows_of_the_next_block_are_not_computed_twice(make_pair: Any) -> None:
    scene = make_pair(40, 40)[0]
    planned = make_plan(
        scene, None, UpscaleOptions.of(model=BicubicBackProjected, scale=4, window=160, block_size=80, products=())
    )
    plan = planned.plan
    assert plan.windows is not None
    with BlockComputer(plan, planned.restorer) as computer:
        computer.compute(0, 1)
        first = computer.windows_restored
        computer.compute(1)
        second = computer.windows_restored - first
        shared = set(computer.windows_of(0)) & set(computer.windows_of(1))
        assert shared
        assert second == len(computer.windows_of(1)) - len(shared)


def test_readers_of_any_thread_have_the_settings_of_gdal(small: Planned, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("GDAL_HTTP_TIMEOUT", "GDAL_HTTP_MAX_RETRY", "GDAL_HTTP_RETRY_DELAY", "GDAL_MAX_DATASET_POOL_SIZE")
    seen: dict[str, tuple[Any, ...]] = {}
    read = ConditionReader.read

    def watched(self: ConditionReader, *args: Any) -> Conditions:
        seen[threading.current_thread().name] = tuple(get_gdal_config(name) for name in names)
        return read(self, *args)

    monkeypatch.setattr(ConditionReader, "read", watched)

    def compute() -> None:
        with BlockComputer(replace(small.plan, device="cuda"), small.restorer, 1) as computer:
            computer.compute(0)

    thread = threading.Thread(target=compute, name="of somebody else")
    thread.start()
    thread.join()
    assert seen == {"conditions_0": (60, 3, "0.25", 8)}
