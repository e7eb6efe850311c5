"""The tiles last used, kept for all threads."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import Generic, TypeVar

from geo_refdiff.raster.window import Window

T = TypeVar("T")


class TileCache(Generic[T]):
    """What belongs to each tile, for those last used, from any thread.

    Threads that want the same missing tile at once each make it, so a tile must come out the same whoever makes it.

    Args:
        capacity: tiles kept, at least 1.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._tiles: OrderedDict[Window, T] = OrderedDict()
        self._lock = Lock()

    def get(self, tile: Window, make: Callable[[Window], T]) -> T:
        """What belongs to `tile`: kept from before, or made now, without the lock.

        Raises:
            Exception: what `make` raises; nothing is kept then.
        """
        with self._lock:
            if tile in self._tiles:
                self._tiles.move_to_end(tile)
                return self._tiles[tile]
        found = make(tile)
        with self._lock:
            self._tiles[tile] = found
            self._tiles.move_to_end(tile)
            while len(self._tiles) > self.capacity:
                self._tiles.popitem(last=False)
        return found

    def clear(self) -> None:
        """Forgets all."""
        with self._lock:
            self._tiles.clear()
