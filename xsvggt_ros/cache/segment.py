# SPDX-License-Identifier: Apache-2.0
"""A fixed number of slots of a group of layers, the tokens in them, and which are evicted.

Keys share their grids by groups, and a grid cannot go before the last token of its group. So
eviction obeys two bounds at once: so many tokens must go, and so many groups of the table must
become empty. Tokens that the score alone would have kept may go with their group; in exchange no
token is ever quantized twice, and the table stays a little larger than dense groups would need.
All shapes depend on counts alone, and nothing waits for the device.
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import copy
from dataclasses import dataclass, replace
from math import ceil

import torch
from torch import Tensor

from xsvggt_ros.cache.layout import TokenShape
from xsvggt_ros.cache.ops import Tokens, Writing, write_tokens
from xsvggt_ros.cache.quantization import UNQUANTIZED
from xsvggt_ros.cache.token_storage import (
    NativeStorage,
    PackedKeys,
    PackedValues,
    TokenStorage,
    share,
)


def ranks(scores: Tensor) -> Tensor:
    """Return the place of each of ``scores`` [sets, n] among them, int64, 0 = the lowest."""
    order = scores.argsort(dim=1, stable=True)
    places = torch.arange(scores.shape[1], device=scores.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, places)


def choose_evicted(
    places: Tensor, count: int, keys: TokenStorage, rows: int, *, guarded: bool = False
) -> Tensor:
    """Choose ``count`` slots to give up, so that ``rows`` rows of the table are empty then.

    Args:
        places: :func:`ranks` of the held tokens, int64 [sets, held]; the lowest go first.
        count: tokens to give up.
        keys: where the keys lie; only packed ones have groups.
        rows: table rows that must be empty afterwards, those that are so already included.
        guarded: whether there are places of ``held`` and beyond, which mark tokens that must stay:
            no group falls with one of them in it as long as there are others.

    Returns:
        int64 [sets, count], distinct slots.

    """
    held = places.shape[1]
    if isinstance(keys, PackedKeys) and rows:
        fallen = _tokens_of_fallen_groups(places, count, keys, rows, guarded=guarded)
        if guarded:
            fallen &= places < held
        places = torch.where(fallen, places - held, places)
    return places.topk(count, dim=1, largest=False).indices


def _tokens_of_fallen_groups(
    places: Tensor, count: int, keys: PackedKeys, rows: int, *, guarded: bool
) -> Tensor:
    held = places.shape[1]
    row_of_slot = keys.rows(held)
    occupancy = keys.occupancy()
    emptiness = occupancy
    if guarded:
        must_stay = (places >= held).long()
        emptiness = occupancy.scatter_add(1, row_of_slot, must_stay * held)
    # A group is worth as much as its best token, so one with a token that must stay outweighs any
    # without; an empty one comes before all others.
    worth = torch.full_like(occupancy, -1).scatter_reduce_(1, row_of_slot, places, "amax")
    # Many are equal, and which of these a topk finds differs from device to device.
    cheap = worth.argsort(dim=1, stable=True)[:, : 2 * rows]
    thinnest = emptiness.gather(1, cheap).argsort(dim=1, stable=True)[:, :rows]
    # The cheapest groups may hold more tokens than may go. The emptiest of all never do, as long as
    # none must stay: the table is made large enough for that (`segment.table_rows`). But these are
    # often what is left of the groups of the best tokens of long ago. As many full groups as a
    # frame opens hold less than one group too many; thinner ones among as many again save that.
    falling = emptiness.argsort(dim=1, stable=True)[:, :rows]
    for better in (cheap.gather(1, thinnest), cheap[:, :rows]):
        affordable = occupancy.gather(1, better).sum(1, keepdim=True) <= count
        falling = torch.where(affordable, better, falling)
    falls = torch.zeros_like(occupancy, dtype=torch.bool).scatter_(1, falling, True)
    return falls.gather(1, row_of_slot)


@dataclass(frozen=True, slots=True)
class SegmentPlan:
    """What a segment is to be.

    Attributes:
        slots: most tokens that it holds.
        key_bits: width of the keys; 16 = as they came.
        value_bits: the same of the values.
        group_size: most keys that share a grid.
        table_slack: rows of the table of grids, as a multiple of what dense groups would need.

    """

    slots: int
    key_bits: int
    value_bits: int
    group_size: int = 64
    table_slack: float = 1.0


LEAST_SPARE_ROWS = 2
"""Rows without which the emptiest groups could hold more tokens than come with a frame."""

FINE_ROWS = 10
"""Spare rows and groups of a frame are together at least so many. Where a frame is one group and
two rows are to spare, the groups that fall are whole frames, always the newest, and history stands
still; with more, they have thinned out to a few tokens before."""


def table_rows(
    plan: SegmentPlan, arrivals: Iterable[int], *, held: int = 0, occupied: int = 0
) -> int:
    """Return how many groups a table needs, so that no frame ever finds it too full.

    A frame of ``n`` tokens opens ``ceil(n / group_size)`` groups. Once the segment is full, as many
    tokens go as come, and by counting alone the emptiest groups hold no more than these if there
    are ``slots / n`` times as many groups as a frame opens. While it fills up, the groups of the
    tokens to come must fit beside the ``occupied`` ones of the ``held`` tokens.

    Args:
        plan: of the segment.
        arrivals: how many tokens come with a frame, for each size of frame that there is.
        held: tokens that are there already.
        occupied: groups that these belong to.

    """
    opened = [(-(-count // plan.group_size), count) for count in arrivals if count]
    if not opened:
        return occupied
    most = max(groups for groups, _ in opened)
    rate = max(groups / count for groups, count in opened)
    dense = plan.slots / plan.group_size
    spare = max(LEAST_SPARE_ROWS, FINE_ROWS - most)
    needs = [dense * plan.table_slack, plan.slots * rate + spare, float(occupied)]
    if held < plan.slots and (held or len(opened) > 1):
        needs.append(occupied + (plan.slots - held) * rate + most)
    return ceil(max(needs))


class Segment:
    """Slots of a group of layers: keys, values; number, score and insertion of each token.

    Slots are dense from the front and in no order: attention does not care, and so a token that
    leaves makes room for one that comes without any other being touched.

    Attributes:
        plan: sizes and widths.
        keys: where the keys lie.
        values: where the values lie.

    """

    def __init__(
        self,
        plan: SegmentPlan,
        shape: TokenShape,
        *,
        sets: int,
        rows: int,
        native_keys: Tensor | None = None,
        native_values: Tensor | None = None,
    ) -> None:
        """Allocate; unquantized tokens may lie in a buffer of the owner's.

        Args:
            plan: sizes and widths.
            shape: what is stored, the heads of all layers one after the other.
            sets: index sets: one for each layer, or one for each of its heads.
            rows: of the table of grids, see :func:`table_rows`.
            native_keys: the owner's buffer [lanes, slots, channels] for unquantized keys.
            native_values: the same for values.

        """
        self.plan = plan
        self._shape = shape
        self._sets = sets
        self.keys: TokenStorage = (
            _native(plan.slots, shape, native_keys)
            if plan.key_bits == UNQUANTIZED
            else PackedKeys.allocate(
                shape.heads,
                plan.slots,
                shape.channels,
                plan.key_bits,
                shape.device,
                sets=sets,
                rows=rows,
            )
        )
        self.values: TokenStorage = (
            _native(plan.slots, shape, native_values)
            if plan.value_bits == UNQUANTIZED
            else PackedValues.allocate(
                shape.heads, plan.slots, shape.channels, plan.value_bits, shape.device
            )
        )
        self._numbers = torch.zeros(sets, plan.slots, dtype=torch.int32, device=shape.device)
        self._scores = torch.zeros(sets, plan.slots, dtype=torch.float32, device=shape.device)
        self._insertions = torch.zeros(sets, plan.slots, dtype=torch.float16, device=shape.device)
        self._length = 0
        # Kept, so that a step need not make it.
        self._places = torch.arange(plan.slots, device=shape.device)

    def part(self, index: int, parts: int) -> Segment:
        """Return the ``index``-th of ``parts`` equal shares of the layers, in the same memory.

        It shows what is held now; what comes and goes later, it does not know of.
        """
        view: Segment = copy(self)
        shape = self._shape
        view._shape = replace(shape, heads=shape.heads // parts)
        view._sets = self._sets // parts
        view.keys, view.values = self.keys.part(index, parts), self.values.part(index, parts)
        view._numbers = share(self._numbers, index, parts)
        view._scores = share(self._scores, index, parts)
        view._insertions = share(self._insertions, index, parts)
        return view

    def __len__(self) -> int:
        return self._length

    @property
    def nbytes(self) -> int:
        """Allocated bytes."""
        beside = (self._numbers, self._scores, self._insertions)
        return self.keys.nbytes + self.values.nbytes + sum(tensor.nbytes for tensor in beside)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All that is allocated for the tokens, and never replaced."""
        beside = (self._numbers, self._scores, self._insertions)
        return (*self.keys.tensors, *self.values.tensors, *beside)

    @property
    def numbers(self) -> Tensor:
        """Number in the stream of each token, modulo 2^32, int32 [sets, held]."""
        return self._numbers[:, : self._length]

    @property
    def scores(self) -> Tensor:
        """The newest score of each token, float32 [sets, held]; may be written to."""
        return self._scores[:, : self._length]

    @property
    def insertions(self) -> Tensor:
        """What the policy remembered of each token when it came, float16 [sets, held]."""
        return self._insertions[:, : self._length]

    def clear(self) -> None:
        """Forget every token; the room stays."""
        self._length = 0
        if isinstance(self.keys, PackedKeys):
            self.keys.clear()

    def admit(self, tokens: Tokens) -> None:
        """Take at most ``slots`` tokens in; where room is short, the worst held ones go.

        Neighbours in ``tokens`` share groups, so hand them in by score: groups then empty as a
        whole.
        """
        self._write(self._make_room(len(tokens)), tokens)

    def _write(
        self, slots: Tensor, tokens: Tokens, *, keys: bool = True, values: bool = True
    ) -> None:
        size = self.plan.group_size
        rows = slots[:, :0]
        if keys and isinstance(self.keys, PackedKeys):
            rows = self.keys.open_rows(slots, -(-slots.shape[1] // size))
        given = Writing.of(
            tokens,
            slots,
            rows,
            self.keys if keys else None,
            self.values if values else None,
            (self._numbers, self._scores, self._insertions),
            size,
        )
        write_tokens(given)

    def _make_room(self, count: int) -> Tensor:
        """Return slots int64 [sets, count] for new tokens."""
        free = min(count, self.plan.slots - self._length)
        slots = self._places[self._length : self._length + free].expand(self._sets, -1)
        if free < count:
            opened = -(-count // self.plan.group_size)
            places = ranks(self.scores)
            evicted = choose_evicted(places, count - free, self.keys, opened)
            slots = torch.cat([slots, evicted], dim=1) if free else evicted
        self._length += free
        return slots

    def has_rows_for(self, arrivals: Iterable[int]) -> bool:
        """Whether the table has room for frames of these sizes; waits for the device."""
        if not isinstance(self.keys, PackedKeys):
            return True
        occupied = int((self.keys.occupancy() > 0).sum(1).max())
        needed = table_rows(self.plan, arrivals, held=self._length, occupied=occupied)
        return self.keys.table_rows >= needed

    def groups_for(self, plan: SegmentPlan, slots: Tensor) -> int:
        """Return how many groups tokens in ``slots`` int64 [sets, n] take in a segment of ``plan``.

        Waits for the device.
        """
        if plan.key_bits == UNQUANTIZED or not slots.shape[1]:
            return 0
        if _exact(self.plan.key_bits, plan.key_bits):
            assert isinstance(self.keys, PackedKeys)
            return self.keys.groups_of(slots)
        return -(-slots.shape[1] // plan.group_size)

    def best(self, count: int, places: Tensor, rows: int) -> Tensor:
        """Return the slots of the ``count`` best tokens, best first, int64 [sets, at most count].

        Waits for the device: for use between frames only.

        Args:
            count: how many to keep.
            places: :func:`ranks` of the held tokens.
            rows: most groups that the kept tokens may belong to. Where fewer than ``count``
                tokens live in so few groups, fewer are returned.

        """
        if count == 0:
            return places[:, :0]
        going = self._length - count
        if going <= 0:
            return places.argsort(dim=1, descending=True, stable=True)
        surplus = 0
        if isinstance(self.keys, PackedKeys):
            surplus = max(0, self.keys.table_rows - rows)
            emptiest = self.keys.occupancy().topk(surplus, dim=1, largest=False).values
            going = max(going, int(emptiest.sum(1).max()))
        evicted = choose_evicted(places, going, self.keys, surplus, guarded=True)
        order = places.scatter(1, evicted, -1).argsort(dim=1, descending=True, stable=True)
        return order[:, : self._length - going]

    def take_over(self, other: Segment, slots: Tensor) -> None:
        """Take the tokens in ``slots`` [sets, n] of ``other`` to our front; we must be empty.

        What is at least as wide here stays the same, bit for bit; what is narrower is rounded
        once more.
        """
        count = slots.shape[1]
        if not count:
            return
        keys_exact = _exact(other.plan.key_bits, self.plan.key_bits)
        values_exact = _exact(other.plan.value_bits, self.plan.value_bits)
        if keys_exact:
            assert isinstance(self.keys, PackedKeys)
            assert isinstance(other.keys, PackedKeys)
            self.keys.adopt(other.keys, slots)
        if values_exact:
            assert isinstance(self.values, PackedValues)
            assert isinstance(other.values, PackedValues)
            self.values.adopt(other.values, slots)
        own = self._places[:count].expand(self._sets, -1)
        if keys_exact and values_exact:
            self._numbers[:, :count] = other.numbers.gather(1, slots)
            self._scores[:, :count] = other.scores.gather(1, slots)
            self._insertions[:, :count] = other.insertions.gather(1, slots)
        else:
            decoded = other.contents().pick(slots)
            self._write(own, decoded, keys=not keys_exact, values=not values_exact)
        self._length = count

    def take_in_parts(self, part: Segment) -> None:
        """Hold what parts of us like ``part`` have taken in, each its share of the layers."""
        self._length = len(part)

    def contents(self) -> Tokens:
        """Return all tokens, as rounded."""
        return Tokens(
            self.decoded_keys(),
            self.decoded_values(),
            self.numbers,
            self.scores,
            self.insertions,
            order=self._places[: self._length].expand(self._sets, -1),
        )

    def decoded_keys(self) -> Tensor:
        """Return all keys, as rounded, [heads, held, channels]."""
        return self._decoded(self.keys)

    def decoded_values(self) -> Tensor:
        """Return all values, as rounded, [heads, held, channels]."""
        return self._decoded(self.values)

    def _decoded(self, storage: TokenStorage) -> Tensor:
        shape = self._shape
        out = torch.empty(
            shape.heads, self._length, shape.channels, dtype=shape.dtype, device=shape.device
        )
        storage.read_into(out)
        return out


def _exact(bits: int, wanted: int) -> bool:
    """Whether codes of ``bits`` can be taken over as they are by ``wanted`` bits."""
    return bits <= wanted < UNQUANTIZED


def _native(slots: int, shape: TokenShape, buffer: Tensor | None) -> NativeStorage:
    if buffer is not None:
        return NativeStorage(buffer, borrowed=True)
    own = torch.empty(shape.heads, slots, shape.channels, dtype=shape.dtype, device=shape.device)
    return NativeStorage(own, borrowed=False)
