# SPDX-License-Identifier: Apache-2.0
"""The step of a group of global layers: each attends, then all are scored and rounded at once."""

from __future__ import annotations

from copy import copy

import torch
from torch import Tensor

from xsvggt_ros.cache.attention import Attend
from xsvggt_ros.cache.layer_plan import Spans, shares
from xsvggt_ros.cache.layer_segments import LayerSegments
from xsvggt_ros.cache.layout import Scratch, TokenShape
from xsvggt_ros.cache.ops import Tokens, key_similarity
from xsvggt_ros.cache.policies import Candidates, LayerView, Policy
from xsvggt_ros.cache.segment import Segment
from xsvggt_ros.cache.settings import CacheSettings
from xsvggt_ros.cuda import SideStreams

_WORST = torch.finfo(torch.float32).min


class LayerGroup:
    """Anchor, special tokens, history and window of some layers, each in one set of tensors.

    A layer attends over ``[anchor | special | history | window | newest frame]``, and the policy
    measures its tokens while they lie decoded. When the last layer of the group is done, the policy
    scores each token of each layer, the worst ones give their slots to the newest
    frame, and it is rounded into them: in as many operations as one layer alone would need. Where
    there is a window, the newest frame waits there as it came, and the frame before it is rounded
    instead.

    Once the budget is full, a step has the same shapes and addresses for ever, and it never waits
    for the device. Only where the layers are laid out again, for a first frame, another budget,
    other widths or a frame larger than any before, memory is allocated.

    Attributes:
        similarity: mean similarity of the keys to their mean direction after the newest frame,
            where budgets adapt to layers; on the device.

    """

    def __init__(
        self,
        settings: CacheSettings,
        budget: int | None,
        *,
        policy: Policy,
        shape: TokenShape,
        first_layer: int,
        layers: int,
        special: int,
        attend: Attend,
        scratch: Scratch,
        side: SideStreams,
    ) -> None:
        """Make an empty cache.

        Args:
            settings: widths, index sets, group size.
            budget: most tokens that a layer holds after a frame; None = no bound.
            policy: scores tokens.
            shape: of a token of one layer.
            first_layer: index in the network of the first layer.
            layers: how many there are.
            special: special tokens in front of each frame.
            attend: how to attend.
            scratch: shared with the other groups.
            side: for what may run beside the network, shared with the other groups.

        """
        self._settings = settings
        self._budget = budget
        self._policy = policy
        self._first_layer = first_layer
        self._layers = layers
        self._special_tokens = special
        self._attend = attend
        self._scratch = scratch
        self._side = side
        # The measure that runs beside the network reads it: it may not be freed before.
        self._asking: Tensor | None = None
        self._sets = 1 if settings.index_sets == "layer" else shape.heads
        self._held = LayerSegments(shape, layers=layers, special_tokens=special, sets=self._sets)
        self._frame = 0
        self._seen = 0
        # Of the pass that comes next.
        self._together = 1
        self._stores = True
        self._leaving: Tensor | None = None
        # Layers of a first pass of several frames, each by itself.
        self._apart: list[LayerGroup] = []
        self._divides = True
        # On the device, so that a captured step can count on; wraps around at 2^32.
        self._clock = torch.zeros(1, dtype=torch.int32, device=shape.device)
        self._scored = False
        self._measures: list[Tensor | None] = []
        self._updates: list[Tensor | None] = []
        self._steps: dict[int, tuple[Tensor, Tensor]] = {}
        self.similarity = torch.zeros((), device=shape.device)

    @property
    def budget(self) -> int | None:
        """Most tokens that a layer holds after a frame; None = no bound."""
        return self._budget

    @property
    def layers(self) -> int:
        """Layers of the group."""
        return self._layers

    @property
    def segments(self) -> tuple[Segment, Segment, Segment, Segment]:
        """Anchor; special tokens of later frames; history; window.

        The second is empty unless they are stored finer, the last unless it is kept as it came.
        """
        return self._held.all

    def segments_of(self, index: int) -> tuple[Segment, ...]:
        """Return :attr:`segments` of one layer, as they are now."""
        return self._held.of_layer(index)

    @property
    def tokens(self) -> int:
        """Tokens that each layer holds now."""
        return self._held.tokens

    @property
    def seen(self) -> int:
        """Tokens ever handed in to a layer since the last :meth:`clear`."""
        return self._seen

    @property
    def newest_frame(self) -> int:
        """Tokens of the newest frame."""
        return self._frame

    @property
    def nbytes(self) -> int:
        """Allocated bytes: all segments, and in-place room for the newest frame."""
        return self._held.nbytes

    @property
    def scratch_nbytes(self) -> int:
        """Bytes of the shared scratch that this group needs."""
        return self._held.scratch_nbytes

    @property
    def state(self) -> tuple[int, ...]:
        """What decides about the shapes and addresses of the next step."""
        lengths = (len(segment) for segment in self._held.all)
        return (self._held.generation, int(self._scored), *lengths)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All tensors that outlive a step."""
        return (*self._held.tensors, self._clock)

    def numbers_of(self, index: int) -> Tensor:
        """Return the number in the stream of each token of a layer, int64 [sets, tokens]."""
        own = slice(index * self._sets, (index + 1) * self._sets)
        since = self._clock - 1 - self._held.together("numbers")[own]
        return self._seen - 1 - since.long()

    def clear(self) -> None:
        """Forget everything, keeping the allocation."""
        self._held.clear()
        self._clock.zero_()
        self._frame = self._seen = 0
        self._scored = False
        self._measures, self._updates, self._apart = [], [], []
        self._together, self._stores = 1, True

    def attend(self, index: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Let a layer attend over the past and the new frame, all [1, heads, tokens, head_dim].

        Args:
            index: of the layer in the group; layers come in their order.
            query: of the new frame.
            key: the same.
            value: the same.

        """
        # This layer is decoded, the scratch behind it is free, and so is the room of the frames of
        # the group before.
        self._side.join("cache")
        if index == 0:
            self._begin(key.shape[2])
        if self._apart:
            return self._apart[index].attend(0, query, key, value)
        if index == 0:
            self._held.decode(0, key.shape[2], self._scratch)
        keys, values = self._held.append(index, key[0], value[0], self._scratch)
        mixed = self._attend_over(index, query, key, value, keys, values)
        if index + 1 < self._layers:
            # Over what has just been attended to, so not before; the blocks up to the next layer
            # leave the memory alone.
            with self._side.fork("cache"):
                self._held.decode(index + 1, key.shape[2], self._scratch)
        return mixed

    def _attend_over(
        self, index: int, query: Tensor, key: Tensor, value: Tensor, keys: Tensor, values: Tensor
    ) -> Tensor:
        """Attend over a layer's tokens [heads, tokens, channels], the newest ones last."""
        if not self._stores:
            return self._attend(query, keys[None], values[None])
        if self._leaving is not None:
            keys = self._held.without(index, self._leaving, keys, key[0])
            values = self._held.without(index, self._leaving, values, value[0])
        anchor = len(self._held.anchor)
        view = LayerView(query[0], keys, values, anchor, self._special_tokens, self._sets)
        self._asking = query
        with self._side.fork("cache"):
            self._measures.append(self._policy.measure(view))
        if self._settings.adapts_layers:
            self.similarity = key_similarity(keys, anchor).nanmean()
        return self._attend(query, keys[None], values[None])

    def begin_pass(self, frames: int, *, stores: bool) -> None:
        """Say what comes next.

        Args:
            frames: that come together; more than one only in the first pass of a stream.
            stores: whether they are remembered; else they attend and leave nothing.

        """
        self._together, self._stores = frames, stores

    def _begin(self, tokens: int) -> None:
        """Make room for the tokens of a pass."""
        self._measures, self._updates = [], []
        self._leaving = None
        frame = tokens // self._together
        self._held.expect(frame, self._settings, self._places, self._together)
        if not self._seen:
            kept = self._shares(tokens).window
            self._lay_out(anchor=kept, frame=tokens, together=self._together)
            if self._together > 1 and self._divides:
                # All layers of such a pass would take too much room to wait for each other.
                self._apart = self.split()
                for one in self._apart:
                    one._divides = False
        elif self._settings.keeps_frames and self._stores:
            self._leaving = self._held.oldest(self._clock - 1, frame)

    def absorb(self, index: int, update: Tensor) -> None:
        """Take note of what a layer's MLP added, [1, frame, dim]; after the last one, remember."""
        if not self._stores:
            return
        if self._apart:
            self._apart[index].absorb(0, update)
            if index == self._layers - 1:
                self._take_in_apart()
            return
        self._updates.append(self._policy.measure_update(update[0]))
        if index == self._layers - 1:
            with self._side.fork("cache"):
                self._remember(update.shape[1])

    def _remember(self, frame: int) -> None:
        """Score all tokens, then let the newest frame take the place of the worst ones."""
        keys, values = self._held.newest(frame, self._scratch)
        numbers, order = self._steps_of(frame)
        rows = self._layers * self._sets
        numbers = (self._clock + numbers).expand(rows, -1)
        insertions = self._policy.insertions(_together(self._updates), rows, frame, self._clock)
        self._clock += frame
        scores = self._score(numbers, insertions, frame)
        order = order.expand(rows, -1)
        newest = Tokens(keys, values, numbers, scores[:, -frame:], insertions, order)
        kept = self._shares(frame)
        if not self._seen:
            self._held.admit_first(newest, kept.window, self._together)
        else:
            self._held.write_scores(scores)
            crowded = kept.anchor < len(self._held.anchor)
            growing = self._budget is None and not self._held.has_room_for(frame)
            if crowded or growing:
                self._lay_out(anchor=kept.anchor, frame=frame)
            self._held.admit(newest, kept.window)
        self._seen += frame
        self._frame = frame // self._together
        self._scored = True

    def _take_in_apart(self) -> None:
        """Hold what the layers of a first pass remember; make room for what comes after it."""
        self._side.join("cache")
        one = self._apart[0]
        self._held.take_in_parts(one._held)
        self._clock.copy_(one._clock)
        self._seen, self._frame, self._scored = one._seen, one._frame, True
        self._apart, self._together = [], 1
        self._lay_out(anchor=len(self._held.anchor), frame=self._frame)

    def count(self, tokens: int, frame: int) -> None:
        """Set what the host counts: ``tokens`` seen in all, the newest ``frame`` of so many."""
        self._seen, self._frame = tokens, frame

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
            policy: scores tokens from now on; None = as before.
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

    def twin(self) -> LayerGroup:
        """Return this group as it is, in the same memory.

        It stays as it is when this one is laid out again, and its memory with it.
        """
        other: LayerGroup = copy(self)
        other._held = copy(self._held)
        return other

    def split(self) -> list[LayerGroup]:
        """Return the same tokens as one group for each layer, in the same memory."""
        return [self._only(index, held) for index, held in enumerate(self._held.split())]

    def _only(self, index: int, held: LayerSegments) -> LayerGroup:
        one: LayerGroup = copy(self)
        one._layers, one._first_layer = 1, self._first_layer + index
        one._held, one._clock = held, self._clock.clone()
        one._measures, one._updates = [], []
        one._apart = []
        return one

    def _lay_out_for_budget(self) -> None:
        if not self._seen:
            return
        past = self.tokens - len(self._held.anchor)
        window = min(self._frame, past)
        spans = Spans(len(self._held.anchor), past - window, window)
        kept = spans if self._budget is None else shares(spans, self._budget)
        self._lay_out(anchor=kept.anchor, frame=self._frame)

    def _lay_out(self, *, anchor: int, frame: int, together: int = 1) -> None:
        """Divide the layers by their budget; without one, into twice the room that is needed.

        For a first pass of several frames, which wait in the scratch, there is room for its tokens
        and nothing else.
        """
        slots = 2 * (self.tokens + frame) if self._budget is None else self._budget
        self._held.lay_out(
            self._settings,
            slots=slots if together == 1 else anchor,
            anchor=anchor,
            places=self._places(),
            together=together,
        )

    def _places(self) -> tuple[Tensor, ...]:
        return self._held.places(self._clock - 1, self._frame)

    def _shares(self, frame: int) -> Spans:
        """Return how many tokens of anchor, history and newest frame stay."""
        anchor = len(self._held.anchor)
        spans = Spans(anchor, self.tokens - anchor, frame)
        return spans if self._budget is None else shares(spans, self._budget)

    def _score(self, numbers: Tensor, insertions: Tensor, frame: int) -> Tensor:
        """Ask the policy; return the scores of all tokens, the newest frame's last."""
        held = self._held
        newest = self._clock - 1
        candidates = Candidates(
            measures=self._measured(),
            insertions=held.together("insertions", insertions),
            ages=newest - held.together("numbers", numbers),
            newest=newest,
            previous=held.together("scores") if self._scored and self._policy.compares else None,
            first_layer=self._first_layer,
            sets=self._sets,
            frame=frame,
        )
        # A token that is not a number must be the first to go, not the last.
        return self._policy.scores(candidates).nan_to_num(nan=_WORST, neginf=_WORST)

    def _measured(self) -> Tensor | None:
        """Return what the policy measured, the mean over heads that share a set."""
        measures, rows = _together(self._measures), self._layers * self._sets
        if measures is None or len(measures) == rows:
            return measures
        shared: Tensor = measures.unflatten(0, (rows, -1)).mean(dim=1)
        return shared

    def knows(self, frame: int) -> bool:
        """Whether a frame of ``frame`` tokens was stored."""
        return frame in self._steps

    def _steps_of(self, frame: int) -> tuple[Tensor, Tensor]:
        """Return 0, 1, .. ``frame`` - 1 as int32 [frame] and int64 [1, frame], kept by size."""
        if frame not in self._steps:
            order = torch.arange(frame, device=self._clock.device)
            self._steps[frame] = order.int(), order[None]
        return self._steps[frame]


