"""`DataArray.refdiff.upscale` and `Dataset.refdiff.upscale`: the command's pixels as lazy arrays.

Importing this registers the accessors.
"""

from geo_refdiff.xarray.accessor import RefdiffAccessor

__all__ = ["RefdiffAccessor"]
