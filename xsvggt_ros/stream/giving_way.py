# SPDX-License-Identifier: Apache-2.0
"""What a cache gives up when the device has no memory left."""

from __future__ import annotations

from dataclasses import replace

from xsvggt_ros.cache.byte_budget import fitting_budget
from xsvggt_ros.cache.layout import CacheLayout
from xsvggt_ros.cache.settings import CacheSettings
from xsvggt_ros.errors import ConfigurationError

KEPT = 0.7
"""Share of a budget that is kept: half would throw away too much for a first try."""


def shrunk(settings: CacheSettings, layout: CacheLayout, frame: int) -> CacheSettings:
    """Return settings that need less memory, or the same where there is nothing to give up.

    A budget in MiB shrinks as such, because it replaces the one in tokens. A cache without a bound
    (policy none) and the published code's have nothing that could shrink.

    Args:
        settings: of the cache that did not fit.
        layout: of the network's tokens.
        frame: tokens of a frame.

    """
    if not settings.bounded or settings.published:
        return settings
    if settings.budget_mib:
        return _shrunk_mib(settings, layout, frame)
    least = max(layout.smallest_budget, settings.budget_min_tokens)
    return replace(settings, budget_tokens=max(least, int(settings.budget_tokens * KEPT)))


def _shrunk_mib(settings: CacheSettings, layout: CacheLayout, frame: int) -> CacheSettings:
    smaller = replace(settings, budget_mib=round(settings.budget_mib * KEPT, 3))
    try:
        fitting_budget(smaller, layout, anchor=frame, frames={frame})
    except ConfigurationError:  # not even special tokens would fit
        return settings
    return smaller


def changed(before: CacheSettings, after: CacheSettings) -> dict[str, int | float]:
    """Return the budgets that differ, by the name of their parameter."""
    names = ("budget_tokens", "budget_mib")
    return {
        f"cache.{name}": getattr(after, name)
        for name in names
        if getattr(after, name) != getattr(before, name)
    }
