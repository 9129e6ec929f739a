# SPDX-License-Identifier: Apache-2.0
"""Whether the cache that is asked for fits the device, said before anything is lost."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from xsvggt_ros.cache.layer_plan import (
    MIB,
    cache_nbytes,
    first_pass_nbytes,
    fitting_budget,
    window_budget,
)
from xsvggt_ros.cache.settings import CacheSettings
from xsvggt_ros.errors import ConfigurationError, FrameError
from xsvggt_ros.model.device import free_memory
from xsvggt_ros.model.network import StreamVggt
from xsvggt_ros.stream.processing import plan
from xsvggt_ros.stream.reconstructor import Reconstructor
from xsvggt_ros.stream.step_runner import cache_layout

_FLOAT = 4
EXPECTED_SIZE = (640, 480)
"""Pixels of the image that is reckoned with until the first one comes."""


def check_memory(network: StreamVggt, width: int, cache: CacheSettings, *, caches: int = 1) -> None:
    """Compare what the cache will allocate with what is free.

    Args:
        network: on its device already.
        width: of the network's input in pixels; an image of 4:3 is reckoned with.
        cache: its budget. One without a bound cannot be checked.
        caches: that live at once; a budget in MiB is that of all of them.

    Raises:
        ConfigurationError: it does not fit; the message names a budget that does.

    """
    free = free_memory(network.device)
    if free is None or not cache.bounded or cache.published:
        return
    mapping = plan(*EXPECTED_SIZE, width, network.config.patch_size)
    tokens = network.config.tokens_per_frame(mapping.height, mapping.width)
    cache = cache.settled(cache_layout(network))
    _check_first_pass(network, cache, tokens, free)
    needed = caches * needed_bytes(network, cache, tokens, caches)
    if needed <= free:
        return
    what, other = "the cache needs", ""
    if caches > 1:
        what = f"{caches} caches, which live at once while one gauge takes over from another, need"
        other = "; or set chain.length to 0"
    raise ConfigurationError(
        f"{what} {needed / MIB:.0f} MiB at {mapping.width}x{mapping.height} pixels, but "
        f"{free / MIB:.0f} MiB are free on device '{network.device}'; "
        f"{_remedy(network, cache, tokens, free, caches)}{other}"
    )


def needed_bytes(network: StreamVggt, cache: CacheSettings, tokens: int, caches: int = 1) -> int:
    """Return the bytes that a full cache allocates.

    Args:
        network: whose tokens are remembered.
        cache: settings.
        tokens: of a frame.
        caches: that live at once and share its budget in MiB.

    """
    cache = cache.settled(cache_layout(network))
    layout = replace(cache_layout(network), anchor_frames=cache.anchor_frames, caches=caches)
    anchor, frames = tokens * cache.anchor_frames, {tokens}
    budget = cache.budget_tokens
    if cache.keeps_frames:
        budget = window_budget(cache, layout, anchor=anchor, frames=frames)
    if cache.budget_mib:
        fitting = fitting_budget(cache, layout, anchor=anchor, frames=frames)
        budget = min(budget, fitting) if cache.keeps_frames else fitting
    return cache_nbytes(cache, layout, budget=budget, anchor=anchor, frames=frames)


def first_pass_bytes(network: StreamVggt, cache: CacheSettings, tokens: int) -> int:
    """Return about what a session's first pass takes at its peak, the weights aside.

    What the cache allocates meanwhile, and what the network holds at once of all frames: the
    outputs that the heads read, the residual stream, and the widest layer of a block.

    Args:
        network: with its precision.
        cache: settled settings.
        tokens: of a frame.

    """
    config = network.config
    layout = replace(cache_layout(network), anchor_frames=cache.anchor_frames)
    anchor = tokens * cache.anchor_frames
    held = first_pass_nbytes(cache, layout, budget=anchor, anchor=anchor)
    outputs = len({*config.dense.layers, config.depth - 1}) * 2 * config.embed_dim * _FLOAT
    residual = 3 * config.embed_dim * _FLOAT
    widest = int(max(3.0, 2 * config.mlp_ratio) * config.embed_dim) * layout.token.element_size
    return held + anchor * (outputs + residual + widest)


def _check_first_pass(network: StreamVggt, cache: CacheSettings, tokens: int, free: int) -> None:
    """Raise ConfigurationError where a first pass of several frames does not fit."""
    if cache.anchor_frames == 1:
        return
    needed = first_pass_bytes(network, cache, tokens)
    if needed <= free:
        return
    fewer = [
        frames
        for frames in range(1, cache.anchor_frames)
        if first_pass_bytes(network, replace(cache, anchor_frames=frames), tokens) <= free
    ]
    remedy = f"set cache.anchor_frames to at most {fewer[-1]}, " if fewer else ""
    raise ConfigurationError(
        f"the first pass takes {cache.anchor_frames} frames together and needs about "
        f"{needed / MIB:.0f} MiB, but {free / MIB:.0f} MiB are free on device '{network.device}'; "
        f"{remedy}lower input.width, or free memory there"
    )


def _remedy(network: StreamVggt, cache: CacheSettings, tokens: int, free: int, caches: int) -> str:
    if cache.budget_mib:
        return f"set cache.budget_mib to at most {free / MIB:.0f}, or free memory there"
    free //= caches
    if cache.keeps_frames:
        return _window_remedy(network, cache, tokens, free)
    allowed = replace(cache, budget_mib=free / MIB)
    layout = replace(cache_layout(network), anchor_frames=cache.anchor_frames)
    anchor = tokens * cache.anchor_frames
    try:
        fitting = fitting_budget(allowed, layout, anchor=anchor, frames={tokens})
    except ConfigurationError:
        return "lower input.width, or free memory there"
    return f"set cache.budget_tokens to at most {fitting}, or free memory there"


def _window_remedy(network: StreamVggt, cache: CacheSettings, tokens: int, free: int) -> str:
    fits, too_much = 0, cache.window_frames
    while too_much - fits > 1:
        middle = (fits + too_much) // 2
        if needed_bytes(network, replace(cache, window_frames=middle), tokens) <= free:
            fits = middle
        else:
            too_much = middle
    if not fits:
        return "lower cache.anchor_frames, cache.trajectory_frames or input.width, or free memory"
    return f"set cache.window_frames to at most {fits}, or free memory there"


def warm_up(engine: Reconstructor, width: int) -> None:
    """Run one image through the engine and forget it.

    After it, kernels are loaded and the cache of the expected size is allocated.

    Raises:
        ConfigurationError: the network cannot run here.

    """
    columns, rows = EXPECTED_SIZE
    try:
        engine.warm_up(np.full((rows, columns, 3), 128, np.uint8))
    except FrameError as error:
        raise ConfigurationError(
            f"the network cannot run at input.width {width}: {error}; lower input.width"
            f"{' or cache.anchor_frames' if engine.first_pass_frames > 1 else ''}, or free memory "
            "on the device"
        ) from error
