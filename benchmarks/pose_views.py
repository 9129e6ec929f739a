# SPDX-License-Identifier: Apache-2.0
"""Views of an empty room with exact geometry and made-up errors that hang together over the image.

For the benchmarks and tests of poses. Errors are filtered white noise: Gaussian, with a standard
deviation of ``length`` patches, along the ray and across it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from xsvggt_ros.geometry.cameras import Intrinsics
from xsvggt_ros.geometry.joining import OverlapFrame, overlap_frame
from xsvggt_ros.geometry.rigid import Matrix, Similarity, exp_se3, exp_so3

Array = NDArray[np.float64]

ROWS, COLUMNS = 28, 37
"""Patches of an image of 518 x 392 pixels."""
HALF_ROOM = np.array([3.5, 1.8, 4.2])
"""Metres from the middle to the walls; y points down."""
VIEW = np.radians(60.0)
WAVES = (0.4, 0.8, 1.6, 3.2)
"""Metres; lengths of the waves that the walls are painted in."""


@dataclass(frozen=True, slots=True)
class Errors:
    """What a made-up network gets wrong.

    Attributes:
        length: of correlation over the image, in patches.
        across: of points across the ray, each axis, as a share of depth.
        along: of points along the ray, as a share of depth.
        turn: of the camera head, degrees, root mean square.
        way: of the camera head, metres, root mean square.

    """

    length: float
    across: float
    along: float = 0.03
    turn: float = 0.3
    way: float = 0.02


def camera(patch: int = 1) -> Intrinsics:
    """Return the camera of images with ``patch`` pixels per patch."""
    width, height = COLUMNS * patch, ROWS * patch
    focal = width / 2 / np.tan(VIEW / 2)
    return Intrinsics(focal, focal, (width - 1) / 2, (height - 1) / 2, width, height)


def noise(random: np.random.Generator, length: float, patch: int = 1) -> Array:
    """Return errors of variance 1 over an image."""
    rows, columns = ROWS * patch, COLUMNS * patch
    if length == 0:
        white = np.kron(random.standard_normal((ROWS, COLUMNS)), np.ones((patch, patch)))
        return np.asarray(white, np.float64)
    sigma = length * patch
    margin = int(4 * sigma) + 1
    white = random.standard_normal((rows + 2 * margin, columns + 2 * margin))
    inside = gaussian_filter(white, sigma, mode="constant")[margin:-margin, margin:-margin]
    impulse = np.zeros(2 * margin + 1)
    impulse[margin] = 1.0
    power = float((gaussian_filter(impulse, sigma, mode="constant") ** 2).sum())
    return np.asarray(inside / power, np.float64)


def room_depth(world_from_camera: Matrix, intrinsics: Intrinsics) -> NDArray[np.float32]:
    """Return the exact depth of the room's walls, [h, w]."""
    x = (np.arange(intrinsics.width) - intrinsics.cx) / intrinsics.fx
    y = (np.arange(intrinsics.height) - intrinsics.cy) / intrinsics.fy
    rays = np.stack([*np.meshgrid(x, y), np.ones((len(y), len(x)))], axis=-1)
    rays = rays @ world_from_camera[:3, :3].T
    place = world_from_camera[:3, 3]
    with np.errstate(divide="ignore"):
        walls = (np.where(rays > 0, HALF_ROOM, -HALF_ROOM) - place) / rays
    return np.asarray(walls.min(axis=-1), np.float32)


def room_image(
    world_from_camera: Matrix, intrinsics: Intrinsics, *, gain: float = 1.0, offset: float = 0.0
) -> NDArray[np.uint8]:
    """Return an image of the room's walls, painted in waves of many lengths, uint8 [h, w, 3]."""
    depth = room_depth(world_from_camera, intrinsics).astype(np.float64)
    x = (np.arange(intrinsics.width) - intrinsics.cx) / intrinsics.fx
    y = (np.arange(intrinsics.height) - intrinsics.cy) / intrinsics.fy
    rays = np.stack([*np.meshgrid(x, y), np.ones(depth.shape)], axis=-1)
    points = (rays * depth[..., None]) @ world_from_camera[:3, :3].T + world_from_camera[:3, 3]
    paint = np.random.default_rng(0)  # the room is always the same one
    light = np.zeros((*depth.shape, 3))
    for length in WAVES:
        for _ in range(3):
            wave = paint.standard_normal(3)
            wave *= 2 * np.pi / (length * np.linalg.norm(wave))
            phases = paint.uniform(0, 2 * np.pi, 3)
            light += length**0.5 * np.sin((points @ wave)[..., None] + phases)
    bright = 0.45 + 0.06 * light
    return np.asarray((255 * gain * bright + offset).round().clip(0, 255), np.uint8)


