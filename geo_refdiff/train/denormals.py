"""Denormal numbers taken for zero while a network is trained on a CPU."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def denormals_flushed() -> Iterator[None]:
    """Have this thread, and threads begun meanwhile, take denormal numbers for zero; afterwards all is as before.

    Decayed moments of Adam become denormal, and these take a CPU many times as long as other numbers.
    """
    before = flushed()
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def flushed() -> bool:
    """Whether this thread takes denormal numbers for zero."""
    least = sys.float_info.min
    return least / 2 == 0.0
