# SPDX-License-Identifier: Apache-2.0
"""What has come lately and waits for the image of its time, bounded by its bytes."""

from __future__ import annotations

from collections import deque
from threading import Lock
from typing import Generic, TypeVar

from xsvggt_ros.stream.stamps import SHORTEST_JUMP

T = TypeVar("T")


class Recent(Generic[T]):
    """Holds stamped items, the newest always; the oldest go first. Thread-safe.

    A result may come long after its image, so what belongs to it must be held by memory, not by
    number.
    """

    def __init__(self, most_bytes: int) -> None:
        """Hold ``most_bytes`` at most, or one item that is larger."""
        self._most_bytes = most_bytes
        self._lock = Lock()
        self._items: deque[tuple[int, int, T]] = deque()
        self._nbytes = 0

    def __len__(self) -> int:
        return len(self._items)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self._nbytes

    def put(self, stamp: int, nbytes: int, item: T) -> None:
        """Take in an item; where the clock has jumped back, what came before goes.

        Args:
            stamp: nanoseconds.
            nbytes: of the item.
            item: that waits.

        """
        with self._lock:
            if self._items and self._items[-1][0] - stamp >= SHORTEST_JUMP:
                self._items.clear()
                self._nbytes = 0
            self._items.append((stamp, nbytes, item))
            self._nbytes += nbytes
            while self._nbytes > self._most_bytes and len(self._items) > 1:
                self._drop_oldest()

    def nearest(self, stamp: int, tolerance: int) -> T | None:
        """Return the item nearest to ``stamp``, None where none is within ``tolerance``."""
        with self._lock:
            gaps = [(abs(each - stamp), item) for each, _, item in self._items]
        gap, nearest = min(gaps, key=lambda pair: pair[0], default=(tolerance + 1, None))
        return nearest if gap <= tolerance else None

    def drop_before(self, stamp: int) -> None:
        """Forget the items from before ``stamp`` that came before all others."""
        with self._lock:
            while self._items and self._items[0][0] < stamp:
                self._drop_oldest()

    def _drop_oldest(self) -> None:
        self._nbytes -= self._items.popleft()[1]
