# SPDX-License-Identifier: Apache-2.0
"""What the network asks of the memory of a stream, and the memory-free full sequence."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional


class Memory(Protocol):
    """Attends for the network, and remembers what later frames may attend to.

    All tensors are [batch, heads, tokens, head_dim]; keys come normalised and rotated. The network
    neither knows nor cares whether what is remembered is whole, pruned or packed.
    """

    def begin_pass(self, frames: int) -> int:
        """Take note that ``frames`` come together; return how many of them are anchors.

        Anchors are the frames of a stream's first pass.
        """
        ...

    def times(self, frames: int, device: torch.device) -> Tensor:
        """Return the place in time of the frames of this pass, float32 [frames] on ``device``.

        Time counts the frames that are stored: one that leaves nothing behind does not move it.
        Asked for only by a network whose rotary embedding knows time.
        """
        ...

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attend in global block ``layer`` over the past and the given tokens.

        Args:
            layer: number of the global block.
            query: [batch, heads, tokens, head_dim].
            key: of the same shape.
            value: likewise.

        """
        ...

    def absorb(self, layer: int, update: Tensor) -> None:
        """Take note that global block ``layer`` is done with the tokens just attended.

        Args:
            layer: index of the block.
            update: what the block's MLP added to the tokens, [batch, tokens, dim], float32 or of
                the weights' dtype; how much it is tells how much the network made of a token.

        """
        ...

    def attend_camera(
        self, iteration: int, block: int, query: Tensor, key: Tensor, value: Tensor
    ) -> Tensor:
        """Attend in the camera head over the camera tokens of past frames and the given ones.

        Args:
            iteration: number of the refinement.
            block: of the camera head.
            query: [batch, heads, frames, head_dim].
            key: of the same shape.
            value: likewise.

        """
        ...


class CausalSequence:
    """A whole sequence at once: each frame attends to itself and to earlier frames.

    The function that StreamVGGT was trained as (its masked forward), and LingBot-Map with its first
    pass. Frame by frame instead of a mask over all pairs, so that memory grows linearly and
    FlashAttention stays applicable.
    """

    def __init__(self, frames: int, anchors: int = 1) -> None:
        """Take a sequence of ``frames`` in; the first ``anchors`` attend to one another."""
        self._frames = frames
        self._anchors = min(anchors, frames)

    def begin_pass(self, frames: int) -> int:
        """Return how many frames the first pass has."""
        return self._anchors

    def times(self, frames: int, device: torch.device) -> Tensor:
        """Return 0, 1, .. : every frame is stored."""
        return torch.arange(frames, device=device, dtype=torch.float32)

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attend over the first pass at once, then frame by frame over the frames up to it.

        All are [batch, heads, tokens, head_dim].
        """
        return self._attend_in_order(query, key, value)

    def _attend_in_order(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        step = query.shape[2] // self._frames
        ends = range(self._anchors * step, query.shape[2] + 1, step)
        starts = (0, *ends[:-1])
        return torch.cat(
            [
                functional.scaled_dot_product_attention(
                    query[:, :, start:end], key[:, :, :end], value[:, :, :end]
                )
                for start, end in zip(starts, ends, strict=True)
            ],
            dim=2,
        )

    def absorb(self, layer: int, update: Tensor) -> None:
        """Forget an update [batch, tokens, dim]: there is no later frame."""

    def attend_camera(
        self, iteration: int, block: int, query: Tensor, key: Tensor, value: Tensor
    ) -> Tensor:
        """Attend as in the global blocks over camera tokens, [batch, heads, frames, head_dim]."""
        if self._anchors > 1:
            return self._attend_in_order(query, key, value)
        return functional.scaled_dot_product_attention(query, key, value, is_causal=True)
