"""Cores and memory of this process."""

from __future__ import annotations

import ctypes
import os


def cores() -> int:
    """Cores that this process may use; all of the machine's where the system does not say (macOS)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_LARGE, _KEPT = 32 * 2**20, 512 * 2**20


def steady_heap() -> bool:
    """Tell the C library to keep freed buffers for the next ones: up to 512 MiB at the end of its heap, of 32 MiB each.

    Left alone, glibc's malloc gives back what is free at the end of its heap, and faults for pages that were there a
    moment ago took a fifth of a run's processor time. Larger buffers go back at once: kept, they would leave gaps, and
    memory would grow with the length of a run. All threads share one heap: each would keep as much in one of its own.
    Does nothing with other C libraries.

    Returns:
        Whether it took effect.

    Sources:
        https://man7.org/linux/man-pages/man3/mallopt.3.html (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, M_ARENA_MAX)
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    settings = (_M_MMAP_THRESHOLD, _LARGE), (_M_TRIM_THRESHOLD, _KEPT), (_M_ARENA_MAX, 1)
    return all(mallopt(*setting) for setting in settings)
