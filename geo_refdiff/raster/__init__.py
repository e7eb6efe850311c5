"""Rasters and what lies beside them: grids, windows, reading, exact warps, coordinate systems, vectors, writing."""
