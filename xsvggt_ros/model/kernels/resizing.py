# SPDX-License-Identifier: Apache-2.0
"""Bilinear resizing of a channels-last map, and an addition to it, in one pass over memory."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_NUMBERS = 2048
"""Numbers of the result that one program writes."""


@triton.jit
def _resize(  # type: ignore[no-untyped-def]
    source, target, along_x, along_y, height, width, rows, columns, step_y, step_x,
    CHANNELS: tl.constexpr, WIDE: tl.constexpr, COLUMNS: tl.constexpr, ADD: tl.constexpr,
):  # fmt: skip
    """Write ``COLUMNS`` places of one row of one frame, all channels."""
    y = tl.program_id(1)
    x = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    frame = tl.program_id(2).to(tl.int64)
    channel = tl.arange(0, WIDE)
    inside = (x < columns)[:, None] & (channel < CHANNELS)[None, :]
    at_y = y.to(tl.float32) * step_y
    at_x = x.to(tl.float32) * step_x
    above = at_y.to(tl.int32)
    left = at_x.to(tl.int32)
    below = tl.minimum(above + 1, height - 1)
    right = tl.minimum(left + 1, width - 1)
    down = at_y - above.to(tl.float32)
    over = (at_x - left.to(tl.float32))[:, None]
    image = source + frame * height * width * CHANNELS + channel[None, :]
    one = tl.load(image + (above * width + left)[:, None] * CHANNELS, mask=inside, other=0.0)
    two = tl.load(image + (above * width + right)[:, None] * CHANNELS, mask=inside, other=0.0)
    upper = one.to(tl.float32) * (1.0 - over) + two.to(tl.float32) * over
    three = tl.load(image + (below * width + left)[:, None] * CHANNELS, mask=inside, other=0.0)
    four = tl.load(image + (below * width + right)[:, None] * CHANNELS, mask=inside, other=0.0)
    lower = three.to(tl.float32) * (1.0 - over) + four.to(tl.float32) * over
    mixed = upper * (1.0 - down) + lower * down
    if ADD:
        HALF: tl.constexpr = CHANNELS // 2
        first = (channel < HALF)[None, :]
        here = along_x + channel[None, :] * columns + x[:, None]
        mixed += tl.load(here, mask=inside & first, other=0.0).to(tl.float32)
        there = along_y + (channel - HALF) * rows + y
        second = (channel >= HALF) & (channel < CHANNELS)
        mixed += tl.load(there, mask=second, other=0.0).to(tl.float32)[None, :]
    place = ((frame * rows + y) * columns + x)[:, None] * CHANNELS + channel[None, :]
    tl.store(target + place, mixed.to(target.dtype.element_ty), mask=inside)


def resize(
    features: Tensor, rows: int, columns: int, along_x: Tensor | None, along_y: Tensor | None
) -> Tensor:
    """Return ``features`` resized, channels last; see `model/operators.py`."""
    frames, channels, height, width = features.shape
    source = features.contiguous(memory_format=torch.channels_last)
    target = torch.empty(
        (frames, channels, rows, columns), dtype=features.dtype, device=features.device,
        memory_format=torch.channels_last,
    )  # fmt: skip
    wide = triton.next_power_of_2(channels)
    places = max(1, _NUMBERS // wide)
    _resize[triton.cdiv(columns, places), rows, frames](
        source, target,
        None if along_x is None else along_x.contiguous(),
        None if along_y is None else along_y.contiguous(),
        height, width, rows, columns,
        (height - 1) / (rows - 1) if rows > 1 else 0.0,
        (width - 1) / (columns - 1) if columns > 1 else 0.0,
        channels, wide, places, along_x is not None and along_y is not None,
    )  # fmt: skip
    return target
