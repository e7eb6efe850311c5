"""Cores and memory of this process."""

from __future__ import annotations

import ctypes
import os


def cores() -> int:
    """Cores that this process may use; all of the machine's where the system does not say (macOS)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_KEPT = 512 * 2**20


def steady_heap() -> bool:
    """Tell the C library to keep freed buffers for the next ones, up to 512 MiB at the end of its heap.

    Left alone, glibc's malloc gives each buffer of more than 32 MiB back to the system, and what is free at the end of
    its heap: faults for pages that were there a moment ago took a quarter of a run's processor time. Does nothing with
    other C libraries.

    Returns:
        Whether it took effect.

    Sources:
        https://man7.org/linux/man-pages/man3/mallopt.3.html (M_MMAP_MAX, M_TRIM_THRESHOLD)
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    return bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, _KEPT))
