# SPDX-License-Identifier: Apache-2.0
"""The released XStreamVGGT code, kept as the baseline of every comparison.

It differs from ours on purpose: it quantizes before it prunes, only in appearance (numbers are
rounded but stay in floating point), and the whole cache again with each frame; it clamps the zero
point; it overshoots a budget smaller than two frames, takes the first and the newest frame to be
of one size, and its sliding window loses the first frame.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from xsvggt_ros.cache.attention import Attend
from xsvggt_ros.cache.growing_store import GrowingStore
from xsvggt_ros.cache.policies.importance import importance
from xsvggt_ros.cache.quantization import UNQUANTIZED, levels
from xsvggt_ros.cache.settings import CacheSettings

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
        """Attend over the past and the new frame, then round and prune."""
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
        """Do nothing: the released code has pruned by now."""

    def _round(self) -> None:
        settings, store = self._settings, self.store
        if settings.key_bits != UNQUANTIZED:
            store.keys.copy_(rounded_per_channel(store.keys, settings.key_bits))
        if settings.value_bits != UNQUANTIZED:
            store.values.copy_(rounded(store.values, settings.value_bits))


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
