# SPDX-License-Identifier: Apache-2.0
"""Whether the cameras of a rig live in one clock, which their order goes by."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from statistics import median, median_low

from xsvggt_ros.stream.stamps import SHORTEST_JUMP

_BASELINE = 9
_LEAST_BASELINE = 3


class RigClocks:
    """Compares the stamps of images that arrive one after the other."""

    def __init__(self, cameras: Sequence[str]) -> None:
        self._cameras = tuple(cameras)
        self._newest: dict[str, int] = {}
        self._arrived_since: dict[str, set[str]] = {camera: set() for camera in cameras}
        """Of each camera, which others have sent an image since its own last one."""
        self._ahead: dict[str, deque[int]] = {
            camera: deque(maxlen=_BASELINE) for camera in cameras[1:]
        }
        """Nanoseconds by which the stamps of a camera are ahead of the first camera's."""

    def note(self, camera: str, stamp: int) -> None:
        """Take note of an image when it arrives.

        Only cameras that take turns are compared: one that is silent has an old stamp, not another
        clock.
        """
        first = self._cameras[0]
        for other in self._arrived_since[camera]:
            if first in (camera, other):
                ahead = stamp - self._newest[other]
                self._ahead[other if camera == first else camera].append(
                    -ahead if camera == first else ahead
                )
        self._arrived_since[camera].clear()
        for others in (self._arrived_since[each] for each in self._cameras if each != camera):
            others.add(camera)
        self._newest[camera] = stamp

    def strangers(self) -> dict[str, float]:
        """Return by how many seconds the stamps of cameras are ahead of those of most others.

        Only cameras that are off by a second or more are in it; what is behind is negative.
        """
        offsets = {self._cameras[0]: 0.0}
        for camera, ahead in self._ahead.items():
            if len(ahead) >= _LEAST_BASELINE:
                offsets[camera] = float(median(ahead))
        usual = median_low(offsets.values())
        if len(offsets) == 2:
            usual = 0.0  # of two, the first one is right
        return {
            camera: (offset - usual) / 1e9
            for camera, offset in offsets.items()
            if abs(offset - usual) >= SHORTEST_JUMP
        }
