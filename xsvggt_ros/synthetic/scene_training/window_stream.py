# SPDX-License-Identifier: Apache-2.0
"""Batches of streams, frame by frame, whose memory is a window of whole frames."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from xsvggt_ros.model.network import StreamVggt

_Pairs = list[tuple[Tensor, Tensor]]


class WindowStream:
    """Remembers the first frame and the newest ones, unrounded, of each stream of a batch.

    What the engine's cache does with policy ``sliding_window`` at 16 bits, for many streams at
    once; the camera head remembers as many frames.
    """

    def __init__(self, budget: int) -> None:
        """Begin streams; ``budget`` are the frames that are held after a step, 0 = all."""
        self._budget = budget
        self._held: dict[tuple[str, int, int], _Pairs] = {}
        self._frames = 0

    def begin_pass(self, frames: int) -> int:
        """Return 1 for the first frame, 0 for every other one."""
        return int(self._frames == 0)

    def times(self, frames: int, device: torch.device) -> Tensor:
        """Return the number of the present frame, float32 [1]."""
        return torch.full((frames,), float(self._frames), device=device)

    def end_frame(self) -> None:
        """Say that a frame is complete."""
        self._frames += 1

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attend over what is held and the present frame, which is held from now on."""
        return self._attend(("global", layer, 0), query, key, value)

    def absorb(self, layer: int, update: Tensor) -> None:
        """Forget: a window asks nobody what is worth keeping."""

    def attend_camera(
        self, iteration: int, block: int, query: Tensor, key: Tensor, value: Tensor
    ) -> Tensor:
        """Attend over the camera tokens of the same frames."""
        return self._attend(("camera", iteration, block), query, key, value)

    def _attend(
        self, where: tuple[str, int, int], query: Tensor, key: Tensor, value: Tensor
    ) -> Tensor:
        held = self._held.setdefault(where, [])
        held.append((key, value))
        keys = torch.cat([pair[0] for pair in held], dim=2)
        values = torch.cat([pair[1] for pair in held], dim=2)
        if self._budget and len(held) > self._budget:
            # The first one is the anchor.
            del held[1 if self._budget > 1 else 0]
        elif not self._budget:
            held[:] = [(keys, values)]
        return functional.scaled_dot_product_attention(query, keys, values)


def streamed(network: StreamVggt, images: Tensor, budget: int) -> tuple[Tensor, Tensor]:
    """Return cameras [worlds, frames, 9] and depth [worlds, frames, H, W] of streams.

    Args:
        network: on the images' device.
        images: [worlds, frames, 3, H, W].
        budget: frames that are held after each step, 0 = all.

    """
    memory = WindowStream(budget)
    cameras, depths = [], []
    with torch.inference_mode():
        for frame in images.split(1, dim=1):
            found = network(frame, memory, ("camera", "depth"))
            memory.end_frame()
            assert found.pose_encodings is not None
            assert found.depth is not None
            cameras.append(found.pose_encodings[:, :, -1])
            depths.append(found.depth)
    return torch.cat(cameras, dim=1), torch.cat(depths, dim=1)
