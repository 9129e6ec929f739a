# SPDX-License-Identifier: Apache-2.0
"""Where the keys and the values of a segment's tokens lie, in each of the widths.

A storage has a fixed number of slots. It rounds tokens into given slots, once, and reads the first
so many slots back; which slot holds which token is its owner's business. One *set* of slots serves
all heads, or each head has a set of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

from xsvggt_ros.cache.quantization import (
    UNQUANTIZED,
    Grid,
    encode,
    fit_grid,
    pack,
    packed_width,
    unpack_into,
)


class TokenStorage(Protocol):
    """Keys or values of one segment of one layer."""

    @property
    def bits(self) -> int:
        """Width of an element; 16 = as it came."""
        ...

    @property
    def nbytes(self) -> int:
        """Allocated bytes."""
        ...

    def write(self, slots: Tensor, tokens: Tensor) -> None:
        """Round ``tokens`` [heads, n, channels] and put them into ``slots`` int64 [sets, n]."""
        ...

    def read_into(self, out: Tensor) -> None:
        """Write the first ``out.shape[1]`` slots, as rounded, into ``out`` [heads, n, channels]."""
        ...


def put(storage: Tensor, slots: Tensor, rows: Tensor) -> None:
    """Write ``rows`` [heads, n, ...] into ``slots`` [sets, n] of ``storage``."""
    if slots.shape[0] == 1:
        storage.index_copy_(1, slots[0], rows)
    else:
        storage.scatter_(1, _spread(slots, storage), rows)


def take(storage: Tensor, slots: Tensor) -> Tensor:
    """Return the rows of ``storage`` [heads, slots, ...] at ``slots`` [sets, n]."""
    if slots.shape[0] == 1:
        return storage.index_select(1, slots[0])
    return storage.gather(1, _spread(slots, storage))


def _spread(slots: Tensor, like: Tensor) -> Tensor:
    shape = slots.shape + (1,) * (like.dim() - 2)
    return slots.view(shape).expand(*slots.shape, *like.shape[2:])


class NativeStorage:
    """Tokens as they came, in slots of a buffer [heads, slots, channels]."""

    bits = UNQUANTIZED

    def __init__(self, buffer: Tensor, *, borrowed: bool) -> None:
        """Store into ``buffer``; a ``borrowed`` one is counted by whom it belongs to."""
        self._tokens = buffer
        self._borrowed = borrowed

    @property
    def nbytes(self) -> int:
        """Bytes allocated by this storage itself."""
        return 0 if self._borrowed else self._tokens.nbytes

    def write(self, slots: Tensor, tokens: Tensor) -> None:
        """Put tokens into slots."""
        put(self._tokens, slots, tokens)

    def read_into(self, out: Tensor) -> None:
        """Copy, unless ``out`` is where the tokens lie anyway."""
        if out.data_ptr() != self._tokens.data_ptr():
            out.copy_(self._tokens[:, : out.shape[1]])


class PackedValues:
    """Values rounded per token over their channels (XStreamVGGT, section 3.2; KIVI).

    Bytes: codes uint8 [heads, slots, packed width]; scale and minimum float16 [heads, slots, 1].
    """

    def __init__(
        self, heads: int, slots: int, channels: int, bits: int, device: torch.device
    ) -> None:
        """Allocate."""
        self.bits = bits
        self._codes = _empty_codes(heads, slots, channels, bits, device)
        self._grid = _empty_grid((heads, slots, 1), device)

    @property
    def nbytes(self) -> int:
        """Allocated bytes."""
        return self._codes.nbytes + _nbytes(self._grid)

    def write(self, slots: Tensor, tokens: Tensor) -> None:
        """Round each token by a grid of its own."""
        grid = fit_grid(tokens.amin(-1, keepdim=True), tokens.amax(-1, keepdim=True), self.bits)
        put(self._codes, slots, pack(encode(tokens, grid, self.bits), self.bits))
        put(self._grid.scale, slots, grid.scale)
        put(self._grid.minimum, slots, grid.minimum)

    def read_into(self, out: Tensor) -> None:
        """Unpack and scale."""
        count = out.shape[1]
        for heads, decoded in _decoding(out):
            unpack_into(self._codes[heads, :count], self.bits, decoded)
            scale = self._grid.scale[heads, :count].float()
            torch.addcmul(self._grid.minimum[heads, :count].float(), decoded, scale, out=decoded)

    def adopt(self, other: PackedValues, slots: Tensor) -> None:
        """Take the tokens in ``slots`` of ``other`` to our front: the same numbers, bit for bit."""
        count = slots.shape[1]
        codes = take(other._codes, slots)
        self._codes[:, :count] = _repacked(codes, other.bits, self.bits, self._codes.shape[2])
        self._grid.scale[:, :count] = take(other._grid.scale, slots)
        self._grid.minimum[:, :count] = take(other._grid.minimum, slots)


class PackedKeys:
    """Keys rounded per channel over groups of tokens (XStreamVGGT, section 3.2; KIVI).

    Bytes: codes uint8 [heads, slots, packed width]; a table of grids, scale and minimum float16
    [heads, rows, channels]; and the row of each slot, int16 [sets, slots]. Slots are dense and may
    hold tokens of any group, so a token can leave or come without a byte of the others moving. A
    group keeps its row until its last token has left.
    """

    def __init__(
        self,
        heads: int,
        slots: int,
        channels: int,
        bits: int,
        device: torch.device,
        *,
        sets: int,
        rows: int,
        group_size: int,
    ) -> None:
        """Allocate a table of ``rows`` groups of at most ``group_size`` tokens."""
        self.bits = bits
        self._group_size = group_size
        self._codes = _empty_codes(heads, slots, channels, bits, device)
        self._grid = _empty_grid((heads, rows, channels), device)
        row_type = torch.int16 if rows < torch.iinfo(torch.int16).max else torch.int32
        self._rows = torch.full((sets, slots), rows, dtype=row_type, device=device)

    @property
    def nbytes(self) -> int:
        """Allocated bytes."""
        return self._codes.nbytes + _nbytes(self._grid) + self._rows.nbytes

    @property
    def table_rows(self) -> int:
        """Groups that the table has room for."""
        return self._grid.scale.shape[1]

    def rows(self, count: int) -> Tensor:
        """Return the table row of each of the first ``count`` slots, int64 [sets, count]."""
        return self._rows[:, :count].long()

    def occupancy(self) -> Tensor:
        """Return how many tokens each group has left, int64 [sets, rows]."""
        rows = self._rows.long()
        counts = rows.new_zeros(rows.shape[0], self.table_rows + 1)
        return counts.scatter_add_(1, rows, torch.ones_like(rows))[:, :-1]

    def groups_of(self, slots: Tensor) -> int:
        """Return how many groups the tokens in ``slots`` [sets, n] belong to, in the worst set.

        Waits for the device.
        """
        rows = self._rows.long().gather(1, slots)
        used = rows.new_zeros(rows.shape[0], self.table_rows + 1).scatter_(1, rows, 1)
        return int(used[:, :-1].sum(1).max())

    def write(self, slots: Tensor, tokens: Tensor) -> None:
        """Round runs of ``group_size`` tokens, each run by grids of its own.

        The rows that the runs take are those that are empty once ``slots`` are given up; whoever
        chooses ``slots`` has seen to it that there are enough (`eviction.choose_evicted`).
        """
        count = tokens.shape[1]
        new_rows = -(-count // self._group_size)
        self._give_up(slots)
        free = self.occupancy().topk(new_rows, dim=1, largest=False).indices
        # A short last run is filled up with its own last token, which changes no minimum.
        padding = new_rows * self._group_size - count
        runs = torch.cat([tokens, tokens[:, -1:].expand(-1, padding, -1)], dim=1)
        runs = runs.unflatten(1, (new_rows, self._group_size))
        grid = fit_grid(runs.amin(2), runs.amax(2), self.bits)
        codes = encode(runs, Grid(grid.scale[:, :, None], grid.minimum[:, :, None]), self.bits)
        put(self._codes, slots, pack(codes.flatten(1, 2)[:, :count], self.bits))
        put(self._grid.scale, free, grid.scale)
        put(self._grid.minimum, free, grid.minimum)
        row_of_token = free.repeat_interleave(self._group_size, dim=1)[:, :count]
        self._rows.scatter_(1, slots, row_of_token.to(self._rows.dtype))

    def _give_up(self, slots: Tensor) -> None:
        nobody = torch.full_like(slots, self.table_rows, dtype=self._rows.dtype)
        self._rows.scatter_(1, slots, nobody)

    def clear(self) -> None:
        """Give up every slot."""
        self._rows.fill_(self.table_rows)

    def read_into(self, out: Tensor) -> None:
        """Unpack and scale."""
        count = out.shape[1]
        rows = self._rows[:, :count].int()
        for heads, decoded in _decoding(out):
            unpack_into(self._codes[heads, :count], self.bits, decoded)
            own = rows[heads] if len(rows) > 1 else rows
            scale = take(self._grid.scale[heads].float(), own)
            minimum = take(self._grid.minimum[heads].float(), own)
            torch.addcmul(minimum, decoded, scale, out=decoded)

    def adopt(self, other: PackedKeys, slots: Tensor) -> None:
        """Take the tokens in ``slots`` of ``other`` to our front: the same numbers, bit for bit.

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
        self._grid.scale[:, :shared] = take(other._grid.scale, in_use)
        self._grid.minimum[:, :shared] = take(other._grid.minimum, in_use)
        self._rows[:, :count] = new_row.gather(1, old_rows).to(self._rows.dtype)


