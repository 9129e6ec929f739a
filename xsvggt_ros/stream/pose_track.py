# SPDX-License-Identifier: Apache-2.0
"""Poses of a session, and what stands in for one that the network left open.

The network says a rotation as a quaternion, and two opposite ones mean the same. Which of them is
meant turns over where a camera looks back at where it began, and there, for a frame or so, the
network says something between both: a short quaternion whose direction means nothing. Everywhere
else it is about as long as in the frames before.
"""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass, field
from statistics import median

import numpy as np
from numpy.typing import NDArray

from xsvggt_ros.geometry.cameras import world_to_camera
from xsvggt_ros.geometry.rigid import Matrix, interpolate, invert
from xsvggt_ros.stream.frame import PoseSource

SHORT = 0.5
"""Share of the usual length below which a quaternion says no rotation: two opposite ones that
weigh 3 : 1 add up to it."""
BASELINE = 30
LEAST_BASELINE = 10
"""Frames from which on a length is usual."""
MOST_HELD = 2
"""Poses in a row that are held: a camera that stays there moves on by what it is seen to do."""


@dataclass(slots=True)
class _Camera:
    """What is known of one camera of a stream: lengths of quaternions, and its newest poses."""

    lengths: deque[float] = field(default_factory=lambda: deque(maxlen=BASELINE))
    newest: deque[tuple[int, Matrix]] = field(default_factory=lambda: deque(maxlen=2))
    held: int = 0

    def expected(self, stamp: int) -> Matrix:
        """Return where the camera is if it went on as it went; where it was after one pose."""
        last_stamp, last = self.newest[-1]
        before_stamp, before = self.newest[0]
        known, ahead = last_stamp - before_stamp, stamp - last_stamp
        # A gap before says nothing of a short step now, and no gap is gone through blindly.
        share = min(max(ahead, 0) / known, 1.0) if known > 0 else 1.0
        return last @ interpolate(np.eye(4), invert(before) @ last, share)

    def leaves_open(self, length: float) -> bool:
        """Take in the length of a quaternion; return whether it says no rotation."""
        usual = median(self.lengths) if len(self.lengths) >= LEAST_BASELINE else 0.0
        self.lengths.append(length)
        self.held = self.held + 1 if length < SHORT * usual else 0
        return 0 < self.held <= MOST_HELD


class PoseTrack:
    """Turns what the network says of cameras into poses of one session."""

    def __init__(self) -> None:
        self._world_from_first: Matrix | None = None
        self._cameras: dict[str, _Camera] = defaultdict(_Camera)

    @property
    def world_from_network(self) -> Matrix:
        """Where the network's own world lies in the session's, [4, 4]."""
        return np.eye(4) if self._world_from_first is None else self._world_from_first

    def place(
        self, encoding: NDArray[np.floating], stamp: int, camera: str = ""
    ) -> tuple[Matrix, PoseSource]:
        """Return a frame's camera-to-world pose [4, 4], and where it is from.

        Where the quaternion is short, the camera goes on as it went from its last frame but one to
        its last.

        Args:
            encoding: of the pose, [9], as the network gives it; finite.
            stamp: of the frame, in nanoseconds.
            camera: its name in a rig of several.

        """
        extrinsics = world_to_camera(encoding.astype(np.float64))
        if self._world_from_first is None:
            # The network only tends to put the first camera at the origin; the session's world is
            # defined by it, so the rest is taken relative to it.
            self._world_from_first = extrinsics
        pose = self._world_from_first @ invert(extrinsics)
        source: PoseSource = "predicted"
        known = self._cameras[camera]
        if known.leaves_open(float(np.linalg.norm(encoding[3:7]))):
            pose, source = known.expected(stamp), "held"
        if known.held <= MOST_HELD:  # no way is made of what was believed for want of better
            known.newest.append((stamp, pose))
        return pose, source
