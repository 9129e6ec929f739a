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
    """

    def __init__(self, capacity: int) -> None:
        """Make an empty cache for ``capacity`` tokens; 0 = unbounded."""
        self._capacity = capacity
        self._store = TokenStore()
        self._seen = 0

    @property
    def tokens(self) -> int:
        """Tokens held now."""
        return len(self._store)

    @property
    def nbytes(self) -> int:
        """Allocated bytes."""
        return self._store.nbytes

    @property
    def keys(self) -> Tensor:
        """Keys held now, [1, heads, tokens, head_dim]."""
        return self._store.keys

    @property
    def values(self) -> Tensor:
        """Values held now, [1, heads, tokens, head_dim]."""
        return self._store.values

    def clear(self) -> None:
        """Forget everything, keeping the allocation."""
        self._store.clear()
        self._seen = 0

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Remember one token [1, heads, 1, head_dim], then attend over all that is remembered."""
        if self._capacity and self._seen >= self._capacity:
            oldest = 1 + (self._seen - 1) % (self._capacity - 1)
            self._store.overwrite(oldest, key, value, self._seen)
        else:
            self._store.reserve(self._capacity, key)
            self._store.append(key, value, self._seen)
        self._seen += 1
        return attend(query, self._store.keys, self._store.values)
