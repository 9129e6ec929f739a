# SPDX-License-Identifier: Apache-2.0
"""The cache of one global layer: attend, then prune, then round what has come."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

import torch
from torch import Tensor

from xsvggt_ros.cache.attention import Attend
from xsvggt_ros.cache.budget import Spans, shares
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
from xsvggt_ros.cache.policies.base import Candidates, Policy
from xsvggt_ros.cache.policies.key_diversity import key_similarity
from xsvggt_ros.cache.quantization import UNQUANTIZED
from xsvggt_ros.cache.scratch import Scratch
from xsvggt_ros.cache.segment import Segment, SegmentPlan, Tokens, table_rows
from xsvggt_ros.cache.settings import CacheSettings


class LayerCache(Protocol):
    """Remembers the tokens of one global layer."""

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attend over what is remembered and the new frame, all [1, heads, tokens, head_dim].

        The newest frame takes part unrounded.
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


_WORST = torch.finfo(torch.float32).min


@dataclass(frozen=True, slots=True)
class _Pending:
    """A frame between attention and absorption, and all that it was attended with."""

    query: Tensor
    key: Tensor
    value: Tensor
    keys: Tensor
    values: Tensor


class SegmentedCache:
    """Anchor, special tokens, history and window of a layer in one segment each.

    A step attends over ``[anchor | special | history | window | newest frame]``, asks the policy
    what each of these tokens is worth, gives the worst ones' slots to the newest frame, and rounds
    it into them. Where there is a window, the newest frame waits there as it came, and the frame
    before it is rounded instead.

    Once the budget is full, a step has the same shapes and addresses for ever, and it never waits
    for the device. Only where the layer is laid out anew, for a first frame, another budget, other
    widths or a frame larger than any before, memory is allocated.

    Attributes:
        likeness: mean likeness of the keys to their mean direction after the newest frame, where
            budgets adapt to layers; on the device.

    """

    def __init__(
        self,
        settings: CacheSettings,
        budget: int | None,
        *,
        policy: Policy,
        shape: TokenShape,
        special: int,
        attend: Attend,
        scratch: Scratch,
    ) -> None:
        """Make an empty cache.

        Args:
            settings: widths, index sets, group size.
            budget: most tokens held after a frame; None = no bound.
            policy: what a token is worth.
            shape: of a token.
            special: special tokens in front of each frame.
            attend: how to attend.
            scratch: shared with the other layers.

        """
        self._settings = settings
        self._budget = budget
        self._policy = policy
        self._shape = shape
        self._special_tokens = special
        self._attend = attend
        self._scratch = scratch
        self._sets = 1 if settings.index_sets == "layer" else shape.heads
        self._plan: LayerPlan | None = None
        nothing = Segment(SegmentPlan(0, UNQUANTIZED, UNQUANTIZED), shape, sets=self._sets, rows=0)
        self._anchor = self._special = self._history = self._window = nothing
        self._own_keys = self._own_values = torch.empty(0)
        self._frames: set[int] = set()
        self._anchor_frame = 0
        self._frame = 0
        self._seen = 0
        # On the device, so that a captured step can count on; wraps around at 2^32.
        self._clock = torch.zeros(1, dtype=torch.int32, device=shape.device)
        self._scored = False
        self._pending: _Pending | None = None
        self.likeness = torch.zeros((), device=shape.device)

    @property
    def budget(self) -> int | None:
        """Most tokens held after a frame; None = no bound."""
        return self._budget

    @property
    def segments(self) -> tuple[Segment, Segment, Segment, Segment]:
        """Anchor; special tokens of later frames; history; window.

        The second is empty unless they are stored finer, the last unless it is kept as it came.
        """
        return self._anchor, self._special, self._history, self._window

    @property
    def tokens(self) -> int:
        """Tokens held now."""
        return sum(map(len, self.segments))

    @property
    def seen(self) -> int:
        """Tokens ever handed in since the last :meth:`clear`."""
        return self._seen

    @property
    def nbytes(self) -> int:
        """Allocated bytes: all segments, and in-place room for the newest frame."""
        own = self._own_keys.nbytes + self._own_values.nbytes
        return own + sum(segment.nbytes for segment in self.segments)

    @property
    def numbers(self) -> Tensor:
        """Number in the stream of each token held, int64 [sets, tokens], in order of segments."""
        held = torch.cat([segment.numbers for segment in self.segments], dim=1)
        return self._seen - 1 - (self._clock - 1 - held).long()

    @property
    def scratch_nbytes(self) -> int:
        """Bytes of the shared scratch that this layer needs."""
        return 0 if self._plan is None else scratch_nbytes(self._plan, self._shape)

    def clear(self) -> None:
        """Forget everything, keeping the allocation."""
        for segment in self.segments:
            segment.clear()
        self._policy.clear()
        self._clock.zero_()
        self._frames.clear()
        self._frame = self._seen = 0
        self._scored = False
        self._pending = None

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attend over the past and the new frame."""
        frame = key.shape[2]
        self._expect(frame)
        held = self.tokens
        if self._plan is None or not self._seen:
            keys, values = key[0], value[0]
        else:
            keys, values = self._context(self._plan, held + frame)
            start = 0
            for segment in self.segments:
                stop = start + len(segment)
                segment.read_into(keys[:, start:stop], values[:, start:stop])
                start = stop
            keys[:, held:] = key[0]
            values[:, held:] = value[0]
        self._pending = _Pending(query[0], key[0], value[0], keys, values)
        return self._attend(query, keys[None], values[None])

    def absorb(self, update: Tensor) -> None:
        """Score all tokens, then let the newest frame take the place of the worst ones."""
        pending, self._pending = self._pending, None
        assert pending is not None, "attend comes before absorb"
        newest, scores = self._score(pending, update[0])
        frame = pending.key.shape[1]
        kept = self._shares(frame)
        if not self._seen:
            self._anchor_frame = frame
            self._lay_out(anchor=kept.window, slots=self._slots_for(frame))
            self._anchor.admit(_best(newest, kept.window, self._special_tokens))
        else:
            self._write_scores(scores)
            crowded = kept.anchor < len(self._anchor)
            growing = self._budget is None and not self._history_has_room(frame)
            if crowded or growing:
                self._lay_out(anchor=kept.anchor, slots=self._slots_for(frame))
            newest = _best(newest, kept.window, self._special_tokens)
            if self._window.plan.slots:
                self._admit(self._window.contents())
                self._window.clear()
                self._window.admit(newest)
            else:
                self._admit(newest)
        self._seen += frame
        self._frame = frame
        self._clock += frame
        self._scored = True

    def reconfigure(
        self, settings: CacheSettings, budget: int | None, policy: Policy | None, attend: Attend
    ) -> None:
        """Take on other settings at once, between two frames.

        What is held and still fits stays. Wider tokens are rounded once more to narrower ones,
        narrower ones stay what they are. Where special tokens are to be stored finer from now on,
        their slots are set aside at once; where no longer, they are rounded like the others. Waits
        for the device.

        Args:
            settings: the new ones; index sets and group size must be the old ones.
            budget: most tokens held from now on; None = no bound.
            policy: what a token is worth from now on; None = as before.
            attend: how to attend.

        """
        self._settings, self._budget, self._attend = settings, budget, attend
        if policy is not None:
            self._policy = policy
            self._scored = False
        self._lay_out_for_budget()

    def rebudget(self, budget: int | None) -> None:
        """Hold at most ``budget`` tokens from now on; None = no bound. Waits for the device."""
        if budget != self._budget:
            self._budget = budget
            self._lay_out_for_budget()

    def _lay_out_for_budget(self) -> None:
        if not self._seen:
            return
        past = self.tokens - len(self._anchor)
        window = min(self._frame, past)
        spans = Spans(len(self._anchor), past - window, window)
        kept = spans if self._budget is None else shares(spans, self._budget)
        self._lay_out(anchor=kept.anchor, slots=self._slots_for(self._frame))

    def _expect(self, frame: int) -> None:
        """Lay out anew where there is no room for a frame of a size not met before."""
        if frame in self._frames:
            return
        self._frames.add(frame)
        plan = self._plan
        if plan is None or not self._seen:
            return
        _, patches = arrivals(plan, self._frames, self._special_tokens)
        if frame > plan.frame or not self._history.has_rows_for(patches):
            self._lay_out(anchor=plan.anchor.slots, slots=plan.slots)

    def _context(self, plan: LayerPlan, tokens: int) -> tuple[Tensor, Tensor]:
        """Return where ``tokens`` are attended over: our own buffers or the shared scratch."""
        shape, scratch = self._shape, self._scratch
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

    def _shares(self, frame: int) -> Spans:
        """Return how many tokens of anchor, history and newest frame stay."""
        past = self.tokens - len(self._anchor)
        spans = Spans(len(self._anchor), past, frame)
        return spans if self._budget is None else shares(spans, self._budget)

    def _history_has_room(self, frame: int) -> bool:
        arriving = max(frame, len(self._window))
        return len(self._history) + arriving <= self._history.plan.slots

    def _slots_for(self, frame: int) -> int:
        """Return how many slots the layer needs: its budget, or without one, twice what it has."""
        if self._budget is not None:
            return self._budget
        return 2 * (self.tokens + frame)

    def _score(self, pending: _Pending, update: Tensor) -> tuple[Tokens, Tensor]:
        """Ask the policy; return the newest frame's tokens, and the scores of all."""
        frame = pending.key.shape[1]
        numbers = self._clock + torch.arange(frame, dtype=torch.int32, device=self._shape.device)
        numbers = numbers.expand(self._sets, -1)
        held = [segment.numbers for segment in self.segments]
        candidates = Candidates(
            query=pending.query,
            keys=pending.keys,
            values=pending.values,
            update=update,
            ages=(self._clock + (frame - 1)) - torch.cat([*held, numbers], dim=1),
            births=torch.cat([segment.births for segment in self.segments], dim=1),
            previous=torch.cat([segment.scores for segment in self.segments], dim=1)
            if self._scored
            else None,
            anchor=len(self._anchor),
            special=self._special_tokens,
        )
        if self._settings.adapts_layers:
            self.likeness = key_similarity(candidates.keys, candidates.anchor).mean()
        # A token that is not a number must be the first to go, not the last.
        scores = self._policy.scores(candidates).nan_to_num(nan=_WORST, neginf=_WORST)
        births = self._policy.births(candidates)
        return Tokens(pending.key, pending.value, numbers, scores[:, -frame:], births), scores

    def _write_scores(self, scores: Tensor) -> None:
        start = 0
        for segment in self.segments:
            stop = start + len(segment)
            segment.scores.copy_(scores[:, start:stop])
            start = stop

    def _admit(self, tokens: Tokens) -> None:
        """Round a frame's tokens, special ones in front, into slots of those that go."""
        fine = min(self._special_tokens, tokens.keys.shape[1], self._special.plan.slots)
        count = min(tokens.keys.shape[1], fine + self._history.plan.slots)
        tokens = _best(tokens, count, self._special_tokens)
        if fine:
            self._special.admit(tokens.span(0, fine))
        if count > fine:
            self._history.admit(tokens.span(fine, count).by_score())

    def _lay_out(self, *, anchor: int, slots: int) -> None:
        """Divide the layer anew, and take along what is held and fits."""
        plan = plan_layer(
            self._settings,
            slots=slots,
            anchor=anchor,
            frame=max(self._frames),
            special=self._special_tokens,
        )
        if plan == self._plan and not self.tokens:
            return
        rows = rows_of(plan, self._frames, self._special_tokens, self._anchor_frame)
        old = self.segments
        places = self._places()
        # Tokens of a segment that is no more join the history.
        room = plan.history.slots
        window = 0 if plan.window.slots else min(len(old[3]), room)
        special = 0 if plan.special.slots else min(len(old[1]), room - window)
        wanted = SegmentCounts(
            plan.anchor.slots,
            plan.special.slots or special,
            room - special - window,
            plan.window.slots or window,
        )
        limits = SegmentCounts(len(old[0]), rows.special or special, rows.history, 0)
        kept = [
            segment.best(count, ranking, limit)
            for segment, count, ranking, limit in zip(old, wanted, places, limits, strict=True)
        ]
        self._allocate(plan, self._rows_with(plan, rows, kept))
        self._anchor.take_over(old[0], kept[0])
        self._history.take_over(old[2], kept[2])
        for segment, source, chosen in ((self._special, old[1], kept[1]),
                                        (self._window, old[3], kept[3])):  # fmt: skip
            if segment.plan.slots:
                segment.take_over(source, chosen)
            elif chosen.shape[1]:
                self._history.admit(source.contents().pick(chosen).by_score())

    def _places(self) -> tuple[Tensor, ...]:
        """Rank what is held: in the anchor special tokens stand first, else the newest frame's."""
        ranked = tuple(ranks(segment.scores) for segment in self.segments)
        ranked[0][:, : self._special_tokens] += len(self._anchor)
        newest = self._clock - 1
        for places, segment in zip(ranked[1:], self.segments[1:], strict=True):
            ages = newest - segment.numbers
            window = (ages >= 0) & (ages < self._frame)
            foremost = window & (ages >= self._frame - self._special_tokens)
            places += len(segment) * (window.long() + foremost.long())
        return ranked

    def _rows_with(self, plan: LayerPlan, rows: SegmentCounts, kept: list[Tensor]) -> SegmentCounts:
        """Return the table rows that are needed beside the groups of the kept tokens."""
        held = SegmentCounts(*(chosen.shape[1] for chosen in kept))
        occupied = SegmentCounts(
            *(
                source.groups_for(part, chosen)
                for source, part, chosen in zip(self.segments, plan.parts, kept, strict=True)
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
        self._anchor, self._special, self._history, self._window = (
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


def _best(tokens: Tokens, count: int, special: int) -> Tokens:
    """Return the ``count`` best of a frame's tokens in their order, the special ones before all."""
    if count == tokens.keys.shape[1]:
        return tokens
    scores = tokens.scores.clone()
    scores[:, :special] = torch.finfo(scores.dtype).max
    return tokens.pick(scores.topk(count, dim=1).indices.sort(dim=1).values)
