# SPDX-License-Identifier: Apache-2.0
"""What a cache gives up when the device has no memory left."""

from __future__ import annotations

from dataclasses import replace

from xsvggt_ros.cache.layer_plan import fitting_budget
from xsvggt_ros.cache.layout import CacheLayout
from xsvggt_ros.cache.settings import CacheSettings
from xsvggt_ros.errors import ConfigurationError

KEPT = 0.7
"""Share of a budget that is kept: half would throw away too much for a first try."""


def shrunk(
    settings: CacheSettings, layout: CacheLayout, frame: int, *, first_pass: bool = False
) -> CacheSettings:
    """Return settings that need less memory, or the same where there is nothing to give up.

    A budget in MiB shrinks as such, because it replaces the one in tokens or frames. A cache
    without a bound (policy none) and the published code's have nothing that could shrink.

    Args:
        settings: of the cache that did not fit, settled.
        layout: of the network's tokens.
        frame: tokens of a frame.
        first_pass: whether it was the first pass of a session that did not fit. Where that has
            several frames, it gets fewer.

    """
    if first_pass and settings.anchor_frames > 2:
        return replace(settings, anchor_frames=max(2, settings.anchor_frames // 2))
    if not settings.bounded or settings.published:
        return settings
    if settings.budget_mib:
        return _shrunk_mib(settings, layout, frame)
    if settings.keeps_frames:
        return replace(settings, window_frames=max(1, int(settings.window_frames * KEPT)))
    least = max(layout.smallest_budget, settings.budget_min_tokens)
    return replace(settings, budget_tokens=max(least, int(settings.budget_tokens * KEPT)))


def _shrunk_mib(settings: CacheSettings, layout: CacheLayout, frame: int) -> CacheSettings:
    smaller = replace(settings, budget_mib=round(settings.budget_mib * KEPT, 3))
    try:
        anchor = frame * layout.anchor_frames
        fitting_budget(smaller, layout, anchor=anchor, frames={frame})
    except ConfigurationError:  # not even special tokens would fit
        return settings
    return smaller


def changed(before: CacheSettings, after: CacheSettings) -> dict[str, int | float]:
    """Return the sizes that differ, by the name of their parameter."""
    names = ("budget_tokens", "budget_mib", "window_frames", "anchor_frames")
    return {
        f"cache.{name}": getattr(after, name)
        for name in names
        if getattr(after, name) != getattr(before, name)
    }
