# SPDX-License-Identifier: Apache-2.0
"""What the cache of one layer is asked, and the released XStreamVGGT code as one of them.

That is the baseline of every comparison. It differs from ours on purpose: it quantizes before it
prunes, only in appearance (numbers are rounded but stay in floating point), and the whole cache
again with each frame; it clamps the zero point; it overshoots a budget smaller than two frames,
takes the first and the newest frame to be of one size; and its sliding window loses the first
frame.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from xsvggt_ros.cache.attention import Attend
from xsvggt_ros.cache.policies import importance
from xsvggt_ros.cache.quantization import UNQUANTIZED, levels
from xsvggt_ros.cache.settings import CacheSettings


class LayerCache(Protocol):
    """Remembers the tokens of one global layer."""

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attend over what is remembered and the new frame, all [1, heads, tokens, head_dim].

        The newest frame takes part unrounded.

        Args:
            query: [1, heads, tokens, head_dim].
            key: of the new tokens, of the same shape.
            value: likewise.

        """
        ...

    def absorb(self, update: Tensor) -> None:
        """Remember what stays of the frame just attended, and drop what does not.

        Args:
            update: what the block's MLP added to its tokens, [1, tokens, dim].

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
        """Number in the stream of each token held, int64 [sets, tokens]."""
        ...


class GrowingStore:
    """Unquantized keys and values, head-major, in one buffer each that is reused for ever.

    Grows by doubling unless its owner has reserved what it needs.
    Beside each token lies its number in the stream, so that a selection can be told to people.
    """

    def __init__(self) -> None:
        self._keys = torch.empty(0)
        self._values = torch.empty(0)
        self._numbers = torch.empty(0, dtype=torch.int64)
        self._length = 0

    def __len__(self) -> int:
        return self._length

    @property
    def capacity(self) -> int:
        """Tokens that fit without a new allocation."""
        return self._numbers.shape[0]

    @property
    def nbytes(self) -> int:
        """Allocated bytes, not merely used ones."""
        return sum(t.nbytes for t in (self._keys, self._values, self._numbers))

    @property
    def keys(self) -> Tensor:
        """The held keys, a view [1, heads, tokens, head_dim]."""
        return self._keys[:, :, : self._length]

    @property
    def values(self) -> Tensor:
        """The held values, a view [1, heads, tokens, head_dim]."""
        return self._values[:, :, : self._length]

    @property
    def numbers(self) -> Tensor:
        """Number of each held token in the stream, int64 [tokens]."""
        return self._numbers[: self._length]

    def clear(self) -> None:
        """Forget every token; the room stays."""
        self._length = 0

    def reserve(self, tokens: int, like: Tensor) -> None:
        """Make room for ``tokens`` in all, of the kind of ``like`` [1, heads, n, head_dim]."""
        if tokens <= self.capacity:
            return
        capacity = tokens
        shape = (1, like.shape[1], capacity, like.shape[3])
        keys, values = like.new_empty(shape), like.new_empty(shape)
        numbers = torch.empty(capacity, dtype=torch.int64, device=like.device)
        if self._length:
            keys[:, :, : self._length] = self.keys
            values[:, :, : self._length] = self.values
            numbers[: self._length] = self.numbers
        self._keys, self._values, self._numbers = keys, values, numbers

    def append(self, key: Tensor, value: Tensor, first_number: int) -> None:
        """Add tokens [1, heads, n, head_dim], numbered from ``first_number`` on.

        Args:
            key: [1, heads, n, head_dim].
            value: likewise.
            first_number: of the tokens; the others follow.

        """
        end = self._length + key.shape[2]
        if end > self.capacity:
            self.reserve(max(end, 2 * self._length), key)
        self._keys[:, :, self._length : end] = key
        self._values[:, :, self._length : end] = value
        torch.arange(
            first_number,
            first_number + key.shape[2],
            dtype=torch.int64,
            out=self._numbers[self._length : end],
        )
        self._length = end

    def keep(self, indices: Tensor) -> None:
        """Drop every token but those at sorted ``indices``, int64 [kept]."""
        kept = indices.shape[0]
        self._keys[:, :, :kept] = self.keys.index_select(2, indices)
        self._values[:, :, :kept] = self.values.index_select(2, indices)
        self._numbers[:kept] = self.numbers.index_select(0, indices)
        self._length = kept


_GROUP = 64
"""Group size and the one head size that is rounded, both fixed in the released code."""


class PublishedCache:
    """The released attention layer: attend, round a copy of everything, prune, store.

    Attributes:
        store: the tokens held now, in the precision in which they came.

    """

    def __init__(self, settings: CacheSettings, special: int, attend: Attend) -> None:
        """Make an empty cache with ``special`` tokens in front of each frame."""
        self._settings = settings
        self._special = special
        self._attend = attend
        self.store = GrowingStore()
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
        """Number in the stream of each token held, int64 [1, tokens]."""
        return self.store.numbers[None]

    def clear(self) -> None:
        """Forget everything, keeping the allocation."""
        self.store.clear()
        self._seen = 0

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attend over past and new frame [1, heads, tokens, head_dim], then round and prune."""
        self.store.append(key, value, self._seen)
        self._seen += key.shape[2]
        mixed = self._attend(query, self.store.keys, self.store.values)
        if key.shape[3] == _GROUP:
            self._round()
        kept = kept_tokens(query[0], self.store.keys[0], self._special, self._settings)
        if kept is not None:
            self.store.keep(kept)
        return mixed

    def absorb(self, update: Tensor) -> None:
        """Ignore an update [frame, dim]: the released code has pruned by now."""

    def _round(self) -> None:
        settings, store = self._settings, self.store
        if settings.key_bits != UNQUANTIZED:
            store.keys.copy_(rounded_per_channel(store.keys, settings.key_bits))
        if settings.value_bits != UNQUANTIZED:
            store.values.copy_(rounded(store.values, settings.value_bits))


