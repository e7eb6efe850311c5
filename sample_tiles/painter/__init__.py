"""The painter of landscapes: a tool of the project that draws the sample scene and pairs of dates to train on.

It is no part of the installed package. Run it from the project's folder: `python -m sample_tiles.painter --help`.
"""
