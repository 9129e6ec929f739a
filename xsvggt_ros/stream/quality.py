# SPDX-License-Identifier: Apache-2.0
"""Whether a result is plausible beside those before it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from statistics import median

import numpy as np

from xsvggt_ros.geometry.rigid import Matrix, apparent_motion
from xsvggt_ros.stream.frame import FrameResult

COLLAPSED = 0.2
"""Share of the session's usual confidence above its floor of 1."""
FLAT = 0.01
"""Range between the 10th and 90th percentile of depth, in medians."""
LEAST_KNOWN = 0.1
"""Share of pixels with a finite depth."""
SMALLEST_JUMP = 0.5
"""Apparent motion between two frames (see :func:`apparent_motion`), about 29 degrees."""
JUMP = 10.0
"""Times the usual motion."""
BASELINE = 100
LEAST_BASELINE = 10
"""Frames from which on something is usual."""

_STRIDE = 4
"""Every how many pixels are looked at: percentiles of a whole image cost 10 ms."""


class QualityWatch:
    """Compares each result of a stream with those of its session so far."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._confidences: deque[float] = deque(maxlen=BASELINE)
        self._motions: deque[float] = deque(maxlen=BASELINE)
        self._gaps: deque[int] = deque(maxlen=BASELINE)
        self._last: tuple[Matrix, int] | None = None

    def judge(self, result: FrameResult) -> tuple[str, ...]:
        """Return what is wrong with a result, in words; nothing where it is plausible."""
        if result.index == 0:
            self._begin()
        depth = result.depth[::_STRIDE, ::_STRIDE]
        known = depth[np.isfinite(depth)]
        faults = [*self._faults_of_confidence(result), *_faults_of_depth(known, depth.size)]
        if result.pose_source == "held":
            faults.append("the network left the rotation open: the pose is held")
        if known.size:
            faults += self._faults_of_pose(result, float(np.median(known)))
        return tuple(faults)

    def _faults_of_confidence(self, result: FrameResult) -> Iterator[str]:
        # Confidences begin at 1: what is above says something.
        excess = float(np.mean(result.confidence[::_STRIDE, ::_STRIDE])) - 1.0
        usual = median(self._confidences) if len(self._confidences) >= LEAST_BASELINE else 0.0
        if excess < COLLAPSED * usual:
            yield f"confidence collapsed to {1 + excess:.2f} from {1 + usual:.2f}"
        else:
            self._confidences.append(excess)

    def _faults_of_pose(self, result: FrameResult, distance: float) -> Iterator[str]:
        last, self._last = self._last, (result.camera_to_world, result.stamp)
        if last is None:
            return
        motion = apparent_motion(last[0], result.camera_to_world, distance)
        # Frames may be missing in between.
        gap = result.stamp - last[1]
        usual_gap = median(self._gaps) if self._gaps else gap
        steps = max(1.0, gap / usual_gap) if usual_gap > 0 else 1.0
        known = len(self._motions) >= LEAST_BASELINE
        usual = JUMP * median(self._motions) if known else 0.0
        if motion > steps * max(SMALLEST_JUMP, usual):
            yield f"the pose jumped by {motion:.2f} (radians, plus way by median depth)"
        else:
            self._motions.append(motion / steps)
            self._gaps.append(gap)


def _faults_of_depth(known: np.ndarray, pixels: int) -> Iterator[str]:
    if known.size < LEAST_KNOWN * pixels:
        yield f"depth is known for only {known.size / pixels:.0%} of the image"
        return
    low, middle, high = np.percentile(known, (10, 50, 90))
    if high - low < FLAT * abs(middle):
        yield f"depth is flat: all of it within {(high - low) / abs(middle):.1%} of its median"
