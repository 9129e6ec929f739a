# SPDX-License-Identifier: Apache-2.0
"""The camera head's memory: one token per frame and refinement, bounded in frames."""

from __future__ import annotations

from torch import Tensor

from xsvggt_ros.cache.attention import attend
from xsvggt_ros.cache.storage import TokenStore


class CameraCache:
    """Remembers the first token and the most recent ones of one block and iteration.

    Camera tokens carry no position, so attention does not depend on their order and a new token
    simply takes the place of the oldest one that is not the first.

    Attributes:
        store: the tokens held now.

    """

    def __init__(self, capacity: int) -> None:
        """Make an empty cache for ``capacity`` tokens; 0 = unbounded."""
        self._capacity = capacity
        self.store = TokenStore()
        self._seen = 0

    def clear(self) -> None:
        """Forget everything, keeping the allocation."""
        self.store.clear()
        self._seen = 0

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Remember one token [1, heads, 1, head_dim], then attend over all that is remembered."""
        if self._capacity and self._seen >= self._capacity:
            oldest = 1 + (self._seen - 1) % (self._capacity - 1)
            self.store.overwrite(oldest, key, value, self._seen)
        else:
            self.store.reserve(self._capacity, key)
            self.store.append(key, value, self._seen)
        self._seen += 1
        return attend(query, self.store.keys, self.store.values)
