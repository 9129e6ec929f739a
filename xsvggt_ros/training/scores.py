# SPDX-License-Identifier: Apache-2.0
"""How good a network is on held-out sequences, and what its memory is worth."""

from __future__ import annotations

from collections.abc import Sequence as Sequences
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xsvggt_ros.geometry.cameras import world_to_camera
from xsvggt_ros.geometry.rigid import invert, rotation_angles
from xsvggt_ros.metrics.depth import score_depth
from xsvggt_ros.metrics.trajectory import TrajectoryScore, score_trajectory
from xsvggt_ros.model.config import PoseConvention
from xsvggt_ros.model.layers import CausalSequence
from xsvggt_ros.model.network import StreamVggt
from xsvggt_ros.synthetic.scenes import Streams
from xsvggt_ros.synthetic.sequence import Sequence, SyntheticFrame
from xsvggt_ros.training.forgetting import (
    MaskedSequence,
    PrunedSequence,
    causal,
    over_tokens,
    window,
)

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Scores:
    """Means over sequences.

    Attributes:
        abs_rel_median: AbsRel of depth after one median scale per sequence.
        delta_1_median: share of pixels whose ratio to the truth is below 1.25, same scale.
        relative_ate_sim3: ATE after Sim(3), as a share of the true path's extent.
        standing_relative_ate_sim3: the same of a camera that never moves, for comparison.
        rpe_rotation_mean_deg: rotation error from frame to frame, mean.
        standing_rpe_rotation_mean_deg: the same of a camera that never turns.

    """

    abs_rel_median: float
    delta_1_median: float
    relative_ate_sim3: float
    standing_relative_ate_sim3: float
    rpe_rotation_mean_deg: float
    standing_rpe_rotation_mean_deg: float

    def line(self) -> str:
        """Return the scores as one line."""
        return (
            f"AbsRel (median scale) {self.abs_rel_median:.3f}, "
            f"delta<1.25 {self.delta_1_median:.3f}, "
            f"ATE after Sim(3) {100 * self.relative_ate_sim3:.1f} % of the path's extent "
            f"(standing still {100 * self.standing_relative_ate_sim3:.1f} %), "
            f"rotation RPE {self.rpe_rotation_mean_deg:.2f} deg per frame "
            f"(standing still {self.standing_rpe_rotation_mean_deg:.2f})"
        )


def score_sequence(network: StreamVggt, frames: Sequences[SyntheticFrame]) -> Scores:
    """Run frames through the network as one causal stream, and compare."""
    device = network.device
    colors = np.stack([frame.color for frame in frames])
    images = torch.from_numpy(colors).to(device).movedim(-1, 1).float()[None] / 255
    with torch.inference_mode():
        found = network.forward_sequence(images, ("camera", "depth"))
    assert found.depth is not None
    assert found.pose_encodings is not None
    depth = found.depth[0].double().cpu().numpy()
    encodings = found.pose_encodings[0, :, -1].double().cpu().numpy()
    poses = camera_poses(encodings, network.config.pose_convention)
    first = invert(frames[0].camera_to_world)
    truth = np.stack([first @ frame.camera_to_world for frame in frames])
    return sequence_scores(depth, np.stack([frame.depth for frame in frames]), poses, truth)


def camera_poses(encodings: Array, convention: PoseConvention = "world_to_camera") -> Array:
    """Return camera_to_world poses, float64 [..., 4, 4], of encodings [..., 9] in a convention.

    A quaternion without a length, which an untrained network may say, stands for no turn.
    """
    numbers = np.array(encodings, np.float64).reshape(-1, encodings.shape[-1])
    numbers[np.linalg.norm(numbers[:, 3:7], axis=1) <= 1e-6, 3:7] = 0.0, 0.0, 0.0, 1.0
    poses = np.stack([world_to_camera(each) for each in numbers])
    if convention == "world_to_camera":
        poses = np.stack([invert(each) for each in poses])
    return poses.reshape(*encodings.shape[:-1], 4, 4)


def sequence_scores(
    depth: Array, true_depth: NDArray[np.float32], poses: Array, truth: Array
) -> Scores:
    """Return the scores of a sequence.

    Args:
        depth: predicted, [frames, h, w].
        true_depth: [frames, h, w], metres.
        poses: predicted camera_to_world, [frames, 4, 4]; two or more.
        truth: the true ones.

    """
    found = score_depth(depth, true_depth, "median").errors
    path, standing = _path_scores(poses, truth)
    return Scores(
        abs_rel_median=found.abs_rel,
        delta_1_median=found.delta_1,
        relative_ate_sim3=path.relative_ate,
        standing_relative_ate_sim3=standing.relative_ate,
        rpe_rotation_mean_deg=path.rpe_rotation.mean,
        standing_rpe_rotation_mean_deg=standing.rpe_rotation.mean,
    )


def _path_scores(poses: Array, truth: Array) -> tuple[TrajectoryScore, TrajectoryScore]:
    """Return the score of a path [frames, 4, 4], and that of a camera that never moves."""
    standing = np.tile(np.eye(4), (len(truth), 1, 1))
    return score_trajectory(poses, truth, "sim3"), score_trajectory(standing, truth, "sim3")


def mean_scores(scores: Sequences[Scores]) -> Scores:
    """Return the mean of each score."""
    return Scores(
        **{f.name: float(np.mean([getattr(s, f.name) for s in scores])) for f in fields(Scores)}
    )


def score_network(network: StreamVggt, sequences: Sequences[Sequence]) -> Scores:
    """Return the mean scores over sequences; the network is left as it was."""
    was_training = network.training
    network.eval()
    scores = [score_sequence(network, list(sequence)) for sequence in sequences]
    network.train(was_training)
    return mean_scores(scores)


EVERYTHING = 0
BUDGETS = (2, 4, 8, 16, EVERYTHING)
"""Frames that a cache holds after each step: 2 are no history, EVERYTHING is all."""
PRUNED_BUDGET = 8
"""Frames' tokens of the pruned memory that a training is measured with."""


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
    return _errors_behind(memory, network, streams, depth=depth)


def pruned_errors_of(
    network: StreamVggt, streams: Streams, budget: int, *, depth: bool = True
) -> StreamErrors:
    """Return the errors of a network whose memory policy ``xstreamvggt`` prunes, unrounded.

    Args:
        network: on the streams' device.
        streams: what it is shown.
        budget: frames' tokens that a layer holds; the camera head remembers every frame.
        depth: whether depth is asked for; it costs most.

    """
    special = network.config.special_tokens
    memory = PrunedSequence(streams.images.shape[1], budget, special=special)
    return _errors_behind(memory, network, streams, depth=depth)


@torch.no_grad()
def _errors_behind(
    memory: CausalSequence, network: StreamVggt, streams: Streams, *, depth: bool
) -> StreamErrors:
    found = network(streams.images, memory, ("camera", "depth") if depth else ("camera",))
    assert found.pose_encodings is not None
    cameras = found.pose_encodings[:, :, -1]
    return stream_errors(cameras, found.depth, streams, network.config.pose_convention)


def stream_errors(
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
    pairs = [_path_scores(*pair) for pair in zip(found, true, strict=True)]
    paths, standing = zip(*pairs, strict=True)
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
