# SPDX-License-Identifier: Apache-2.0
"""Attention as one operation: of the tokens of a frame, or over all that a cache holds."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from xsvggt_ros.cuda import operation

_HALF_TYPES = (torch.float16, torch.bfloat16)


def _in_half_types(query: Tensor) -> bool:
    """Return whether this runs as one operation: inference in half types, off the CPU."""
    if torch.compiler.is_compiling() or torch.is_grad_enabled():
        return False
    return query.device.type != "cpu" and query.dtype in _HALF_TYPES


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
