# SPDX-License-Identifier: Apache-2.0
"""Where the keys and the values of a segment's tokens lie, in each of the widths.

A storage has a fixed number of slots for each *lane*: a head of one of the layers that are stored
together, layer after layer. It holds tensors and knows which belong together; who writes and reads
them is `ops.py`. Which slot holds which token is decided once per *set* of lanes: one set for a
layer, or one for each of its heads.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from xsvggt_ros.cache.quantization import (
    UNQUANTIZED,
    decode_keys,
    decode_values,
    pack,
    packed_width,
    unpack_into,
)

SKIPPED = 0
"""Instead of a width: these tokens are left alone; they lie where they are needed already."""
TENSORS = 4
"""Tensors of a storage, see :attr:`TokenStorage.tensors`."""


class TokenStorage(Protocol):
    """Keys or values of one segment of a group of layers."""

    @property
    def bits(self) -> int:
        """Width of an element; 16 = as it came."""
        ...

    @property
    def nbytes(self) -> int:
        """Allocated bytes."""
        ...

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Codes (or tokens as they came), scale, minimum, and the table row of each slot.

        What a width has no use for is empty.
        """
        ...

    def part(self, index: int, parts: int) -> TokenStorage:
        """Return the ``index``-th of ``parts`` equal shares of the lanes, in the same memory."""
        ...

    def read_into(self, out: Tensor) -> None:
        """Write the first ``out.shape[1]`` slots, as rounded, into ``out`` [lanes, n, channels]."""
        ...


def write_rows(storage: Tensor, slots: Tensor, rows: Tensor) -> None:
    """Write ``rows`` [lanes, n, ...] into ``slots`` int64 [sets, n] of ``storage``.

    Args:
        storage: [lanes, slots, ...], changed.
        slots: int64 [sets, n].
        rows: [lanes, n, ...].

    """
    lanes = storage.shape[0] // slots.shape[0]
    for index, own in enumerate(slots):
        part = slice(index * lanes, (index + 1) * lanes)
        storage[part].index_copy_(1, own, rows[part])


