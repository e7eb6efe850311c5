"""Labels by rules, kept beside the index that they were made for: making them takes far longer than reading pixels."""

from __future__ import annotations

import io
import zipfile
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geo_refdiff.errors import OutputError
from geo_refdiff.raster.files import write_bytes_atomic

Labels = NDArray[np.uint8]


def cache_path(index: Path) -> Path:
    """Where the labels of an index are kept."""
    return index.with_name(f"{index.name}.labels.npz")


def read_labels(path: Path, fingerprint: str) -> dict[str, Labels]:
    """The labels by name; none where the file is missing, damaged, or was made for other data."""
    try:
        with np.load(io.BytesIO(path.read_bytes())) as held:
            if str(held["fingerprint"]) != fingerprint:
                return {}
            names, shapes, flat = held["names"], held["shapes"], held["labels"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return {}
    if not len(names):
        return {}
    ends = np.cumsum(shapes.prod(axis=1))
    if len(flat) != ends[-1]:
        return {}
    parts = np.split(flat, ends[:-1])
    return {str(n): part.reshape(shape) for n, part, shape in zip(names, parts, shapes, strict=True)}


def write_labels(path: Path, fingerprint: str, labels: dict[str, Labels]) -> bool:
    """Keep labels (h, w) uint8 by name; whether that was possible: a data set may lie where nothing can be written."""
    stream = io.BytesIO()
    np.savez_compressed(
        stream,
        fingerprint=np.array(fingerprint),
        names=np.array(list(labels)),
        shapes=np.array([part.shape for part in labels.values()]).reshape(-1, 2),
        labels=np.concatenate([part.ravel() for part in labels.values()] or [np.zeros(0, np.uint8)]),
    )
    try:
        write_bytes_atomic(path, stream.getbuffer())
    except OutputError:
        return False
    return True
