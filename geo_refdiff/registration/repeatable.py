"""OpenCV made to give the same bits every time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import cv2


@contextmanager
def repeatable_opencv() -> Iterator[None]:
    """Have OpenCV work on one thread and without Intel's library; afterwards all is as before.

    Sums over threads end in other last digits from run to run, and Intel's routines go by where an array happens to
    lie in memory. A plan must come out the same to the bit.
    """
    threads, library = cv2.getNumThreads(), cv2.ipp.useIPP()
    cv2.setNumThreads(1)
    cv2.ipp.setUseIPP(False)
    try:
        yield
    finally:
        cv2.ipp.setUseIPP(library)
        cv2.setNumThreads(threads)
