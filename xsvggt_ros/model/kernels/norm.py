# SPDX-License-Identifier: Apache-2.0
"""LayerNorm, with or without an addition before it, in one pass over memory."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _layer_norm(  # type: ignore[no-untyped-def]
    source, update, total, target, weight, bias, stride, dim, eps,
    ADD: tl.constexpr, AFFINE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    inside = columns < dim
    values = tl.load(source + row * stride + columns, mask=inside, other=0.0).to(tl.float32)
    if ADD:
        values += tl.load(update + row * dim + columns, mask=inside, other=0.0).to(tl.float32)
        tl.store(total + row * dim + columns, values, mask=inside)
    mean = tl.sum(values, axis=0) / dim
    centered = tl.where(inside, values - mean, 0.0)
    variance = tl.sum(centered * centered, axis=0) / dim
    normed = centered / tl.sqrt(variance + eps)
    if AFFINE:
        gain = tl.load(weight + columns, mask=inside, other=0.0).to(tl.float32)
        normed = normed * gain + tl.load(bias + columns, mask=inside, other=0.0).to(tl.float32)
    tl.store(target + row * dim + columns, normed.to(target.dtype.element_ty), mask=inside)


def layer_norm(
    tokens: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, dtype: torch.dtype
) -> Tensor:
    """Normalise the last side of ``tokens`` in float32 and answer in ``dtype``."""
    rows = _as_rows(tokens)
    target = torch.empty(tokens.shape, dtype=dtype, device=tokens.device)
    _launch(rows, None, None, target, weight, bias, eps)
    return target


def add_layer_norm(
    tokens: Tensor, update: Tensor, weight: Tensor, bias: Tensor, eps: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Return ``tokens + update`` in float32, and the same normalised in ``dtype``."""
    rows = _as_rows(tokens)
    total = torch.empty(tokens.shape, dtype=torch.float32, device=tokens.device)
    target = torch.empty(tokens.shape, dtype=dtype, device=tokens.device)
    _launch(rows, update.contiguous(), total, target, weight, bias, eps)
    return total, target


def _as_rows(tokens: Tensor) -> Tensor:
    """Return [rows, dim] whose rows are dense; a slice of a frame's tokens is not copied."""
    rows = tokens.flatten(0, -2)
    return rows if rows.stride(-1) == 1 else rows.contiguous()


def _launch(
    rows: Tensor,
    update: Tensor | None,
    total: Tensor | None,
    target: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
) -> None:
    dim = rows.shape[-1]
    block = triton.next_power_of_2(dim)
    _layer_norm[(len(rows),)](
        rows, update, total, target, weight, bias, rows.stride(0), dim, eps,
        ADD=update is not None, AFFINE=weight is not None, BLOCK=block,
        num_warps=min(max(block // 256, 1), 8),
    )  # fmt: skip
