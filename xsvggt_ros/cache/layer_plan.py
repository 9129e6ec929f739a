# SPDX-License-Identifier: Apache-2.0
"""How the tokens of a layer are divided over its segments; tokens in bytes, and bytes in tokens."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from itertools import pairwise
from math import ceil
from typing import NamedTuple

import torch

from xsvggt_ros.cache.adaptation import MOST_SHARE, adaptation_nbytes
from xsvggt_ros.cache.layout import CacheLayout, TokenShape
from xsvggt_ros.cache.quantization import UNQUANTIZED
from xsvggt_ros.cache.segment import Segment, SegmentPlan, table_rows
from xsvggt_ros.cache.settings import CacheSettings
from xsvggt_ros.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Spans:
    """Tokens of a layer: the anchor, the history, and the newest frame's window."""

    anchor: int
    history: int
    window: int

    @property
    def total(self) -> int:
        """All tokens of the layer."""
        return self.anchor + self.history + self.window


def check_budget(budget: int, least: int) -> None:
    """Raise ConfigurationError, naming the ``least`` budget, where ``budget`` is impossible."""
    if budget < least:
        raise ConfigurationError(
            f"cache.budget_tokens is {budget}, but the special tokens of the first and of the "
            f"newest frame alone take {least}; set it to at least {least}"
        )