class GroupedLayer:
    """One layer of a group, as one of the cache's layers."""

    def __init__(self, group: LayerGroup, index: int) -> None:
        """Be layer ``index`` of ``group``."""
        self.group = group
        self._index = index

    @property
    def budget(self) -> int | None:
        """Most tokens held after a frame; None = no bound."""
        return self.group.budget

    @property
    def segments(self) -> tuple[Segment, ...]:
        """Anchor, special tokens of later frames, history, window, as they are now."""
        return self.group.segments_of(self._index)

    @property
    def tokens(self) -> int:
        """Tokens held now."""
        return self.group.tokens

    @property
    def seen(self) -> int:
        """Tokens ever handed in since the last :meth:`clear`."""
        return self.group.seen

    @property
    def nbytes(self) -> int:
        """Allocated bytes: the layer's share of its group."""
        return self.group.nbytes // self.group.layers

    @property
    def numbers(self) -> Tensor:
        """Number in the stream of each token held, int64 [sets, tokens], in order of segments."""
        return self.group.numbers_of(self._index)

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attend over the past and the new frame, all [1, heads, tokens, head_dim]."""
        return self.group.attend(self._index, query, key, value)

    def absorb(self, update: Tensor) -> None:
        """Take note of what the block's MLP added, [1, frame, dim]."""
        self.group.absorb(self._index, update)

    def clear(self) -> None:
        """Forget everything, keeping the allocation; the first layer does it for its group."""
        if self._index == 0:
            self.group.clear()


def _together(parts: list[Tensor | None]) -> Tensor | None:
    """Put the layers' tensors [sets, n] or [n] one after the other, [rows, n]."""
    tensors = [part.view(-1, part.shape[-1]) for part in parts if part is not None]
    if not tensors:
        return None
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors)
