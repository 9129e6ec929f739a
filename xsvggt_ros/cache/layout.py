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
    def element_size(self) -> int:
        """Bytes of an element, as it came."""
        return torch.empty(0, dtype=self.dtype).element_size()

    @property
    def nbytes(self) -> int:
        """Bytes of a key or of a value, as it came."""
        return self.heads * self.channels * self.element_size


@dataclass(frozen=True, slots=True)
class CacheLayout:
    """The tokens of a whole network.

    Attributes:
        layers: global blocks.
        token: of one of them.
        special_tokens: tokens in front of the patches of each frame.
        camera_blocks: blocks of the camera head's trunk.
        camera_iterations: refinements of the camera head.
        anchor_frames: frames of a stream's first pass, which stay.
        window_frames: newest frames that the network was trained to attend to; 0 = all.
        trained_frames: most stored frames of a training sequence, where tokens know how many came
            before them; 0 = they do not.

    """

    layers: int
    token: TokenShape
    special_tokens: int
    camera_blocks: int
    camera_iterations: int
    anchor_frames: int = 1
    window_frames: int = 0
    trained_frames: int = 0

    @property
    def smallest_budget(self) -> int:
        """The least budget of a layer: the special tokens of the anchors and of the window."""
        return (self.anchor_frames + 1) * self.special_tokens
