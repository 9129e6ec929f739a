# SPDX-License-Identifier: Apache-2.0
"""Attention over a cache: one non-causal call per layer, without a mask.

Whatever is cached is older than every query, so nothing stands in FlashAttention's way. Backends:

- ``sdpa``: PyTorch's, which picks its own kernel (FlashAttention where the device has it);
- ``flash_attn``: the package of that name, for half types on CUDA;
- ``math``: products and softmax written out, for comparison;
- ``auto``: ``flash_attn`` where it is installed and applies, else ``sdpa``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from xsvggt_ros.cache.ops import attend_few
from xsvggt_ros.cuda import SideStreams, triton_runs
from xsvggt_ros.errors import ConfigurationError

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Of queries over keys and values, all [1, heads, tokens, head_dim] of one dtype."""

_FLASH_HEAD_DIM = 256
_TILE = 128
"""Queries that a multiprocessor takes at a time."""
_MANY_KEYS = 4096
"""From here on, a wave takes longer than the launches that spare it."""


def backend(name: str, side: SideStreams) -> Attend:
    """Return the backend called ``name``; ``side`` is for what may run beside the rest.

    Raises:
        ConfigurationError: ``flash_attn`` where it is not installed.

    """
    if name == "flash_attn" and not flash_installed():
        raise ConfigurationError(
            "cache.attention_backend is flash_attn, which is not installed; install the package "
            "flash-attn for your CUDA, or choose auto, which uses it where it is there"
        )
    if name in ("flash_attn", "math"):
        return attend_flash if name == "flash_attn" else attend_math
    return Sdpa(side, prefer_flash=name == "auto")


class Sdpa:
    """Attends by PyTorch; over many keys, queries that would need a wave of their own go apart."""

    def __init__(self, side: SideStreams, *, prefer_flash: bool = False) -> None:
        """Attend by FlashAttention's own package instead, where that is asked for and applies."""
        self._prefer_flash = prefer_flash
        self._side = side

    def __call__(self, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Attend."""
        if self._prefer_flash and flash_applies(query) and flash_installed():
            return attend_flash(query, keys, values)
        few = queries_of_a_small_wave(query, keys)
        if not few:
            return functional.scaled_dot_product_attention(query, keys, values)
        _, heads, count, channels = query.shape
        whole = count - few
        out = query.new_empty(1, count, heads, channels).transpose(1, 2)
        with self._side.fork("attention"):
            attend_few(query[0, :, whole:], keys[0], values[0], out[0, :, whole:])
        mixed = functional.scaled_dot_product_attention(query[:, :, :whole], keys, values)
        out[:, :, :whole] = mixed
        self._side.join("attention")
        return out


def queries_of_a_small_wave(query: Tensor, keys: Tensor) -> int:
    """Return how many of the last queries [1, heads, n, head_dim] would make a small last wave.

    A kernel gives each multiprocessor 128 queries of a head and goes over all keys. Where a few
    tiles more than there are multiprocessors are left, these take as long as all others together:
    1041 queries of 16 heads are 144 tiles, and an H100 has 132 multiprocessors. 0 = none, or it
    does not matter.
    """
    if query.device.type != "cuda" or query.dtype == torch.float32 or query.shape[0] != 1:
        return 0
    if keys.shape[2] < _MANY_KEYS or not triton_runs(query.device):
        return 0
    return rest_of_whole_waves(query.shape[2], query.shape[1], _multiprocessors(query.device))


def rest_of_whole_waves(queries: int, heads: int, multiprocessors: int) -> int:
    """Return the queries that are left when the others fill whole waves; 0 where it is many.

    Args:
        queries: of one head.
        heads: number of heads.
        multiprocessors: of the GPU.

    """
    tiles = -(-queries // _TILE)
    waves, left = divmod(tiles * heads, multiprocessors)
    whole = waves * multiprocessors // heads
    rest = queries - whole * _TILE
    return rest if waves and left and 0 < rest <= _TILE else 0


@cache
def _multiprocessors(device: torch.device) -> int:
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


def attend_math(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Attend by the definition; takes memory for all pairs.

    Args:
        query: [1, heads, n, head_dim].
        keys: [1, heads, tokens, head_dim].
        values: of the shape of ``keys``.

    """
    weights = (query @ keys.transpose(-2, -1)) * query.shape[-1] ** -0.5
    mixed: Tensor = weights.softmax(dim=-1) @ values
    return mixed


def attend_flash(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Attend by the package flash_attn, which wants tokens before heads.

    Args:
        query: [1, heads, n, head_dim].
        keys: [1, heads, tokens, head_dim].
        values: of the shape of ``keys``.

    Raises:
        ConfigurationError: float32, a device that is not CUDA, or heads that are too wide.

    """
    if not flash_applies(query):
        raise ConfigurationError(
            f"flash_attn takes float16 or bfloat16 on CUDA and up to {_FLASH_HEAD_DIM} channels a "
            f"head, not {query.dtype} on {query.device.type} with {query.shape[-1]}; set "
            "cache.attention_backend to auto or sdpa"
        )
    flipped = (tensor.transpose(1, 2) for tensor in (query, keys, values))
    mixed: Tensor = _flash()(*flipped, causal=False).transpose(1, 2)
    return mixed


def flash_applies(query: Tensor) -> bool:
    """Return whether flash_attn can take queries [1, heads, n, head_dim] of their dtype."""
    half = query.dtype in (torch.float16, torch.bfloat16)
    return half and query.device.type == "cuda" and query.shape[-1] <= _FLASH_HEAD_DIM


@cache
def flash_installed() -> bool:
    """Whether the package flash_attn is there."""
    return find_spec("flash_attn") is not None


@cache
def _flash() -> Any:
    return import_module("flash_attn").flash_attn_func
