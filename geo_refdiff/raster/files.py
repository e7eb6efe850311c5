"""Files that appear complete or not at all (temporary name, fsync, rename), and lock files."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from geo_refdiff.errors import BusyError, OutputError

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

_LOG = logging.getLogger(__name__)
_HELD = {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES}
_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}


def cache_folder() -> Path:
    """Where fetched models and measured speeds are kept: `geo-refdiff` in XDG_CACHE_HOME, else in ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "geo-refdiff"


def output_error(path: Path, error: OSError) -> OutputError:
    """An OutputError that names the file, what the system said and the way out."""
    reason = _REASONS.get(error.errno or 0, f"{error.strerror or error}; check the disk")
    return OutputError(f"{path}: cannot be written: {reason}")


def check_replaceable(out: Path) -> None:
    """Whether what is there, if anything, may be replaced by a file at all; a link counts as what it leads to.

    Raises:
        OutputError: it is a FIFO, a device, a socket, or is where the system keeps such (/dev, /proc).
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


@contextmanager
def held(lock: Path, what: str, way_out: str, *, shared: bool = False) -> Iterator[None]:
    """Hold a lock file, made if it is missing, until the block ends or the process dies.

    Args:
        lock: the file; it stays there.
        what: for the message: what is held.
        way_out: for the message.
        shared: others that hold it shared do not disturb.

    On a disk that knows no locks (some network disks) the block runs without one, and a warning is logged.

    Raises:
        BusyError: another process holds it; names process and host.
        OutputError: it cannot be made.
    """
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        raise output_error(lock, error) from error
    try:
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _HELD:
                raise BusyError(f"{what}: another run holds it ({_holder(descriptor)}); {way_out}") from error
            if error.errno not in _NO_LOCKS:
                raise output_error(lock, error) from error
            _LOG.warning(
                "%s: its disk knows no locks (%s): see to it that no other run writes there", what, error.strerror
            )
        note = json.dumps({"pid": os.getpid(), "host": socket.gethostname()})
        with suppress(OSError):  # a note for people, not needed on a full disk
            os.truncate(descriptor, 0)
            os.pwrite(descriptor, note.encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _holder(descriptor: int) -> str:
    try:
        note = json.loads(os.pread(descriptor, 400, 0))
        return f"process {note['pid']} on {note['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "unknown process"
