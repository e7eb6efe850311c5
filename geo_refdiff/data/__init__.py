"""Data sets for training and evaluation: pairs of dates from an index or a published layout."""

from geo_refdiff.data.base import Crop, PairDataset
from geo_refdiff.data.opening import OpenedDataset, open_dataset
from geo_refdiff.data.problems import Problem, Problems, ReadError

__all__ = ["Crop", "OpenedDataset", "PairDataset", "Problem", "Problems", "ReadError", "open_dataset"]
