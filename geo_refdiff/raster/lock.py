"""A file held by one process at a time, which says who holds it."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from geo_refdiff.errors import BusyError
from geo_refdiff.raster.atomic import output_error

_LOG = logging.getLogger(__name__)

_HELD = {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES}
_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}


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
