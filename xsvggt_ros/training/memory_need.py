# SPDX-License-Identifier: Apache-2.0
"""What a network's memory is worth on worlds: errors without history, with windows, with all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from xsvggt_ros.geometry.rigid import rotation_angles
from xsvggt_ros.metrics.depth import score_depth
from xsvggt_ros.metrics.trajectory import score_trajectory
from xsvggt_ros.model.config import PoseConvention
from xsvggt_ros.model.network import StreamVggt
from xsvggt_ros.synthetic.scenes.streams import Streams
from xsvggt_ros.training.forgetting import (
    MaskedSequence,
    causal,
    over_tokens,
    window,
)
from xsvggt_ros.training.scores import camera_poses

Array = NDArray[np.float64]
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
        """Attend over what is held and the present frame, which is held from now on.

        Args:
            layer: number of the global block.
            query: [batch, heads, tokens, head_dim].
            key: of the same shape.
            value: likewise.

        """
        return self._attend(("global", layer, 0), query, key, value)

    def absorb(self, layer: int, update: Tensor) -> None:
        """Forget an update [batch, tokens, dim]: a window asks nobody what is worth keeping."""

    def attend_camera(
        self, iteration: int, block: int, query: Tensor, key: Tensor, value: Tensor
    ) -> Tensor:
        """Attend over the camera tokens of the same frames.

        Args:
            iteration: number of the refinement.
            block: of the camera head.
            query: [batch, heads, frames, head_dim].
            key: of the same shape.
            value: likewise.

        """
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
    """Errors of some streams, float64 [worlds] or [worlds, frames].

    Attributes:
        ate_sim3_percent: ATE after Sim(3), percent of the path's extent.
        standing_ate_sim3_percent: the same of a camera that never moves.
        positions_percent: position error of each frame after Sim(3), percent of the extent.
        rotations_deg: rotation error of each frame, without alignment.
        rpe_rotation_mean_deg: rotation error from frame to frame, mean.
        abs_rel_median: AbsRel of depth after a median scale; NaN where depth was not asked for.

    """

    ate_sim3_percent: Array
    standing_ate_sim3_percent: Array
    positions_percent: Array
    rotations_deg: Array
    rpe_rotation_mean_deg: Array
    abs_rel_median: Array


@torch.no_grad()
def errors_of(
    network: StreamVggt, streams: Streams, budget: int, *, depth: bool = True
) -> StreamErrors:
    """Return the errors of a network whose memory is a window of whole frames.

    Args:
        network: on the streams' device.
        streams: what it is shown.
        budget: frames, as in BUDGETS; the camera head remembers as much.
        depth: whether depth is asked for; it costs most.

    """
    frames, device = streams.images.shape[1], streams.images.device
    seen = causal(frames, device) if budget == EVERYTHING else window(frames, budget, device)
    tokens = network.config.tokens_per_frame(*streams.images.shape[-2:])
    memory = MaskedSequence(frames, over_tokens(seen, tokens), seen)
    found = network(streams.images, memory, ("camera", "depth") if depth else ("camera",))
    assert found.pose_encodings is not None
    cameras = found.pose_encodings[:, :, -1]
    return compared(cameras, found.depth, streams, network.config.pose_convention)


def compared(
    encodings: Tensor,
    depth: Tensor | None,
    streams: Streams,
    convention: PoseConvention = "world_to_camera",
) -> StreamErrors:
    """Return the errors of a prediction.

    Args:
        encodings: of the cameras, [worlds, frames, 9].
        depth: [worlds, frames, h, w], or None.
        streams: with their truth.
        convention: how the network means its poses.

    """
    found, true = _poses(encodings, convention), _poses(streams.truth.encodings)
    paths = [score_trajectory(*pair, "sim3") for pair in zip(found, true, strict=True)]
    standing = [score_trajectory(np.tile(np.eye(4), (len(t), 1, 1)), t, "sim3") for t in true]
    turned = np.swapaxes(true[..., :3, :3], -1, -2) @ found[..., :3, :3]
    return StreamErrors(
        ate_sim3_percent=np.array([100 * each.relative_ate for each in paths]),
        standing_ate_sim3_percent=np.array([100 * each.relative_ate for each in standing]),
        positions_percent=np.stack([100 * each.position_errors / each.extent for each in paths]),
        rotations_deg=np.degrees(rotation_angles(turned)),
        rpe_rotation_mean_deg=np.array([each.rpe_rotation.mean for each in paths]),
        abs_rel_median=_depth_errors(depth, streams),
    )


def _poses(encodings: Tensor, convention: PoseConvention = "world_to_camera") -> Array:
    return camera_poses(encodings.double().cpu().numpy(), convention)


def _depth_errors(depth: Tensor | None, streams: Streams) -> Array:
    if depth is None:
        return np.full(len(streams.truth.depth), np.nan)
    truth = torch.where(streams.seen, streams.truth.depth, torch.nan)
    pairs = zip(depth.float().cpu().numpy(), truth.cpu().numpy(), strict=True)
    return np.array([score_depth(*pair, "median").errors.abs_rel for pair in pairs])
