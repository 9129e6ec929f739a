# SPDX-License-Identifier: Apache-2.0
"""Poses of a session, and what stands in for one that the network left open.

The network says a rotation as a quaternion, and two opposite ones mean the same. Which of them is
meant turns over where a camera looks back at where it began, and there, for a frame or so, the
network says something between both: a short quaternion whose direction means nothing. Everywhere
else it is about as long as in the frames before.
"""

from __future__ import annotations

from collections import deque
from statistics import median

import numpy as np
from numpy.typing import NDArray

from xsvggt_ros.geometry.pose_encoding import world_to_camera
from xsvggt_ros.geometry.rigid import Matrix, invert
from xsvggt_ros.stream.frame import PoseSource

SHORT = 0.5
"""Share of the usual length below which a quaternion says no rotation: two opposite ones that
weigh 3 : 1 add up to it."""
BASELINE = 30
LEAST_BASELINE = 10
"""Frames from which on a length is usual."""
CAMERAS = 16
"""Newest poses among which those of the same camera are looked for."""


class PoseTrack:
    """Turns what the network says of cameras into poses of one session."""

    def __init__(self) -> None:
        self._world_from_first: Matrix | None = None
        self._lengths: deque[float] = deque(maxlen=BASELINE)
        self._newest: deque[tuple[str, Matrix]] = deque(maxlen=2 * CAMERAS)

    def place(self, encoding: NDArray[np.floating], frame_id: str) -> tuple[Matrix, PoseSource]:
        """Return a frame's camera-to-world pose [4, 4], and where it is from.

        Where the quaternion is short, the camera goes on as it went from its last frame but one to
        its last; it stands still where there is only one.

        Args:
            encoding: of the pose, [9], as the network gives it; finite.
            frame_id: tells the cameras of a rig apart.

        """
        extrinsics = world_to_camera(encoding.astype(np.float64))
        if self._world_from_first is None:
            # The network only tends to put the first camera at the origin; the session's world is
            # defined by it, so the rest is taken relative to it.
            self._world_from_first = extrinsics
        pose = self._world_from_first @ invert(extrinsics)
        source: PoseSource = "predicted"
        expected = self._expected(frame_id)
        if expected is not None and self._is_short(float(np.linalg.norm(encoding[3:7]))):
            pose, source = expected, "held"
        self._newest.append((frame_id, pose))
        return pose, source

    def _is_short(self, length: float) -> bool:
        usual = median(self._lengths) if len(self._lengths) >= LEAST_BASELINE else 0.0
        # Taken in as well: a network that only says short ones is to be believed after a while.
        self._lengths.append(length)
        return length < SHORT * usual

    def _expected(self, frame_id: str) -> Matrix | None:
        own = [pose for name, pose in self._newest if name == frame_id][-2:]
        if len(own) < 2:
            return own[0] if own else None
        before, last = own
        moved: Matrix = last @ invert(before) @ last
        return moved
