"""Files of `torch.save`, zip and legacy, read as inert data.

No class is imported, no code runs, and sizes are checked before memory is taken.
"""

from __future__ import annotations

import io
import math
import struct
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from geo_refdiff.diffusion.inert_pickle import Global, read_pickle
from geo_refdiff.errors import ModelError

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_STORAGE_DTYPES = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


@dataclass(frozen=True, slots=True)
class StorageRef:
    """A storage that the pickle points at: `count` elements of `dtype` under `key`."""

    key: str
    dtype: torch.dtype
    count: int


@dataclass(frozen=True, slots=True)
class TensorRef:
    """A view of a storage, in elements; not read yet."""

    storage: StorageRef
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def count(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


class TorchFile:
    """An open file: `content` is inert data with a `TensorRef` for each tensor; `read` gives a tensor's values.

    `called` holds the names that the file would have called and that were left alone.

    Raises:
        ModelError: the file is missing, damaged, or not from torch.save.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.called: set[str] = set()
        self._budget = 0
        self._storages: Mapping[str, Callable[[], bytes]] = {}
        self._blobs: dict[str, bytes] = {}
        self._archive: zipfile.ZipFile | None = None
        try:
            self._budget = 4 * self.path.stat().st_size
            with self.path.open("rb") as stream:
                zipped = stream.read(4) == b"PK\x03\x04"
            self.content = self._open_zip() if zipped else self._open_legacy()
        except ModelError as error:
            self.close()
            raise ModelError(f"{self.path}: {error}") from error
        except OSError as error:
            self.close()
            raise ModelError(f"{self.path} cannot be read: {error.strerror or error}") from error

    def __enter__(self) -> TorchFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the file."""
        if self._archive is not None:
            self._archive.close()

    def read(self, tensor: TensorRef) -> Tensor:
        """The values of a tensor, contiguous, on the CPU, in the stored dtype."""
        size = torch.empty(0, dtype=tensor.storage.dtype).element_size()
        self._budget -= tensor.count * size
        if self._budget < 0:
            raise ModelError(f"{self.path}: its tensors are larger together than the file itself")
        blob = self._blob(tensor.storage, size)
        if not tensor.count:
            return torch.empty(tensor.shape, dtype=tensor.storage.dtype)
        flat = torch.frombuffer(bytearray(blob), dtype=tensor.storage.dtype, count=tensor.storage.count)
        view = flat.as_strided(tensor.shape, tensor.stride, tensor.offset)
        return view.clone(memory_format=torch.contiguous_format)

    def _blob(self, storage: StorageRef, size: int) -> bytes:
        if storage.key not in self._storages:
            raise ModelError(f"{self.path}: the storage {storage.key!r} is missing")
        if storage.key not in self._blobs:
            try:
                self._blobs = {storage.key: self._storages[storage.key]()}
            except ModelError as error:
                raise ModelError(f"{self.path}: {error}") from error
        blob = self._blobs[storage.key]
        if len(blob) < storage.count * size:
            raise ModelError(
                f"{self.path}: the storage {storage.key!r} has {len(blob)} bytes, {storage.count * size} are declared"
            )
        return blob

    def _open_zip(self) -> Any:
        size = self.path.stat().st_size
        try:
            archive = self._archive = zipfile.ZipFile(self.path)
        except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError, struct.error) as error:
            raise ModelError(f"damaged zip file: {error}") from error
        members = {info.filename: info for info in archive.infolist()}
        pickles = [name for name in members if name.count("/") <= 1 and name.endswith("data.pkl")]
        if len(pickles) != 1:
            raise ModelError("a zip file, but not one from torch.save: it has no data.pkl")
        for info in members.values():
            if info.compress_type != zipfile.ZIP_STORED or info.file_size > size or info.flag_bits & 1:
                raise ModelError(f"its member {info.filename!r} is compressed, encrypted or larger than the file")
        root = pickles[0].removesuffix("data.pkl")
        if f"{root}byteorder" in members and _member(archive, f"{root}byteorder") != b"little":
            raise ModelError("it was written on a big-endian machine, which is not supported")
        prefix = f"{root}data/"
        self._storages = {
            name.removeprefix(prefix): partial(_member, archive, name) for name in members if name.startswith(prefix)
        }
        return self._unpickle(io.BytesIO(_member(archive, pickles[0])))

    def _open_legacy(self) -> Any:
        with self.path.open("rb") as stream:
            try:
                magic, protocol = self._unpickle(stream), self._unpickle(stream)
            except ModelError as error:
                raise ModelError(f"not a file from torch.save ({error})") from error
            if magic != _LEGACY_MAGIC or protocol != _LEGACY_PROTOCOL:
                raise ModelError("not a file from torch.save: its first objects are others")
            system = self._unpickle(stream)
            if not isinstance(system, dict) or system.get("little_endian") is False:
                raise ModelError("it was written on a big-endian machine, which is not supported")
            declared: dict[str, StorageRef] = {}
            content = self._unpickle(stream, declared)
            keys = self._unpickle(stream)
            if not isinstance(keys, list):
                raise ModelError("its list of storages is missing")
            self._storages = _legacy_storages(stream, keys, declared, self.path.stat().st_size)
        return content

    def _unpickle(self, stream: BinaryIO, declared: dict[str, StorageRef] | None = None) -> Any:
        def persistent(identity: Any) -> Any:
            if isinstance(identity, tuple) and len(identity) == 4 and identity[0] == "module":
                return identity[1]  # legacy files: a class with its source code, which stays unread
            storage = _storage(identity)
            if declared is not None:
                declared[storage.key] = storage
            return storage

        return read_pickle(stream, rebuild=self._rebuild, persistent=persistent)

    def _rebuild(self, function: Global, args: tuple[Any, ...]) -> Any:
        """Tensors and plain containers as inert data; other names are noted and left alone."""
        name = str(function)
        if name == "torch._utils._rebuild_tensor_v2" and len(args) >= 4:
            return _tensor(*args[:4])
        if name == "torch._utils._rebuild_parameter" and args:
            return args[0]
        if name == "torch._utils._rebuild_parameter_with_state" and args:
            return args[0]
        if name == "collections.OrderedDict" and not args:
            return {}
        if name == "torch.Size" and len(args) == 1:
            return args[0]
        self.called.add(name)
        return NotImplemented


