"""Stopping between two steps when asked to, so that nothing is lost."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

_ONE_REQUEST = 2.0
"""Seconds within which signals are one request: torchrun passes on a Ctrl-C that its processes have got already."""


class Interrupted(KeyboardInterrupt):
    """Training was asked to stop and did so after a step; the message says where its checkpoint lies."""


@dataclass(slots=True)
class StopRequest:
    """Whether somebody asked the run to stop, and when."""

    asked: bool = False
    when: float = 0.0


@contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Notes Ctrl-C and SIGTERM instead of breaking off in mid-step; a second one breaks off.

    Signals only reach the main thread; elsewhere nothing is noted.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def note(number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if request.asked and now - request.when > _ONE_REQUEST:
            raise KeyboardInterrupt
        request.asked, request.when = True, now

    before: dict[int, Any] = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
