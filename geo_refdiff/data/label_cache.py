"""Labels by rules, cached beside the index that they were made for: making them takes far longer than reading pixels.

The key of a label is a hash of what it is made of, pixels and version of the rules, so that no change of index or files
makes it wrong; one that is missing, or in a damaged file, is made anew.
"""

from __future__ import annotations

import hashlib
import io
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from geo_refdiff.data.labels import VERSION
from geo_refdiff.errors import BusyError, GeoRefDiffError, OutputError
from geo_refdiff.raster.files import held, write_bytes_atomic

Labels = NDArray[np.uint8]
T = TypeVar("T")
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
        """Keep these labels and no others; whether that was possible: a data set may be on a read-only disk."""
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


class LabelStore(ExitStack):
    """Labels by key, those of a cache among them if there is one; what was made goes there when it closes.

    Args:
        cache: None: all labels are made.
        log: takes lines about the progress.
    """

    def __init__(self, cache: LabelCache | None, log: Callable[[str], None]) -> None:
        super().__init__()
        self._cache, self._log, self._locked = cache, log, False
        self._labels = {} if cache is None else cache.read()
        self._made: dict[str, Labels] = {}

    def labels(
        self,
        items: Sequence[T],
        key: Callable[[T], str],
        make: Callable[[Sequence[T]], list[Labels | GeoRefDiffError]],
    ) -> list[Labels | GeoRefDiffError]:
        """The labels of items; those that are missing are made, by one process at a time.

        Args:
            items: what they are labels of.
            key: of a label.
            make: labels of items, or errors.
        """
        if self._cache is None:
            return make(items)
        keys = [key(item) for item in items]
        if not self._locked and not self._labels.keys() >= set(keys):
            self.enter_context(self._cache.exclusive(self._log))
            self.callback(self._write, self._cache)
            self._locked, self._labels = True, self._cache.read()  # another process may have made them meanwhile
        missing = [n for n, name in enumerate(keys) if name not in self._labels]
        made = dict(zip(missing, make([items[n] for n in missing]), strict=True))
        self._made |= {keys[n]: label for n, label in made.items() if not isinstance(label, GeoRefDiffError)}
        return [made[n] if n in made else self._labels[name] for n, name in enumerate(keys)]

    def _write(self, cache: LabelCache) -> None:
        if self._made and cache.write(self._labels | self._made):
            self._log(f"labels by rules are kept in {cache.path}")
