"""Data sets for training and evaluation: pairs of dates from an index or a published layout."""

from geo_refdiff.data.dataset import Crop, PairDataset, Problem, Problems, ReadError
from geo_refdiff.data.opening import OpenedDataset, open_dataset

__all__ = ["Crop", "OpenedDataset", "PairDataset", "Problem", "Problems", "ReadError", "open_dataset"]
