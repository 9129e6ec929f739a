# SPDX-License-Identifier: Apache-2.0
"""What a cache consists of: the tokens of a network, the scratch of its layers, and how full it is.

Where each byte of a global layer lies (`layer_segments.py`, `segment.py`, `token_storage.py`):

=====================  ===========================================  ==============================
what                   shape and type                               bytes an element at 4/4 bits
=====================  ===========================================  ==============================
codes of keys          uint8 [heads, slots, head_dim * bits / 8]    1/2
grids of keys          float16 [heads, rows, head_dim], twice       4 / 64, times 1.2 for history,
                                                                    more for frames below 512 tokens
codes of values        uint8 [heads, slots, head_dim * bits / 8]    1/2
grids of values        float16 [heads, slots, 1], twice             4 / head_dim
row of a slot's keys   int16 [sets, slots]                          } 12 per token and set,
number in the stream   int32 [sets, slots]                          } together 0.05 bits
newest score           float32 [sets, slots]                        } an element at 16 heads
memory of insertion     float16 [sets, slots]                        } of 64
=====================  ===========================================  ==============================

A layer has up to four segments of slots: the anchor (first frame), special tokens of later frames
where these are stored finer, history, and the newest frame where it is to stay as it came; else
history holds it too. Slots are dense and in no
order. A token that goes gives its slot to one that comes; no other byte moves. Keys at 16 bits lie
as they came in [heads, slots + frame, head_dim], and are attended to there; so do values.

The layers of a group (`layer_group.py`) lie in one set of tensors, layer after layer: their first
axis is layers times heads, or layers times sets.

Once for all layers: a scratch of [heads, slots + frame, head_dim] each for keys and values, in the
network's type, into which a packed layer is decoded to be attended to; and one of
[layers * heads, frame, head_dim] each, in which the newest frame of a group's layers waits until
the last of them has attended.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


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
        caches: that live at once and share ``budget_mib``.

    """

    layers: int
    token: TokenShape
    special_tokens: int
    camera_blocks: int
    camera_iterations: int
    anchor_frames: int = 1
    window_frames: int = 0
    trained_frames: int = 0
    caches: int = 1

    @property
    def budget_words(self) -> str:
        """The name of the budget in MiB, and who shares it, for messages."""
        shared = f" for {self.caches} caches, which live at once while chain.length is above 0,"
        return "cache.budget_mib" + (shared if self.caches > 1 else "")

    @property
    def smallest_budget(self) -> int:
        """The least budget of a layer: the special tokens of the anchors and of the window."""
        return (self.anchor_frames + 1) * self.special_tokens


class Scratch:
    """Buffers for keys and values that all layers share.

    A layer decodes into ``context``, attends, is measured, and is done with it before the next one
    begins. The newest frame of each layer of a group waits in ``held`` until the last one has
    attended; then all of them are rounded at once.

    Attributes:
        generation: grows whenever a buffer is replaced; addresses are the same while it is.

    """

    def __init__(self) -> None:
        self._context = (torch.empty(0), torch.empty(0))
        self._held = (torch.empty(0), torch.empty(0))
        self.generation = 0

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All buffers; replaced only where ``generation`` grows."""
        return (*self._context, *self._held)

    @property
    def nbytes(self) -> int:
        """Allocated bytes."""
        return sum(buffer.nbytes for buffer in self.tensors)

    def reserve(
        self, tokens: int, frame: int, layers: int, shape: TokenShape, *, keys: bool, values: bool
    ) -> None:
        """Make room in the buffers that are asked for.

        Args:
            tokens: of a layer, the newest frame included.
            frame: tokens of the newest frame.
            layers: whose newest frames wait.
            shape: of a token of one layer.
            keys: whether keys need room.
            values: whether values do.

        """
        size = shape.heads * shape.channels
        wanted = keys, values
        before = (*self._context, *self._held)
        self._context = _rooms(self._context, wanted, size * tokens, shape)
        self._held = _rooms(self._held, wanted, size * frame * layers, shape)
        after = (*self._context, *self._held)
        if any(old is not new for old, new in zip(before, after, strict=True)):
            self.generation += 1

    def release(self) -> None:
        """Give the room back; whoever needs some reserves it again."""
        self._context = self._held = (torch.empty(0), torch.empty(0))
        self.generation += 1

    def context(self, tokens: int, shape: TokenShape) -> tuple[Tensor, Tensor]:
        """Return room for keys and for values of one layer, [heads, tokens, channels] each.

        Where none was asked for, what is returned is empty.
        """
        keys, values = (_view(buffer, shape.heads, tokens, shape) for buffer in self._context)
        return keys, values

    def held(self, layers: int, frame: int, shape: TokenShape) -> tuple[Tensor, Tensor]:
        """Return room for newest frames, keys and values [layers * heads, frame, channels] each.

        Where none was asked for, what is returned is empty.

        Args:
            layers: whose newest frames wait at a time.
            frame: tokens of a frame.
            shape: of a token.

        """
        keys, values = (_view(buffer, layers * shape.heads, frame, shape) for buffer in self._held)
        return keys, values


def _rooms(
    buffers: tuple[Tensor, Tensor], wanted: tuple[bool, bool], size: int, shape: TokenShape
) -> tuple[Tensor, Tensor]:
    keys, values = (
        _room(buffer, size, shape) if asked else buffer
        for buffer, asked in zip(buffers, wanted, strict=True)
    )
    return keys, values


def _room(buffer: Tensor, size: int, shape: TokenShape) -> Tensor:
    fits = buffer.dtype == shape.dtype and buffer.device == shape.device
    if fits and buffer.numel() >= size:
        return buffer
    return torch.empty(size, dtype=shape.dtype, device=shape.device)


def _view(buffer: Tensor, lanes: int, tokens: int, shape: TokenShape) -> Tensor:
    size = lanes * tokens * shape.channels
    if buffer.numel() < size:
        return torch.empty(0, dtype=shape.dtype, device=shape.device)
    return buffer[:size].view(lanes, tokens, shape.channels)


@dataclass(frozen=True, slots=True)
class CacheStatistics:
    """State of the cache after a frame.

    Attributes:
        policy: name of the policy that chooses what stays.
        budget_tokens: most tokens a layer may hold after a frame, the mean over layers where
            these have budgets of their own; 0 = unbounded.
        tokens: tokens held by the fullest layer.
        key_bits: storage width of history's keys; 16 = unquantized.
        value_bits: storage width of history's values; 16 = unquantized.
        nbytes: bytes allocated for keys, values, scales, minima and indices of all layers.
        scratch_nbytes: bytes allocated, once for all layers, to decode one layer in.
        camera_nbytes: bytes allocated for the camera head's memory, in addition.
        uncompressed_nbytes: bytes that every token of the session so far would take in the
            network's own precision.
        evicted: tokens dropped after this frame, summed over layers.
        evicted_total: the same since the session began.
        layer_tokens: tokens held by each layer.

    """

    policy: str
    budget_tokens: int
    tokens: int
    key_bits: int
    value_bits: int
    nbytes: int
    scratch_nbytes: int
    camera_nbytes: int
    uncompressed_nbytes: int
    evicted: int
    evicted_total: int
    layer_tokens: tuple[int, ...]
