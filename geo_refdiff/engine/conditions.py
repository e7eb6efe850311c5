"""Reads scene, reference and mask for windows, on one lattice, and makes conditions of it.

Files are read in threads, in their own number types; all else is done on the device.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geo_refdiff.change.detector import DetectedMask, load_detector
from geo_refdiff.change.mask import open_mask
from geo_refdiff.change.mask_files import ChangeMask
from geo_refdiff.errors import ModelError
from geo_refdiff.plan.records import Plan
from geo_refdiff.raster.reader import ClearReader, RasterReader
from geo_refdiff.raster.warp import WarpedReader
from geo_refdiff.raster.window import Window
from geo_refdiff.restore.restorers import LR_MARGIN, Conditions, Restorer
from geo_refdiff.sensor.fill import fill_missing
from geo_refdiff.sensor.resize import CONTEXT, upsample
from geo_refdiff.sensor.sensor import SensorModel

_FILL = 3
"""scene pixels by which valid pixels grow into missing ones before they are enlarged."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """What the files hold for N windows of one shape (H, W).

    Attributes:
        windows: the N windows on the output lattice.
        lr: (N, B, h, w) the output's bands of the scene over the windows and `ConditionReader.around` scene px on each
            side, in the file's type.
        lr_valid: the same shape, True = valid.
        ref: (N, C, H, W) the reference as it is warped; None without one.
        ref_valid: (N, 1, H, W).
        mask: (N, 1, H, W) uint8; None without one.
    """

    windows: tuple[Window, ...]
    lr: Tensor
    lr_valid: Tensor
    ref: Tensor | None = None
    ref_valid: Tensor | None = None
    mask: Tensor | None = None

    def take(self, start: int, size: int) -> Inputs:
        """`size` windows from `start`; a short batch is filled up with its last window: the shape stays the same."""
        chosen = list(range(start, min(start + size, len(self.windows))))
        chosen += chosen[-1:] * (size - len(chosen))
        return self._each(lambda x: x[chosen], tuple(self.windows[i] for i in chosen))

    def to(self, device: str) -> Inputs:
        """On a device; to a GPU from pinned memory, without waiting for it."""
        if device == "cpu":
            return self
        return self._each(lambda x: x.pin_memory().to(device, non_blocking=True), self.windows)

    def _each(self, change: Callable[[Tensor], Tensor], windows: tuple[Window, ...]) -> Inputs:
        ref, ref_valid, mask = (None if x is None else change(x) for x in (self.ref, self.ref_valid, self.mask))
        return Inputs(windows, change(self.lr), change(self.lr_valid), ref, ref_valid, mask)


@dataclass(frozen=True, slots=True)
class Clouds:
    """Clouds of a window of the scene, as they are shown.

    Attributes:
        cloudy: (h, w) True = a cloud, on the device.
        pixels: (B, h scale, w scale) float32 digital numbers: the scene, enlarged, on the device.
        valid: (B, h, w) where clouds are valid pixels, on the host.
    """

    cloudy: Tensor
    pixels: Tensor
    valid: Tensor


def enlarged(
    scene: RasterReader, window: Window, scale: int, clear: ClearReader | None = None
) -> tuple[NDArray[np.float32], NDArray[Any], NDArray[np.bool_]]:
    """A window of the scene, scene pixels, enlarged by the cubic kernel.

    Args:
        clear: makes all but the clouds count as missing.

    Returns:
        (C, height scale, width scale) float32; the scene's pixels in the window and where they are valid, (C, height,
        width).
    """
    margin = CONTEXT + _FILL
    lr, valid = scene.read(window.pad(margin))
    if clear is not None:
        valid = valid & ~clear.read(window.pad(margin))
    beyond = [float(np.mean(b[v])) if v.any() else 0.0 for b, v in zip(lr, valid, strict=True)]
    filled = fill_missing(torch.from_numpy(lr.astype(np.float32)), torch.from_numpy(valid), _FILL, beyond)
    smooth = np.asarray(upsample(filled[None], scale, CONTEXT)[0].numpy())
    inner = (slice(None), slice(margin, margin + window.height), slice(margin, margin + window.width))
    return smooth, lr[inner], valid[inner]


class ConditionReader:
    """Opens a plan's inputs and reads them window by window; a value depends on its place alone, never on the window.

    Args:
        plan: the run.
        restorer: what it is for; inputs that it does not look at are not opened.

    Raises:
        InputError, GridError: an input cannot be opened or placed on the grid.
        ModelError: the change detector is damaged or not the plan's.
    """

    def __init__(self, plan: Plan, restorer: Restorer) -> None:
        self.plan, self.restorer = plan, restorer
        self.scale = scale = plan.grid.scale
        halo = plan.windows.halo if plan.windows else 0
        self.rounds = LR_MARGIN + -(-halo // scale)
        """scene pixels by which valid pixels grow into missing ones."""
        self.around = LR_MARGIN + self.rounds
        """scene pixels beyond a window that are read."""
        self._closing = ExitStack()
        self.scene = self._closing.enter_context(RasterReader(plan.scene, plan.bands.computed))
        self._clouds: tuple[ClearReader, RasterReader] | None = None
        if plan.scene.clouds is not None and plan.clouds == "keep":
            shown = RasterReader(replace(plan.scene, clouds=None), plan.bands.computed)
            self._clouds = self._closing.enter_context(ClearReader(plan.scene)), self._closing.enter_context(shown)
        self.reference: WarpedReader | None = None
        self.mask: ChangeMask | None = None
        if plan.reference and restorer.uses_reference:
            self.reference = WarpedReader(
                plan.reference, plan.bands.reference, plan.target, "cubic", plan.coregistration.on_target(scale)
            )
            self._closing.callback(self.reference.close)
        if plan.mask and restorer.uses_mask:
            detected = self._detected if self.reference else None
            self.mask = open_mask(plan.mask, plan.target, detected, plan.coregistration.on_target(scale))
            self._closing.callback(self.mask.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.close()

    def lr(self, window: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """The scene: values (B, h, w) of the output's bands in its type, and validity band by band; clouds have none.

        Args:
            window: on the scene lattice.
        """
        row, col = self.plan.lr_origin
        return self.scene.read(window.shift(-row, -col))

    def kept_clouds(self, window: Window) -> Clouds | None:
        """The clouds that the output shows; None: the whole window is clear, or clouds are nodata.

        Args:
            window: on the scene lattice.
        """
        if self._clouds is None:
            return None
        clear, shown = self._clouds
        row, col = self.plan.lr_origin
        window = window.shift(-row, -col)
        cloudy = torch.from_numpy(~clear.read(window))
        if not bool(cloudy.any()):
            return None
        pixels, _, valid = enlarged(shown, window, self.scale, clear)
        device = self.plan.device
        return Clouds(cloudy.to(device), torch.from_numpy(pixels).to(device), torch.from_numpy(valid))

    def read(self, windows: tuple[Window, ...]) -> Inputs:
        """What the files hold for windows of one shape.

        Args:
            windows: of the output lattice; sides and starts are multiples of the scale.
        """
        scenes = [self.lr(window.divide(self.scale).pad(self.around)) for window in windows]
        lr, lr_valid = (torch.from_numpy(np.stack(part)) for part in zip(*scenes, strict=True))
        ref = ref_valid = mask = None
        if self.reference is not None:
            references = [self._reference(window) for window in windows]
            ref, ref_valid = (torch.from_numpy(np.stack(part)) for part in zip(*references, strict=True))
            ref_valid = ref_valid[:, None]
        if self.mask is not None:
            mask = torch.from_numpy(np.stack([self.mask.read(self._local(window)) for window in windows]))[:, None]
        return Inputs(windows, lr, lr_valid, ref, ref_valid, mask)

    def conditions(self, inputs: Inputs) -> Conditions:
        """What a restorer is given, on the device of the inputs."""
        radiometry, count = self.plan.radiometry, len(self.plan.bands.scene)
        lr = self.filled(inputs, LR_MARGIN)[:, :count]
        ref = inputs.ref
        if ref is not None and inputs.ref_valid is not None:
            ref = self._in_units(ref, inputs.ref_valid)
        by_itself = self.plan.sensor.consistency == "off"
        return Conditions(inputs.windows, radiometry.units.to_model(lr), ref, inputs.mask, by_itself, self.plan.seed)

    def filled(self, inputs: Inputs, margin: int) -> Tensor:
        """(N, B, h, w) float32 digital numbers of the scene, missing pixels filled, with a margin of scene pixels."""
        spare = self.around - margin - self.rounds
        at = (..., slice(spare, inputs.lr.shape[-2] - spare), slice(spare, inputs.lr.shape[-1] - spare))
        values, valid = inputs.lr[at].to(torch.float32), inputs.lr_valid[at]
        return fill_missing(values, valid, self.rounds, self.plan.radiometry.fill)

    def _in_units(self, ref: Tensor, valid: Tensor) -> Tensor:
        """The reference in the scene's radiometry and the restorer's units, NaN where it is not valid."""
        image = self.plan.radiometry.units.to_model(self._matched(ref))
        whole = valid.device.type == "cpu" and bool(valid.all())  # on a GPU asking would wait for it
        return image if whole else torch.where(valid, image, torch.nan)

    def _matched(self, ref: Tensor) -> Tensor:
        """The reference in the scene's radiometry, float32 digital numbers."""
        radiometry, image = self.plan.radiometry, ref.to(torch.float32)
        gain, offset = (
            torch.tensor(part, dtype=torch.float32, device=ref.device)[:, None, None]
            for part in (radiometry.gain, radiometry.offset)
        )
        return (image * gain).add_(offset) if len(radiometry.gain) else image

    def _reference(self, window: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        assert self.reference is not None
        local = self._local(window)
        values, valid = self.reference.read(local)
        kept = self.plan.coregistration.kept(local, self.scale)
        return values, valid if kept is None else valid & kept

    def _detected(self) -> ChangeMask:
        record = self.plan.mask
        assert record is not None
        sensor, detector = SensorModel(self.scale, self.plan.psf_sigma, self.plan.sensor.kernel), load_detector()
        if detector.sha256 != record.detector:
            raise ModelError(
                f"the change detector here has SHA-256 {detector.sha256[:12]}, the plan was made with "
                f"{record.detector[:12]}; install the same version of geo-refdiff, or begin the run again"
            )
        return DetectedMask(
            detector, sensor, self._scene_units, self._reference_units, record.channels, record.classes,
            record.min_confidence, self.plan.lr_origin,
        )  # fmt: skip

    def _scene_units(self, window: Window) -> tuple[Tensor, Tensor]:
        """The scene on the scene lattice in the restorer's units, and validity band by band."""
        values, valid = (torch.from_numpy(part)[: len(self.plan.bands.scene)] for part in self.lr(window))
        return self.plan.radiometry.units.to_model(values.to(torch.float32)), valid

    def _reference_units(self, window: Window) -> Tensor:
        """The reference on the output lattice in the scene's radiometry and the restorer's units, NaN where missing."""
        values, valid = (torch.from_numpy(part) for part in self._reference(window))
        return self._in_units(values, valid)

    def _local(self, window: Window) -> Window:
        row, col = self.plan.lr_origin
        return window.shift(-row * self.scale, -col * self.scale)
