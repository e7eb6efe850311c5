"""One block: a pure function of the plan and the block's index."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from time import perf_counter
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from geo_refdiff.engine.batches import in_batches
from geo_refdiff.engine.blend import Blender
from geo_refdiff.engine.conditions import ConditionReader
from geo_refdiff.engine.consistency import LrConsistency, Residual
from geo_refdiff.engine.finish import expand, rounded, to_digital_numbers
from geo_refdiff.engine.uncertainty import Told, margin, region_half_widths
from geo_refdiff.errors import GeoRefDiffError
from geo_refdiff.plan.layout import WindowLayout
from geo_refdiff.plan.records import Plan
from geo_refdiff.plan.transfer import transfer_detail
from geo_refdiff.raster.fill import fill_missing
from geo_refdiff.raster.gdal import gdal_threads
from geo_refdiff.raster.nodata import avoid_nodata_collision, dark_pixels, write_nodata
from geo_refdiff.raster.vector import AreaOfInterest
from geo_refdiff.raster.window import Window
from geo_refdiff.restore.restorers import LR_MARGIN, Conditions, Restorer
from geo_refdiff.restore.sources import INTERPOLATED, NOTHING, TRACES, source_classes
from geo_refdiff.sensor.resize import CONTEXT

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
        widths: (bands of the model, height, width) half-widths of intervals, see `uncertainty`, digital numbers, NaN
            where missing; None where they are not asked for, or nothing is valid.
    """

    window: Window
    pixels: NDArray[Any]
    valid: NDArray[np.bool_] | None
    left: Residual = field(default_factory=Residual)
    sources: NDArray[np.uint8] | None = None
    widths: NDArray[np.float32] | None = None


