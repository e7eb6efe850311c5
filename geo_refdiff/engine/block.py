"""One block: a pure function of the plan and the block's index."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from time import perf_counter
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from geo_refdiff.degrade.resize import CONTEXT
from geo_refdiff.engine.aoi import AreaOfInterest
from geo_refdiff.engine.blend import Blender
from geo_refdiff.engine.conditions import ConditionReader
from geo_refdiff.engine.consistency import LrConsistency, Residual
from geo_refdiff.engine.fill import fill_missing
from geo_refdiff.engine.finish import apply_missing, expand, keep_valid, rounded, to_digital_numbers
from geo_refdiff.engine.layout import WindowLayout
from geo_refdiff.engine.plan import Plan
from geo_refdiff.engine.restorers import LR_MARGIN, Conditions, Restorer
from geo_refdiff.engine.sources import INTERPOLATED, NOTHING, TRACES, source_classes
from geo_refdiff.engine.transfer import transfer_detail
from geo_refdiff.errors import GeoRefDiffError, OptionError
from geo_refdiff.grid.window import Window
from geo_refdiff.io.raster import equals_nodata

_PREFETCH = 2
_FILL = 2

_STRIP_PIXELS = 2**18

Index = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Block:
    """A finished block.

    Attributes:
        window: in output pixels.
        pixels: (C, height, width) in the output's dtype.
        valid: (C, height, width), True = valid; None: all are.
        left: between the scene and the pixels as the declared sensor sees them; empty where consistency is off.
        sources: (height, width) uint8, where detail comes from, see `sources`; None where it is not asked for.
    """

    window: Window
    pixels: NDArray[Any]
    valid: NDArray[np.bool_] | None
    left: Residual = field(default_factory=Residual)
    sources: NDArray[np.uint8] | None = None


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
        self._consistency = LrConsistency(
            plan.sensors, plan.sensor.consistency, np.dtype(plan.output.dtype), plan.output.nodata
        )
        self._margin = self._consistency.margin

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
        outer = self._context(cover)
        lr, lr_valid = self.conditions.output_bands(outer)
        inner = (slice(None), *cover.within(outer))
        scene_valid = lr_valid[inner]
        valid = None if scene_valid.all() else expand(scene_valid, cover, region, scale)
        if self._aoi is not None:
            inside = self._aoi.inside(window)
            if not inside.all():
                valid = np.broadcast_to(inside, scene_valid.shape[:1] + inside.shape) & (
                    True if valid is None else valid
                )
        left, sources = Residual(), None
        if valid is not None and not valid.any():
            pixels = np.zeros(valid.shape, dtype=plan.output.dtype)
        elif plan.windows is None and not self._consistency.margin and not plan.bands.other:
            pixels = self._local(region, cover)
        else:
            pixels, left, traces = self._corrected(region, outer, lr, lr_valid, following)
            sources = None if traces is None else source_classes(traces)
        if plan.source_map and sources is None:
            sources = np.full(window.shape, INTERPOLATED, dtype=np.uint8)
        nodata = plan.output.nodata
        if nodata is not None and not np.isnan(nodata):
            dark = equals_nodata(lr[inner], nodata) & scene_valid
            keep_valid(pixels, valid, expand(dark, cover, region, scale) if dark.any() else None, nodata)
        if valid is not None:
            apply_missing(pixels, valid, nodata)
            if sources is not None:
                sources[~valid.any(axis=0)] = NOTHING
        return Block(window, pixels, valid, left, sources)

    def windows_of(self, index: int) -> list[Index]:
        """Windows that block `index` may need: those of its context, too."""
        if self.plan.windows is None:
            return []
        cover = self.plan.on_lattice(self.plan.block(index)).divide(self.plan.grid.scale)
        return self.plan.windows.meeting(self._context(cover).multiply(self.plan.grid.scale))

    def _context(self, cover: Window) -> Window:
        """LR pixels of the scene that the output over `cover` depends on."""
        scene = Window(*self.plan.lr_origin, self.plan.scene.height, self.plan.scene.width)
        return cover.pad(self._margin).intersect(scene) or cover

    def _corrected(
        self, region: Window, outer: Window, lr: NDArray[Any], valid: NDArray[np.bool_], following: int | None
    ) -> tuple[NDArray[Any], Residual, NDArray[np.float32] | None]:
        """Finished values over `region`, what is left between them and the scene, and the traces of their detail."""
        plan, scale, count = self.plan, self.plan.grid.scale, len(self.plan.bands.scene)
        context = outer.multiply(scale)
        if plan.windows is None:
            restored = self._restore(self.conditions.read((context,)))[0]
        else:
            restored = self._windowed(context, plan.windows, np.asarray(valid.any(axis=0)), following)
        image = to_digital_numbers(restored[:count], plan.radiometry)
        traces = restored[count:] if plan.source_map else None
        if plan.bands.other:
            image = np.concatenate([image, self._transferred(image, outer)])
        self._consistency.correct(image, lr, valid)
        pixels = rounded(image, np.dtype(plan.output.dtype))
        nodata = plan.output.nodata
        if self._consistency.margin and nodata is not None and not np.isnan(nodata):
            dark = equals_nodata(lr, nodata) & valid
            keep_valid(pixels, None, expand(dark, outer, context, scale) if dark.any() else None, nodata)
        left = Residual()
        cells = _cells_of(region, scale)
        if self._consistency.margin and cells is not None:
            left = self._consistency.measure(pixels, lr, valid, cells.within(outer))
        at = (slice(None), *region.within(context))
        return np.ascontiguousarray(pixels[at]), left, None if traces is None else traces[at]

    def _transferred(self, image: NDArray[np.float32], outer: Window) -> NDArray[np.float32]:
        """The bands that the model does not know, digital numbers over `outer`."""
        values, valid = self.conditions.output_bands(outer.pad(CONTEXT + _FILL))
        bands = self.plan.bands
        filled = fill_missing(values.astype(np.float32), valid, _FILL, self.plan.radiometry.fill)
        return transfer_detail(image, filled, bands.weights, self.plan.grid.scale)

    def _local(self, region: Window, cover: Window) -> NDArray[Any]:
        """A block by a restorer without windows, in strips that fit into the processor's cache."""
        scale, margin = self.plan.grid.scale, LR_MARGIN
        dtype = np.dtype(self.plan.output.dtype)
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
            image = self._restore(part)[0][: len(pixels), rows, cols]
            finished = rounded(to_digital_numbers(image, self.plan.radiometry), dtype)
            pixels[(slice(None), *inner.within(region))] = finished
        return pixels

    def _windowed(
        self, region: Window, layout: WindowLayout, valid: NDArray[np.bool_], following: int | None
    ) -> NDArray[np.float32]:
        meeting = layout.meeting(region)
        wanted = [i for i in meeting if _wanted(layout.kept(*i), region, valid, self.plan.grid.scale)]
        missing = [i for i in wanted if i not in self._kept]
        fresh = self._fresh(layout, missing)
        keep = set() if following is None else set(self.windows_of(following))
        kept = {i: tile for i, tile in self._kept.items() if i in keep}
        channels = len(self.plan.bands.scene) + (TRACES if self.plan.source_map else 0)
        blender = Blender(region, layout, channels)
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

    def _call(self, conditions: Conditions) -> torch.Tensor:
        return self.restorer.restore_traced(conditions) if self.plan.source_map else self.restorer.restore(conditions)

    def _in_batches(self, conditions: Conditions) -> torch.Tensor:
        """Restores, in smaller batches where the device's memory does not suffice."""
        if self.plan.device == "cpu":
            return self._call(conditions)
        count = len(conditions.windows)
        while True:
            try:
                parts = []
                for start in range(0, count, self.batch_size):
                    part, size = _padded(conditions, start, self.batch_size)
                    parts.append(self._call(part)[:size])
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


def _wanted(kept: Window, region: Window, valid: NDArray[np.bool_], scale: int) -> bool:
    """Whether a window has a valid pixel of the scene in the region; `valid` is on the region's LR pixels."""
    common = kept.intersect(region)
    if common is None:
        raise GeoRefDiffError(f"window {kept} does not meet block {region}")
    return bool(valid[common.divide(scale).within(region.divide(scale))].any())


def _cells_of(region: Window, scale: int) -> Window | None:
    """LR pixels whose first HR pixel lies in the region: every one belongs to one block."""
    row, col = -(-region.row // scale), -(-region.col // scale)
    height, width = -(-region.stop_row // scale) - row, -(-region.stop_col // scale) - col
    return Window(row, col, height, width) if height > 0 and width > 0 else None


def _padded(batch: Conditions, start: int, size: int) -> tuple[Conditions, int]:
    """`size` windows from `start`; a short batch is filled up with its last window: the shape stays the same."""
    chosen = list(range(start, min(start + size, len(batch.windows))))
    if start == 0 and len(chosen) == size == len(batch.windows):
        return batch, size
    return batch.take(chosen + chosen[-1:] * (size - len(chosen))), len(chosen)
