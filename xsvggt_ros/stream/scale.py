# SPDX-License-Identifier: Apache-2.0
"""From the model's own unit of length to metres.

An image alone says nothing of metres. An estimate of metres per unit comes from elsewhere (see
`scale_estimates.py`); the median of the newest ones counts. It may wander, as the model's unit does
over a long stream, so each frame's *step* is scaled by what was known then: the way so far stays
where it is.
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import replace
from statistics import median

import numpy as np
from numpy.typing import NDArray

from xsvggt_ros.stream.frame import FrameResult

logger = logging.getLogger(__name__)

SMOOTHED = 30
"""Estimates whose median counts."""


class MetricScale:
    """Scales the results of one stream, in order. Not thread-safe."""

    def __init__(self, fixed: float | None = None, *, smoothed: int = SMOOTHED) -> None:
        """Scale by ``fixed`` metres per unit, or by the estimates that are noted.

        The median of the newest ``smoothed`` estimates counts; 1 where they are smooth already.
        """
        self._fixed = fixed
        self._smoothed = smoothed
        self._begin()

    def _begin(self) -> None:
        self._estimates: deque[float] = deque(maxlen=self._smoothed)
        self._world, self._odom = _ScaledPath(), _ScaledPath()
        self._known = self._fixed is not None

    @property
    def value(self) -> float | None:
        """Metres per unit; None where that is not known."""
        if self._fixed is not None:
            return self._fixed
        return median(self._estimates) if self._estimates else None

    @property
    def spread(self) -> float:
        """How far single estimates scatter around it, as a share; by the median deviation."""
        middle = self.value
        if self._fixed is not None or not self._estimates or not middle:
            return 0.0
        return 1.4826 * median(abs(each / middle - 1.0) for each in self._estimates)

    def fix(self, value: float) -> None:
        """Scale by a fixed value from the next frame on; the way so far is scaled with it, once."""
        if value != self._fixed:
            self._fixed = value
            self._known = False

    def note(self, estimate: float | None, *, first: bool = False) -> None:
        """Take in an estimate of metres per unit; the ``first`` frame of a session forgets others.

        Call it before :meth:`applied`, for each frame.
        """
        if first:
            self._begin()
        if estimate is not None and np.isfinite(estimate) and estimate > 0:
            self._estimates.append(estimate)

    def applied(self, result: FrameResult) -> tuple[FrameResult, bool]:
        """Return the result in metres, and whether lengths before it were not.

        Where the scale becomes known in the middle of a session, or a fixed one changes, the way so
        far is scaled as a whole, once; that in odom stays where it is, for odom never jumps.
        """
        scale = self.value
        found = scale is not None and not self._known
        if found:
            self._known = True
            logger.info("the scale is known: one unit of the model is %.4g m", scale)
        pose = self._world.scaled(result.camera_to_world, scale, whole=found)
        motion = result.motion
        if motion is not None:
            odom = self._odom.scaled(motion.odom_from_camera, scale, whole=False)
            motion = motion.scaled(1.0 if scale is None else scale, odom)
        if scale is None:
            return result, False
        scaled = replace(
            result,
            camera_to_world=pose,
            depth=result.depth * np.float32(scale),
            motion=motion,
            metric=True,
        )
        return scaled, found and result.index > 0


class _ScaledPath:
    """Scales the steps of a path."""

    def __init__(self) -> None:
        self._last = np.zeros(3)
        self._position = np.zeros(3)

    def scaled(
        self, pose: NDArray[np.float64], scale: float | None, *, whole: bool
    ) -> NDArray[np.float64]:
        """Return the next pose [4, 4]; None = not scaled, ``whole`` = all steps so far by this."""
        model = pose[:3, 3]
        if scale is None:
            self._position = model
        else:
            self._position = (
                scale * model if whole else self._position + scale * (model - self._last)
            )
        self._last = model
        scaled = pose.copy()
        scaled[:3, 3] = self._position
        return scaled
