# SPDX-License-Identifier: Apache-2.0
"""Whether the cache that is asked for fits the device, said before anything is lost."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from xsvggt_ros.cache.byte_budget import MIB, cache_nbytes, fitting_budget
from xsvggt_ros.cache.settings import CacheSettings
from xsvggt_ros.errors import ConfigurationError, FrameError
from xsvggt_ros.model.device import free_memory
from xsvggt_ros.model.network import StreamVggt
from xsvggt_ros.stream.preprocessing import plan
from xsvggt_ros.stream.reconstructor import Reconstructor, cache_layout

EXPECTED_SIZE = (640, 480)
"""Pixels of the image that is reckoned with until the first one comes."""


def check_memory(network: StreamVggt, width: int, cache: CacheSettings) -> None:
    """Compare what the cache will allocate with what is free.

    Args:
        network: on its device already.
        width: of the network's input in pixels; an image of 4:3 is reckoned with.
        cache: its budget. One without a bound cannot be judged.

    Raises:
        ConfigurationError: it does not fit; the message names a budget that does.

    """
    free = free_memory(network.device)
    if free is None or not cache.bounded or cache.published:
        return
    mapping = plan(*EXPECTED_SIZE, width, network.config.patch_size)
    tokens = network.config.tokens_per_frame(mapping.height, mapping.width)
    needed = needed_bytes(network, cache, tokens)
    if needed <= free:
        return
    raise ConfigurationError(
        f"the cache needs {needed / MIB:.0f} MiB at {mapping.width}x{mapping.height} pixels, but "
        f"{free / MIB:.0f} MiB are free on device '{network.device}'; "
        f"{_remedy(network, cache, tokens, free)}"
    )


def needed_bytes(network: StreamVggt, cache: CacheSettings, tokens: int) -> int:
    """Return what a full cache allocates for frames of ``tokens`` tokens."""
    layout = cache_layout(network)
    budget = cache.budget_tokens
    if cache.budget_mib:
        budget = fitting_budget(cache, layout, anchor=tokens, frames={tokens})
    return cache_nbytes(cache, layout, budget=budget, anchor=tokens, frames={tokens})


def _remedy(network: StreamVggt, cache: CacheSettings, tokens: int, free: int) -> str:
    if cache.budget_mib:
        return f"set cache.budget_mib to at most {free / MIB:.0f}, or free memory there"
    allowed = replace(cache, budget_mib=free / MIB)
    try:
        fitting = fitting_budget(allowed, cache_layout(network), anchor=tokens, frames={tokens})
    except ConfigurationError:
        return "lower input.width, or free memory there"
    return f"set cache.budget_tokens to at most {fitting}, or free memory there"


def warm_up(engine: Reconstructor, width: int) -> None:
    """Run one image through the engine and forget it.

    After it, kernels are loaded and the cache of the expected size is allocated.

    Raises:
        ConfigurationError: the network cannot run here.

    """
    columns, rows = EXPECTED_SIZE
    try:
        engine.rehearse(np.full((rows, columns, 3), 128, np.uint8))
    except FrameError as error:
        raise ConfigurationError(
            f"the network cannot run at input.width {width}: {error}; lower input.width, or free "
            "memory on the device"
        ) from error
