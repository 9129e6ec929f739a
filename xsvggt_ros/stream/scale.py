# SPDX-License-Identifier: Apache-2.0
"""From the model's own unit of length to metres.

An image alone says nothing of metres. An estimate of metres per unit comes from elsewhere (see
below); the median of the newest ones counts. It may wander, as the model's unit does
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

from xsvggt_ros.geometry.rigid import Matrix, invert, rotation_angle
from xsvggt_ros.stream.frame import CameraMotion, FrameResult

LEAST_SHARE = 0.01
"""Of the pixels that must have both depths."""
NEAREST, FARTHEST = 0.1, 20.0
"""Metres between which depth cameras are trusted."""
_STRIDE = 4

SHORTEST_CHORD = 0.5
"""Metres between the two poses of a chord, much longer than the noise of either."""
LONGEST_CHORD = 1.0
"""Metres; over a longer one, what drifts is measured."""
SPACING = 0.05
"""Metres between the ends of two chords, which overlap."""
WINDOW = 200
"""Newest chords that count: at least ten metres of way."""
LARGEST_TURN = 0.1
"""Radians within a chord where it is not known where on the robot the camera is."""
OUTLYING = 3.0
"""Standard deviations from which on a chord does not count, by the median of their deviations."""
LEAST_DEVIATION = 0.02
"""Share of the scale by which a chord may always deviate."""
_MOST_POSES = 1000
"""Poses at which the next chord may begin: fifty metres of way around one place."""


def scale_from_depth(result: FrameResult, measured: NDArray[np.float32]) -> float | None:
    """Return the median of measured over predicted depth, None where too little is known.

    Args:
        result: in the model's unit.
        measured: [H, W] in metres, NaN or 0 where unknown; of the same camera and field of view as
            the source image, in any size.

    """
    rows, columns = _places(result, measured.shape)
    metres = measured[np.ix_(rows, columns)]
    predicted = result.depth[::_STRIDE, ::_STRIDE]
    confidence = result.confidence[::_STRIDE, ::_STRIDE]
    usable = (metres >= NEAREST) & (metres <= FARTHEST) & (predicted > 0)
    if np.count_nonzero(usable) < max(1.0, LEAST_SHARE * usable.size):
        return None
    usable &= confidence >= np.median(confidence[usable])
    return float(np.median(metres[usable] / predicted[usable]))


def _places(
    result: FrameResult, measured: tuple[int, ...]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the rows and columns of the measured image that the network's pixels lie in."""
    mapping = result.mapping
    height, width = result.depth.shape
    rows = (np.arange(0, height, _STRIDE) + 0.5 + mapping.crop_top) / mapping.resized_height
    columns = (np.arange(0, width, _STRIDE) + 0.5) / mapping.width
    return (rows * measured[0]).astype(np.intp), (columns * measured[1]).astype(np.intp)


class ChordScale:
    """Compares chords of the camera's path in the model's unit with those of a metric odometry.

    The chords overlap. Least squares over the newest of them give metres per unit; as an odometry
    is the more exact of the two, its lengths explain the model's, not the other way round.
    """

    def __init__(self) -> None:
        self._poses: deque[tuple[Matrix, Matrix]] = deque(maxlen=_MOST_POSES)
        self._chords: deque[tuple[float, float]] = deque(maxlen=WINDOW)
        """Units and metres of each."""
        self._last: Matrix | None = None

    def begin(self) -> None:
        """Forget everything: another session has another unit."""
        self._poses.clear()
        self._chords.clear()
        self._last = None

    def add(
        self, world_from_camera: Matrix, odom_from_camera: Matrix, *, lever_arm_known: bool
    ) -> bool:
        """Take in where the camera is; return whether that ended a chord.

        Args:
            world_from_camera: in the model's unit, [4, 4].
            odom_from_camera: in metres, at the same time, [4, 4].
            lever_arm_known: whether ``odom_from_camera`` is the camera's very pose, not that of
                the robot's base: then chords may turn.

        """
        if self._last is not None and _metres(self._last, odom_from_camera) < SPACING:
            return False
        self._last = odom_from_camera
        while len(self._poses) > 1 and _metres(self._poses[1][1], odom_from_camera) > LONGEST_CHORD:
            self._poses.popleft()
        while (
            self._poses and not lever_arm_known and self._turns(world_from_camera, odom_from_camera)
        ):
            self._poses.popleft()
        ended = bool(self._poses) and self._measure(world_from_camera, odom_from_camera)
        self._poses.append((world_from_camera, odom_from_camera))
        return ended

    def estimate(self) -> tuple[float, float] | None:
        """Return metres per unit, and how far single chords scatter around it as a share.

        None before the first chord.
        """
        if not self._chords:
            return None
        units, metres = np.array(self._chords).T
        ratios = metres / units
        middle = float(np.median(ratios))
        deviation = 1.4826 * float(np.median(np.abs(ratios - middle)))
        kept = np.abs(ratios - middle) <= max(OUTLYING * deviation, LEAST_DEVIATION * middle)
        scale = float(metres[kept] @ metres[kept] / (metres[kept] @ units[kept]))
        spread = float(np.sqrt(np.mean((ratios[kept] / scale - 1.0) ** 2)))
        return scale, spread

    def _turns(self, world_from_camera: Matrix, odom_from_camera: Matrix) -> bool:
        model, metric = self._poses[0]
        turns = (
            rotation_angle(invert(model) @ world_from_camera),
            rotation_angle(invert(metric) @ odom_from_camera),
        )
        return max(turns) > LARGEST_TURN

    def _measure(self, world_from_camera: Matrix, odom_from_camera: Matrix) -> bool:
        """Measure the chord from the oldest pose that is kept; return whether it is one."""
        model, metric = self._poses[0]
        metres = _metres(metric, odom_from_camera)
        units = _metres(model, world_from_camera)
        if metres < SHORTEST_CHORD or units == 0.0:
            return False
        self._chords.append((units, metres))
        return True


