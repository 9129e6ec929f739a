# SPDX-License-Identifier: Apache-2.0
"""The cache of one layer, behind the interface that every kind of storage fills."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from xsvggt_ros.cache.attention import attend
from xsvggt_ros.cache.candidates import Candidates, Policy
from xsvggt_ros.cache.selection import Spans
from xsvggt_ros.cache.storage import TokenStore


class LayerCache(Protocol):
    """Remembers the tokens of one global layer; the packed cache implements it as well."""

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attend over what is remembered and the new frame, then remember what the policy keeps.

        All tensors are [1, heads, tokens, head_dim]; the newest frame takes part unrounded.
        """
        ...

    def clear(self) -> None:
        """Forget everything, keeping the allocation."""
        ...

    @property
    def tokens(self) -> int:
        """Tokens held now."""
        ...

    @property
    def seen(self) -> int:
        """Tokens ever handed in since the last :meth:`clear`."""
        ...

    @property
    def nbytes(self) -> int:
        """Allocated bytes."""
        ...

    @property
    def numbers(self) -> Tensor:
        """Number in the stream of each token held, int64 [tokens]."""
        ...


class UnpackedLayerCache:
    """Keeps keys and values in the precision in which they came.

    Attributes:
        store: the tokens held now.

    """

    def __init__(self, policy: Policy, special: int, expected_tokens: int = 0) -> None:
        """Make an empty cache.

        Args:
            policy: what stays after a frame.
            special: special tokens in front of each frame.
            expected_tokens: most tokens held after a frame, if bounded; room for them and a
                frame is made at once and never grows.

        """
        self._policy = policy
        self._special = special
        self._expected = expected_tokens
        self.store = TokenStore()
        self._spans = Spans(0, 0, 0)
        self._seen = 0

    @property
    def tokens(self) -> int:
        """Tokens held now."""
        return len(self.store)

    @property
    def seen(self) -> int:
        """Tokens ever handed in since the last :meth:`clear`."""
        return self._seen

    @property
    def nbytes(self) -> int:
        """Allocated bytes."""
        return self.store.nbytes

    @property
    def numbers(self) -> Tensor:
        """Number in the stream of each token held, int64 [tokens]."""
        return self.store.numbers

    def clear(self) -> None:
        """Forget everything, keeping the allocation."""
        self.store.clear()
        self._spans = Spans(0, 0, 0)
        self._seen = 0

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attend over the past and the new frame, then prune."""
        self._append(key, value)
        mixed = attend(query, self.store.keys, self.store.values)
        self._prune(query)
        return mixed

    def _append(self, key: Tensor, value: Tensor) -> None:
        count = key.shape[2]
        if self._expected:
            self.store.reserve(self._expected + count, key)
        self.store.append(key, value, self._seen)
        spans = self._spans
        self._spans = (
            Spans(spans.anchor, spans.history + spans.window, count)
            if self._seen
            else Spans(count, 0, 0)
        )
        self._seen += count

    def _prune(self, query: Tensor) -> None:
        kept = self._policy(Candidates(query, self.store.keys, self._spans, self._special))
        if kept is not None:
            indices, self._spans = kept
            self.store.keep(indices)
