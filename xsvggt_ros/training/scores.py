# SPDX-License-Identifier: Apache-2.0
"""How good a network is on held-out sequences."""

from __future__ import annotations

from collections.abc import Sequence as Sequences
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray

from xsvggt_ros.geometry.alignment import align
from xsvggt_ros.geometry.pose_encoding import world_to_camera
from xsvggt_ros.geometry.rigid import invert
from xsvggt_ros.model.network import StreamVggt
from xsvggt_ros.synthetic.sequence import Sequence, SyntheticFrame

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Scores:
    """Means over sequences.

    Attributes:
        depth_abs_rel: mean of |depth - truth| / truth after one median scale per sequence.
        depth_below_1_25: share of pixels whose ratio to the truth is below 1.25, same scale.
        path_error: RMS position error after a similarity alignment, over the path's extent.
        standing_error: the same of a camera that never moves, for comparison.
        turn_error: degrees of rotation error between neighbouring frames, mean.
        standing_turn: the same of a camera that never turns.

    """

    depth_abs_rel: float
    depth_below_1_25: float
    path_error: float
    standing_error: float
    turn_error: float
    standing_turn: float

    def line(self) -> str:
        """Return the scores as one line."""
        return (
            f"depth AbsRel {self.depth_abs_rel:.3f}, delta<1.25 {self.depth_below_1_25:.3f}, "
            f"ATE {100 * self.path_error:.1f} % of the path's extent (standing still "
            f"{100 * self.standing_error:.1f} %), rotation RPE {self.turn_error:.2f} deg per frame "
            f"(standing still {self.standing_turn:.2f})"
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
    poses = np.stack([invert(world_to_camera(_usable(each))) for each in encodings])
    first = invert(frames[0].camera_to_world)
    truth = np.stack([first @ frame.camera_to_world for frame in frames])
    return compare(depth, np.stack([frame.depth for frame in frames]), poses, truth)


def _usable(encoding: Array) -> Array:
    """Return an encoding whose quaternion has a length; an untrained network may say 0."""
    if np.linalg.norm(encoding[3:7]) > 1e-6:
        return encoding
    return np.array([*encoding[:3], 0.0, 0.0, 0.0, 1.0, *encoding[7:]])


def compare(depth: Array, true_depth: NDArray[np.float32], poses: Array, truth: Array) -> Scores:
    """Return the scores of depth [F, H, W] and camera-to-world poses [F, 4, 4]."""
    scaled = depth * np.median(true_depth / depth)
    ratio = np.maximum(scaled / true_depth, true_depth / scaled)
    moved = truth[:, :3, 3]
    extent = float(np.linalg.norm(np.ptp(moved, axis=0))) or 1.0
    return Scores(
        depth_abs_rel=float((np.abs(scaled - true_depth) / true_depth).mean()),
        depth_below_1_25=float((ratio < 1.25).mean()),
        path_error=aligned_error(poses[:, :3, 3], moved) / extent,
        standing_error=aligned_error(np.zeros_like(moved), moved) / extent,
        turn_error=_turn_error(poses, truth),
        standing_turn=_turn_error(np.tile(np.eye(4), (len(truth), 1, 1)), truth),
    )


def aligned_error(places: Array, truth: Array) -> float:
    """Return the RMS distance of places [n, 3] from the truth after the best similarity."""
    moved = align(places, truth, scale=True).points(places)
    return float(np.sqrt(((moved - truth) ** 2).sum(axis=1).mean()))


def _turn_error(poses: Array, truth: Array) -> float:
    """Return the mean angle in degrees between the relative rotations of neighbours."""
    if len(truth) < 2:
        return 0.0

    def steps(each: Array) -> Array:
        rotations = each[:, :3, :3]
        return np.asarray(np.einsum("nji,njk->nik", rotations[:-1], rotations[1:]))

    a, b = steps(poses), steps(truth)
    # The sine of half the angle is exact where the cosine of the angle is not: near zero.
    chord = np.linalg.norm((a - b).reshape(len(a), -1), axis=1) / np.sqrt(8.0)
    return float(np.degrees(2 * np.arcsin(np.clip(chord, 0, 1))).mean())


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
