"""Restorers turn conditions into output images: what the engine asks of them, and the classical ones."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from geo_refdiff.errors import OptionError
from geo_refdiff.raster.window import Window
from geo_refdiff.restore.sources import TRACES
from geo_refdiff.sensor.inverse import back_project, inverse_reach
from geo_refdiff.sensor.resize import CONTEXT, upsample
from geo_refdiff.sensor.sensor import SensorModel

LR_MARGIN = CONTEXT
"""scene pixels of context that a condition carries on each side of its window."""

_AGREE = 4
"""scene pixels on each side over which scene and reference are compared."""
_ALIKE = 0.01
"""Share of a value below which variation does not count against a reference."""
_SEEN = 0.5
"""Share of what the sensor sees that the reference must know."""


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
        """(N, 4, H, W): no detail."""
        return image.new_zeros(image.shape[0], TRACES, *image.shape[-2:])

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
    """The scene, enlarged by cubic convolution, and the reference's detail, in the scene's radiometry, as far as both
    agree; then back-projected.

    How far they agree is the correlation of the scene and of the reference as the sensor sees it, over the scene pixels
    around, all bands together: what has changed since, or is another shadow, does not come through.
    """

    name = "matched-ref"
    uses_reference = True
    consistent = True

    def restore(self, batch: Conditions) -> Tensor:
        """(N, C, H, W), digital numbers."""
        if batch.ref is None:
            raise OptionError("matched-ref needs a reference: give --ref, or use --model bicubic-ibp")
        seen, share = self._compared(batch, batch.ref)
        detail = torch.where(torch.isnan(batch.ref), 0, batch.ref - upsample(seen, self.sensor.scale))
        return self.projected(upsample(batch.lr, self.sensor.scale, LR_MARGIN) + share * detail, batch)

    def trace(self, prepared: Conditions, image: Tensor) -> Tensor:
        """(N, 4, H, W): the reference's detail, where at least half of it is taken."""
        traces = image.new_zeros(image.shape[0], TRACES, *image.shape[-2:])
        if prepared.ref is not None:
            _, share = self._compared(prepared, prepared.ref)
            traces[:, :1] = (share >= 0.5) & ~torch.isnan(prepared.ref).any(dim=1, keepdim=True)
        return traces

    def _compared(self, batch: Conditions, ref: Tensor) -> tuple[Tensor, Tensor]:
        """The reference as the sensor sees it, the scene where it is missing, (N, C, h, w); and the share of its detail
        that is taken, (N, 1, H, W)."""
        lr = batch.inner_lr
        seen, weight = self.sensor.observe_valid(ref, ~torch.isnan(ref))
        seen = torch.where(weight > _SEEN, seen, lr)
        share = agreement(lr, seen, (weight > _SEEN).expand_as(lr))
        return seen, F.interpolate(share, scale_factor=self.sensor.scale, mode="bilinear")

    @property
    def halo(self) -> int:
        """output pixels that back-projection, the correlation and what the sensor sees reach."""
        return inverse_reach(self.sensor) + (_AGREE + CONTEXT) * self.sensor.scale + self.sensor.reach


def agreement(lr: Tensor, seen: Tensor, valid: Tensor) -> Tensor:
    """How far two images agree: their correlation over the 9 x 9 pixels around each, the mean of all bands.

    Images that both vary by less than a hundredth of their values agree: that is mostly noise.

    Args:
        lr, seen: (N, C, h, w) real numbers, the same units.
        valid: bool of their shape, where both count.

    Returns:
        (N, 1, h, w) in 0..1; 0 where nothing counts.
    """
    tiny = torch.finfo(torch.float32).tiny
    counted = valid.to(torch.float64)
    count = _around(counted).clamp(min=tiny)
    images = [image.to(torch.float64) * counted for image in (lr, seen)]
    means = [_around(image) / count for image in images]
    (of_lr, of_both), (_, of_seen) = (
        [_around(one * other) / count - mean * other_mean for other, other_mean in zip(images, means, strict=True)]
        for one, mean in zip(images, means, strict=True)
    )
    least = (_ALIKE * means[0]).square()
    spread = (of_lr.clamp(min=0) + least) * (of_seen.clamp(min=0) + least)
    correlation = (of_both + least) / spread.sqrt().clamp(min=tiny)
    return correlation.mean(dim=1, keepdim=True).clamp(0, 1).to(lr.dtype)


def _around(image: Tensor) -> Tensor:
    return F.avg_pool2d(image, 2 * _AGREE + 1, 1, _AGREE, count_include_pad=False)


CLASSICAL: dict[str, Callable[[SensorModel], Restorer]] = {
    r.name: r for r in (Bicubic, BicubicBackProjected, MatchedReference)
}
"""Classical restorers by name."""
