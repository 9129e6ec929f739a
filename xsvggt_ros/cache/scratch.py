# SPDX-License-Identifier: Apache-2.0
"""The room in which a layer's tokens are laid side by side to be attended over."""

from __future__ import annotations

import torch
from torch import Tensor

from xsvggt_ros.cache.layout import TokenShape


class Scratch:
    """One buffer each for keys and values, shared by all layers that keep theirs packed.

    A layer decodes into it, attends, scores, and is done with it before the next layer begins.
    """

    def __init__(self) -> None:
        self._keys = torch.empty(0)
        self._values = torch.empty(0)

    @property
    def nbytes(self) -> int:
        """Allocated bytes."""
        return self._keys.nbytes + self._values.nbytes

    def reserve(self, tokens: int, shape: TokenShape, *, keys: bool, values: bool) -> None:
        """Make room for ``tokens`` of ``shape`` in the buffers that are asked for."""
        size = shape.heads * tokens * shape.channels
        if keys:
            self._keys = _room(self._keys, size, shape)
        if values:
            self._values = _room(self._values, size, shape)

    def release(self) -> None:
        """Give the room back; whoever needs some reserves it anew."""
        self._keys, self._values = torch.empty(0), torch.empty(0)

    def keys(self, tokens: int, shape: TokenShape) -> Tensor:
        """Return room for keys, contiguous [heads, tokens, channels]."""
        return _view(self._keys, tokens, shape)

    def values(self, tokens: int, shape: TokenShape) -> Tensor:
        """Return room for values, contiguous [heads, tokens, channels]."""
        return _view(self._values, tokens, shape)


def _room(buffer: Tensor, size: int, shape: TokenShape) -> Tensor:
    fits = buffer.dtype == shape.dtype and buffer.device == shape.device
    if fits and buffer.numel() >= size:
        return buffer
    return torch.empty(size, dtype=shape.dtype, device=shape.device)


def _view(buffer: Tensor, tokens: int, shape: TokenShape) -> Tensor:
    size = shape.heads * tokens * shape.channels
    return buffer[:size].view(shape.heads, tokens, shape.channels)