class PublishedCameraMemory:
    """The released camera head's memory: its trunk attends as the global blocks do.

    The token budget holds for it, too, and all refinements share one cache.

    Attributes:
        blocks: a cache for each block of the trunk.

    """

    def __init__(self, settings: CacheSettings, blocks: int, special: int, attend: Attend) -> None:
        """Make an empty memory.

        Args:
            settings: of the global layers.
            blocks: of the trunk.
            special: special tokens in front of each frame.
            attend: how to attend.

        """
        self.blocks = [PublishedCache(settings, special, attend) for _ in range(blocks)]

    @property
    def nbytes(self) -> int:
        """Allocated bytes."""
        return sum(cache.nbytes for cache in self.blocks)

    def clear(self) -> None:
        """Forget everything, keeping the allocation."""
        for cache in self.blocks:
            cache.clear()

    def attend(
        self, iteration: int, block: int, query: Tensor, key: Tensor, value: Tensor, *, stores: bool
    ) -> Tensor:
        """Attend over camera tokens [1, heads, frames, head_dim]; here every frame is stored."""
        return self.blocks[block].attend(query, key, value)


def kept_tokens(
    query: Tensor, keys: Tensor, special: int, settings: CacheSettings
) -> Tensor | None:
    """Return the sorted indices of what the released code keeps, None where all of it stays.

    Args:
        query: of the newest frame, [heads, frame, channels].
        keys: all of the layer, the newest frame's last, [heads, tokens, channels].
        special: special tokens in front of each frame.
        settings: policy, budget and pool size.

    """
    if settings.policy == "none":
        return None
    frame, total, budget = query.shape[1], keys.shape[1], settings.budget_tokens
    everything = torch.arange(total, device=keys.device)
    if settings.policy == "sliding_window":
        return everything[-budget:] if total > budget else None
    if total <= max(budget, 2 * frame):
        return None
    keep = max(0, budget - 2 * frame)
    scores = importance(query, keys[:, frame : total - frame], special, settings.pool_size)
    chosen = scores.topk(keep, sorted=False).indices.sort().values + frame
    return torch.cat([everything[:frame], chosen, everything[total - frame :]])


def rounded(values: Tensor, bits: int) -> Tensor:
    """Round each vector [..., group] as the released code does, zero point clamped."""
    least = 1e-12 if values.dtype == torch.float32 else 1e-6
    lowest, highest = values.amin(-1, keepdim=True), values.amax(-1, keepdim=True)
    scale = ((highest - lowest) / levels(bits)).clamp(min=least)
    zero = (-lowest / scale).round().clamp(0, levels(bits))
    codes = ((values / scale).round() + zero).clamp(0, levels(bits))
    return (codes - zero) * scale


def rounded_per_channel(keys: Tensor, bits: int) -> Tensor:
    """Round [1, heads, tokens, channels] per channel over runs of 64 tokens, padded with zeros."""
    tokens = keys.shape[2]
    padded = functional.pad(keys, (0, 0, 0, -tokens % _GROUP))
    groups = padded.unflatten(2, (-1, _GROUP)).transpose(-2, -1)
    return rounded(groups, bits).transpose(-2, -1).flatten(2, 3)[:, :, :tokens]
