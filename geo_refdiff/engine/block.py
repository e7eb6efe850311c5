"""One block: a pure function of the plan and the block's index."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from geo_refdiff.engine.aoi import AreaOfInterest
from geo_refdiff.engine.blend import Blender
from geo_refdiff.engine.conditions import ConditionReader
from geo_refdiff.engine.finish import apply_missing, expand, keep_valid, to_digital_numbers
from geo_refdiff.engine.layout import WindowLayout
from geo_refdiff.engine.plan import Plan
from geo_refdiff.engine.restorers import LR_MARGIN, Conditions, Restorer
from geo_refdiff.errors import GeoRefDiffError, OptionError
from geo_refdiff.grid.window import Window
from geo_refdiff.io.raster import equals_nodata

_PREFETCH = 2

_STRIP_PIXELS = 2**18

Index = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Block:
    """A finished block.

    Attributes:
        window: in output pixels.
        pixels: (C, height, width) in the output's dtype.
        valid: (C, height, width), True = valid; None: all are.
    """

    window: Window
    pixels: NDArray[Any]
    valid: NDArray[np.bool_] | None


class BlockComputer:
    """Computes blocks of a plan, one after the other, in any order.

    The windows that the next block shares with this one are kept in between, which saves time and changes nothing.

    Args:
        plan: the run.
        restorer: made for it.
        batch_size: windows restored together; halved where the memory of the device does not suffice.
        on_window: called after each batch with (windows done, windows of this block).
    """

    def __init__(
        self,
        plan: Plan,
        restorer: Restorer,
        batch_size: int = 1,
        on_window: Callable[[int, int], None] | None = None,
    ) -> None:
        self.plan, self.restorer, self.batch_size = plan, restorer, batch_size
        self.on_window = on_window
        self.restore_seconds = 0.0
        self.windows_restored = 0
        self.conditions = ConditionReader(plan, restorer)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="conditions")
        self._kept: dict[Index, NDArray[np.float32]] = {}
        self._aoi = AreaOfInterest(plan) if plan.grid.aoi else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        self.conditions.__exit__(kind, error, trace)

    def compute(self, index: int, following: int | None = None) -> Block:
        """Block `index`.

        Args:
            index: row by row.
            following: the block that will be asked for next, whose windows are kept.

        Raises:
            InputError: an input cannot be read.
        """
        plan, scale = self.plan, self.plan.grid.scale
        window = plan.block(index)
        region = plan.on_lattice(window)
        cover = region.divide(scale)
        scene, scene_valid = self.conditions.footprint(cover)
        valid = None if scene_valid.all() else expand(scene_valid, cover, region, scale)
        if self._aoi is not None:
            inside = self._aoi.inside(window)
            if not inside.all():
                valid = np.broadcast_to(inside, scene_valid.shape[:1] + inside.shape) & (
                    True if valid is None else valid
                )
        dtype = np.dtype(plan.output.dtype)
        if valid is not None and not valid.any():
            pixels = np.zeros(valid.shape, dtype=dtype)
        elif plan.windows is None:
            pixels = self._local(region, cover, dtype)
        else:
            image = self._windowed(region, plan.windows, valid, following)
            pixels = to_digital_numbers(image, plan.radiometry, dtype)
        nodata = plan.output.nodata
        if nodata is not None and not np.isnan(nodata):
            dark = equals_nodata(scene, nodata) & scene_valid
            keep_valid(pixels, valid, expand(dark, cover, region, scale) if dark.any() else None, nodata)
        if valid is not None:
            apply_missing(pixels, valid, nodata)
        return Block(window, pixels, valid)

    def _local(self, region: Window, cover: Window, dtype: np.dtype[Any]) -> NDArray[Any]:
        """A block by a restorer without windows, in strips that fit into the processor's cache."""
        scale, margin = self.plan.grid.scale, LR_MARGIN
        lr = self.conditions.read((cover.multiply(scale),)).lr
        pixels = np.empty((lr.shape[1], *region.shape), dtype=dtype)
        height = max(1, _STRIP_PIXELS // (cover.width * scale * scale))
        for top in range(0, cover.height, height):
            strip = Window(cover.row + top, cover.col, min(height, cover.height - top), cover.width)
            outer = strip.multiply(scale)
            part = Conditions((outer,), lr[..., top : top + strip.height + 2 * margin, :])
            inner = outer.intersect(region)
            if inner is None:
                raise GeoRefDiffError(f"strip {outer} does not meet block {region}")
            rows, cols = inner.within(outer)
            image = self._restore(part)[0][:, rows, cols]
            pixels[(slice(None), *inner.within(region))] = to_digital_numbers(image, self.plan.radiometry, dtype)
        return pixels

    def _windowed(
        self, region: Window, layout: WindowLayout, valid: NDArray[np.bool_] | None, following: int | None
    ) -> NDArray[np.float32]:
        meeting = layout.meeting(region)
        wanted = [i for i in meeting if _wanted(layout.kept(*i), region, valid)]
        missing = [i for i in wanted if i not in self._kept]
        fresh = self._fresh(layout, missing)
        keep = set() if following is None else set(layout.meeting(self.plan.on_lattice(self.plan.block(following))))
        kept = {i: tile for i, tile in self._kept.items() if i in keep}
        blender = Blender(region, layout, len(self.plan.bands.scene))
        for index in meeting:
            tile: NDArray[np.float32] | None = None
            if index in self._kept:
                tile = self._kept[index]
            elif index in wanted:
                done, tile = next(fresh)
                assert done == index
            if tile is not None and index in keep:
                kept[index] = tile
            blender.feed(*index, tile)
        self._kept = kept
        return blender.result()

    def _fresh(self, layout: WindowLayout, indices: list[Index]) -> Iterator[tuple[Index, NDArray[np.float32]]]:
        """Restores windows in order, while the next ones are being read."""
        size = self.batch_size
        batches = [indices[i : i + size] for i in range(0, len(indices), size)]
        queue: deque[tuple[list[Index], Future[Conditions]]] = deque()
        done = 0
        try:
            for ahead in range(len(batches) + _PREFETCH):
                if ahead < len(batches):
                    windows = tuple(layout.seen(*i) for i in batches[ahead])
                    queue.append((batches[ahead], self._pool.submit(self.conditions.read, windows)))
                if ahead >= _PREFETCH and queue:
                    batch, future = queue.popleft()
                    images = self._restore(future.result())
                    done += len(batch)
                    if self.on_window:
                        self.on_window(done, len(indices))
                    halo = layout.halo
                    inner = (slice(None), slice(halo, layout.size - halo), slice(halo, layout.size - halo))
                    for index, image in zip(batch, images, strict=True):
                        yield index, np.ascontiguousarray(image[inner])
        finally:
            for _, future in queue:
                future.cancel()

    def _restore(self, conditions: Conditions) -> NDArray[np.float32]:
        started = perf_counter()
        with torch.inference_mode():
            image = self._in_batches(conditions)
        self.restore_seconds += perf_counter() - started
        self.windows_restored += len(conditions.windows)
        return image.numpy()

    def _in_batches(self, conditions: Conditions) -> torch.Tensor:
        """Restores, in smaller batches where the device's memory does not suffice."""
        if self.plan.device == "cpu":
            return self.restorer.restore(conditions)
        count = len(conditions.windows)
        while True:
            try:
                parts = []
                for start in range(0, count, self.batch_size):
                    part, size = _padded(conditions, start, self.batch_size)
                    parts.append(self.restorer.restore(part)[:size])
                return parts[0] if len(parts) == 1 else torch.cat(parts)
            except torch.OutOfMemoryError as error:
                if self.batch_size == 1:
                    layout = self.plan.windows
                    side = layout.size if layout else self.plan.blocks.size
                    raise OptionError(
                        f"the device has not enough memory for one window of {side} pixels; give a smaller --window"
                    ) from error
            self.batch_size = max(1, self.batch_size // 2)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()


def _wanted(kept: Window, region: Window, valid: NDArray[np.bool_] | None) -> bool:
    if valid is None:
        return True
    common = kept.intersect(region)
    if common is None:
        raise GeoRefDiffError(f"window {kept} does not meet block {region}")
    rows, cols = common.within(region)
    return bool(valid[:, rows, cols].any())


def _padded(batch: Conditions, start: int, size: int) -> tuple[Conditions, int]:
    """`size` windows from `start`; a short batch is filled up with its last window: the shape stays the same."""
    chosen = list(range(start, min(start + size, len(batch.windows))))
    if start == 0 and len(chosen) == size == len(batch.windows):
        return batch, size
    return batch.take(chosen + chosen[-1:] * (size - len(chosen))), len(chosen)
