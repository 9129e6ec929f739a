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

    @property
    def first_frame(self) -> bool:
        """Whether the first frame handed to the network now is the first of its stream."""
        ...

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attend in global block ``layer`` over the past and the given tokens."""
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
        """Attend in the camera head over the camera tokens of past frames and the given ones."""
        ...


class CausalSequence:
    """A whole sequence at once: each frame attends to itself and to earlier frames.

    The function that StreamVGGT was trained as (its masked forward). Frame by frame instead of a
    mask over all pairs, so that memory grows linearly and FlashAttention stays applicable.
    """

    first_frame = True

    def __init__(self, frames: int) -> None:
        self._frames = frames

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attend frame by frame over the frames up to it."""
        step = query.shape[2] // self._frames
        ends = range(step, query.shape[2] + 1, step)
        return torch.cat(
            [
                functional.scaled_dot_product_attention(
                    query[:, :, end - step : end], key[:, :, :end], value[:, :, :end]
                )
                for end in ends
            ],
            dim=2,
        )

    def absorb(self, layer: int, update: Tensor) -> None:
        """Forget: there is no later frame."""

    def attend_camera(
        self, iteration: int, block: int, query: Tensor, key: Tensor, value: Tensor
    ) -> Tensor:
        """Attend causally; there is one camera token per frame."""
        return functional.scaled_dot_product_attention(query, key, value, is_causal=True)
