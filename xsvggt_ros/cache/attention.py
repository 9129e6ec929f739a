# SPDX-License-Identifier: Apache-2.0
"""Attention over a cache: one non-causal call per layer, without a mask.

Whatever is cached is older than every query, so nothing stands in FlashAttention's way. Backends:

- ``auto``: a kernel of this package in half types on CUDA (`cuda/attention.py`), else ``sdpa``;
- ``sdpa``: PyTorch's, which picks its own kernel;
- ``flash_attn``: the package of that name, for half types on CUDA;
- ``math``: products and softmax written out, for comparison.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from xsvggt_ros.cuda.attention import attend
from xsvggt_ros.errors import ConfigurationError

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Of queries over keys and values, all [1, heads, tokens, head_dim] of one dtype."""

_FLASH_HEAD_DIM = 256


def backend(name: str) -> Attend:
    """Return the backend called ``name``.

    Raises:
        ConfigurationError: ``flash_attn`` where it is not installed.

    """
    if name == "flash_attn" and not flash_installed():
        raise ConfigurationError(
            "cache.attention_backend is flash_attn, which is not installed; install the package "
            "flash-attn for your CUDA (docs/installing.md), or choose auto"
        )
    backends: dict[str, Attend] = {
        "auto": attend,
        "sdpa": functional.scaled_dot_product_attention,
        "flash_attn": attend_flash,
        "math": attend_math,
    }
    return backends[name]


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
    from flash_attn import flash_attn_func

    return flash_attn_func
