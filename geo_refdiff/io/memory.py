"""Keeps the resident memory of a long run flat."""

from __future__ import annotations

import ctypes

_M_MMAP_THRESHOLD = -3
_BYTES = 4 * 2**20


def steady_heap() -> bool:
    """Tell the C library to give large buffers back to the system when they are freed.

    glibc's malloc raises the size from which it does so up to 32 MiB as such buffers come and go, and keeps
    the rest in heaps that fragment, so that memory would slowly grow with the length of a run. Does nothing
    with other C libraries.

    Returns:
        Whether it took effect.

    Sources:
        https://man7.org/linux/man-pages/man3/mallopt.3.html (M_MMAP_THRESHOLD)
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _BYTES))
