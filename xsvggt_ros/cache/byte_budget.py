# SPDX-License-Identifier: Apache-2.0
"""A budget in MiB, turned into tokens."""

from __future__ import annotations

from xsvggt_ros.cache.layer_plan import layer_nbytes, plan_layer, scratch_nbytes
from xsvggt_ros.cache.layout import CacheLayout
from xsvggt_ros.cache.settings import CacheSettings
from xsvggt_ros.errors import ConfigurationError

MIB = 2**20


def cache_nbytes(
    settings: CacheSettings, layout: CacheLayout, *, budget: int, anchor: int, frame: int
) -> int:
    """Return what ``budget`` tokens a layer allocate, over all layers and the shared scratch.

    Args:
        settings: widths and index sets.
        layout: of the network's tokens.
        budget: tokens that a layer holds.
        anchor: tokens of the first frame.
        frame: tokens of the largest frame.

    """
    plan = plan_layer(
        settings,
        slots=budget,
        anchor=min(anchor, budget),
        frame=frame,
        special=layout.special_tokens,
    )
    sets = 1 if settings.index_sets == "layer" else layout.token.heads
    layer = layer_nbytes(plan, layout.token, sets=sets, special=layout.special_tokens)
    return layout.layers * layer + scratch_nbytes(plan, layout.token)


def fitting_budget(settings: CacheSettings, layout: CacheLayout, *, anchor: int, frame: int) -> int:
    """Return the most tokens a layer may hold so that all fits into ``settings.budget_mib``.

    Raises:
        ConfigurationError: not even the smallest budget fits; the message names what would.

    """
    allowed = settings.budget_mib * MIB

    def needed(budget: int) -> int:
        return cache_nbytes(settings, layout, budget=budget, anchor=anchor, frame=frame)

    least = layout.smallest_budget
    if needed(least) > allowed:
        raise ConfigurationError(
            f"cache.budget_mib is {settings.budget_mib:g}, but frames of {frame} tokens need at "
            f"least {needed(least) / MIB:.3f} MiB; set it to at least that, lower input.width, or "
            "lower cache.key_bits and cache.value_bits"
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
