# SPDX-License-Identifier: Apache-2.0
"""Preallocated room for the keys and values of one layer."""

from __future__ import annotations

import torch
from torch import Tensor


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
        """Make room for ``tokens`` in all, of heads, channels, dtype and device of ``like``."""
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
        """Add tokens [1, heads, n, head_dim], numbered from ``first_number`` on."""
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

    def overwrite(self, position: int, key: Tensor, value: Tensor, number: int) -> None:
        """Put one token [1, heads, 1, head_dim] in the place of another."""
        self._keys[:, :, position : position + 1] = key
        self._values[:, :, position : position + 1] = value
        self._numbers[position] = number

    def move(self, source: int, target: Tensor) -> None:
        """Copy the token at ``source`` to the place that ``target``, int64 [1], tells."""
        for tensor, dim in ((self._keys, 2), (self._values, 2), (self._numbers, 0)):
            tensor.index_copy_(dim, target, tensor.narrow(dim, source, 1).clone())

    def take_over(self, other: GrowingStore, indices: Tensor, capacity: int) -> None:
        """Take the tokens of ``other`` at ``indices`` into room for ``capacity``, 0 = as many."""
        keys = other.keys.index_select(2, indices)
        self.reserve(max(capacity, len(indices)), keys)
        self.append(keys, other.values.index_select(2, indices), 0)
        self._numbers[: len(indices)] = other.numbers.index_select(0, indices)

    def keep(self, indices: Tensor) -> None:
        """Drop every token but those at sorted ``indices``, int64 [kept]."""
        kept = indices.shape[0]
        self._keys[:, :, :kept] = self.keys.index_select(2, indices)
        self._values[:, :, :kept] = self.values.index_select(2, indices)
        self._numbers[:kept] = self.numbers.index_select(0, indices)
        self._length = kept
