# SPDX-License-Identifier: Apache-2.0
"""The smallest Triton kernel and the largest, to find out whether kernels run.

Importing this needs Triton.
"""

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


_TOLERANCE = 0.01
"""Attention in float16 is off by a tenth of it."""


def attends_like_pytorch(device: torch.device) -> bool:
    """Return whether attention of 70 queries over 4200 keys is what PyTorch says it is."""
    generator = torch.Generator().manual_seed(0)
    query, keys, values = (
        torch.randn(1, 1, count, 64, generator=generator).to(device, torch.float16)
        for count in (70, 4200, 4200)
    )
    expected = functional.scaled_dot_product_attention(query, keys, values)
    return bool((attend(query, keys, values) - expected).abs().max() < _TOLERANCE)
