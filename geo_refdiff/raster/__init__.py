"""Rasters and what is beside them: grids, windows, reading, exact warps, coordinate systems, vectors, writing."""
