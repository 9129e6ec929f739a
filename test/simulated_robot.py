# SPDX-License-Identifier: Apache-2.0
"""A robot that drives a round in an empty room, with wheels that slip and a camera that is known.

Run as a program, it is the node with a perfect network: what it predicts is the truth, in a unit of
its own.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xsvggt_ros.geometry.rigid import Matrix, invert, matrix_from_quaternion, quaternion_from_matrix

FRAMES = 90
UNIT = 2.7
"""Metres per unit of the network."""
ROOM_LOW, ROOM_HIGH = np.array([-3.0, -2.5, 0.0]), np.array([3.0, 2.5, 1.9])
"""Corners of the room in metres, z up."""
RADIUS = 1.2
"""Of the round, in metres."""
VIEW = np.radians([60.0, 75.0])
"""Vertical and horizontal field of view."""
SLIP, WRONG_TURN = 0.02, 0.002
"""Standard deviation of a step's length as a share, and of its turn in radians."""


def _pose(position: tuple[float, float, float], quaternion: tuple[float, ...]) -> Matrix:
    pose = np.eye(4)
    pose[:3, :3] = matrix_from_quaternion(np.array(quaternion))
    pose[:3, 3] = position
    return pose


# Looks 10 degrees down, 0.3 before and 1.1 above the base, a little to the left.
_DOWN = np.radians(10.0)
MOUNT = _pose((0.3, 0.1, 1.1), (-0.5, 0.5, -0.5, 0.5)) @ _pose(
    (0.0, 0.0, 0.0), (-np.sin(_DOWN / 2), 0.0, 0.0, np.cos(_DOWN / 2))
)


def base(frame: int) -> Matrix:
    """Return where the robot is, on the floor of the room; it begins in the south, heading east."""
    angle = 2 * np.pi * frame / FRAMES
    return _pose(
        (RADIUS * np.sin(angle), -RADIUS * np.cos(angle), 0.0),
        (0.0, 0.0, np.sin(angle / 2), np.cos(angle / 2)),
    )


def wheel_odometry(seed: int = 0) -> list[Matrix]:
    """Return where the robot is by its wheels, from the origin on, for each frame."""
    rng = np.random.default_rng(seed)
    poses = [np.eye(4)]
    for frame in range(1, FRAMES):
        step = invert(base(frame - 1)) @ base(frame)
        step[:3, 3] *= 1.0 + SLIP * rng.standard_normal()
        turn = WRONG_TURN * rng.standard_normal()
        poses.append(
            poses[-1] @ step @ _pose((0, 0, 0), (0.0, 0.0, np.sin(turn / 2), np.cos(turn / 2)))
        )
    return poses


def camera(frame: int) -> Matrix:
    """Return the camera's pose in the room, optical frame."""
    return base(frame) @ MOUNT


def depth(pose: Matrix, height: int, width: int) -> NDArray[np.float32]:
    """Return the room as a camera sees it: metres along the optical axis, [height, width]."""
    rows = (np.arange(height) + 0.5) / height * 2 - 1
    columns = (np.arange(width) + 0.5) / width * 2 - 1
    y, x = np.meshgrid(rows * np.tan(VIEW[0] / 2), columns * np.tan(VIEW[1] / 2), indexing="ij")
    rays = np.stack([x, y, np.ones_like(x)], axis=-1) @ pose[:3, :3].T
    walls = np.where(rays > 0, ROOM_HIGH, ROOM_LOW) - pose[:3, 3]
    with np.errstate(divide="ignore"):
        distances: NDArray[np.float64] = (walls / rays).min(axis=-1)
    return distances.astype(np.float32)


def encoding(pose: Matrix) -> NDArray[np.float32]:
    """Return a camera's pose in the first camera's as the network encodes it."""
    seen = invert(pose) @ camera(0)
    quaternion = quaternion_from_matrix(seen[:3, :3])
    return np.concatenate([seen[:3, 3] / UNIT, quaternion, VIEW]).astype(np.float32)


def main() -> None:
    """Run the node; its network knows the truth of the frame that comes next."""
    from dataclasses import replace

    from xsvggt_ros.ros import node
    from xsvggt_ros.stream import step_runner

    to_host = step_runner.to_host
    frame = -1  # the warm-up

    def perfect(prediction: Any) -> Any:
        nonlocal frame
        output = to_host(prediction)
        pose = camera(max(frame, 0))
        frame += 1
        return replace(
            output,
            encoding=encoding(pose),
            depth=depth(pose, *output.depth.shape) / np.float32(UNIT),
            confidence=np.full_like(output.confidence, 5.0),
        )

    step_runner.to_host = perfect
    sys.exit(node.main())


PROGRAM = ("-c", f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); "
           "import simulated_robot; simulated_robot.main()")  # fmt: skip
