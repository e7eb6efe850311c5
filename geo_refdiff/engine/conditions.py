"""Reads what is known for windows: the scene, the reference and the mask, in the restorer's units, on one lattice."""

from __future__ import annotations

from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from geo_refdiff.change.detector import DetectedMask, load_detector
from geo_refdiff.change.mask import open_mask
from geo_refdiff.change.mask_files import ChangeMask
from geo_refdiff.errors import ModelError
from geo_refdiff.plan.records import Plan
from geo_refdiff.raster.fill import fill_missing
from geo_refdiff.raster.reader import RasterReader
from geo_refdiff.raster.warp import WarpedReader
from geo_refdiff.raster.window import Window
from geo_refdiff.restore.restorers import LR_MARGIN, Conditions, Restorer
from geo_refdiff.sensor.sensor import SensorModel


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
        scale = plan.grid.scale
        self.scale = scale
        halo = plan.windows.halo if plan.windows else 0
        self.rounds = LR_MARGIN + -(-halo // scale)
        self._closing = ExitStack()
        self.scene = self._closing.enter_context(RasterReader(plan.scene, plan.bands.scene))
        self.output = self._closing.enter_context(RasterReader(plan.scene, plan.bands.computed))
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

    def footprint(self, window: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """The scene as it is: values (C, h, w) in its dtype and validity band by band.

        Args:
            window: on the LR lattice.
        """
        row, col = self.plan.lr_origin
        return self.scene.read(window.shift(-row, -col))

    def output_bands(self, window: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """As `footprint`, for all bands of the output."""
        row, col = self.plan.lr_origin
        return self.output.read(window.shift(-row, -col))

    def read(self, windows: tuple[Window, ...], member: int = 0) -> Conditions:
        """The conditions of windows of one shape on the HR lattice; sides and starts are multiples of the scale.

        `member`: of the runs that differ in their noise, 0 = the output's own.
        """
        lr, seed = torch.stack([torch.from_numpy(self._lr(w)) for w in windows]), self.plan.seed + member
        ref = mask = noise = None
        if self.reference is not None:
            ref = torch.stack([torch.from_numpy(self._ref(w)) for w in windows])
        if self.mask is not None:
            mask = torch.stack([torch.from_numpy(self._mask(w))[None] for w in windows])
        if self.restorer.noise_channels:
            noise = torch.stack([torch.from_numpy(self._noise(w, seed)) for w in windows])
        return Conditions(windows, lr, ref, mask, noise, self.plan.sensor.consistency == "off", seed)

    def _lr(self, window: Window) -> NDArray[np.float32]:
        values, valid = self.footprint(window.divide(self.scale).pad(LR_MARGIN + self.rounds))
        radiometry = self.plan.radiometry
        filled = fill_missing(values.astype(np.float32), valid, self.rounds, radiometry.fill)
        return self._to_units(filled)

    def _ref(self, window: Window) -> NDArray[np.float32]:
        assert self.reference is not None
        local = self._local(window)
        values, valid = self.reference.read(local)
        kept = self.plan.coregistration.kept(local, self.scale)
        if kept is not None:
            valid = valid & kept
        radiometry = self.plan.radiometry
        image = values.astype(np.float32, copy=True)
        for band, (gain, offset) in enumerate(zip(radiometry.gain, radiometry.offset, strict=True)):
            if gain != 1.0:
                image[band] *= np.float32(gain)
            if offset != 0.0:
                image[band] += np.float32(offset)
        image = self._to_units(image)
        image[:, ~valid] = np.nan
        return image

    def _mask(self, window: Window) -> NDArray[np.uint8]:
        assert self.mask is not None
        return self.mask.read(self._local(window))

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
            detector, sensor, self._units, self._ref, record.channels, record.classes,
            record.min_confidence, self.plan.lr_origin,
        )  # fmt: skip

    def _units(self, window: Window) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """The scene on the LR lattice in the restorer's units, and validity band by band."""
        values, valid = self.footprint(window)
        return self._to_units(values.astype(np.float32)), valid

    def _noise(self, window: Window, seed: int) -> NDArray[np.float32]:
        from geo_refdiff.diffusion.noise import lattice_noise

        return lattice_noise(window, self.restorer.noise_channels, seed, 0)

    def _local(self, window: Window) -> Window:
        row, col = self.plan.lr_origin
        return window.shift(-row * self.scale, -col * self.scale)

    def _to_units(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        radiometry = self.plan.radiometry
        if radiometry.centre != 0.0:
            image -= np.float32(radiometry.centre)
        if radiometry.half_range != 1.0:
            image /= np.float32(radiometry.half_range)
        return image
