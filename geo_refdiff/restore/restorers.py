"""Restorers turn conditions into output images: what the engine asks of them, and the classical ones."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from geo_refdiff.errors import OptionError
from geo_refdiff.raster.window import Window
from geo_refdiff.restore.sources import TRACES
from geo_refdiff.sensor.inverse import back_project, inverse_reach
from geo_refdiff.sensor.resize import CONTEXT, upsample
from geo_refdiff.sensor.sensor import SensorModel

LR_MARGIN = CONTEXT
"""scene pixels of context that a condition carries on each side of its window."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """Inputs of N windows of one shape (H, W); C bands of the scene, in the restorer's units, on its device.

    Attributes:
        windows: the N windows on the output lattice.
        lr: (N, C, H / scale + 2 LR_MARGIN, W / scale + 2 LR_MARGIN) float32, missing pixels filled in.
        ref: (N, C, H, W) float32 in the scene's radiometry, NaN in every band where missing; None without a reference.
        mask: (N, 1, H, W) uint8 class indices, 255 = no change known; None without a mask.
        project: whether restorers that keep to the scene do so by themselves; not where the engine corrects the image.
        seed: of the noise.
    """

    windows: tuple[Window, ...]
    lr: Tensor
    ref: Tensor | None = None
    mask: Tensor | None = None
    project: bool = True
    seed: int = 0

    @property
    def inner_lr(self) -> Tensor:
        """`lr` without its margin, (N, C, H / scale, W / scale)."""
        return without_margin(self.lr)

    def to(self, device: torch.device | str) -> Conditions:
        """On another device."""
        lr, ref, mask = (None if x is None else x.to(device) for x in (self.lr, self.ref, self.mask))
        assert lr is not None
        return replace(self, lr=lr, ref=ref, mask=mask)


def without_margin(lr: Tensor) -> Tensor:
    """A scene image (N, C, h, w) without its LR_MARGIN pixels on each side."""
    return lr[..., LR_MARGIN : lr.shape[-2] - LR_MARGIN, LR_MARGIN : lr.shape[-1] - LR_MARGIN]


class Restorer(Protocol):
    """What the engine asks of a restorer.

    Attributes:
        name: as the user calls it.
        halo: output pixels at each side of a window that are not to be trusted.
        multiple: divides the sides and starts of its windows.
        window, overlap: defaults, output pixels.
        finite: whether what is beyond the halo changes nothing, so that windows may be cut to what is wanted; else
            all have one size and lie on the lattice.
        model_units: whether it works in model units; else in the scene's digital numbers.
        uses_reference, uses_mask: whether it looks at them.
        consistent: whether the scene, as the sensor would see it, is to be kept unless the user says otherwise.
        stochastic: whether another seed gives another image.
    """

    @property
    def name(self) -> str: ...
    @property
    def halo(self) -> int: ...
    @property
    def multiple(self) -> int: ...
    @property
    def window(self) -> int: ...
    @property
    def overlap(self) -> int: ...
    @property
    def finite(self) -> bool: ...
    @property
    def model_units(self) -> bool: ...
    @property
    def uses_reference(self) -> bool: ...
    @property
    def uses_mask(self) -> bool: ...
    @property
    def consistent(self) -> bool: ...
    @property
    def stochastic(self) -> bool: ...

    def restore(self, batch: Conditions) -> Tensor:
        """output images (N, C, H, W) float32, on the device of the conditions: `sample` with their own seed."""
        ...

    def prepare(self, batch: Conditions) -> Any:
        """What all samples of these windows share."""
        ...

    def sample(self, prepared: Any, seed: int) -> Tensor:
        """output images (N, C, H, W) float32 with the noise of a seed, on the device of the conditions."""
        ...

    def trace(self, prepared: Any, image: Tensor) -> Tensor:
        """Where the detail of a sample comes from, (N, 2, H, W), see `sources.trace`."""
        ...


class Classical(ABC):
    """What the classical restorers share: no model units, no mask, no noise."""

    name: ClassVar[str] = ""
    finite: ClassVar[bool] = True
    model_units: ClassVar[bool] = False
    uses_reference: ClassVar[bool] = False
    uses_mask: ClassVar[bool] = False
    consistent: ClassVar[bool] = False
    stochastic: ClassVar[bool] = False
    multiple: ClassVar[int] = 1
    window: ClassVar[int] = 1024

    def __init__(self, sensor: SensorModel) -> None:
        self.sensor = sensor

    @abstractmethod
    def restore(self, batch: Conditions) -> Tensor:
        """(N, C, H, W), digital numbers."""

    def prepare(self, batch: Conditions) -> Conditions:
        """Nothing is shared but the conditions."""
        return batch

    def sample(self, prepared: Conditions, seed: int) -> Tensor:
        """The same whatever the seed."""
        return self.restore(prepared)

    def trace(self, prepared: Conditions, image: Tensor) -> Tensor:
        """(N, 2, H, W): no detail but the reference's."""
        traces = image.new_zeros(image.shape[0], TRACES, *image.shape[-2:])
        if self.uses_reference and prepared.ref is not None:
            traces[:, 0] = torch.isfinite(prepared.ref).all(dim=1)
        return traces

    def projected(self, image: Tensor, batch: Conditions) -> Tensor:
        """Back-projected to each window's scene, where that is asked for."""
        return back_project(image, batch.inner_lr, self.sensor) if batch.project else image

    @property
    def halo(self) -> int:
        """output pixels that back-projection reaches."""
        return inverse_reach(self.sensor)

    @property
    def overlap(self) -> int:
        """output pixels; two scene pixels."""
        return 2 * self.sensor.scale


class Bicubic(Classical):
    """Plain cubic convolution of the scene."""

    name = "bicubic"

    @property
    def halo(self) -> int:
        """None: conditions carry the context of the kernel."""
        return 0

    @property
    def overlap(self) -> int:
        """None: windows agree to their borders."""
        return 0

    def restore(self, batch: Conditions) -> Tensor:
        """(N, C, H, W), digital numbers."""
        return upsample(batch.lr, self.sensor.scale, LR_MARGIN)


class BicubicBackProjected(Classical):
    """Cubic convolution, then back-projected so that the sensor would have seen the scene."""

    name = "bicubic-ibp"
    consistent = True

    def restore(self, batch: Conditions) -> Tensor:
        """(N, C, H, W), digital numbers."""
        return self.projected(upsample(batch.lr, self.sensor.scale, LR_MARGIN), batch)


class MatchedReference(Classical):
    """The reference in the scene's radiometry, cubic convolution where it is missing, then back-projected."""

    name = "matched-ref"
    uses_reference = True
    consistent = True

    def restore(self, batch: Conditions) -> Tensor:
        """(N, C, H, W), digital numbers."""
        if batch.ref is None:
            raise OptionError("matched-ref needs a reference: give --ref, or use --model bicubic-ibp")
        image = upsample(batch.lr, self.sensor.scale, LR_MARGIN)
        return self.projected(torch.where(torch.isnan(batch.ref), image, batch.ref), batch)


CLASSICAL: dict[str, Callable[[SensorModel], Restorer]] = {
    r.name: r for r in (Bicubic, BicubicBackProjected, MatchedReference)
}
"""Classical restorers by name."""
