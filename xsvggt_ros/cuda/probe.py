# SPDX-License-Identifier: Apache-2.0
"""Kernels that are tried before one relies on any. Importing this needs Triton."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor, empty_like
from torch.nn import functional

from xsvggt_ros.cuda.attention_kernels import attend


@triton.jit
def _double(source, target, count, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    offsets = tl.arange(0, BLOCK)
    inside = offsets < count
    tl.store(target + offsets, 2 * tl.load(source + offsets, mask=inside), mask=inside)


def doubled(values: Tensor) -> Tensor:
    """Return twice the values of a small vector."""
    result = empty_like(values)
    _double[(1,)](values, result, values.numel(), BLOCK=triton.next_power_of_2(values.numel()))
    return result


_HEADS = 16
"""As many as the official network has: a single one would be compiled into the kernel."""
_TOLERANCE = 0.02
"""Attention of normal numbers in a half type is off by less than half of it."""


def attends_like_pytorch(device: torch.device, dtype: torch.dtype, channels: int) -> bool:
    """Return whether attention over few keys and over many is what PyTorch says it is.

    Args:
        device: a GPU.
        dtype: a half type.
        channels: of a head.

    """
    generator = torch.Generator().manual_seed(0)
    right = True
    for count, tokens in ((81, 90), (81, 4200)):
        query, keys, values = (
            torch.randn(1, _HEADS, each, channels, generator=generator).to(device, dtype)
            for each in (count, tokens, tokens)
        )
        expected = functional.scaled_dot_product_attention(query, keys, values)
        right &= bool((attend(query, keys, values) - expected).abs().max() < _TOLERANCE)
    return right
