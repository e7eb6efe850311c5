"""`DataArray.refdiff.upscale`: the command's pixels as a lazy DataArray. Importing this registers the accessor."""

from geo_refdiff.xarray.accessor import RefdiffAccessor

__all__ = ["RefdiffAccessor"]
