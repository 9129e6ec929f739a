# SPDX-License-Identifier: Apache-2.0
"""The segments of a layer: anchor, special tokens, history and window, and how they are divided."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate

import torch
from torch import Tensor

from xsvggt_ros.cache.eviction import ranks
from xsvggt_ros.cache.layer_plan import (
    LayerPlan,
    SegmentCounts,
    arrivals,
    plan_layer,
    rows_of,
    scratch_nbytes,
)
from xsvggt_ros.cache.layout import TokenShape
from xsvggt_ros.cache.quantization import UNQUANTIZED
from xsvggt_ros.cache.scratch import Scratch
from xsvggt_ros.cache.segment import Segment, SegmentPlan, Tokens, table_rows
from xsvggt_ros.cache.settings import CacheSettings


class LayerSegments:
    """Up to four segments, one behind the other, and room for the newest frame behind them.

    Memory is allocated where the layer is laid out anew, and only there.

    Attributes:
        anchor: the first frame's tokens.
        special: special tokens of later frames, where they are stored finer; else empty.
        history: all other tokens.
        window: the newest frame's tokens, where they are kept as they came; else empty.

    """

    def __init__(self, shape: TokenShape, *, special_tokens: int, sets: int) -> None:
        """Make segments without any slots.

        Args:
            shape: of a token.
            special_tokens: in front of each frame.
            sets: index sets: 1, or one per head.

        """
        self._shape = shape
        self._special_tokens = special_tokens
        self._sets = sets
        nothing = Segment(SegmentPlan(0, UNQUANTIZED, UNQUANTIZED), shape, sets=sets, rows=0)
        self.anchor = self.special = self.history = self.window = nothing
        self._plan: LayerPlan | None = None
        self._own_keys = self._own_values = torch.empty(0)
        self._frames: set[int] = set()
        self._anchor_frame = 0

    @property
    def all(self) -> tuple[Segment, Segment, Segment, Segment]:
        """Anchor, special, history, window: the order in which they are attended over."""
        return self.anchor, self.special, self.history, self.window

    @property
    def tokens(self) -> int:
        """Tokens held now."""
        return sum(map(len, self.all))

    @property
    def nbytes(self) -> int:
        """Allocated bytes: all segments, and in-place room for the newest frame."""
        own = self._own_keys.nbytes + self._own_values.nbytes
        return own + sum(segment.nbytes for segment in self.all)

    @property
    def scratch_nbytes(self) -> int:
        """Bytes of the shared scratch that this layer needs."""
        return 0 if self._plan is None else scratch_nbytes(self._plan, self._shape)

    def clear(self) -> None:
        """Forget every token and size of frame, keeping the allocation."""
        for segment in self.all:
            segment.clear()
        self._frames.clear()
        self._anchor_frame = 0

    def together(self, name: str) -> Tensor:
        """Return ``numbers``, ``scores`` or ``births`` of all tokens, [sets, tokens]."""
        return torch.cat([getattr(segment, name) for segment in self.all], dim=1)

    def read_beside(self, key: Tensor, value: Tensor, scratch: Scratch) -> tuple[Tensor, Tensor]:
        """Return all keys and all values, the given newest ones last, [heads, tokens, channels].

        They lie where they are stored, or are decoded into ``scratch``.
        """
        assert self._plan is not None
        held = self.tokens
        keys, values = self._context(self._plan, held + key.shape[1], scratch)
        start = 0
        for segment in self.all:
            stop = start + len(segment)
            segment.read_into(keys[:, start:stop], values[:, start:stop])
            start = stop
        keys[:, held:] = key
        values[:, held:] = value
        return keys, values

    def _context(self, plan: LayerPlan, tokens: int, scratch: Scratch) -> tuple[Tensor, Tensor]:
        shape = self._shape
        scratch.reserve(
            plan.slots + plan.frame,
            shape,
            keys=not plan.keys_in_place,
            values=not plan.values_in_place,
        )
        return (
            self._own_keys[:, :tokens] if plan.keys_in_place else scratch.keys(tokens, shape),
            self._own_values[:, :tokens] if plan.values_in_place else scratch.values(tokens, shape),
        )

    def write_scores(self, scores: Tensor) -> None:
        """Note the newest scores of all tokens, float32 [sets, tokens and more]."""
        start = 0
        for segment in self.all:
            stop = start + len(segment)
            segment.scores.copy_(scores[:, start:stop])
            start = stop

    def has_room_for(self, frame: int) -> bool:
        """Whether history can take a frame of ``frame`` tokens without giving any up."""
        arriving = max(frame, len(self.window))
        return len(self.history) + arriving <= self.history.plan.slots

    def admit_first(self, tokens: Tokens, count: int) -> None:
        """Make the ``count`` best tokens of the first frame the anchor."""
        self.anchor.admit(best_of_frame(tokens, count, self._special_tokens))

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
        fine = min(self._special_tokens, tokens.keys.shape[1], self.special.plan.slots)
        count = min(tokens.keys.shape[1], fine + self.history.plan.slots)
        tokens = best_of_frame(tokens, count, self._special_tokens)
        if fine:
            self.special.admit(tokens.span(0, fine))
        if count > fine:
            self.history.admit(tokens.span(fine, count).by_score())

    def expect(
        self, frame: int, settings: CacheSettings, places: Callable[[], tuple[Tensor, ...]]
    ) -> None:
        """Lay out anew where there is no room for a frame of a size not met before.

        Args:
            frame: tokens of the frame to come.
            settings: widths.
            places: gives what :meth:`places` does.

        """
        if frame in self._frames:
            return
        self._frames.add(frame)
        plan = self._plan
        if plan is None or not self.tokens:
            self._anchor_frame = frame
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
        ranked[0][:, : self._special_tokens] += len(self.anchor)
        for order, segment in zip(ranked[1:], self.all[1:], strict=True):
            ages = newest - segment.numbers
            window = (ages >= 0) & (ages < frame)
            foremost = window & (ages >= frame - self._special_tokens)
            order += len(segment) * (window.long() + foremost.long())
        return ranked

    def lay_out(
        self, settings: CacheSettings, *, slots: int, anchor: int, places: tuple[Tensor, ...]
    ) -> None:
        """Divide the layer anew, and take along what is held and fits. May wait for the device.

        Args:
            settings: widths from now on.
            slots: in all.
            anchor: tokens of the first frame that are kept.
            places: see :meth:`places`.

        """
        special_tokens = self._special_tokens
        plan = plan_layer(
            settings, slots=slots, anchor=anchor, frame=max(self._frames), special=special_tokens
        )
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
        """Return the table rows that are needed beside the groups of the kept tokens."""
        held = SegmentCounts(*(chosen.shape[1] for chosen in kept))
        occupied = SegmentCounts(
            *(
                source.groups_for(part, chosen)
                for source, part, chosen in zip(self.all, plan.parts, kept, strict=True)
            )
        )
        history, groups = held.history, occupied.history
        for part, count in ((plan.special, held.special), (plan.window, held.window)):
            if not part.slots:  # these tokens join the history
                history += count
                groups += -(-count // plan.history.group_size)
        specials, patches = arrivals(plan, self._frames, self._special_tokens)
        return SegmentCounts(
            max(rows.anchor, occupied.anchor),
            table_rows(plan.special, specials, held=held.special, occupied=occupied.special),
            table_rows(plan.history, patches, held=history, occupied=groups),
            0,
        )

    def _allocate(self, plan: LayerPlan, rows: SegmentCounts) -> None:
        """Make the segments of ``plan``, empty."""
        self._plan = plan
        room = plan.slots + plan.frame
        self._own_keys = self._own_buffer(room if plan.keys_in_place else 0)
        self._own_values = self._own_buffer(room if plan.values_in_place else 0)
        starts = accumulate((part.slots for part in plan.parts), initial=0)
        self.anchor, self.special, self.history, self.window = (
            Segment(
                part,
                self._shape,
                sets=self._sets,
                rows=count,
                native_keys=self._own_keys[:, start:] if plan.keys_in_place else None,
                native_values=self._own_values[:, start:] if plan.values_in_place else None,
            )
            for part, count, start in zip(plan.parts, rows, starts, strict=False)
        )

    def _own_buffer(self, tokens: int) -> Tensor:
        shape = self._shape
        return torch.empty(
            shape.heads, tokens, shape.channels, dtype=shape.dtype, device=shape.device
        )


def best_of_frame(tokens: Tokens, count: int, special: int) -> Tokens:
    """Return the ``count`` best of a frame's tokens in their order, the special ones before all."""
    if count == tokens.keys.shape[1]:
        return tokens
    scores = tokens.scores.clone()
    scores[:, :special] = torch.finfo(scores.dtype).max
    return tokens.pick(scores.topk(count, dim=1).indices.sort(dim=1).values)
