"""How many processor cores there are to work with."""

from __future__ import annotations

import os


def cores() -> int:
    """Cores that this process may use; all of the machine's where the system does not tell (macOS)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
