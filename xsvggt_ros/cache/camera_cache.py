# SPDX-License-Identifier: Apache-2.0
"""The camera head's memory: one token per frame and refinement, bounded in frames."""

from __future__ import annotations

import torch
from torch import Tensor

from xsvggt_ros.cache.attention import Attend, attend_sdpa
from xsvggt_ros.cache.growing_store import GrowingStore


class CameraCache:
    """Remembers the first token, the most recent ones, and the most attended ones before these.

    Camera tokens carry no position, so attention does not depend on their order. Of ``capacity``
    places the first is the anchor's, half of the others go round among the most recent tokens, and
    the rest is kept by merit: a token that is no longer recent takes the place of the least
    attended one, if it was attended more itself.

    Attributes:
        store: the tokens held now.

    """

    def __init__(self, capacity: int, attend: Attend = attend_sdpa) -> None:
        """Make an empty cache for ``capacity`` tokens; 0 = unbounded."""
        self._capacity = capacity
        self._attend = attend
        self.store = GrowingStore()
        # How much attention each place has drawn per frame since its token came.
        self._drawn = torch.empty(0)
        self._seen = 0
        self._turn = 0

    @property
    def nbytes(self) -> int:
        """Allocated bytes."""
        return self.store.nbytes + self._drawn.nbytes

    def clear(self) -> None:
        """Forget everything, keeping the allocation."""
        self.store.clear()
        self._drawn.zero_()
        self._seen = self._turn = 0

    @property
    def _recent(self) -> int:
        """Places that go round among the most recent tokens."""
        return self._capacity // 2

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Remember one token [1, heads, 1, head_dim], then attend over all that is remembered."""
        if not self._capacity:
            self.store.append(key, value, self._seen)
        else:
            self._remember(key, value)
        self._seen += 1
        if self._capacity:
            self._note_attention(query)
        return self._attend(query, self.store.keys, self.store.values)

    def _remember(self, key: Tensor, value: Tensor) -> None:
        if not self.store.capacity:
            self.store.reserve(self._capacity, key)
            self._drawn = torch.zeros(self._capacity, device=key.device)
        if len(self.store) < self._capacity:
            self.store.append(key, value, self._seen)
            return
        place = self._capacity - self._recent + self._turn
        self._turn = (self._turn + 1) % self._recent
        merited = self._capacity - 1 - self._recent
        if merited:
            self._retire(place, merited)
        self.store.overwrite(place, key, value, self._seen)
        self._drawn[place] = 0.0

    def _retire(self, place: int, merited: int) -> None:
        """Let the token in ``place`` win the place of the least attended of the merited ones."""
        own = self._drawn[place : place + 1].clone()
        loser = self._drawn[1 : 1 + merited].argmin(dim=0, keepdim=True) + 1
        target = torch.where(own > self._drawn.index_select(0, loser), loser, place)
        self.store.move(place, target)
        self._drawn.index_copy_(0, target, own)

    def _note_attention(self, query: Tensor) -> None:
        """Average the attention that each token draws; there is but one query."""
        held = len(self.store)
        logits = query[0].float() @ self.store.keys[0].float().transpose(-2, -1)
        weights = (logits * query.shape[-1] ** -0.5).softmax(dim=-1).mean(dim=(0, 1))
        self._drawn[:held] += 0.1 * (weights * held - self._drawn[:held])

    def resize(self, capacity: int) -> None:
        """Change the number of places; the first, the newest and the most attended tokens stay."""
        if capacity == self._capacity:
            return
        old, drawn, held = self.store, self._drawn, len(self.store)
        self._capacity, self._turn = capacity, 0
        self.store, self._drawn = GrowingStore(), torch.empty(0)
        if not held:
            return
        order = old.numbers.argsort()
        drawn = drawn[order] if len(drawn) else torch.zeros(held, device=order.device)
        if capacity and held > capacity:
            merit = drawn.clone()
            merit[0] = merit[held - self._recent :] = torch.inf
            chosen = merit.topk(capacity).indices.sort().values
            order, drawn = order[chosen], drawn[chosen]
        self.store.take_over(old, order, capacity)
        if capacity:
            self._drawn = torch.zeros(capacity, device=order.device)
            self._drawn[: len(order)] = drawn
