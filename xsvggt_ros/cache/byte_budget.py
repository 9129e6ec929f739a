# SPDX-License-Identifier: Apache-2.0
"""A budget in MiB, turned into tokens."""

from __future__ import annotations

from collections.abc import Collection
from math import ceil

from xsvggt_ros.cache.adaptation import MOST_SHARE, adaptation_nbytes
from xsvggt_ros.cache.layer_plan import (
    LayerPlan,
    Spans,
    layer_nbytes,
    parts_of,
    plan_layer,
    scratch_nbytes,
    shares,
)
from xsvggt_ros.cache.layout import CacheLayout
from xsvggt_ros.cache.settings import CacheSettings
from xsvggt_ros.errors import ConfigurationError

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
    allowed = settings.budget_mib * MIB

    def needed(budget: int) -> int:
        return cache_nbytes(settings, layout, budget=budget, anchor=anchor, frames=frames)

    least = layout.smallest_budget
    if needed(least) > allowed:
        raise ConfigurationError(
            f"cache.budget_mib is {settings.budget_mib:g}, but frames of {max(frames)} tokens need "
            f"at least {ceil(needed(least) / MIB * 1e3) / 1e3:.3f} MiB; set it to at least that, "
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