class BlockComputer:
    """Computes blocks of a plan, one after the other, in any order.

    The windows that the next block shares with this one are kept in between, which saves time and changes nothing.

    Args:
        plan: the run.
        restorer: made for it.
        batch_size: windows restored together; halved where the memory of the device does not suffice.
        on_window: called after each batch with (windows done, windows of this block).
        tell: called with the predictors of uncertainty of each block, over it and some pixels around it.
    """

    def __init__(
        self,
        plan: Plan,
        restorer: Restorer,
        batch_size: int = 1,
        on_window: Callable[[int, int], None] | None = None,
        tell: Told | None = None,
    ) -> None:
        self.plan, self.restorer, self.batch_size = plan, restorer, batch_size
        self.on_window, self.tell = on_window, tell
        self.restore_seconds = 0.0
        self.windows_restored = 0
        self.conditions = ConditionReader(plan, restorer)
        self._pool = gdal_threads(1, "conditions")
        self._kept: dict[int, dict[Index, NDArray[np.float32]]] = {}
        self._traced = plan.source_map or plan.uncertainty is not None
        part = plan.grid.crop.multiply(plan.grid.scale)
        self._aoi = AreaOfInterest(plan.grid.aoi, plan.target, part) if plan.grid.aoi else None
        self._consistency = LrConsistency(
            plan.sensors, plan.sensor.consistency, np.dtype(plan.output.dtype), plan.output.nodata
        )
        self._margin = self._consistency.margin + (margin(plan.grid.scale) if plan.uncertainty else 0)

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
        left, sources, widths = Residual(), None, None
        if valid is not None and not valid.any():
            pixels = np.zeros(valid.shape, dtype=plan.output.dtype)
        elif plan.windows is None and not self._margin and not plan.bands.other:
            pixels = self._local(region, cover)
        else:
            pixels, left, traces, widths = self._corrected(region, outer, lr, lr_valid, following)
            sources = source_classes(traces) if plan.source_map and traces is not None else None
        if plan.source_map and sources is None:
            sources = np.full(window.shape, INTERPOLATED, dtype=np.uint8)
        nodata = plan.output.nodata
        if nodata is not None and not np.isnan(nodata):
            dark = dark_pixels(lr[inner], scene_valid, nodata)
            avoid_nodata_collision(pixels, valid, expand(dark, cover, region, scale) if dark.any() else None, nodata)
        if valid is not None:
            write_nodata(pixels, valid, nodata)
            if sources is not None:
                sources[~valid.any(axis=0)] = NOTHING
            if widths is not None:
                widths[~valid[: len(widths)]] = np.nan
        order = list(plan.bands.order)
        if order != sorted(order):
            pixels, valid = pixels[order], None if valid is None else valid[order]
        return Block(window, pixels, valid, left, sources, widths)

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
    ) -> tuple[NDArray[Any], Residual, NDArray[np.float32] | None, NDArray[np.float32] | None]:
        """Finished values over `region`, what is left between them and the scene, traces of detail, half-widths."""
        scale = self.plan.grid.scale
        context = outer.multiply(scale)
        image, traces = self._image(outer, lr, valid, following)
        widths = None if traces is None else self._half_widths(region, outer, image, traces, lr, valid, following)
        pixels = self._consistency.finish(image, lr, valid)
        left = Residual()
        cells = _cells_of(region, scale)
        if self._consistency.margin and cells is not None:
            left = self._consistency.measure(pixels, lr, valid, cells.within(outer))
        at = (slice(None), *region.within(context))
        return np.ascontiguousarray(pixels[at]), left, None if traces is None else traces[at], widths

    def _image(
        self, outer: Window, lr: NDArray[Any], valid: NDArray[np.bool_], following: int | None, member: int = 0
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """One run over `outer`: digital numbers, not rounded, and the traces of their detail."""
        plan, count = self.plan, len(self.plan.bands.scene)
        context = outer.multiply(plan.grid.scale)
        if plan.windows is None:
            restored = self._restore(self.conditions.read((context,), member))[0]
        else:
            restored = self._windowed(context, plan.windows, np.asarray(valid.any(axis=0)), following, member)
        image = to_digital_numbers(restored[:count], plan.radiometry)
        traces = restored[count:] if self._traced else None
        if plan.bands.other:
            image = np.concatenate([image, self._transferred(image, outer)])
        self._consistency.correct(image, lr, valid)
        return image, traces

    def _half_widths(
        self,
        region: Window,
        outer: Window,
        image: NDArray[np.float32],
        traces: NDArray[np.float32],
        lr: NDArray[Any],
        valid: NDArray[np.bool_],
        following: int | None,
    ) -> NDArray[np.float32] | None:
        """Of the model's bands over `region`, from this run and others with other noise."""
        plan, record, scale = self.plan, self.plan.uncertainty, self.plan.grid.scale
        near = region.divide(scale).pad(margin(scale)).intersect(outer)
        if record is None or near is None:
            return None
        count, cells = len(plan.bands.scene), near.within(outer)
        at = near.multiply(scale).within(outer.multiply(scale))

        def runs() -> Iterator[NDArray[np.float32]]:
            yield image[(slice(count), *at)]
            for member in range(1, record.runs):
                yield self._image(outer, lr, valid, following, member)[0][(slice(count), *at)]

        coarse = (slice(count), *cells)
        widths = region_half_widths(
            runs(), traces[(slice(None), *at)], lr[coarse], valid[coarse], record,
            plan.radiometry.half_range, scale, self.tell,
        )  # fmt: skip
        return np.ascontiguousarray(widths[(slice(None), *region.within(near.multiply(scale)))])

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
        self,
        region: Window,
        layout: WindowLayout,
        valid: NDArray[np.bool_],
        following: int | None,
        member: int,
    ) -> NDArray[np.float32]:
        meeting, found = layout.meeting(region), self._kept.get(member, {})
        wanted = [i for i in meeting if _wanted(layout.kept(*i), region, valid, self.plan.grid.scale)]
        missing = [i for i in wanted if i not in found]
        fresh = self._fresh(layout, missing, member)
        keep = set() if following is None else set(self.windows_of(following))
        kept = {i: tile for i, tile in found.items() if i in keep}
        channels = len(self.plan.bands.scene) + (TRACES if self._traced else 0)
        blender = Blender(region, layout, channels)
        for index in meeting:
            tile: NDArray[np.float32] | None = None
            if index in found:
                tile = found[index]
            elif index in wanted:
                done, tile = next(fresh)
                assert done == index
            if tile is not None and index in keep:
                kept[index] = tile
            blender.feed(*index, tile)
        self._kept[member] = kept
        return blender.result()

    def _fresh(
        self, layout: WindowLayout, indices: list[Index], member: int
    ) -> Iterator[tuple[Index, NDArray[np.float32]]]:
        """Restores windows in order, while the next ones are being read."""
        size = self.batch_size
        batches = [indices[i : i + size] for i in range(0, len(indices), size)]
        queue: deque[tuple[list[Index], Future[Conditions]]] = deque()
        done = 0
        try:
            for ahead in range(len(batches) + _PREFETCH):
                if ahead < len(batches):
                    windows = tuple(layout.seen(*i) for i in batches[ahead])
                    queue.append((batches[ahead], self._pool.submit(self.conditions.read, windows, member)))
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
            if self.plan.device == "cpu":
                image = self._call(conditions)
            else:
                image, self.batch_size = in_batches(self._call, conditions, self.batch_size)
        self.restore_seconds += perf_counter() - started
        self.windows_restored += len(conditions.windows)
        return image.numpy()

    def _call(self, conditions: Conditions) -> torch.Tensor:
        return self.restorer.restore_traced(conditions) if self._traced else self.restorer.restore(conditions)


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
