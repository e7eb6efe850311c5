"""One block: a pure function of the plan and the block's index."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from time import perf_counter
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geo_refdiff.engine.batches import in_batches
from geo_refdiff.engine.blend import Blender
from geo_refdiff.engine.conditions import Clouds, ConditionReader, Inputs
from geo_refdiff.engine.consistency import LrConsistency, Residual
from geo_refdiff.engine.finish import as_array, avoid_nodata_collision, rounded, write_nodata
from geo_refdiff.engine.uncertainty import Spread, half_widths, predictors
from geo_refdiff.plan.layout import WindowSpan, kept, seen
from geo_refdiff.plan.records import PREDICTORS, Plan
from geo_refdiff.plan.transfer import transfer_detail
from geo_refdiff.raster.gdal import gdal_threads
from geo_refdiff.raster.vector import AreaOfInterest
from geo_refdiff.raster.window import Window
from geo_refdiff.restore.restorers import Restorer
from geo_refdiff.restore.sources import CLOUD, NOTHING, TRACES, source_classes
from geo_refdiff.sensor.resize import CONTEXT, repeat_pixels

_READERS = 4
_AHEAD = 1
"""Batches of windows that are read while one is computed."""

Index = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Block:
    """A finished block.

    Attributes:
        window: in output pixels.
        pixels: (C, height, width) in the output's dtype.
        valid: (C, height, width), True = valid; None: all are.
        residual: between the scene and the pixels as the declared sensor sees them; empty where consistency is off.
        sources: (height, width) uint8, where detail comes from, see `sources`; None where it is not asked for.
        widths: (bands of the model, height, width) half-widths of intervals, see `uncertainty`, digital numbers, NaN
            where missing; None where they are not asked for, or nothing is valid.
        energies: (`PREDICTORS`, bands of the model, height, width), where they are asked for.
    """

    window: Window
    pixels: NDArray[Any]
    valid: NDArray[np.bool_] | None
    residual: Residual = field(default_factory=Residual)
    sources: NDArray[np.uint8] | None = None
    widths: NDArray[np.float32] | None = None
    energies: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True)
class _Scene:
    """The scene under a block and its context.

    Attributes:
        outer: scene pixels of the lattice.
        lr: (1, B, h, w) real numbers, on the device.
        valid: the same shape, on the host.
    """

    outer: Window
    lr: Tensor
    valid: Tensor


class BlockComputer:
    """Computes blocks of a plan, one after the other, in any order.

    Inputs of the next block are read while this one is computed, and fixed windows that it shares with this one are
    kept in between, which saves time and changes nothing.

    Args:
        plan: the run.
        restorer: made for it.
        batch_size: windows restored together on a GPU; halved where its memory does not suffice. On the CPU windows are
            restored one by one, so that it changes no bit.
        on_window: called after each batch with (windows done, windows of this block).
        with_energies: whether blocks have the predictors of uncertainty.
    """

    def __init__(
        self,
        plan: Plan,
        restorer: Restorer,
        batch_size: int = 1,
        on_window: Callable[[int, int], None] | None = None,
        *,
        with_energies: bool = False,
    ) -> None:
        self.plan, self.restorer, self.batch_size = plan, restorer, 1 if plan.device == "cpu" else batch_size
        self.on_window, self.with_energies = on_window, with_energies
        self.restore_seconds = 0.0
        self.windows_restored = 0
        self.conditions = ConditionReader(plan, restorer)
        self._pool = gdal_threads(_READERS, "conditions")
        self._ahead: dict[tuple[Window, ...], Future[Inputs]] = {}
        self._kept: dict[Window, Tensor] = {}
        part = plan.grid.crop.multiply(plan.grid.scale)
        self._aoi = AreaOfInterest(plan.grid.aoi, plan.target, part) if plan.grid.aoi else None
        self._dtype = np.dtype(plan.output.dtype)
        self._consistency = LrConsistency(
            plan.sensors, plan.sensor.consistency, self._dtype, plan.output.nodata, plan.sensor.noise_filter
        )
        bands, scene_bands = len(plan.bands.computed), len(plan.bands.scene)
        traced = plan.source_map or plan.uncertainty is not None
        self._channels = (
            bands,
            TRACES if traced else 0,
            scene_bands if plan.uncertainty else 0,
            scene_bands * len(PREDICTORS) if with_energies else 0,
        )

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
            following: the block that will be asked for next, whose first windows are read ahead.

        Raises:
            InputError: an input cannot be read.
        """
        with torch.inference_mode():
            return self._compute(index, following)

    def windows_of(self, index: int) -> list[Window]:
        """What the windows see that block `index` may need, on the lattice."""
        rows, cols = self._spans(self._context(self._cover(index)))
        return [seen(row, col) for row in rows for col in cols]

    def _compute(self, index: int, following: int | None) -> Block:
        plan = self.plan
        window = plan.block(index)
        region, cover = plan.on_lattice(window), self._cover(index)
        scene = self._scene(cover)
        at = region.within(cover.multiply(plan.grid.scale))
        inner = (0, slice(None), *cover.within(scene.outer))
        clouds = self.conditions.kept_clouds(cover)
        shown = scene.valid[inner] if clouds is None else scene.valid[inner] | clouds.valid
        valid = self._valid(shown, window, at)
        if valid is not None and not bool(valid.any()):
            return self._empty(window)
        image, traces, widths, energies = self._blended(scene, following)
        inside = (..., *region.within(scene.outer.multiply(plan.grid.scale)))
        scene_valid = None if bool(scene.valid.all()) else scene.valid.to(plan.device)
        values = self._consistency.finish(image[None], scene.lr, scene_valid)
        residual = Residual()
        cells = _cells_of(region, plan.grid.scale)
        if plan.sensor.consistency != "off" and cells is not None:
            residual = self._consistency.measure(values, scene.lr, scene_valid, cells.within(scene.outer))
        pixels, widths = values[0][inside], widths[inside]
        sources = source_classes(traces[inside]) if plan.source_map else None
        if clouds is not None:
            cloudy = repeat_pixels(clouds.cloudy, plan.grid.scale)[at]
            pixels = torch.where(cloudy, self._shown(clouds)[(slice(None), *at)].to(pixels.dtype), pixels)
            sources = None if sources is None else torch.where(cloudy, CLOUD, sources)
            widths = torch.where(cloudy, torch.nan, widths)
        if valid is not None:
            pixels = write_nodata(pixels, valid, plan.output.nodata, self._dtype)
            if sources is not None:
                sources = torch.where(valid.any(dim=0), sources, NOTHING)
            widths = torch.where(valid[: len(widths)], widths, torch.nan)
        order = list(plan.bands.order)
        return Block(
            window,
            as_array(pixels[order], self._dtype),
            None if valid is None else valid[order].cpu().numpy(),
            residual,
            None if sources is None else sources.cpu().numpy(),
            widths.cpu().numpy() if plan.uncertainty else None,
            torch.unflatten(energies[inside], 0, (len(PREDICTORS), -1)).cpu().numpy() if self.with_energies else None,
        )

    def _shown(self, clouds: Clouds) -> Tensor:
        """Pixels of clouds that are kept, values of the output's type, none of them the nodata value."""
        pixels, nodata = rounded(clouds.pixels, self._dtype), self._consistency.nodata
        return pixels if nodata is None else avoid_nodata_collision(pixels, None, None, nodata, self._dtype)

    def _empty(self, window: Window) -> Block:
        """A block without a valid pixel."""
        pixels = np.zeros((len(self.plan.bands.computed), *window.shape), dtype=self._dtype)
        return Block(window, pixels, np.zeros(pixels.shape, dtype=np.bool_))

    def _cover(self, index: int) -> Window:
        """scene pixels of a block."""
        return self.plan.on_lattice(self.plan.block(index)).divide(self.plan.grid.scale)

    def _context(self, cover: Window) -> Window:
        """scene pixels of the scene that the finished output over `cover` depends on."""
        return cover.pad(self._consistency.margin).intersect(self.plan.scene_on_lattice) or cover

    def _spans(self, outer: Window) -> tuple[list[WindowSpan], list[WindowSpan]]:
        scale = self.plan.grid.scale
        return self.plan.windows.windows(outer.multiply(scale), self.plan.scene_on_lattice.multiply(scale))

    def _scene(self, cover: Window) -> _Scene:
        outer = self._context(cover)
        values, valid = (torch.from_numpy(part)[None] for part in self.conditions.lr(outer))
        return _Scene(outer, self._numbers(values.to(self.plan.device)), valid)

    def _numbers(self, lr: Tensor) -> Tensor:
        """Real numbers that hold every value of the scene's type."""
        return lr.to(torch.float64 if self._dtype.itemsize > 4 or self._dtype.name in _WIDE else torch.float32)

    def _valid(self, lr_valid: Tensor, window: Window, at: tuple[slice, slice]) -> Tensor | None:
        """(C, height, width) on the device, True = valid; None: all are."""
        device = self.plan.device
        valid = None
        if not bool(lr_valid.all()):
            valid = repeat_pixels(lr_valid.to(device), self.plan.grid.scale)[(slice(None), *at)]
        if self._aoi is not None:
            inside = self._aoi.inside(window)
            if not inside.all():
                area = torch.from_numpy(inside).to(device)
                valid = area.expand(len(lr_valid), *area.shape) if valid is None else valid & area
        return valid

    def _blended(self, scene: _Scene, following: int | None) -> tuple[Tensor, ...]:
        """Over a block and its context, (., height, width): image, traces, half-widths and energies; the image in
        digital numbers, corrected, not rounded."""
        region = scene.outer.multiply(self.plan.grid.scale)
        rows, cols = self._spans(scene.outer)
        there = scene.valid[0].any(dim=0)
        wanted = {
            (i, j): seen(row, col)
            for i, row in enumerate(rows)
            for j, col in enumerate(cols)
            if _touches(kept(row, col), region, there, self.plan.grid.scale)
        }
        coming = set() if following is None else set(self.windows_of(following))
        blender = Blender(region, rows, cols, sum(self._channels), self.plan.device)
        tiles = self._tiles(wanted, following)
        later: dict[Window, Tensor] = {}
        for i, row in enumerate(rows):
            for j, col in enumerate(cols):
                if (i, j) not in wanted:
                    blender.feed(i, j, None)
                    continue
                window, tile = next(tiles)
                if window in coming:
                    later[window] = tile
                blender.feed(i, j, tile[(slice(None), *kept(row, col).within(window))])
        self._kept = later
        return torch.split(blender.result(), list(self._channels))

    def _tiles(self, wanted: dict[Index, Window], following: int | None) -> Iterator[tuple[Window, Tensor]]:
        """All that windows give, over what they see, in order."""
        todo = [window for window in wanted.values() if window not in self._kept]
        batches = list(_batches(todo, self.batch_size))
        upcoming = list(batches)
        if following is not None:
            upcoming += list(_batches(self.windows_of(following), self.batch_size))
        fresh: dict[Window, Tensor] = {}
        done = 0
        for window in wanted.values():
            if window in self._kept:
                yield window, self._kept[window]
                continue
            if window not in fresh:
                batch = batches[done]
                for ahead in upcoming[done : done + 1 + _AHEAD]:
                    if ahead not in self._ahead:
                        self._ahead[ahead] = self._pool.submit(self.conditions.read, ahead)
                inputs = self._ahead.pop(batch).result()
                fresh = dict(zip(batch, self._restore(inputs), strict=True))
                done += 1
                if self.on_window:
                    self.on_window(sum(len(b) for b in batches[:done]), len(todo))
            yield window, fresh[window]
        self._ahead = {batch: future for batch, future in self._ahead.items() if batch in upcoming[done:]}

    def _restore(self, inputs: Inputs) -> Tensor:
        started = perf_counter()
        if self.plan.device == "cpu":
            tiles = self._computed(inputs)
        else:
            tiles, self.batch_size = in_batches(self._computed, inputs, self.batch_size)
        self.restore_seconds += perf_counter() - started
        self.windows_restored += len(inputs.windows)
        return tiles

    def _computed(self, inputs: Inputs) -> Tensor:
        """(N, channels, H, W) float32: image, traces, half-widths and energies of windows."""
        plan, restorer, scale = self.plan, self.restorer, self.plan.grid.scale
        inputs = inputs.to(plan.device)
        around = self.conditions.around
        height, width = inputs.lr.shape[-2:]
        at = (..., slice(around, height - around), slice(around, width - around))
        lr, valid = self._numbers(inputs.lr[at]), inputs.lr_valid[at]
        scene_valid = None if bool(valid.all()) else valid
        conditions = self.conditions.conditions(inputs)
        prepared = restorer.prepare(conditions)

        def finished(sample: Tensor) -> Tensor:
            """All bands, digital numbers, corrected."""
            image = plan.radiometry.units.to_numbers(sample)
            if plan.bands.other:
                filled = self.conditions.filled(inputs, CONTEXT)
                image = torch.cat([image, transfer_detail(image, filled, plan.bands.weights, scale)], dim=1)
            return self._consistency.correct(image, lr, scene_valid)

        sample = restorer.sample(prepared, conditions.seed)
        image = finished(sample)
        parts = [image]
        if self._channels[1]:
            traces = restorer.trace(prepared, sample)
            parts.append(traces)
            if plan.uncertainty is not None:
                count, record = len(plan.bands.scene), plan.uncertainty
                spread = Spread(image[:, :count])
                for member in range(1, record.runs):
                    spread.feed(finished(restorer.sample(prepared, conditions.seed + member))[:, :count])
                energies = predictors(
                    spread.first, spread.variance(), traces, lr[:, :count].to(torch.float32), valid[:, :count],
                    plan.radiometry.half_range, scale,
                )  # fmt: skip
                parts.append(half_widths(energies, traces, record, plan.radiometry.half_range))
                if self.with_energies:
                    parts.append(energies)
        return torch.cat(parts, dim=1)


_WIDE = ("int32", "uint32")


def _batches(windows: list[Window], size: int) -> Iterator[tuple[Window, ...]]:
    """Windows that follow each other and have one shape, at most `size` together."""
    batch: list[Window] = []
    for window in windows:
        if batch and (len(batch) == size or window.shape != batch[0].shape):
            yield tuple(batch)
            batch = []
        batch.append(window)
    if batch:
        yield tuple(batch)


def _touches(part: Window, region: Window, valid: Tensor, scale: int) -> bool:
    """Whether a window has a valid pixel of the scene in the region; `valid` is on the region's scene pixels."""
    common = part.intersect(region)
    return common is not None and bool(valid[common.divide(scale).within(region.divide(scale))].any())


def _cells_of(region: Window, scale: int) -> Window | None:
    """scene pixels whose first output pixel is in the region: every one belongs to one block."""
    row, col = -(-region.row // scale), -(-region.col // scale)
    height, width = -(-region.stop_row // scale) - row, -(-region.stop_col // scale) - col
    return Window(row, col, height, width) if height > 0 and width > 0 else None