def _empty_codes(heads: int, slots: int, channels: int, bits: int, device: torch.device) -> Tensor:
    width = packed_width(channels, bits)
    return torch.empty(heads, slots, width, dtype=torch.uint8, device=device)


def _empty_grid(shape: tuple[int, ...], device: torch.device) -> Grid:
    return Grid(
        torch.zeros(shape, dtype=torch.float16, device=device),
        torch.zeros(shape, dtype=torch.float16, device=device),
    )


def _nbytes(grid: Grid) -> int:
    return grid.scale.nbytes + grid.minimum.nbytes


def _repacked(packed: Tensor, bits: int, wanted: int, width: int) -> Tensor:
    if bits == wanted:
        return packed
    codes = packed.new_zeros(*packed.shape[:-1], width * 8 // wanted)
    unpack_into(packed, bits, codes)
    return pack(codes, wanted)


def _decoding(out: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield heads and the float32 room to decode them in, and bring each to ``out``.

    On a CPU a head at a time stays in the cache, which is several times faster; on a GPU all at
    once saves launches.
    """
    step = 1 if out.device.type == "cpu" else out.shape[0]
    for start in range(0, out.shape[0], step):
        heads = slice(start, start + step)
        if out.dtype == torch.float32:
            yield heads, out[heads]
        else:
            decoded = torch.empty(out[heads].shape, dtype=torch.float32, device=out.device)
            yield heads, decoded
            out[heads] = decoded
