"""Cores and memory of this process."""

from __future__ import annotations

import ctypes
import os


def cores() -> int:
    """Cores that this process may use; all of the machine's where the system does not say (macOS)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


_M_MMAP_THRESHOLD = -3
_BYTES = 32 * 2**20


def steady_heap() -> bool:
    """Tell the C library from which size on it gives freed buffers back to the system, for the whole run.

    Left alone, glibc's malloc shifts that size as buffers come and go, and its heaps fragment, so that memory would
    slowly grow with the length of a run. A much lower size costs page faults. Does nothing with other C libraries.

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