def _metres(one: Matrix, other: Matrix) -> float:
    return float(np.linalg.norm(one[:3, 3] - other[:3, 3]))


logger = logging.getLogger(__name__)

SMOOTHED = 30
"""Estimates whose median counts."""
ALIKE = 10
"""Estimates in a row that are wrong alike: frames see nearly the same, and chords overlap."""


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
        self._noted = 0
        self._told_spread: float | None = None
        self._joined = 0.0
        """Variance by joins, as a share squared, when the newest of them was made."""
        self._noted_at_join = 0
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
        if self._told_spread is not None:
            return self._told_spread
        return 1.4826 * median(abs(each / middle - 1.0) for each in self._estimates)

    @property
    def deviation(self) -> float:
        """Standard deviation of the value itself, as a share.

        A join of two gauges passes on the unit a little wrong. Later estimates correct that, until
        those from before it no longer count; a fixed value never does.
        """
        counting = min(self._noted, self._memory)
        own = self.spread**2 / max(1.0, counting / ALIKE)
        corrected = 0.0 if self._fixed is not None else self._noted - self._noted_at_join
        return float(np.sqrt(own + self._joined * max(0.0, 1.0 - corrected / self._memory)))

    @property
    def _memory(self) -> int:
        """Estimates that count."""
        return self._smoothed if self._smoothed > 1 else WINDOW

    def fix(self, value: float) -> None:
        """Scale by a fixed value from the next frame on; the way so far is scaled with it, once."""
        if value != self._fixed:
            self._fixed = value
            self._known = False
            self._joined = 0.0

    def note(
        self, estimate: float | None, *, first: bool = False, spread: float | None = None
    ) -> None:
        """Take in an estimate of metres per unit; the ``first`` frame of a session forgets others.

        Call it before :meth:`applied`, for each frame.

        Args:
            estimate: None where there is none.
            first: whether the frame begins a session.
            spread: of what the estimate is the mean of, as a share, where that is known.

        """
        if first:
            self._begin()
        if estimate is not None and np.isfinite(estimate) and estimate > 0:
            self._estimates.append(estimate)
            self._noted += 1
            self._told_spread = spread

    def _note_join(self, spread: float) -> None:
        left = self.deviation**2 - self.spread**2 / max(1.0, min(self._noted, self._memory) / ALIKE)
        self._joined = max(0.0, left) + spread**2
        self._noted_at_join = self._noted

    def applied(self, result: FrameResult) -> tuple[FrameResult, bool]:
        """Return the result in metres, and whether lengths before it were not.

        Where the scale becomes known in the middle of a session, or a fixed one changes, the way so
        far is scaled as a whole, once; that in odom stays where it is, for odom never jumps.
        """
        change = result.gauge_change
        if change is not None and not change.objection and np.isfinite(change.scale_spread):
            self._note_join(change.scale_spread)
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
        if found:
            self._odom.note_unit(scale)
        if motion is not None:
            motion = self._doubted(motion, pose, scale)
        scaled = replace(
            result,
            camera_to_world=pose,
            depth=result.depth * np.float32(scale),
            motion=motion,
            metric=True,
        )
        return scaled, found and result.index > 0

    def _doubted(self, motion: CameraMotion, pose: Matrix, scale: float) -> CameraMotion:
        """Return a motion with what the scale itself may be wrong by in its covariances."""
        doubt = self.deviation
        return replace(
            motion,
            covariance=motion.covariance
            + _along(motion.odom_from_camera, doubt * self._odom.way(scale))
            + _along(motion.odom_from_camera, self._odom.missing),
            world_covariance=motion.world_covariance + _along(pose, doubt * self._world.way(scale)),
            step_covariance=motion.step_covariance + _along(np.eye(4), doubt * motion.step[:3, 3]),
        )


def _along(pose: Matrix, error: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the covariance [6, 6] of a pose that is off by one ``error`` [3] of its position."""
    covariance = np.zeros((6, 6))
    own = pose[:3, :3].T @ error
    covariance[:3, :3] = np.outer(own, own)
    return covariance


class _ScaledPath:
    """Scales the steps of a path.

    Attributes:
        missing: metres [3] by which the way up to when the scale became known, or changed, was
            counted short.

    """

    def __init__(self) -> None:
        self._last = np.zeros(3)
        self._position = np.zeros(3)
        self._first: NDArray[np.float64] | None = None
        self._begun = np.zeros(3)
        self.missing = np.zeros(3)

    def way(self, scale: float) -> NDArray[np.float64]:
        """Return the metres [3] from the first position to the newest one."""
        return np.zeros(3) if self._first is None else scale * (self._last - self._first)

    def note_unit(self, scale: float) -> None:
        """Take note that all the way was scaled wrongly: this is the scale."""
        if self._first is not None:
            self.missing = self.way(scale) - (self._position - self._begun)

    def scaled(
        self, pose: NDArray[np.float64], scale: float | None, *, whole: bool
    ) -> NDArray[np.float64]:
        """Return the next pose [4, 4]; None = not scaled, ``whole`` = all steps so far by this."""
        model = pose[:3, 3]
        first = self._first is None
        if self._first is None:
            self._first = model
        if scale is None:
            self._position = model
        else:
            self._position = (
                scale * model if whole else self._position + scale * (model - self._last)
            )
        self._last = model
        if first:
            self._begun = self._position
        scaled: Matrix = pose.copy()
        scaled[:3, 3] = self._position
        return scaled