def shares(spans: Spans, budget: int) -> Spans:
    """Divide ``budget`` over anchor, history and window.

    Anchor and window stay whole while both fit; what is left goes to history. Where they do not
    fit, history gets nothing and the two share by halves; what one cannot use goes to the other.
    The shares depend on counts alone, so that no step has to wait for the device.
    """
    if spans.total <= budget:
        return spans
    if spans.anchor + spans.window <= budget:
        return Spans(spans.anchor, budget - spans.anchor - spans.window, spans.window)
    window = min(spans.window, max((budget + 1) // 2, budget - spans.anchor))
    return Spans(budget - window, 0, window)


TABLE_SLACK = 1.2
"""Groups that history may be spread over, as a multiple of dense ones. More lets a policy choose
token by token, less saves bytes: this much keeps a cache of 4/4 bits under 4.6 bits an element."""

GROUPS_PER_FRAME = 8
"""Least groups that the history of a frame is divided into, for packed keys leave by groups: a
frame that is a single group is forgotten as a whole, however good its best tokens are."""
LEAST_GROUP = 8
"""Keys of a group all the same: with fewer, grids take more room than the codes of 4 bits."""


def history_group_size(settings: CacheSettings, frame: int) -> int:
    """Return how many keys of the history share a grid: ``group_size``, or fewer.

    As ``group_size`` says where nothing is evicted, and where whole frames are.

    Args:
        settings: group size, policy and budget.
        frame: tokens of the largest frame.

    """
    if settings.keeps_frames or not settings.bounded:
        return settings.group_size
    return min(settings.group_size, max(LEAST_GROUP, frame // GROUPS_PER_FRAME))


@dataclass(frozen=True, slots=True)
class LayerPlan:
    """The segments of a layer.

    Attributes:
        anchor: the first frame's tokens.
        special: special tokens of later frames, where they are stored finer or stay longer than
            their frame; else without slots.
        history: all other tokens.
        window: the newest frame's tokens as they came, where they are to stay so until the next
            frame; else without slots, and history holds them.
        frame: tokens of the largest frame that there is room for beside the segments.

    """

    anchor: SegmentPlan
    special: SegmentPlan
    history: SegmentPlan
    window: SegmentPlan
    frame: int

    @property
    def parts(self) -> tuple[SegmentPlan, SegmentPlan, SegmentPlan, SegmentPlan]:
        """Anchor, special, history, window."""
        return self.anchor, self.special, self.history, self.window

    @property
    def slots(self) -> int:
        """All slots of the layer."""
        return sum(part.slots for part in self.parts)

    @property
    def keys_in_place(self) -> bool:
        """Whether keys are attended to where they are stored, without a copy."""
        return self._undivided and self.history.key_bits == UNQUANTIZED

    @property
    def values_in_place(self) -> bool:
        """The same of values."""
        return self._undivided and self.history.value_bits == UNQUANTIZED

    @property
    def _undivided(self) -> bool:
        """Whether no segment stands between or behind anchor and history."""
        return self.special.slots == self.window.slots == 0


def plan_layer(
    settings: CacheSettings, *, slots: int, anchor: int, frame: int, special: int
) -> LayerPlan:
    """Divide ``slots`` over the segments.

    Args:
        settings: widths and group size.
        slots: in all; for a bounded cache, its budget.
        anchor: tokens of the first frame that are kept.
        frame: tokens of a frame.
        special: special tokens in front of each frame.

    """
    fine_keys = max(settings.key_bits, settings.anchor_bits)
    fine_values = max(settings.value_bits, settings.anchor_bits)
    widths = settings.key_bits, settings.value_bits
    whole = keeps_newest(settings)
    window = min(frame, slots - anchor) if whole else 0
    specials = 0
    if settings.keeps_frames:
        left = slots - anchor - window
        beside = 0 if whole else frame - special
        specials = min(max(special, min(pinned_tokens(settings, special), left - beside)), left)
    elif (fine_keys, fine_values) != widths:
        beside = 0 if whole else frame - special
        specials = _special_slots(slots, slots - anchor - window, frame, special, beside)
    # Anchor and window never leave by groups, and of a frame's special tokens there are few.
    size = settings.group_size
    fine_size = history_group_size(settings, frame)
    # Whole frames leave whole groups behind.
    slack = 1.0 if settings.keeps_frames else TABLE_SLACK
    return LayerPlan(
        SegmentPlan(anchor, fine_keys, fine_values, size),
        SegmentPlan(specials, fine_keys, fine_values, size),
        SegmentPlan(slots - anchor - specials - window, *widths, fine_size, slack),
        SegmentPlan(window, UNQUANTIZED, UNQUANTIZED, size),
        frame,
    )


def pinned_tokens(settings: CacheSettings, special: int) -> int:
    """Return how many special tokens stay: those of the window, and those of frames before it."""
    return (settings.window_frames + settings.trajectory_frames) * special


def window_budget(
    settings: CacheSettings, layout: CacheLayout, *, anchor: int, frames: Iterable[int]
) -> int:
    """Return the tokens of a layer that keeps whole frames, as ``settings`` say.

    Args:
        settings: settled ones.
        layout: of the network's tokens.
        anchor: tokens of the first pass.
        frames: tokens of a frame, for each size that there is.

    """
    special = layout.special_tokens
    patches = settings.window_frames * (max(frames) - special)
    # Where the newest frame waits as it came, its special tokens wait with it.
    waiting = special if keeps_newest(settings) else 0
    return anchor + patches + pinned_tokens(settings, special) + waiting


def keeps_newest(settings: CacheSettings) -> bool:
    """Return whether the newest frame is stored as it came, unlike the rest.

    Not where a window of whole frames is this frame alone: the next one does not attend to it.
    """
    if settings.keeps_frames and settings.window_frames == 1:
        return False
    widths = settings.key_bits, settings.value_bits
    return settings.window_bits == UNQUANTIZED and widths != (UNQUANTIZED, UNQUANTIZED)


def _special_slots(slots: int, left: int, frame: int, special: int, patches: int) -> int:
    """As many special tokens as frames fit into the layer, as long as ``patches`` fit, too."""
    natural = special * -(-slots // frame)
    return min(max(special, min(natural, left - patches)), left)


LAYERS_AT_ONCE = 24
"""Most layers of a group. All of them are scored and rounded in one pass, and the newest frame of
each waits for it: more layers mean fewer operations, fewer mean less scratch."""
LAYERS_WHERE_ROOM_IS_SHORT = 8
"""The same where a budget in MiB makes tokens of what scratch does not take, and where nothing
bounds the cache, so that not all layers double their room at the same time."""


def parts_of(settings: CacheSettings, layout: CacheLayout) -> list[range]:
    """Return the layers of each group, about equally many; one each where budgets differ."""
    layers = layout.layers
    short = settings.budget_mib > 0 or not settings.bounded
    most = LAYERS_WHERE_ROOM_IS_SHORT if short else LAYERS_AT_ONCE
    groups = layers if settings.adapts_layers else ceil(layers / most)
    borders = [layers * group // groups for group in range(groups + 1)]
    return [range(start, stop) for start, stop in pairwise(borders)]


class SegmentCounts(NamedTuple):
    """A number for each segment."""

    anchor: int
    special: int
    history: int
    window: int


def arrivals(plan: LayerPlan, frames: Iterable[int], special: int) -> tuple[list[int], list[int]]:
    """Return how many tokens come into special segment and history with frames of these sizes."""
    fine = special if plan.special.slots else 0
    patches = [min(frame - fine, plan.history.slots) for frame in frames]
    return [fine], patches


def rows_of(
    plan: LayerPlan, frames: Iterable[int], special: int, anchor_frame: int
) -> SegmentCounts:
    """Return the table rows that the segments need when they begin empty.

    An anchor that had to give way may still belong to all groups of its frame.
    """
    specials, patches = arrivals(plan, frames, special)
    groups = -(-anchor_frame // plan.anchor.group_size)
    return SegmentCounts(
        min(plan.anchor.slots, groups),
        table_rows(plan.special, specials),
        table_rows(plan.history, patches),
        0,
    )


def layer_nbytes(
    plan: LayerPlan,
    shape: TokenShape,
    *,
    sets: int,
    special: int,
    frames: Iterable[int],
    anchor_frame: int,
) -> int:
    """Return what a layer of this plan allocates when it begins empty, without allocating it."""
    imagined = TokenShape(shape.heads, shape.channels, shape.dtype, torch.device("meta"))
    rows = rows_of(plan, frames, special, anchor_frame)
    total = sum(
        Segment(part, imagined, sets=sets, rows=count).nbytes
        for part, count in zip(plan.parts, rows, strict=True)
    )
    # In place, tokens lie in the layer's own buffer, with room for the newest frame behind them.
    in_place = plan.keys_in_place + plan.values_in_place
    return total + in_place * plan.frame * shape.nbytes


def scratch_nbytes(plan: LayerPlan, shape: TokenShape, layers: int) -> int:
    """Return what the shared scratch takes for groups of ``layers`` layers of this plan.

    One layer is decoded at a time; the newest frame of each waits until the last one is done.
    """
    copied = (not plan.keys_in_place) + (not plan.values_in_place)
    return copied * (plan.slots + (1 + layers) * plan.frame) * shape.nbytes


MIB = 2**20
_ANCHORS = "cache.anchor_frames or "


def cache_nbytes(
    settings: CacheSettings,
    layout: CacheLayout,
    *,
    budget: int,
    anchor: int,
    frames: Collection[int],
) -> int:
    """Return what ``budget`` tokens a layer allocate, over all layers and the shared scratch.

    Args:
        settings: widths and index sets.
        layout: of the network's tokens.
        budget: tokens that a layer holds.
        anchor: tokens of the first frame.
        frames: tokens of a frame, for each size that there is.

    """
    special, token = layout.special_tokens, layout.token
    sets = 1 if settings.index_sets == "layer" else token.heads
    together = max(len(part) for part in parts_of(settings, layout))
    # The scratch must hold the largest layer there can be.
    largest = int(MOST_SHARE * budget) if settings.adapts_layers else budget

    def plan(slots: int, kept: int) -> LayerPlan:
        return plan_layer(settings, slots=slots, anchor=kept, frame=max(frames), special=special)

    def needed(kept: int) -> int:
        layer = layer_nbytes(
            plan(budget, kept), token, sets=sets, special=special, frames=frames,
            anchor_frame=anchor,
        )  # fmt: skip
        return layout.layers * layer + scratch_nbytes(plan(largest, kept), token, together)

    # The first frame may take all of the budget until the second one comes.
    alone = min(anchor, budget)
    beside = shares(Spans(anchor, budget, max(frames)), budget).anchor
    steady = max(needed(alone), needed(beside))
    passing = first_pass_nbytes(settings, layout, budget=budget, anchor=anchor)
    return max(steady, passing) + adaptation_nbytes(settings, token)


def first_pass_nbytes(
    settings: CacheSettings, layout: CacheLayout, *, budget: int, anchor: int
) -> int:
    """Return what the cache allocates while the ``anchor`` tokens of a first pass come.

    Until they are stored there is room for nothing else. One layer of them waits at a time. 0
    where the first pass is a frame like all others.

    Args:
        settings: of the cache.
        layout: of the network's tokens.
        budget: tokens that a layer may hold.
        anchor: tokens of the first pass.

    """
    if layout.anchor_frames == 1:
        return 0
    sets = 1 if settings.index_sets == "layer" else layout.token.heads
    kept, special = min(anchor, budget), layout.special_tokens
    plan = plan_layer(settings, slots=kept, anchor=kept, frame=anchor, special=special)
    layer = layer_nbytes(
        plan, layout.token, sets=sets, special=special, frames={anchor}, anchor_frame=anchor
    )
    return layout.layers * layer + scratch_nbytes(plan, layout.token, 1)


def fitting_budget(
    settings: CacheSettings, layout: CacheLayout, *, anchor: int, frames: Collection[int]
) -> int:
    """Return the most tokens a layer may hold so that all fits into ``settings.budget_mib``.

    Args:
        settings: with the bytes that are allowed.
        layout: of the network's tokens.
        anchor: tokens of the first pass.
        frames: the sizes of frames to come, in tokens.

    Raises:
        ConfigurationError: not even the smallest budget fits; the message names what would.

    """
    allowed = settings.budget_mib * MIB / layout.caches

    def needed(budget: int) -> int:
        return cache_nbytes(settings, layout, budget=budget, anchor=anchor, frames=frames)

    least = layout.smallest_budget
    if needed(least) > allowed:
        raise ConfigurationError(
            f"{layout.budget_words} is {settings.budget_mib:g}, but frames of {max(frames)} tokens "
            f"need at least {ceil(layout.caches * needed(least) / MIB * 1e3) / 1e3:.3f} MiB; set "
            "it to at least that, "
            f"lower input.width, or lower {'' if layout.anchor_frames == 1 else _ANCHORS}"
            "cache.key_bits and cache.value_bits"
        )
    fits, too_much = least, 2 * least
    while needed(too_much) <= allowed:
        fits, too_much = too_much, 2 * too_much
    while too_much - fits > 1:
        middle = (fits + too_much) // 2
        if needed(middle) <= allowed:
            fits = middle
        else:
            too_much = middle
    return fits


def full_budget(
    settings: CacheSettings, layout: CacheLayout, *, anchor: int, frames: Collection[int]
) -> int | None:
    """Return what a layer may hold where nothing adapts; None = no bound.

    Args:
        settings: of the cache.
        layout: of the network's tokens.
        anchor: tokens of the first pass.
        frames: the sizes of frames, in tokens; none before the first one.

    Raises:
        ConfigurationError: ``budget_mib`` does not hold the least that such frames need.

    """
    if not settings.bounded:
        return None
    if settings.budget_mib and frames and not settings.published:
        fitting = fitting_budget(settings, layout, anchor=anchor, frames=frames)
        if settings.keeps_frames:
            return min(fitting, window_budget(settings, layout, anchor=anchor, frames=frames))
        return fitting
    if settings.keeps_frames and frames:
        return window_budget(settings, layout, anchor=anchor, frames=frames)
    return settings.budget_tokens
