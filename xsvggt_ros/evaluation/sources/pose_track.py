# SPDX-License-Identifier: Apache-2.0
"""True poses over time, asked for at the stamps of images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from xsvggt_ros.geometry.rigid import Matrix, is_rotation


class PoseTrack:
    """Poses of one frame in another; a pose between two known ones is interpolated."""

    def __init__(self, stamps: Sequence[int], poses: Sequence[Matrix], tolerance: int) -> None:
        """Take poses [4, 4] at stamps in nanoseconds, in any order.

        A pose is known at most ``tolerance`` nanoseconds from a stamp. Of equal stamps the last one
        counts.
        """
        latest = dict(zip(stamps, poses, strict=True))
        self.stamps: NDArray[np.int64] = np.array(sorted(latest), np.int64)
        self._poses = [latest[int(stamp)] for stamp in self.stamps]
        self._tolerance = tolerance

    def __len__(self) -> int:
        """Return the number of known poses."""
        return len(self._poses)

    def at(self, stamp: int) -> Matrix | None:
        """Return the pose at a stamp, or None where none is known near enough."""
        after = int(np.searchsorted(self.stamps, stamp))
        if after < len(self) and self.stamps[after] == stamp:
            return self._poses[after]
        near = [
            index
            for index in (after - 1, after)
            if 0 <= index < len(self) and abs(int(self.stamps[index]) - stamp) <= self._tolerance
        ]
        if len(near) == 2:
            first, second = (int(self.stamps[index]) for index in near)
            share = (stamp - first) / (second - first)
            return between(self._poses[near[0]], self._poses[near[1]], share)
        return self._poses[near[0]] if near else None


class FixedPose:
    """A pose that holds at all times, such as one of ``/tf_static``."""

    def __init__(self, pose: Matrix) -> None:
        self._pose = pose

    def at(self, stamp: int) -> Matrix | None:
        """Return the pose."""
        return self._pose


def between(first: Matrix, second: Matrix, share: float) -> Matrix:
    """Return the pose at a share of the way: straight, and turning evenly about one axis.

    The rotation is NaN where either is not known.
    """
    pose = np.eye(4)
    pose[:3, :3] = np.nan
    if is_rotation(first[:3, :3]) and is_rotation(second[:3, :3]):
        turn = Rotation.from_matrix(first[:3, :3].T @ second[:3, :3]).as_rotvec()
        pose[:3, :3] = first[:3, :3] @ Rotation.from_rotvec(share * turn).as_matrix()
    pose[:3, 3] = (1 - share) * first[:3, 3] + share * second[:3, 3]
    return pose
