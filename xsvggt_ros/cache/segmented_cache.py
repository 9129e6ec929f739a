# SPDX-License-Identifier: Apache-2.0
"""The step of one global layer: attend, then judge, then round what has come."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from xsvggt_ros.cache.attention import Attend
from xsvggt_ros.cache.budget import Spans, shares
from xsvggt_ros.cache.layer_segments import LayerSegments
from xsvggt_ros.cache.layout import TokenShape
from xsvggt_ros.cache.policies.base import Candidates, Policy
from xsvggt_ros.cache.policies.key_diversity import key_similarity
from xsvggt_ros.cache.scratch import Scratch
from xsvggt_ros.cache.segment import Segment, Tokens
from xsvggt_ros.cache.settings import CacheSettings

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
        self._held = LayerSegments(shape, special_tokens=special, sets=self._sets)
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
        return self._held.all

    @property
    def tokens(self) -> int:
        """Tokens held now."""
        return self._held.tokens

    @property
    def seen(self) -> int:
        """Tokens ever handed in since the last :meth:`clear`."""
        return self._seen

    @property
    def nbytes(self) -> int:
        """Allocated bytes: all segments, and in-place room for the newest frame."""
        return self._held.nbytes

    @property
    def scratch_nbytes(self) -> int:
        """Bytes of the shared scratch that this layer needs."""
        return self._held.scratch_nbytes

    @property
    def numbers(self) -> Tensor:
        """Number in the stream of each token held, int64 [sets, tokens], in order of segments."""
        return self._seen - 1 - (self._clock - 1 - self._held.together("numbers")).long()

    def clear(self) -> None:
        """Forget everything, keeping the allocation."""
        self._held.clear()
        self._policy.clear()
        self._clock.zero_()
        self._frame = self._seen = 0
        self._scored = False
        self._pending = None

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attend over the past and the new frame."""
        keys, values = key[0], value[0]
        self._held.expect(key.shape[2], self._settings, self._places)
        if self._seen:
            keys, values = self._held.read_beside(keys, values, self._scratch)
        self._pending = _Pending(query[0], key[0], value[0], keys, values)
        return self._attend(query, keys[None], values[None])

    def absorb(self, update: Tensor) -> None:
        """Judge all tokens, then let the newest frame take the place of the worst ones."""
        pending, self._pending = self._pending, None
        assert pending is not None, "attend comes before absorb"
        newest, scores = self._score(pending, update[0])
        frame = pending.key.shape[1]
        kept = self._shares(frame)
        if not self._seen:
            self._lay_out(anchor=kept.window, frame=frame)
            self._held.admit_first(newest, kept.window)
        else:
            self._held.write_scores(scores)
            crowded = kept.anchor < len(self._held.anchor)
            growing = self._budget is None and not self._held.has_room_for(frame)
            if crowded or growing:
                self._lay_out(anchor=kept.anchor, frame=frame)
            self._held.admit(newest, kept.window)
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
        past = self.tokens - len(self._held.anchor)
        window = min(self._frame, past)
        spans = Spans(len(self._held.anchor), past - window, window)
        kept = spans if self._budget is None else shares(spans, self._budget)
        self._lay_out(anchor=kept.anchor, frame=self._frame)

    def _lay_out(self, *, anchor: int, frame: int) -> None:
        """Divide the layer by its budget; without one, into twice the room that is needed."""
        slots = 2 * (self.tokens + frame) if self._budget is None else self._budget
        self._held.lay_out(self._settings, slots=slots, anchor=anchor, places=self._places())

    def _places(self) -> tuple[Tensor, ...]:
        return self._held.places(self._clock - 1, self._frame)

    def _shares(self, frame: int) -> Spans:
        """Return how many tokens of anchor, history and newest frame stay."""
        anchor = len(self._held.anchor)
        spans = Spans(anchor, self.tokens - anchor, frame)
        return spans if self._budget is None else shares(spans, self._budget)

    def _score(self, pending: _Pending, update: Tensor) -> tuple[Tokens, Tensor]:
        """Ask the policy; return the newest frame's tokens, and the scores of all."""
        held, frame = self._held, pending.key.shape[1]
        numbers = self._clock + torch.arange(frame, dtype=torch.int32, device=self._clock.device)
        numbers = numbers.expand(self._sets, -1)
        candidates = Candidates(
            query=pending.query,
            keys=pending.keys,
            values=pending.values,
            update=update,
            ages=self._clock + (frame - 1) - torch.cat([held.together("numbers"), numbers], dim=1),
            births=held.together("births"),
            previous=held.together("scores") if self._scored else None,
            anchor=len(held.anchor),
            special=self._special_tokens,
        )
        if self._settings.adapts_layers:
            self.likeness = key_similarity(candidates.keys, candidates.anchor).nanmean()
        # A token that is not a number must be the first to go, not the last.
        scores = self._policy.scores(candidates).nan_to_num(nan=_WORST, neginf=_WORST)
        births = self._policy.births(candidates)
        return Tokens(pending.key, pending.value, numbers, scores[:, -frame:], births), scores
