# SPDX-License-Identifier: Apache-2.0
"""The camera head's memory: one token per frame, refinement and block, bounded in frames."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from xsvggt_ros.cache.ops import (
    CameraPlaces,
    attend_camera,
    find_camera_place,
    note_attention,
)

_FIRST_ROOM = 64
"""Places that an unbounded memory begins with; it doubles when they are full."""
_FADING = 0.1
"""How much of the attention that a token has drawn the newest frame decides."""


class CameraMemory:
    """Remembers the anchors' tokens, the most recent ones, and the most attended ones before these.

    Camera tokens carry no position, so attention does not depend on their order. Of ``capacity``
    places the first are the anchors', half of the others go round among the most recent tokens, and
    the rest is kept by merit: a token that is no longer recent takes the place of the least
    attended one, if it was attended more itself. Each refinement and block of the head remembers
    its own tokens; the places are found for all of them at once, at the first call of a frame. A
    frame that leaves nothing attends from one more place behind all others.

    Counters live on the device, and attention masks the places that are not taken yet, so a step
    has the same shapes and addresses from the first frame on, unless the memory is unbounded.

    Attributes:
        generation: grows whenever memory is allocated; addresses are the same while it is.

    """

    def __init__(self, capacity: int, iterations: int, blocks: int, anchors: int = 1) -> None:
        """Make an empty memory.

        Args:
            capacity: tokens that each block of each refinement remembers; 0 = unbounded.
            iterations: refinements of the head.
            blocks: of its trunk.
            anchors: frames of a stream's first pass.

        """
        self._capacity = capacity
        self._anchors = self._most_anchors = anchors
        self._blocks = blocks
        self._caches = iterations * blocks
        self._seen = 0
        self.generation = 0
        nothing = torch.empty(0)
        self._keys = self._values = self._numbers = self._drawn = self._attention = nothing
        self._count = self._place = self._held = nothing

    @property
    def bounded(self) -> bool:
        """Whether memory is independent of the session's length."""
        return self._capacity > 0

    @property
    def _room(self) -> int:
        """Places that are allocated, the last one for frames that leave nothing aside."""
        return self._drawn.shape[1] - 1 if self._drawn.numel() else 0

    @property
    def _recent(self) -> int:
        """Places that go round among the most recent tokens."""
        return (self._capacity - self._anchors + 1) // 2

    @property
    def nbytes(self) -> int:
        """Allocated bytes."""
        return sum(tensor.nbytes for tensor in self.tensors)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All that is allocated; replaced only where ``generation`` grows."""
        return (
            self._keys, self._values, self._numbers, self._drawn, self._attention,
            self._count, self._place, self._held,
        )  # fmt: skip

    def __len__(self) -> int:
        """Return how many tokens each block of each refinement remembers."""
        return min(self._seen, self._room)

    def clear(self) -> None:
        """Forget everything, keeping the allocation."""
        self._seen = 0
        self._anchors = self._most_anchors
        for tensor in (self._drawn, self._attention, self._count):
            tensor.zero_()

    def attend(
        self,
        iteration: int,
        block: int,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        stores: bool = True,
    ) -> Tensor:
        """Remember one token [1, heads, 1, head_dim], then attend over all that is remembered.

        The calls of a frame begin with the first block of the first refinement.

        Args:
            iteration: refinement of the head.
            block: of its trunk.
            query: of the token; in the first pass of a stream, of several, [1, heads, n, head_dim].
            key: the same.
            value: the same.
            stores: whether it is remembered afterwards.

        """
        own = iteration * self._blocks + block
        if query.shape[2] > 1:
            return self._attend_first(own, query, key, value)
        if iteration == block == 0:
            self._begin(key, stores=stores)
        return attend_camera(
            query, key, value, self._place, self._held,
            self._keys[own], self._values[own], self._attention[own],
        )  # fmt: skip

    def _attend_first(self, own: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Remember the tokens of a first pass, which attend to one another."""
        count = key.shape[2]
        if own == 0:
            if not self._room:
                self._allocate(self._capacity or max(_FIRST_ROOM, 2 * count), key)
            self._anchors = self._seen = count
            self._numbers[:, :count] = torch.arange(count, device=key.device)
            self._count.fill_(count)
            self._held.fill_(count)
        self._keys[own, :, :count], self._values[own, :, :count] = key[0], value[0]
        return functional.scaled_dot_product_attention(query, key, value)

    def _begin(self, key: Tensor, *, stores: bool) -> None:
        """Find the place of a new frame's tokens, for all blocks and refinements."""
        if not self._room:
            self._allocate(self._capacity or _FIRST_ROOM, key)
        elif not self._capacity and self._seen >= self._room:
            self._grow(key)
        if not stores:
            torch.clamp(self._count, max=self._room, out=self._place)
            torch.add(self._place, 1, out=self._held)
            return
        if self._capacity:
            given = CameraPlaces(
                self._keys, self._values, self._numbers, self._drawn, self._attention,
                self._count, self._place, self._held, self._anchors, self._recent, _FADING,
            )  # fmt: skip
            find_camera_place(given)
        else:
            self._place.copy_(self._count)
            self._numbers.index_copy_(1, self._place, self._count.expand(self._caches, 1))
            self._count += 1
            torch.clamp(self._count, max=self._room, out=self._held)
        self._seen += 1

    @property
    def seen(self) -> int:
        """Frames remembered so far, as the host counts them."""
        return self._seen

    def count(self, frames: int) -> None:
        """Set what the host counts."""
        self._seen = frames

    def resize(self, capacity: int) -> None:
        """Change the number of places; the first, the newest and the most attended tokens stay."""
        if capacity == self._capacity:
            return
        held, room = len(self), self._room
        before = self._capacity
        self._capacity = capacity
        if not room:
            return
        if before:
            note_attention(self._drawn, self._attention, self._held, _FADING)
        keys, values, numbers, drawn = self._keys, self._values, self._numbers, self._drawn
        order = numbers[:, :held].argsort(dim=1)
        if capacity and held > capacity:
            merit = drawn.gather(1, order)
            merit[:, : self._anchors] = merit[:, held - self._recent :] = torch.inf
            order = order.gather(1, merit.topk(capacity, dim=1).indices.sort(dim=1).values)
        kept = order.shape[1]
        self._allocate(capacity or max(_FIRST_ROOM, 2 * kept), keys[0, None, :, :1])
        self._drawn[:, :kept] = drawn.gather(1, order)
        # Counted from here on again, in the order in which they came.
        self._numbers[:, :kept] = torch.arange(kept, device=numbers.device)
        places = order[:, None, :, None].expand(-1, keys.shape[1], -1, keys.shape[3])
        self._keys[:, :, :kept] = keys.gather(2, places)
        self._values[:, :, :kept] = values.gather(2, places)
        self._seen = kept
        self._count.fill_(kept)
        self._held.fill_(kept)

    def _grow(self, key: Tensor) -> None:
        """Double the room of an unbounded memory."""
        keys, values, numbers = self._keys, self._values, self._numbers
        room = self._room
        self._allocate(2 * room, key)
        self._keys[:, :, : room + 1], self._values[:, :, : room + 1] = keys, values
        self._numbers[:, : room + 1] = numbers
        self._count.fill_(self._seen)

    def _allocate(self, room: int, like: Tensor) -> None:
        """Make ``room`` places, and one more, for tokens like ``like``, with its dtype and device.

        The one more is for frames that leave nothing.
        """
        self.generation += 1
        shape = (self._caches, like.shape[1], room + 1, like.shape[3])
        self._keys, self._values = like.new_zeros(shape), like.new_zeros(shape)
        flat, device = (self._caches, room + 1), like.device
        self._numbers = torch.zeros(flat, dtype=torch.int64, device=device)
        self._drawn = torch.zeros(flat, device=device)
        self._attention = torch.zeros(shape[:3], device=device)
        self._count, self._place, self._held = (
            torch.zeros(1, dtype=torch.int64, device=device) for _ in range(3)
        )
