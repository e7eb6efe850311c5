"""Inception features for the Frechet inception distance, from a TorchScript module that the user names."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from geo_refdiff.errors import InputError

SIDE = 299
"""Pixels along a side of what the network sees."""


class Inception:
    """The network that judges sets of images.

    Args:
        path: a TorchScript module that takes (N, 3, 299, 299) float32 in [-1, 1] and gives (N, features).
        device: where it runs.

    Raises:
        InputError: the file is missing, no TorchScript, or of another kind of network.
    """

    def __init__(self, path: Path, device: str = "cpu") -> None:
        self.device, self.path = device, path
        if not path.is_file():
            raise InputError(f"{path}: no such file; name the TorchScript module that you have downloaded")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # torch would like other formats
                self.network = torch.jit.load(str(path), map_location=device).eval()  # type: ignore[no-untyped-call]
        except (RuntimeError, ValueError, OSError) as error:
            raise InputError(
                f"{path}: cannot be read as TorchScript; save the network with torch.jit.script(...).save"
            ) from error
        self.features(torch.zeros(1, 3, SIDE, SIDE))

    def features(self, image: Tensor) -> Tensor:
        """(N, features) float32 on the CPU, of (N, 3 or more, H, W) in DN; bands 1 to 3 are red, green, blue.

        Values are clipped to 0..255; the image is resized to 299 x 299 (bilinear, pixel areas aligned).
        """
        if image.shape[1] < 3:
            raise InputError(f"FID needs red, green and blue: the images have {image.shape[1]} bands")
        x = image[:, :3].to(self.device, torch.float32).clamp(0.0, 255.0)
        x = F.interpolate(x, (SIDE, SIDE), mode="bilinear", align_corners=False) / 127.5 - 1.0
        try:
            found = self.network(x)
        except (RuntimeError, TypeError) as error:
            raise InputError(f"{self.path}: does not take (N, 3, {SIDE}, {SIDE}) float images in [-1, 1]") from error
        if not isinstance(found, Tensor) or found.ndim != 2 or found.shape[0] != x.shape[0]:
            shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise InputError(f"{self.path}: gives {shape} for {x.shape[0]} images, not (N, features)")
        return found.to("cpu", torch.float32)
