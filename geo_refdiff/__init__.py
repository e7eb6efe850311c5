"""geo-refdiff: sharp, georeferenced pictures of now from a coarse scene, an old sharp one and a change mask.

Names are imported when they are first used, so that `import geo_refdiff` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from geo_refdiff.errors import GeoRefDiffError

if TYPE_CHECKING:
    from geo_refdiff.commands.upscale import UpscaleResult, upscale
    from geo_refdiff.diffusion.checkpoint import load_denoiser

__version__ = "0.1.0"

__all__ = ["GeoRefDiffError", "UpscaleResult", "__version__", "load_denoiser", "upscale"]

_LAZY = {
    "load_denoiser": "geo_refdiff.diffusion.checkpoint",
    "upscale": "geo_refdiff.commands.upscale",
    "UpscaleResult": "geo_refdiff.commands.upscale",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
