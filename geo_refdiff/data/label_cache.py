"""Labels by rules, kept beside the index that they were made for: making them takes far longer than reading pixels.

A label is found again by what it was made of: the pixels and the version of the rules. So it is right whatever happens
to index and files, and one that is missing, or in a damaged file, is made anew.
"""

from __future__ import annotations

import hashlib
import io
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geo_refdiff.data.labels import VERSION
from geo_refdiff.errors import BusyError, OutputError
from geo_refdiff.raster.files import held, write_bytes_atomic

Labels = NDArray[np.uint8]
_AGAIN = 0.5
"""Seconds between two looks whether another process is done."""


def content_key(kind: str, *arrays: NDArray[Any]) -> str:
    """What identifies a label: its kind, the arrays that it is made of, and the version of the rules."""
    digest = hashlib.blake2b(f"{VERSION} {kind}".encode(), digest_size=16)
    for array in arrays:
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


class LabelCache:
    """Labels (h, w) uint8 by key in one file, `INDEX.labels.npz`; it may be deleted at any time.

    Args:
        index: the index file.
    """

    def __init__(self, index: Path) -> None:
        self.path = index.with_name(f"{index.name}.labels.npz")

    def read(self) -> dict[str, Labels]:
        """All labels; none where the file is missing or damaged."""
        try:
            with np.load(io.BytesIO(self.path.read_bytes())) as file:
                keys, shapes, flat = file["keys"], file["shapes"], file["labels"]
            ends = np.cumsum(shapes.prod(axis=1))
            if not len(keys) or len(keys) != len(shapes) or len(flat) != ends[-1]:
                return {}
            parts = np.split(flat, ends[:-1])
            return {str(key): part.reshape(shape) for key, part, shape in zip(keys, parts, shapes, strict=True)}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
            return {}

    def write(self, labels: Mapping[str, Labels]) -> bool:
        """Keep these labels and no others; whether that was possible: a data set may lie on a read-only disk."""
        stream = io.BytesIO()
        np.savez_compressed(
            stream,
            keys=np.array(list(labels)),
            shapes=np.array([part.shape for part in labels.values()]).reshape(-1, 2),
            labels=np.concatenate([part.ravel() for part in labels.values()] or [np.zeros(0, np.uint8)]),
        )
        try:
            write_bytes_atomic(self.path, stream.getbuffer())
        except OutputError:
            return False
        return True

    @contextmanager
    def exclusive(self, log: Callable[[str], None]) -> Iterator[None]:
        """Make labels while no other process does; waits for one that does. Without a lock where none can be made.

        Args:
            log: takes the line that another process is waited for.
        """
        lock, locked, waiting = self.path.with_suffix(".lock"), False, False
        with ExitStack() as stack:
            while not locked:
                try:
                    stack.enter_context(held(lock, str(lock), "wait for it"))
                    locked = True
                except BusyError:
                    if not waiting:
                        log(f"waiting for the labels by rules that another process makes ({self.path})")
                    waiting = True
                    time.sleep(_AGAIN)
                except OutputError:
                    break
            try:
                yield
            finally:
                if locked:
                    with suppress(OSError):
                        lock.unlink()
