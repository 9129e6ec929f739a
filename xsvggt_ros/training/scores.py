# SPDX-License-Identifier: Apache-2.0
"""How good a network is on held-out sequences."""

from __future__ import annotations

from collections.abc import Sequence as Sequences
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray

from xsvggt_ros.geometry.cameras import world_to_camera
from xsvggt_ros.geometry.rigid import invert
from xsvggt_ros.metrics.depth import score_depth
from xsvggt_ros.metrics.trajectory import score_trajectory
from xsvggt_ros.model.config import PoseConvention
from xsvggt_ros.model.network import StreamVggt
from xsvggt_ros.synthetic.sequence import Sequence, SyntheticFrame

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
    return compare(depth, np.stack([frame.depth for frame in frames]), poses, truth)


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


def compare(depth: Array, true_depth: NDArray[np.float32], poses: Array, truth: Array) -> Scores:
    """Return the scores of a sequence.

    Args:
        depth: predicted, [frames, h, w].
        true_depth: [frames, h, w], metres.
        poses: predicted camera_to_world, [frames, 4, 4]; two or more.
        truth: the true ones.

    """
    found = score_depth(depth, true_depth, "median").errors
    path = score_trajectory(poses, truth, "sim3")
    standing = score_trajectory(np.tile(np.eye(4), (len(truth), 1, 1)), truth, "sim3")
    return Scores(
        abs_rel_median=found.abs_rel,
        delta_1_median=found.delta_1,
        relative_ate_sim3=path.relative_ate,
        standing_relative_ate_sim3=standing.relative_ate,
        rpe_rotation_mean_deg=path.rpe_rotation.mean,
        standing_rpe_rotation_mean_deg=standing.rpe_rotation.mean,
    )


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
