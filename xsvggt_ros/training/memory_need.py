# SPDX-License-Identifier: Apache-2.0
"""What a network's memory is worth on worlds: errors without history, with windows, with all."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from xsvggt_ros.model.network import StreamVggt
from xsvggt_ros.synthetic.scenes.streams import Streams
from xsvggt_ros.training.forgetting import (
    MaskedSequence,
    causal,
    over_tokens,
    window,
)

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


EVERYTHING = 0
BUDGETS = (2, 4, 8, 16, EVERYTHING)
"""Frames that a cache holds after each step: 2 are no history, EVERYTHING is all."""


@dataclass(frozen=True)
class StreamErrors:
    """Errors of some streams, [worlds] or [worlds, frames].

    Attributes:
        path: RMS position error after the best similarity, percent of the path's extent.
        standing: the same of a camera that never moves.
        places: position error of each frame after it, percent of the extent.
        turns: degrees between true and found rotation to the first frame.
        steps: degrees between true and found rotation from frame to frame, mean.
        depth: mean of |depth - truth| / truth after a median scale.

    """

    path: Tensor
    standing: Tensor
    places: Tensor
    turns: Tensor
    steps: Tensor
    depth: Tensor


@torch.no_grad()
def errors_of(
    network: StreamVggt, streams: Streams, budget: int, *, depth: bool = True
) -> StreamErrors:
    """Return the errors of a network whose memory is a window of whole frames.

    Args:
        network: on the streams' device.
        streams: what it is shown.
        budget: frames, as in BUDGETS; the camera head remembers as much.
        depth: whether depth is asked for; it costs most, and its error is 0 where it is not.

    """
    frames, device = streams.images.shape[1], streams.images.device
    seen = causal(frames, device) if budget == EVERYTHING else window(frames, budget, device)
    tokens = network.config.tokens_per_frame(*streams.images.shape[-2:])
    memory = MaskedSequence(frames, over_tokens(seen, tokens), seen)
    found = network(streams.images, memory, ("camera", "depth") if depth else ("camera",))
    assert found.pose_encodings is not None
    asked = streams.truth.depth if found.depth is None else found.depth
    return compared(found.pose_encodings[:, :, -1], asked, streams)


def compared(encodings: Tensor, depth: Tensor, streams: Streams) -> StreamErrors:
    """Return the errors of cameras [worlds, frames, 9] and depth [worlds, frames, H, W]."""
    found, true = rotations(encodings[..., 3:7]), rotations(streams.truth.encodings[..., 3:7])
    places = _centers(found, encodings[..., :3])
    truth = _centers(true, streams.truth.encodings[..., :3])
    extent = (truth.amax(dim=1) - truth.amin(dim=1)).norm(dim=-1).clamp(min=1e-6)
    error = (_aligned(places, truth) - truth).norm(dim=-1)
    still = (truth - truth.mean(dim=1, keepdim=True)).norm(dim=-1)
    relative = found[:, :-1].transpose(-1, -2) @ found[:, 1:]
    wanted = true[:, :-1].transpose(-1, -2) @ true[:, 1:]
    percent = 100 / extent
    return StreamErrors(
        path=error.square().mean(dim=1).sqrt() * percent,
        standing=still.square().mean(dim=1).sqrt() * percent,
        places=error * percent[:, None],
        turns=_angle(found, true),
        steps=_angle(relative, wanted).mean(dim=1),
        depth=_depth_error(depth, streams),
    )


def rotations(quaternions: Tensor) -> Tensor:
    """Return rotations [..., 3, 3] of quaternions x, y, z, w of any length."""
    length = quaternions.norm(dim=-1, keepdim=True)
    identity = quaternions.new_tensor([0.0, 0.0, 0.0, 1.0])
    x, y, z, w = torch.where(length > 1e-6, quaternions / length, identity).unbind(-1)
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def _centers(rotation: Tensor, translation: Tensor) -> Tensor:
    return -(rotation.transpose(-1, -2) @ translation.unsqueeze(-1)).squeeze(-1)


def _aligned(places: Tensor, truth: Tensor) -> Tensor:
    """Return places [worlds, frames, 3] after the similarity that brings them nearest the truth."""
    middle, goal = places.mean(dim=1, keepdim=True), truth.mean(dim=1, keepdim=True)
    a, b = (places - middle).double(), (truth - goal).double()
    u, s, vt = torch.linalg.svd(b.transpose(1, 2) @ a)
    flip = torch.ones_like(s)
    flip[:, 2] = torch.linalg.det(u @ vt).sign()
    turn = (u * flip[:, None]) @ vt
    scale = (s * flip).sum(dim=1) / a.square().sum(dim=(1, 2)).clamp(min=1e-12)
    moved = scale[:, None, None] * a @ turn.transpose(1, 2)
    return moved.to(places.dtype) + goal


def _angle(a: Tensor, b: Tensor) -> Tensor:
    # The sine of half the angle is exact where the cosine of the angle is not: near zero.
    chord = (a - b).flatten(-2).norm(dim=-1) / 8**0.5
    return torch.rad2deg(2 * chord.clamp(max=1).asin())


def _depth_error(depth: Tensor, streams: Streams) -> Tensor:
    errors = []
    for found, truth, seen in zip(depth, streams.truth.depth, streams.seen, strict=True):
        ratio = truth[seen] / found[seen].clamp(min=1e-6)
        scaled = found[seen] * ratio.median()
        errors.append(((scaled - truth[seen]).abs() / truth[seen]).mean())
    return torch.stack(errors)