def random_pose(random: np.random.Generator) -> Matrix:
    """Return a camera somewhere in the room, nearly upright."""
    pose = np.eye(4)
    turn = np.array([0.0, random.uniform(0, 2 * np.pi), 0.0])
    tilt = np.array([random.uniform(-0.15, 0.15), 0.0, 0.0])
    pose[:3, :3] = exp_so3(turn) @ exp_so3(tilt)
    pose[:3, 3] = random.uniform(-0.6, 0.6, 3) * HALF_ROOM
    return pose


def walk(random: np.random.Generator, frames: int) -> list[Matrix]:
    """Return the poses of a camera that wanders and turns through the room for ever."""
    phases = random.uniform(0, 2 * np.pi, 4)
    poses = []
    for index in range(frames):
        t = 0.02 * index
        pose = np.eye(4)
        turn = np.array([0.0, 1.3 * t + np.sin(0.9 * t + phases[0]), 0.0])
        tilt = np.array([0.1 * np.sin(1.7 * t + phases[1]), 0.0, 0.0])
        pose[:3, :3] = exp_so3(turn) @ exp_so3(tilt)
        pose[:3, 3] = HALF_ROOM * [
            0.4 * np.sin(0.7 * t + phases[2]),
            0.2 * np.sin(1.1 * t + phases[1]),
            0.4 * np.sin(0.5 * t + phases[3]),
        ]
        poses.append(pose)
    return poses


def head_pose(random: np.random.Generator, pose: Matrix, errors: Errors) -> Matrix:
    """Return what the camera head says of a pose."""
    way = random.standard_normal(3) * errors.way / np.sqrt(3.0)
    turn = random.standard_normal(3) * np.radians(errors.turn) / np.sqrt(3.0)
    return pose @ exp_se3(np.concatenate([way, turn]))


def point_map(
    random: np.random.Generator,
    pose: Matrix,
    depth: NDArray[np.float32],
    intrinsics: Intrinsics,
    errors: Errors,
) -> Array:
    """Return where a made-up point head places each pixel in the world, [h, w, 3]."""
    patch = intrinsics.width // COLUMNS
    along, x, y = (noise(random, errors.length, patch) for _ in range(3))
    z = depth * (1.0 + errors.along * along)
    u = (np.arange(intrinsics.width) - intrinsics.cx) / intrinsics.fx + errors.across * x
    v = ((np.arange(intrinsics.height) - intrinsics.cy) / intrinsics.fy)[:, None]
    points = np.stack([u * z, (v + errors.across * y) * z, z], axis=-1)
    return np.asarray(points @ pose[:3, :3].T + pose[:3, 3], np.float64)


def two_gauges(
    random: np.random.Generator, frames: int, errors: Errors, depth_error: float, wrong: float
) -> tuple[Similarity, list[OverlapFrame]]:
    """Return how a random later gauge lies in an earlier one, and frames that both have.

    Args:
        random: where all comes from.
        frames: how many both have.
        errors: of both camera heads, and the correlation of the errors of depth.
        depth_error: of each gauge's depth, as a share.
        wrong: share of the pixels, and of the poses of the later gauge, that mean nothing.

    """
    seen_by = camera(4)
    scale = float(np.exp(random.uniform(np.log(0.2), np.log(5.0))))
    pose = random_pose(random)
    truth = Similarity(scale, pose[:3, :3], scale * pose[:3, 3])
    overlap = []
    for walked in walk(random, frames):
        depth = room_depth(walked, seen_by)
        earlier, later = (head_pose(random, walked, errors) for _ in range(2))
        if random.random() < wrong:
            later = random_pose(random)
        later[:3, :3] = truth.rotation.T @ later[:3, :3]
        later[:3, 3] = truth.rotation.T @ (later[:3, 3] - truth.translation) / scale
        depths = []
        for unit in (1.0, 1.0 / scale):
            error = 1.0 + depth_error * noise(random, errors.length, 4)
            noisy = depth * error * np.where(random.random(depth.shape) < wrong, 3.0, 1.0)
            depths.append((unit * noisy).astype(np.float32))
        confidence = random.random(depth.shape).astype(np.float32)
        overlap.append(
            overlap_frame((earlier, depths[0], confidence), (later, depths[1], confidence), seen_by)
        )
    return truth, overlap
