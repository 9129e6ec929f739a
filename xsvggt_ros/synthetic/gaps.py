# SPDX-License-Identifier: Apache-2.0
"""A sequence whose memory has gaps, so that a network learns to live with a pruned cache."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from xsvggt_ros.model.memory import CausalSequence

SHORTEST, LONGEST = 2.0, 10.0
"""Frames that a token is remembered for in the mean, beyond the frame after its own.

The first frame, the present one and the one before are there on top of it, and lengths are whole:
a memory holds about 4.5 frames with the shortest mean and about 12.4 with the longest."""


class GappySequence(CausalSequence):
    """A whole sequence at once, of which each global block forgets tokens at random, for good.

    The first frame stays, as the anchor does in a cache; so does the newest one before the present.
    Which tokens go differs from block to block. Choosing at random favours no policy.
    """

    def __init__(self, frames: int, generator: torch.Generator) -> None:
        """Begin a sequence.

        Args:
            frames: of each stream.
            generator: on the CPU; draws how long tokens are remembered.

        """
        super().__init__(frames)
        self._generator = generator
        share = float(torch.rand((), generator=generator))
        self._mean = SHORTEST * (LONGEST / SHORTEST) ** share

    # Every draw leaves another number of tokens, and each would be compiled again.
    @torch.compiler.disable
    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attend frame by frame over what is left of the frames up to it."""
        count = query.shape[2]
        step = count // self._frames
        forgotten = self._forgotten(count, step)
        attended = []
        for frame, chunk in enumerate(query.split(step, dim=2)):
            left = torch.nonzero(forgotten[: (frame + 1) * step] > frame).flatten().to(key.device)
            attended.append(
                functional.scaled_dot_product_attention(
                    chunk, key.index_select(2, left), value.index_select(2, left)
                )
            )
        return torch.cat(attended, dim=2)

    def _forgotten(self, count: int, step: int) -> Tensor:
        """Return the frame at which each token is no longer there, float32 [tokens]."""
        seen = torch.arange(count) // step
        remembered = torch.empty(count).exponential_(1 / self._mean, generator=self._generator)
        forgotten = seen + 2 + remembered.floor()
        forgotten[:step] = torch.inf
        return forgotten