def take(storage: Tensor, slots: Tensor) -> Tensor:
    """Return a copy of the rows of ``storage`` [lanes, slots, ...] at ``slots`` [sets, n]."""
    lanes = storage.shape[0] // slots.shape[0]
    parts = [
        storage[index * lanes : (index + 1) * lanes].index_select(1, own)
        for index, own in enumerate(slots)
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def share(tensor: Tensor, index: int, parts: int) -> Tensor:
    """Return the ``index``-th of ``parts`` equal shares of the first axis, a view.

    Args:
        tensor: [n, ...].
        index: of the share, from 0.
        parts: number of shares.

    """
    size = tensor.shape[0] // parts
    return tensor[index * size : (index + 1) * size]


class NativeStorage:
    """Tokens as they came, in slots of a buffer [lanes, slots, channels].

    Attributes:
        borrowed: whether the buffer belongs to somebody else, who counts its bytes.

    """

    bits = UNQUANTIZED

    def __init__(self, buffer: Tensor, *, borrowed: bool) -> None:
        """Store into ``buffer``."""
        self._tokens = buffer
        self._nothing = buffer.new_empty(0)
        self.borrowed = borrowed

    @property
    def nbytes(self) -> int:
        """Bytes allocated by this storage itself."""
        return 0 if self.borrowed else self._tokens.nbytes

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the tokens, and nothing else."""
        return self._tokens, self._nothing, self._nothing, self._nothing

    def part(self, index: int, parts: int) -> NativeStorage:
        """Return a share of the lanes."""
        return NativeStorage(share(self._tokens, index, parts), borrowed=self.borrowed)

    def read_into(self, out: Tensor) -> None:
        """Copy the first tokens into ``out`` [lanes, n, channels]."""
        out.copy_(self._tokens[:, : out.shape[1]])


class PackedValues:
    """Values rounded per token over their channels (XStreamVGGT, section 3.2; KIVI).

    Bytes: codes uint8 [lanes, slots, packed width]; scale and minimum float16 [lanes, slots, 1].
    """

    def __init__(self, codes: Tensor, scale: Tensor, minimum: Tensor, bits: int) -> None:
        """Store into these tensors."""
        self.bits = bits
        self._codes, self._scale, self._minimum = codes, scale, minimum
        self._nothing = scale.new_empty(0)

    @classmethod
    def allocate(
        cls, lanes: int, slots: int, channels: int, bits: int, device: torch.device
    ) -> PackedValues:
        """Make room for ``slots`` values in each lane.

        Args:
            lanes: sets times heads of a set.
            slots: of each lane.
            channels: of a value.
            bits: of a code.
            device: of the tensors.

        """
        scale, minimum = _empty_grid((lanes, slots, 1), device)
        return cls(_empty_codes(lanes, slots, channels, bits, device), scale, minimum, bits)

    @property
    def nbytes(self) -> int:
        """Allocated bytes."""
        return self._codes.nbytes + self._scale.nbytes + self._minimum.nbytes

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return codes, scale and minimum; values have no table."""
        return self._codes, self._scale, self._minimum, self._nothing

    def part(self, index: int, parts: int) -> PackedValues:
        """Return a share of the lanes."""
        codes, scale, minimum, _ = self.tensors
        own = share(codes, index, parts), share(scale, index, parts), share(minimum, index, parts)
        return PackedValues(*own, self.bits)

    def read_into(self, out: Tensor) -> None:
        """Unpack and scale the first values into ``out`` [lanes, n, channels]."""
        decode_values(self._codes, self._scale, self._minimum, self.bits, out)

    def adopt(self, other: PackedValues, slots: Tensor) -> None:
        """Take the tokens in ``slots`` int64 [sets, n] of ``other`` to our front, bit for bit."""
        count = slots.shape[1]
        codes = take(other._codes, slots)
        self._codes[:, :count] = _repacked(codes, other.bits, self.bits, self._codes.shape[2])
        self._scale[:, :count] = take(other._scale, slots)
        self._minimum[:, :count] = take(other._minimum, slots)


class PackedKeys:
    """Keys rounded per channel over groups of tokens (XStreamVGGT, section 3.2; KIVI).

    Bytes: codes uint8 [lanes, slots, packed width]; a table of grids, scale and minimum float16
    [lanes, rows, channels]; and the row of each slot, int16 [sets, slots]. Slots are dense and may
    hold tokens of any group, so a token can leave or come without a byte of the others moving. A
    group keeps its row until its last token has left.
    """

    def __init__(
        self, codes: Tensor, scale: Tensor, minimum: Tensor, rows: Tensor, bits: int
    ) -> None:
        """Store into these tensors."""
        self.bits = bits
        self._codes, self._scale, self._minimum, self._rows = codes, scale, minimum, rows

    @classmethod
    def allocate(
        cls,
        lanes: int,
        slots: int,
        channels: int,
        bits: int,
        device: torch.device,
        *,
        sets: int,
        rows: int,
    ) -> PackedKeys:
        """Make room for ``slots`` keys in each lane, and a table of ``rows`` groups.

        Args:
            lanes: sets times heads of a set.
            slots: of each lane.
            channels: of a key.
            bits: of a code.
            device: of the tensors.
            sets: of tokens that are kept apart.
            rows: of the table of grids.

        """
        scale, minimum = _empty_grid((lanes, rows, channels), device)
        row_type = torch.int16 if rows < torch.iinfo(torch.int16).max else torch.int32
        row_of_slot = torch.full((sets, slots), rows, dtype=row_type, device=device)
        codes = _empty_codes(lanes, slots, channels, bits, device)
        return cls(codes, scale, minimum, row_of_slot, bits)

    @property
    def nbytes(self) -> int:
        """Allocated bytes."""
        return sum(tensor.nbytes for tensor in self.tensors)

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return codes, the tables of scales and minima, and the row of each slot."""
        return self._codes, self._scale, self._minimum, self._rows

    @property
    def table_rows(self) -> int:
        """Groups that the table has room for."""
        return self._scale.shape[1]

    def part(self, index: int, parts: int) -> PackedKeys:
        """Return a share of the lanes."""
        codes, scale, minimum, rows = (share(tensor, index, parts) for tensor in self.tensors)
        return PackedKeys(codes, scale, minimum, rows, self.bits)

    def rows(self, count: int) -> Tensor:
        """Return the table row of each of the first ``count`` slots, int64 [sets, count]."""
        return self._rows[:, :count].long()

    def occupancy(self) -> Tensor:
        """Return how many tokens each group has left, int64 [sets, rows]."""
        rows = self._rows.long()
        counts = rows.new_zeros(rows.shape[0], self.table_rows + 1)
        return counts.scatter_add_(1, rows, counts.new_ones(1, 1).expand(rows.shape))[:, :-1]

    def groups_of(self, slots: Tensor) -> int:
        """Return how many groups the tokens in ``slots`` [sets, n] belong to, in the worst set.

        Waits for the device.
        """
        rows = self._rows.long().gather(1, slots)
        used = rows.new_zeros(rows.shape[0], self.table_rows + 1).scatter_(1, rows, 1)
        return int(used[:, :-1].sum(1).max())

    def open_rows(self, slots: Tensor, count: int) -> Tensor:
        """Give up the tokens in ``slots`` [sets, n]; return ``count`` rows of the emptiest groups.

        These are empty then: whoever chooses ``slots`` has seen to it
        (:func:`segment.choose_evicted`). Int64 [sets, count].
        """
        self._rows.scatter_(1, slots, self.table_rows)
        return self.occupancy().topk(count, dim=1, largest=False).indices

    def clear(self) -> None:
        """Give up every slot."""
        self._rows.fill_(self.table_rows)

    def read_into(self, out: Tensor) -> None:
        """Unpack and scale the first keys into ``out`` [lanes, n, channels]."""
        decode_keys(*self.tensors, self.bits, out)

    def adopt(self, other: PackedKeys, slots: Tensor) -> None:
        """Take the tokens in ``slots`` int64 [sets, n] of ``other`` to our front, bit for bit.

        Our table must have room for the groups that these tokens belong to.
        """
        count = slots.shape[1]
        codes = take(other._codes, slots)
        self._codes[:, :count] = _repacked(codes, other.bits, self.bits, self._codes.shape[2])
        old_rows = other._rows.long().gather(1, slots)
        used = old_rows.new_zeros(old_rows.shape[0], other.table_rows).scatter_(1, old_rows, 1)
        new_row = used.cumsum(1) - 1
        shared = min(self.table_rows, other.table_rows)
        in_use = used.argsort(dim=1, descending=True, stable=True)[:, :shared]
        self._scale[:, :shared] = take(other._scale, in_use)
        self._minimum[:, :shared] = take(other._minimum, in_use)
        self._rows[:, :count] = new_row.gather(1, old_rows).to(self._rows.dtype)


def _empty_codes(lanes: int, slots: int, channels: int, bits: int, device: torch.device) -> Tensor:
    width = packed_width(channels, bits)
    return torch.empty(lanes, slots, width, dtype=torch.uint8, device=device)


def _empty_grid(shape: tuple[int, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    scale = torch.zeros(shape, dtype=torch.float16, device=device)
    return scale, torch.zeros_like(scale)


def _repacked(packed: Tensor, bits: int, wanted: int, width: int) -> Tensor:
    if bits == wanted:
        return packed
    codes = packed.new_zeros(*packed.shape[:-1], width * 8 // wanted)
    unpack_into(packed, bits, codes)
    return pack(codes, wanted)