def _storage(identity: Any) -> StorageRef:
    """('storage', type, key, device, count[, view]), as torch.save writes it."""
    if not isinstance(identity, tuple) or len(identity) < 5 or identity[0] != "storage":
        raise ValueError("a persistent id that is no storage")
    kind, key, count = identity[1], identity[2], identity[4]
    if not isinstance(kind, Global) or kind.module != "torch" or kind.name not in _STORAGE_DTYPES:
        raise ValueError(f"a storage of an unknown type {kind if isinstance(kind, Global) else ''}".rstrip())
    if not isinstance(key, str) or not _natural(count) or (len(identity) > 5 and identity[5] is not None):
        raise ValueError("a storage without a key or a number of elements")
    return StorageRef(key, _STORAGE_DTYPES[kind.name], count)


def _tensor(storage: Any, offset: Any, shape: Any, stride: Any) -> TensorRef:
    """A tensor whose view lies inside its storage."""
    plain = isinstance(shape, tuple) and isinstance(stride, tuple) and len(shape) == len(stride) <= 8
    if not isinstance(storage, StorageRef) or not plain or not all(map(_natural, (offset, *shape, *stride))):
        raise ValueError("a tensor that makes no sense")
    last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
    if math.prod(shape) > storage.count or (math.prod(shape) and last >= storage.count):
        raise ValueError(f"a tensor of shape {shape} outside its storage of {storage.count} elements")
    return TensorRef(storage, offset, shape, stride)


def _natural(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 48


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    try:
        return archive.read(name)
    except (zipfile.BadZipFile, EOFError, ValueError, KeyError, NotImplementedError, struct.error) as error:
        raise ModelError(f"its member {name!r} is damaged: {' '.join(str(error).split())}") from error


def _legacy_storages(
    stream: BinaryIO, keys: list[Any], declared: Mapping[str, StorageRef], size: int
) -> dict[str, Callable[[], bytes]]:
    """Storages follow each other as a 64-bit count and the elements."""
    found: dict[str, Callable[[], bytes]] = {}
    for key in keys:
        if not isinstance(key, str) or key not in declared:
            raise ModelError("its list of storages does not fit its tensors")
        head = stream.read(8)
        count = int.from_bytes(head, "little")
        width = torch.empty(0, dtype=declared[key].dtype).element_size()
        if len(head) < 8 or count != declared[key].count or stream.tell() + count * width > size:
            raise ModelError(f"truncated: the storage {key!r} is not complete")
        blob = stream.read(count * width)
        found[key] = partial(bytes, blob)
    return found
