# SPDX-License-Identifier: Apache-2.0
"""The segments of a group of layers: anchor, special tokens, history, window; their division."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import replace
from itertools import accumulate

import torch
from torch import Tensor

from xsvggt_ros.cache.layer_plan import (
    LayerPlan,
    SegmentCounts,
    arrivals,
    plan_layer,
    rows_of,
    scratch_nbytes,
)
from xsvggt_ros.cache.layout import Scratch, TokenShape
from xsvggt_ros.cache.ops import Decoding, Parts, Tokens, append_newest, decode_layer
from xsvggt_ros.cache.quantization import UNQUANTIZED
from xsvggt_ros.cache.segment import Segment, SegmentPlan, ranks, table_rows
from xsvggt_ros.cache.settings import CacheSettings
from xsvggt_ros.cache.token_storage import share


class LayerSegments:
    """Up to four segments, one behind the other, and room for the newest frame behind them.

    Memory is allocated where the layer is laid out again, and only there.

    Each segment holds the same number of tokens for every layer of the group.

    Attributes:
        generation: grows whenever memory is allocated; addresses are the same while it is.
        anchor: the first frame's tokens.
        special: special tokens of later frames, where they are stored finer or stay longer than
            their frame; else empty.
        history: all other tokens.
        window: the newest frame's tokens, where they are kept as they came; else empty.

    """

    def __init__(self, shape: TokenShape, *, layers: int, special_tokens: int, sets: int) -> None:
        """Make segments without any slots.

        Args:
            shape: of a token of one layer.
            layers: of the group.
            special_tokens: in front of each frame.
            sets: index sets of a layer: 1, or one per head.

        """
        self._shape = shape
        self._layers = layers
        self._special_tokens = special_tokens
        self._sets = sets
        nothing = SegmentPlan(0, UNQUANTIZED, UNQUANTIZED)
        empty = Segment(nothing, self._stacked, sets=layers * sets, rows=0)
        self.anchor = self.special = self.history = self.window = empty
        self._plan: LayerPlan | None = None
        self._own_keys = self._own_values = torch.empty(0)
        self._parts: list[tuple[Parts, Parts]] = []
        self._frames: set[int] = set()
        self._anchor_frame = 0
        self._anchor_special = special_tokens
        self.generation = 0

    @property
    def _stacked(self) -> TokenShape:
        """A token of all layers, as if it were one of many heads."""
        return replace(self._shape, heads=self._layers * self._shape.heads)

    @property
    def all(self) -> tuple[Segment, Segment, Segment, Segment]:
        """Anchor, special, history, window: the order in which they are attended over."""
        return self.anchor, self.special, self.history, self.window

    def of_layer(self, index: int) -> tuple[Segment, ...]:
        """Return the segments of one layer, as they are now."""
        return tuple(segment.part(index, self._layers) for segment in self.all)

    def split(self) -> list[LayerSegments]:
        """Return the same tokens as one group for each layer, in the same memory."""
        return [self._only(index) for index in range(self._layers)]

    def _only(self, index: int) -> LayerSegments:
        one: LayerSegments = copy(self)
        one._layers = 1
        one._frames = set(self._frames)
        one.anchor, one.special, one.history, one.window = self.of_layer(index)
        if self._own_keys.numel():
            one._own_keys = share(self._own_keys, index, self._layers)
        if self._own_values.numel():
            one._own_values = share(self._own_values, index, self._layers)
        one._parts = self._parts[index : index + 1]
        one.generation += 1
        return one

    @property
    def tokens(self) -> int:
        """Tokens that each layer holds now."""
        return sum(map(len, self.all))

    @property
    def nbytes(self) -> int:
        """Allocated bytes: all segments, and in-place room for the newest frame."""
        own = self._own_keys.nbytes + self._own_values.nbytes
        return own + sum(segment.nbytes for segment in self.all)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All that is allocated; replaced only where ``generation`` grows."""
        segments = [tensor for segment in self.all for tensor in segment.tensors]
        return (self._own_keys, self._own_values, *segments)

    @property
    def scratch_nbytes(self) -> int:
        """Bytes of the shared scratch that this group needs."""
        if self._plan is None:
            return 0
        return scratch_nbytes(self._plan, self._shape, self._layers)

    def clear(self) -> None:
        """Forget every token and size of frame, keeping the allocation."""
        for segment in self.all:
            segment.clear()
        self._frames.clear()
        self._anchor_frame = 0

    def together(self, name: str, *newest: Tensor) -> Tensor:
        """Return ``numbers``, ``scores`` or ``insertions`` of all tokens, then ``newest`` ones.

        Returns:
            [sets of all layers, tokens].

        """
        held = [getattr(segment, name) for segment in self.all if len(segment)]
        parts = [*held, *newest] or [getattr(self.anchor, name)]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def decode(self, index: int, frame: int, scratch: Scratch) -> None:
        """Decode a layer's tokens into ``scratch``, those that do not lie there as they are.

        Args:
            index: of the layer in the group.
            frame: tokens of the newest frame, for which there is room behind them.
            scratch: shared by all groups, free.

        """
        plan = self._plan
        assert plan is not None
        scratch.reserve(
            plan.slots + plan.frame,
            plan.frame,
            self._layers,
            self._shape,
            keys=not plan.keys_in_place,
            values=not plan.values_in_place,
        )
        if not self.tokens or (plan.keys_in_place and plan.values_in_place):
            return
        key_parts, value_parts = self._parts[index]
        lengths = [len(segment) for segment in self.all]
        keys, values = self._context(index, self.tokens + frame, scratch)
        decode_layer(
            Decoding(
                key_parts.tensors, key_parts.bits, value_parts.tensors, value_parts.bits, lengths,
                keys, values,
            )
        )  # fmt: skip

    def _context(self, index: int, tokens: int, scratch: Scratch) -> tuple[Tensor, Tensor]:
        """Return where a layer's keys and values are attended to, [heads, tokens, channels]."""
        assert self._plan is not None
        keys, values = scratch.context(tokens, self._shape)
        if self._plan.keys_in_place:
            keys = share(self._own_keys, index, self._layers)[:, :tokens]
        if self._plan.values_in_place:
            values = share(self._own_values, index, self._layers)[:, :tokens]
        return keys, values

    def append(
        self, index: int, key: Tensor, value: Tensor, scratch: Scratch
    ) -> tuple[Tensor, Tensor]:
        """Return all keys and all values of a layer that is decoded, the given newest ones last.

        The newest ones are held until :meth:`newest` is asked for.

        Args:
            index: of the layer in the group.
            key: of the newest frame, [heads, frame, channels].
            value: the same.
            scratch: that :meth:`decode` was given.

        Returns:
            Keys and values, [heads, tokens, channels] each.

        """
        assert self._plan is not None
        frame = key.shape[1]
        keys, values = self._context(index, self.tokens + frame, scratch)
        held_keys, held_values = (
            held[:0] if in_place else share(held, index, self._layers)
            for held, in_place in zip(
                scratch.held(self._layers, frame, self._shape),
                (self._plan.keys_in_place, self._plan.values_in_place),
                strict=True,
            )
        )
        behind = slice(self.tokens, None)
        append_newest(key, value, keys[:, behind], values[:, behind], held_keys, held_values)
        return keys, values

    def newest(self, frame: int, scratch: Scratch) -> tuple[Tensor, Tensor]:
        """Return the held frame of all layers, keys and values [lanes, frame, channels]."""
        assert self._plan is not None
        keys, values = scratch.held(self._layers, frame, self._shape)
        behind = slice(self.tokens, self.tokens + frame)
        if self._plan.keys_in_place:
            keys = self._own_keys[:, behind]
        if self._plan.values_in_place:
            values = self._own_values[:, behind]
        return keys, values

    def write_scores(self, scores: Tensor) -> None:
        """Note the newest scores of all tokens, float32 [sets, tokens and more]."""
        start = 0
        for segment in self.all:
            stop = start + len(segment)
            if len(segment):
                segment.scores.copy_(scores[:, start:stop])
            start = stop

    def has_room_for(self, frame: int) -> bool:
        """Whether history can take a frame of ``frame`` tokens without giving any up."""
        arriving = max(frame, len(self.window))
        return len(self.history) + arriving <= self.history.plan.slots

    def admit_first(self, tokens: Tokens, count: int, frames: int) -> None:
        """Make the ``count`` best tokens of the first pass of ``frames`` the anchor.

        The special tokens of all its frames stand in front.

        Args:
            tokens: of all frames of the pass.
            count: how many of them stay.
            frames: of the pass.

        """
        self._anchor_special = frames * self._special_tokens
        if frames > 1:
            places = torch.arange(len(tokens), device=tokens.order.device).view(frames, -1)
            special, patches = places.tensor_split([self._special_tokens], dim=1)
            front = torch.cat([special.flatten(), patches.flatten()])
            tokens = tokens.pick(front.expand(len(tokens.order), -1))
        self.anchor.admit(best_of_frame(tokens, count, self._anchor_special))

    def take_in_parts(self, part: LayerSegments) -> None:
        """Hold the first pass that :meth:`split` parts like ``part`` have taken in."""
        self._anchor_special = part._anchor_special
        self.anchor.take_in_parts(part.anchor)

    def oldest(self, newest: Tensor, frame: int) -> Tensor | None:
        """Return the slots of history whose tokens leave when a frame of ``frame`` tokens comes.

        For policies by which the oldest leave. None while there is room, and where history is
        shorter than a frame.

        Args:
            newest: number of the newest token, int32 [1].
            frame: tokens of the frame.

        Returns:
            Place of each among all tokens of its layer, int64 [sets of all layers, leaving].

        """
        plan = self.history.plan
        arriving = len(self.window) or frame
        arriving -= min(self._special_tokens, self.special.plan.slots)
        leaving = len(self.history) + arriving - plan.slots
        if leaving <= 0 or leaving > min(len(self.history), frame - self._special_tokens):
            return None
        ages = newest - self.history.numbers
        before = len(self.anchor) + len(self.special)
        return ages.topk(leaving, dim=1).indices + before

    def without(self, index: int, slots: Tensor, tokens: Tensor, newest: Tensor) -> Tensor:
        """Return a layer's decoded tokens without those in ``slots``.

        The last tokens of the newest frame take their places, since attention asks for no order.

        Args:
            index: of the layer in the group.
            slots: what :meth:`oldest` gave.
            tokens: keys or values in the scratch, [heads, tokens, channels]; written to.
            newest: keys or values of the newest frame, [heads, frame, channels].

        """
        own, leaving = share(slots, index, self._layers)[..., None], slots.shape[1]
        last = newest[:, newest.shape[1] - leaving :]
        tokens.scatter_(1, own.expand(last.shape), last)
        return tokens[:, : tokens.shape[1] - leaving]

    def admit(self, tokens: Tokens, count: int) -> None:
        """Take the ``count`` best of the newest frame's tokens in, special ones in front.

        Without a window they are rounded into slots of those that go. With one they wait there, and
        the frame before is rounded.
        """
        newest = best_of_frame(tokens, count, self._special_tokens)
        if self.window.plan.slots:
            self._round(self.window.contents())
            self.window.clear()
            self.window.admit(newest)
        else:
            self._round(newest)

    def _round(self, tokens: Tokens) -> None:
        fine = min(self._special_tokens, len(tokens), self.special.plan.slots)
        count = min(len(tokens), fine + self.history.plan.slots)
        tokens = best_of_frame(tokens, count, self._special_tokens)
        if fine:
            self.special.admit(tokens.span(0, fine))
        if count > fine:
            patches = tokens.span(fine, count)
            # Only the groups of packed keys care who comes beside whom.
            packed = self.history.plan.key_bits != UNQUANTIZED
            self.history.admit(patches.by_score() if packed else patches)

    def expect(
        self,
        frame: int,
        settings: CacheSettings,
        places: Callable[[], tuple[Tensor, ...]],
        anchors: int = 1,
    ) -> None:
        """Lay out again where there is no room for a frame of a new size.

        Args:
            frame: tokens of the frame to come.
            settings: widths.
            places: gives what :meth:`places` does.
            anchors: frames that come together, where the first pass is to come.

        """
        plan = self._plan
        if plan is None or not self.tokens:
            self._anchor_frame = anchors * frame
        if frame in self._frames:
            return
        self._frames.add(frame)
        if plan is None or not self.tokens:
            return
        _, patches = arrivals(plan, self._frames, self._special_tokens)
        if frame > plan.frame or not self.history.has_rows_for(patches):
            self.lay_out(settings, slots=plan.slots, anchor=plan.anchor.slots, places=places())

    def places(self, newest: Tensor, frame: int) -> tuple[Tensor, ...]:
        """Rank what each segment holds, for :meth:`lay_out`.

        In the anchor, special tokens stand before all others; elsewhere the newest frame's tokens
        do, its special ones first.

        Args:
            newest: number of the newest token, int32 [1].
            frame: tokens of the newest frame.

        """
        ranked = tuple(ranks(segment.scores) for segment in self.all)
        ranked[0][:, : self._anchor_special] += len(self.anchor)
        for order, segment in zip(ranked[1:], self.all[1:], strict=True):
            ages = newest - segment.numbers
            window = (ages >= 0) & (ages < frame)
            foremost = window & (ages >= frame - self._special_tokens)
            order += len(segment) * (window.long() + foremost.long())
        return ranked

    def lay_out(
        self,
        settings: CacheSettings,
        *,
        slots: int,
        anchor: int,
        places: tuple[Tensor, ...],
        together: int = 1,
    ) -> None:
        """Divide the layer again, and take along what is held and fits. May wait for the device.

        Args:
            settings: widths from now on.
            slots: in all.
            anchor: tokens of the first frame that are kept.
            places: see :meth:`places`.
            together: frames that come next in one pass.

        """
        special_tokens = self._special_tokens
        frame = together * max(self._frames)
        plan = plan_layer(settings, slots=slots, anchor=anchor, frame=frame, special=special_tokens)
        if plan == self._plan and not self.tokens:
            return
        rows = rows_of(plan, self._frames, special_tokens, self._anchor_frame)
        old = self.all
        # Tokens of a segment that is no more join the history.
        room = plan.history.slots
        window = 0 if plan.window.slots else min(len(self.window), room)
        special = 0 if plan.special.slots else min(len(self.special), room - window)
        wanted = SegmentCounts(
            plan.anchor.slots,
            plan.special.slots or special,
            room - special - window,
            plan.window.slots or window,
        )
        limits = SegmentCounts(len(self.anchor), rows.special or special, rows.history, 0)
        kept = [
            segment.best(count, order, limit)
            for segment, count, order, limit in zip(old, wanted, places, limits, strict=True)
        ]
        self._allocate(plan, self._rows_with(plan, rows, kept))
        self.anchor.take_over(old[0], kept[0])
        self.history.take_over(old[2], kept[2])
        for segment, source, chosen in (
            (self.special, old[1], kept[1]),
            (self.window, old[3], kept[3]),
        ):
            if segment.plan.slots:
                segment.take_over(source, chosen)
            elif chosen.shape[1]:
                self.history.admit(source.contents().pick(chosen).by_score())

    def _rows_with(self, plan: LayerPlan, rows: SegmentCounts, kept: list[Tensor]) -> SegmentCounts:
        """Return the table rows that are needed beside the groups of the kept tokens.

        Those of the anchor are known: it never belongs to more groups than when it came.
        """
        held = SegmentCounts(*(chosen.shape[1] for chosen in kept))
        occupied = SegmentCounts(
            rows.anchor,
            *(
                source.groups_for(part, chosen)
                for source, part, chosen in zip(self.all[1:], plan.parts[1:], kept[1:], strict=True)
            ),
        )
        history, groups = held.history, occupied.history
        for part, count in ((plan.special, held.special), (plan.window, held.window)):
            if not part.slots:  # these tokens join the history
                history += count
                groups += -(-count // plan.history.group_size)
        specials, patches = arrivals(plan, self._frames, self._special_tokens)
        return SegmentCounts(
            rows.anchor,
            table_rows(plan.special, specials, held=held.special, occupied=occupied.special),
            table_rows(plan.history, patches, held=history, occupied=groups),
            0,
        )

    def _allocate(self, plan: LayerPlan, rows: SegmentCounts) -> None:
        """Make the segments of ``plan``, empty."""
        self._plan = plan
        self.generation += 1
        room = plan.slots + plan.frame
        self._own_keys = self._own_buffer(room if plan.keys_in_place else 0)
        self._own_values = self._own_buffer(room if plan.values_in_place else 0)
        starts = accumulate((part.slots for part in plan.parts), initial=0)
        self.anchor, self.special, self.history, self.window = (
            Segment(
                part,
                self._stacked,
                sets=self._layers * self._sets,
                rows=count,
                native_keys=self._own_keys[:, start:] if plan.keys_in_place else None,
                native_values=self._own_values[:, start:] if plan.values_in_place else None,
            )
            for part, count, start in zip(plan.parts, rows, starts, strict=False)
        )
        layers = [self.of_layer(index) for index in range(self._layers)]
        self._parts = [
            (
                Parts.of([segment.keys for segment in layer], in_place=plan.keys_in_place),
                Parts.of([segment.values for segment in layer], in_place=plan.values_in_place),
            )
            for layer in layers
        ]

    def _own_buffer(self, tokens: int) -> Tensor:
        shape = self._stacked
        return torch.empty(
            shape.heads, tokens, shape.channels, dtype=shape.dtype, device=shape.device
        )


def best_of_frame(tokens: Tokens, count: int, special: int) -> Tokens:
    """Return the ``count`` best of a frame's tokens in their order, the special ones before all.

    Args:
        tokens: of a frame.
        count: how many are wanted.
        special: tokens that stand in front and stay.

    """
    if count == len(tokens):
        return tokens
    scores = tokens.scores.gather(1, tokens.order)
    scores[:, :special] = torch.finfo(scores.dtype).max
    return tokens.pick(scores.topk(count, dim=1).indices.sort(dim=1).values)
