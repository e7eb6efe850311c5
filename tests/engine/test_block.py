"""Batches are halved where memory does not suffice; windows cost what they cover, and are not computed twice."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import torch
from rasterio._env import get_gdal_config

from geo_refdiff.engine.batches import in_batches
from geo_refdiff.engine.block import BlockComputer
from geo_refdiff.engine.conditions import ConditionReader, Inputs
from geo_refdiff.errors import OptionError
from geo_refdiff.options import UpscaleOptions
from geo_refdiff.plan.planning import make_plan
from geo_refdiff.raster.window import Window
from geo_refdiff.restore.restorers import BicubicBackProjected


class Small:
    """A device with memory for `room` windows."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.shapes: set[int] = set()

    def __call__(self, inputs: Inputs) -> torch.Tensor:
        if len(inputs.windows) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.shapes.add(len(inputs.windows))
        return inputs.lr.float() * 2


def seven() -> Inputs:
    windows = tuple(Window(0, 64 * n, 64, 64) for n in range(7))
    return Inputs(windows, torch.arange(7 * 16).reshape(7, 1, 4, 4), torch.ones(7, 1, 4, 4, dtype=torch.bool))


@pytest.mark.parametrize(("room", "size"), [(1, 1), (2, 2), (3, 2), (8, 8)])
def test_the_batch_is_halved_until_it_fits(room: int, size: int) -> None:
    """Short ones are filled up: the shape stays the same."""
    device = Small(room)
    found, used = in_batches(device, seven(), 8)
    assert used == size
    assert device.shapes == {size}
    assert torch.equal(found, seven().lr.float() * 2)


def test_one_window_too_many_is_reported() -> None:
    with pytest.raises(OptionError, match="smaller --window"):
        in_batches(Small(0), seven(), 4)


class Fixed(BicubicBackProjected):
    """Windows of one size on the lattice, as networks need that look across the whole window."""

    finite = False


def test_windows_of_the_next_block_are_not_computed_twice(make_pair: Any) -> None:
    scene = make_pair(40, 40)[0]
    planned = make_plan(scene, None, UpscaleOptions.of(model=Fixed, scale=4, window=160, block_size=80, products=()))
    with BlockComputer(planned.plan, planned.restorer) as computer:
        computer.compute(0, 1)
        first = computer.windows_restored
        again = computer.compute(1)
        second = computer.windows_restored - first
        shared = set(computer.windows_of(0)) & set(computer.windows_of(1))
        assert shared
        assert second == len(computer.windows_of(1)) - len(shared)
    with BlockComputer(planned.plan, planned.restorer) as computer:
        np.testing.assert_array_equal(computer.compute(1).pixels, again.pixels)


def test_an_area_costs_its_pixels_and_a_halo(make_pair: Any) -> None:
    scene = make_pair(200, 200)[0]
    area = "486000,5206000,487000,5207000"
    planned = make_plan(scene, None, UpscaleOptions.of(model=BicubicBackProjected, scale=4, aoi=area, products=()))
    plan = planned.plan
    with BlockComputer(plan, planned.restorer) as computer:
        (window,) = computer.windows_of(0)
        beyond = 2 * plan.windows.halo + 2 * computer._consistency.margin * 4 + 2 * plan.windows.step
        assert window.height <= plan.shape[0] + beyond
        assert window.width <= plan.shape[1] + beyond
        computer.compute(0)
        assert computer.windows_restored == 1


def test_readers_of_any_thread_have_the_settings_of_gdal(make_pair: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    planned = make_plan(make_pair(30, 30)[0], None, UpscaleOptions.of(model="bicubic-ibp", scale=4, products=()))
    names = ("GDAL_HTTP_TIMEOUT", "GDAL_HTTP_MAX_RETRY", "GDAL_HTTP_RETRY_DELAY", "GDAL_MAX_DATASET_POOL_SIZE")
    seen: dict[str, tuple[Any, ...]] = {}
    read = ConditionReader.read

    def watched(self: ConditionReader, *args: Any) -> Inputs:
        seen[threading.current_thread().name] = tuple(get_gdal_config(name) for name in names)
        return read(self, *args)

    monkeypatch.setattr(ConditionReader, "read", watched)

    def compute() -> None:
        with BlockComputer(planned.plan, planned.restorer, 1) as computer:
            computer.compute(0)

    thread = threading.Thread(target=compute, name="of somebody else")
    thread.start()
    thread.join()
    assert seen == {"conditions_0": (60, 3, "0.25", 16)}
