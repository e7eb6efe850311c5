"""Files that appear complete or not at all: temporary name, fsync, rename."""

from __future__ import annotations

import errno
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from geo_refdiff.errors import OutputError

_REASONS = {
    errno.ENOSPC: "the disk is full; free some space or write elsewhere",
    errno.EDQUOT: "the disk quota is used up; free some space or write elsewhere",
    errno.EACCES: "no permission to write there; choose another folder",
    errno.EPERM: "no permission to write there; choose another folder",
    errno.EROFS: "the disk is read-only; choose another folder",
    errno.ENOENT: "its folder does not exist; create it first",
    errno.ENOTDIR: "its folder is not a folder; choose another path",
    errno.EISDIR: "it is a folder; choose a file name",
    errno.ELOOP: "it is a link, which is not followed; remove it",
    errno.ENAMETOOLONG: "its name is too long; choose a shorter one",
}


def output_error(path: Path, error: OSError) -> OutputError:
    """An OutputError that names the file, what the system said and the way out."""
    reason = _REASONS.get(error.errno or 0, f"{error.strerror or error}; check the disk")
    return OutputError(f"{path}: cannot be written: {reason}")


def check_replaceable(out: Path) -> None:
    """Whether what is there, if anything, may be replaced by a file at all; a link counts as what it leads to.

    Raises:
        OutputError: it is a FIFO, a device, a socket, or lies where the system keeps such (/dev, /proc).
    """
    folder = Path(os.path.realpath(out.parent))
    special = folder == Path("/dev") or Path("/proc") in (folder, *folder.parents)
    if special or (out.exists() and not out.is_file() and not out.is_dir()):
        raise OutputError(f"{out}: is no regular file, which is never replaced; choose a file name")


def check_free(out: Path, overwrite: bool) -> None:
    """Whether a file may be put there.

    Raises:
        OutputError: one is there, and it is not to be replaced; or as `check_replaceable`.
    """
    check_replaceable(out)
    if out.exists() and not overwrite:
        raise OutputError(f"{out}: exists already; choose another name or say --overwrite")


@contextmanager
def atomic_path(final: str | Path) -> Iterator[Path]:
    """A temporary path beside `final`, to be written to; renamed to `final` when the block ends well.

    The file is flushed to the disk before, and its folder after the rename; if the block fails, the temporary
    file is removed and a `final` that was there stays as it was.

    Raises:
        OutputError: from any OSError: disk full, no permission, no such folder; or as `check_replaceable`.
    """
    final = Path(final)
    check_replaceable(final)
    own = f"{os.getpid()}-{secrets.token_hex(4)}"  # processes of several machines may share a folder
    temporary = final.with_name(f".{final.stem}.tmp-{own}{final.suffix}")
    try:
        yield temporary
        sync(temporary)
        os.replace(temporary, final)
        sync(final.parent)
    except OSError as error:
        raise output_error(final, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_bytes_atomic(path: str | Path, data: bytes | memoryview) -> None:
    """Writes a file whole or not at all.

    Raises:
        OutputError: as `atomic_path`.
    """
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_json_atomic(path: str | Path, obj: Any) -> None:
    """Writes `obj` as readable JSON, whole or not at all.

    Raises:
        OutputError: as `atomic_path`.
        ValueError: NaN or an infinity, which JSON cannot hold.
    """
    text = json.dumps(obj, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_bytes_atomic(path, text.encode())


def is_filled(path: Path) -> bool:
    """Whether a file is there and not empty, as a full disk or a cut copy leaves it."""
    try:
        return path.stat().st_size > 0
    except OSError:
        return False


def sync(path: Path) -> None:
    """Have the system write a file, or a folder's list of files, to the disk now."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
