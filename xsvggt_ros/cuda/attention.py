# SPDX-License-Identifier: Apache-2.0
"""Attention as one operation: of the tokens of a frame, or over all that a cache holds."""

from __future__ import annotations

import logging
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

from xsvggt_ros.cuda import operation, triton_runs
from xsvggt_ros.errors import first_line

logger = logging.getLogger(__name__)

_HALF_TYPES = (torch.float16, torch.bfloat16)
OLDEST = (8, 0)
"""On older cards Triton multiplies without their tensor cores, and keeps in memory what no register
is left for: thousands of bytes a thread (`benchmarks/kernels.py`)."""


def _in_half_types(query: Tensor) -> bool:
    """Return whether this runs as one operation: inference in half types, off the CPU."""
    if torch.compiler.is_compiling() or torch.is_grad_enabled():
        return False
    if query.device.type == "cpu" or query.dtype not in _HALF_TYPES:
        return False
    return query.device.type != "cuda" or _kernel_runs(query.device, query.dtype, query.shape[-1])


@cache
def _kernel_runs(device: torch.device, dtype: torch.dtype, channels: int) -> bool:
    """Return whether the kernel attends as it should; the first call for each tries it.

    It takes more of a card than the other kernels do, and other types than theirs.
    """
    if not triton_runs(device) or torch.cuda.get_device_capability(device) < OLDEST:
        return False
    try:
        from xsvggt_ros.cuda.attention_kernels import attends_like_pytorch

        with torch.cuda.device(device):
            right = attends_like_pytorch(device, dtype, channels)
        reason = "" if right else "it gives wrong results"
    except torch.OutOfMemoryError:  # says nothing about the kernel; the next call tries again
        raise
    except Exception as error:  # noqa: BLE001 - a compiler fails in many ways, and none may end a node
        reason = first_line(error)
    if reason:
        logger.warning(
            "attention in %s with %d channels a head is PyTorch's on %s: our kernel fails (%s)",
            dtype, channels, device, reason,
        )  # fmt: skip
    return not reason


def _token_by_token(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Return room for the result, in which the heads of a token lie side by side."""
    batch, heads, count, channels = query.shape
    return query.new_empty(batch, count, heads, channels).transpose(1, 2)


@operation(
    where=_in_half_types, shapes=_token_by_token, kernels="xsvggt_ros.cuda.attention_kernels"
)
def attend(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Attend over all keys, without a mask.

    In half types on CUDA by a Triton kernel, otherwise by PyTorch's own attention.

    Args:
        query: [batch, heads, n, head_dim].
        keys: [batch, heads, tokens, head_dim].
        values: of the shape of ``keys``.

    Returns:
        [batch, heads, n, head_dim].

    """
    return functional.scaled_dot_product_attention(query, keys, values)
