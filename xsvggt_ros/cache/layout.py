# SPDX-License-Identifier: Apache-2.0
"""What the tokens of a network are, as far as a cache must know."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class TokenShape:
    """Heads and channels of a token of one layer, their type, and where it lies."""

    heads: int
    channels: int
    dtype: torch.dtype
    device: torch.device

    @property
    def nbytes(self) -> int:
        """Bytes of a key or of a value, as it came."""
        return self.heads * self.channels * torch.empty(0, dtype=self.dtype).element_size()


@dataclass(frozen=True, slots=True)
class CacheLayout:
    """The tokens of a whole network.

    Attributes:
        layers: global blocks.
        token: of one of them.
        special_tokens: tokens in front of the patches of each frame.
        camera_blocks: blocks of the camera head's trunk.
        camera_iterations: refinements of the camera head.

    """

    layers: int
    token: TokenShape
    special_tokens: int
    camera_blocks: int
    camera_iterations: int

    @property
    def smallest_budget(self) -> int:
        """The least budget of a layer: the special tokens of anchor and window."""
        return 2 * self.special_tokens
