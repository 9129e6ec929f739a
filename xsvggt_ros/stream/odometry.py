# SPDX-License-Identifier: Apache-2.0
"""Odometry of a stream: refined poses, steps that never jump, velocities, and their covariances.

Nobody says how precise the network's poses are, so it is measured while the stream runs: two images
in a row, laid on each other, give the step a second time, or their depth maps where the images do
not tell, and points of the point head, where it runs, the pose. What these differ from the
network's pose by, less what they are off themselves, is the network's error. Both are fused.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from xsvggt_ros.geometry.image_alignment import (
    AlignedImage,
    aligned_image,
    register_images,
)
from xsvggt_ros.geometry.pose_covariance import (
    USUAL_PERSISTENCE,
    AccumulatedError,
    ErrorSpectrum,
    PoseEstimate,
    VarianceFactors,
    compose_covariance,
    fuse,
    in_other_child,
    in_parent_axes,
    unknown_covariance,
)
from xsvggt_ros.geometry.registration import (
    PatchPoints,
    depth_differences,
    points_by_patch,
    register_depths,
    register_points,
)
from xsvggt_ros.geometry.rigid import Matrix, invert, log_se3, transform_points
from xsvggt_ros.geometry.step_covariance import ImageErrors
from xsvggt_ros.stream.frame import CameraMotion, FrameResult, PoseSource

Array = NDArray[np.float64]

MEMORY = 50
"""Frames from which the network's error is estimated."""
LEAST_MEMORY = 10
BETTER_BY = 0.5
"""Share of the whole variance up to which a registration counts: else the network's is better."""
ASSUMED_TURN, ASSUMED_WAY = np.radians(1.0), 0.02
"""Errors of a step until something is known: radians, and shares of the median depth."""
DOUBT = 0.3
"""Share of the other's variance by which the network's may be off, since it is a difference."""
CONTRADICTION = 16.27
"""Normalised squared difference, chi2 of 3 components, beyond chance: once in a thousand."""
LEAST_TURN, LEAST_WAY = np.radians(0.01), 1e-4
AT_REST = 1e-3
"""Metres and radians of a step below which the camera is taken to stand still."""
LONGEST_GAP = 2.0
"""Seconds between two frames beyond which there is no velocity."""

_MEDIAN_TO_SIGMA = 1.4826
_MEDIAN_OF_CHI2 = 2.366
"""Of three components."""


class NetworkError:
    """Learns the variance of the network's translations and rotations from differences to another.

    Lengths are shares of depth.
    """

    def __init__(self) -> None:
        self._differences: deque[tuple[float, float, float, float]] = deque(maxlen=MEMORY)

    def note(self, difference: Array, other: Array) -> None:
        """Take in a difference [6] and the covariance [6, 6] of what it was compared with."""
        way, turn = (float((difference[part] ** 2).sum()) / _MEDIAN_OF_CHI2 for part in _PARTS)
        other_way, other_turn = (float(np.trace(other[part, part])) / 3 for part in _PARTS)
        self._differences.append((way, turn, other_way, other_turn))

    @property
    def known(self) -> bool:
        """Whether there is an estimate."""
        return len(self._differences) >= LEAST_MEMORY

    @property
    def other_share(self) -> float:
        """Which share of the differences is explained by what was compared with, 0 to 1."""
        medians = np.median(self._differences, axis=0)
        return float(min(1.0, (medians[2:] / np.maximum(medians[:2], _TINY)).max()))

    def variances(self) -> tuple[float, float]:
        """Return the variance of a component of translation (in depths) and of rotation."""
        if not self.known:
            return ASSUMED_WAY**2, ASSUMED_TURN**2
        *both, other_way, other_turn = np.median(self._differences, axis=0)
        pairs = zip(both, (other_way, other_turn), (ASSUMED_WAY, ASSUMED_TURN), strict=True)
        way, turn = (
            # A difference that the other explains says little of the network: not that it is right.
            max(total - other, min(DOUBT * other, assumed**2))
            for total, other, assumed in pairs
        )
        return max(way, LEAST_WAY**2), max(turn, LEAST_TURN**2)


_PARTS = (slice(0, 3), slice(3, 6))
_TINY = 1e-300


@dataclass(slots=True)
class _Camera:
    """What is known of one camera of a stream."""

    steps: NetworkError = field(default_factory=NetworkError)
    poses: NetworkError = field(default_factory=NetworkError)
    step_spectrum: ErrorSpectrum = field(default_factory=ErrorSpectrum)
    pose_spectrum: ErrorSpectrum = field(default_factory=ErrorSpectrum)
    image_errors: ImageErrors = field(default_factory=ImageErrors)
    stamp: int = 0
    seen: PatchPoints | None = None
    image: AlignedImage | None = None
    step: Matrix = field(default_factory=lambda: np.eye(4))
    world_from_camera: Matrix = field(default_factory=lambda: np.eye(4))
    depth_error: float = np.nan
    error: AccumulatedError = field(default_factory=AccumulatedError)
    """Of the sum of its steps."""


class VisualOdometry:
    """Adds to each result of a stream how the camera moves and how precise that is.

    The pose in `odom` is the sum of steps, each within one gauge of the network: it never jumps,
    while the pose in the world does where another gauge takes over. Not thread-safe.

    Attributes:
        refinement: ``off`` takes poses and steps as the network has them. ``auto`` fuses each step
            in `odom` with one measured on the images; of several cameras, which would part ways,
            it only tells how precise they are. ``on`` fuses the poses in the world with ones from
            the point head's points as well, unless that would make them worse.
        factors: of all variances, learned where true steps are known.

    """

    def __init__(self, patch: int, refinement: str = "auto") -> None:
        """Begin a stream; ``patch`` is the edge of the network's patches in pixels."""
        self._patch = patch
        self.refinement = refinement
        self.factors = VarianceFactors()
        self._begin()

    def _begin(self) -> None:
        self._cameras: dict[str, _Camera] = defaultdict(_Camera)
        self._odom_from_world = np.eye(4)
        """What keeps odometry smooth where the world jumped."""

    def change_gauge(self, poses: Mapping[str, Matrix]) -> None:
        """Take note that another gauge has taken over.

        The newest camera of `odom` takes no notice; others of a rig are moved as far as both gauges
        see them elsewhere, and are as uncertain. A camera that the new gauge has not seen begins
        again: no step leads from one gauge to the other.

        Args:
            poses: by camera, camera-to-world pose [4, 4] of its newest frame in the new gauge.

        """
        newest = max(poses, key=lambda name: self._cameras[name].stamp)
        odom_from_world = self._odom_from_world
        before = odom_from_world @ self._cameras[newest].world_from_camera
        self._odom_from_world = before @ invert(poses[newest])
        for name, pose in poses.items():
            camera = self._cameras[name]
            moved_from = odom_from_world @ camera.world_from_camera
            camera.error.add(_apart(moved_from, self._odom_from_world @ pose))
            camera.world_from_camera = pose
        for name in self._cameras.keys() - poses.keys():
            self._cameras[name].seen = self._cameras[name].image = None

    def follow(self, result: FrameResult) -> FrameResult:
        """Return the result with its motion, and its pose refined where that is asked for.

        Result number 0 begins a session.
        """
        if result.index == 0:
            self._begin()
        camera = self._cameras[result.camera]
        seen = points_by_patch(result.depth, result.confidence, result.intrinsics, self._patch)
        image = aligned_image(result.color, result.depth, result.intrinsics)
        pose, source, inliers = self._refined(camera, result, seen)
        result = replace(result, camera_to_world=pose, pose_source=source)
        first = camera.seen is None
        step, of_step, persistence = np.eye(4), np.zeros((6, 6)), USUAL_PERSISTENCE
        if first:
            camera.image_errors.persistence.begin_camera()
            self._place_by_another(camera, pose, seen)
        else:
            of_network = invert(camera.world_from_camera) @ pose
            step, of_step = self._measured_step(camera, result, image, of_network)
            if step is not of_network:
                persistence = camera.image_errors.persistence.value
                before = self._odom_from_world @ camera.world_from_camera
                self._odom_from_world = before @ step @ invert(pose)
            camera.error.step(step, of_step, persistence)
        odom_from_camera = self._odom_from_world @ pose
        motion = CameraMotion(
            odom_from_camera=odom_from_camera,
            covariance=camera.error.covariance,
            # Joins move the pose in the world away from that in `odom`, as do fused steps.
            world_covariance=camera.error.covariance + _apart(odom_from_camera, pose),
            step=step,
            step_covariance=of_step,
            persistence=persistence,
            seconds=0.0 if first else (result.stamp - camera.stamp) / 1e9,
            inliers=inliers,
            depth_error=camera.depth_error,
        )
        camera.stamp, camera.seen, camera.image = result.stamp, seen, image
        camera.step, camera.world_from_camera = step, pose
        return replace(result, motion=motion)

    def _place_by_another(self, camera: _Camera, pose: Matrix, seen: PatchPoints) -> None:
        """Begin with the covariance of the newest other camera, where there is one.

        The first camera of a session is exact, for all is measured by it. Others are where the
        network has them.
        """
        others = [each for each in self._cameras.values() if each.seen is not None]
        if not others:
            return
        newest = max(others, key=lambda each: each.stamp)
        between = invert(newest.world_from_camera) @ pose
        error = _in_depths(_diagonal(*newest.steps.variances()), _usual_depth(seen))
        before = newest.error.covariance
        camera.error.begin(_symmetric(compose_covariance(before, between, error)))

    def note_true_step(self, motion: CameraMotion, step: Matrix) -> None:
        """Learn from the true step [4, 4] of a motion, in metres, how variances are off.

        Nothing is learned at rest: much of the error comes with the motion.
        """
        if not motion.step_covariance.any() or np.abs(log_se3(step)).max() < AT_REST:
            return
        one, other = self.factors.factors
        roots = 1.0 / np.sqrt([one] * 3 + [other] * 3)
        covariance = motion.step_covariance * np.outer(roots, roots)
        self.factors.note(log_se3(invert(step) @ motion.step), covariance)

    def _refined(
        self, camera: _Camera, result: FrameResult, seen: PatchPoints
    ) -> tuple[Matrix, PoseSource, float]:
        """Return the pose, where it is from, and the share of inliers; NaN where none was tried."""
        pose, source = result.camera_to_world, result.pose_source
        if self.refinement != "on" or result.points is None:
            return pose, source, np.nan
        if source == "held" or result.index == 0:
            return pose, source, np.nan
        points = transform_points(
            result.world_from_network, result.points[seen.pixels[:, 0], seen.pixels[:, 1]]
        )
        registration = register_points(points, seen, pose)
        if registration is None:
            return pose, source, 0.0
        inliers = registration.inliers
        if registration.objection(pose):
            return pose, source, inliers
        registered = camera.pose_spectrum.estimate(registration)
        depth = registration.depth
        covariance = _in_depths(np.linalg.pinv(registered.information, hermitian=True), 1 / depth)
        difference = log_se3(invert(pose) @ registered.pose)
        difference[:3] /= depth
        camera.poses.note(difference, covariance)
        if not camera.poses.known or camera.poses.other_share > BETTER_BY:
            return pose, source, inliers
        head = _in_depths(_diagonal(*camera.poses.variances()), depth)
        own = PoseEstimate(pose, np.asarray(np.linalg.inv(head), np.float64))
        return fuse(own, registered).pose, "fused", inliers

    def _measured_step(
        self, camera: _Camera, result: FrameResult, image: AlignedImage, step: Matrix
    ) -> tuple[Matrix, Array]:
        """Return a step and its covariance; the very ``step`` of the network where it stays."""
        assert camera.seen is not None
        assert camera.image is not None
        depth = _usual_depth(camera.seen)
        registration = register_images(camera.image, image, step, camera.step)
        if registration is None:
            camera.image_errors.persistence.note_nothing()
            measured = self._step_by_depth(camera, result, step)
        else:
            measured = camera.image_errors.estimate(registration)
        way, turn = camera.steps.variances()
        if measured is not None:
            way, turn = self._compared(camera, step, measured, depth)
        way, turn = _doubted(way, turn, result, step, depth)
        covariance = _in_depths(_diagonal(way, turn), depth)
        found = step
        if registration is not None and measured is not None and self._fuses_steps:
            own = PoseEstimate(step, np.asarray(np.linalg.inv(covariance), np.float64))
            fused = fuse(measured, own)
            found, covariance = fused.pose, _symmetric(np.linalg.inv(fused.information))
        camera.depth_error = _depth_error(camera.seen, result, found)
        return found, self.factors.applied(covariance)

    @property
    def _fuses_steps(self) -> bool:
        return self.refinement != "off" and len(self._cameras) == 1

    def _step_by_depth(
        self, camera: _Camera, result: FrameResult, step: Matrix
    ) -> PoseEstimate | None:
        """Return what two depth maps say of a step; None where they say nothing."""
        assert camera.seen is not None
        registration = register_depths(
            camera.seen, result.depth, result.intrinsics, step, rotate=True
        )
        if registration is None:
            return None
        estimate = camera.step_spectrum.estimate(registration)
        return None if registration.objection(step) else estimate

    def _compared(
        self, camera: _Camera, step: Matrix, measured: PoseEstimate, depth: float
    ) -> tuple[float, float]:
        """Return the variances of the network's step, by what another measurement says of it."""
        covariance = np.linalg.pinv(measured.information, hermitian=True)
        other = _in_depths(covariance, 1 / depth)
        difference = log_se3(invert(step) @ measured.pose)
        difference[:3] /= depth
        camera.steps.note(difference, other)
        way, turn = (
            _contradicted(variance, difference[part], other[part, part])
            for variance, part in zip(camera.steps.variances(), _PARTS, strict=True)
        )
        return way, turn


def _doubted(
    way: float, turn: float, result: FrameResult, step: Matrix, depth: float
) -> tuple[float, float]:
    """Return the variances of the network's step, raised where the network itself is in doubt."""
    if result.pose_source == "held":
        # Nobody saw the step: it may be wrong by as much as it is long.
        error = log_se3(step)
        way = max(way, float((error[:3] ** 2).sum()) / depth**2)
        turn = max(turn, float((error[3:] ** 2).sum()))
    change = result.head_change
    if change is not None:
        way = max(way, (float(change[:3] @ change[:3]) / depth**2) / 3)
        turn = max(turn, float(change[3:] @ change[3:]) / 3)
    return way, turn


def _apart(one: Matrix, other: Matrix) -> Array:
    """Return what a pose [4, 4] may be off by beyond another estimate of it, as variances [6, 6].

    By how much they differ is known. In which direction counts less: an error of the scale lies in
    both.
    """
    difference = log_se3(invert(one) @ other)
    way, turn = (float((difference[part] ** 2).sum()) / 3 for part in _PARTS)
    return _diagonal(way, turn)


def _depth_error(seen: PatchPoints, result: FrameResult, step: Matrix) -> float:
    """Return the standard deviation of depth as a share of it; NaN where two maps do not say."""
    apart = depth_differences(seen, result.depth, result.intrinsics, step)
    if not len(apart):
        return np.nan
    # Half of the variance is the earlier map's.
    return float(np.median(np.abs(apart)) * _MEDIAN_TO_SIGMA / np.sqrt(2))


@dataclass(frozen=True, slots=True)
class CarrierMotion:
    """How a robot's base moves, or the camera where there is none.

    Attributes:
        covariance: float64 [6, 6] of its pose in `odom` or the map, about axes parallel to those.
        twist: float64 [6], metres and radians a second in its own axes; zero where unknown.
        twist_covariance: float64 [6, 6].

    """

    covariance: Array
    twist: Array
    twist_covariance: Array


def carrier_motion(
    motion: CameraMotion | None,
    carrier_pose: Matrix,
    carrier_from_camera: Matrix,
    *,
    metric: bool,
    lost: bool,
    in_map: bool = False,
) -> CarrierMotion:
    """Return how the carrier of a camera moves, as ``nav_msgs/Odometry`` has it.

    Args:
        motion: of the camera; None where nothing is known.
        carrier_pose: [4, 4], in `odom` or the map.
        carrier_from_camera: [4, 4].
        metric: whether lengths are metres; else nothing is known of translations.
        lost: whether the result is implausible; nothing is known then.
        in_map: whether ``carrier_pose`` is that in the map.

    """
    unknown = unknown_covariance()
    if motion is None or lost:
        return CarrierMotion(unknown, np.zeros(6), unknown)
    camera_from_carrier = invert(carrier_from_camera)
    covariance = motion.world_covariance if in_map else motion.covariance
    covariance = in_other_child(covariance, camera_from_carrier)
    covariance = in_parent_axes(covariance, carrier_pose)
    twist, of_twist = np.zeros(6), unknown
    if 0.0 < motion.seconds <= LONGEST_GAP:
        step = carrier_from_camera @ motion.step @ camera_from_carrier
        twist = log_se3(step) / motion.seconds
        of_twist = in_other_child(motion.step_covariance, camera_from_carrier) / motion.seconds**2
    if not metric:
        covariance, of_twist = _without_lengths(covariance), _without_lengths(of_twist)
        twist[:3] = 0.0
    return CarrierMotion(covariance, twist, of_twist)


def _without_lengths(covariance: Array) -> Array:
    """Return a covariance that says nothing of translations."""
    known = unknown_covariance()
    known[3:, 3:] = covariance[3:, 3:]
    return known


def _contradicted(variance: float, difference: Array, other: Array) -> float:
    """Return the variance of a step's component, raised where this very step looks wrong.

    Args:
        variance: that is usual.
        difference: of the step from another measurement of it, [3].
        other: covariance of that, [3, 3].

    """
    square, own = float((difference**2).sum()), float(np.trace(other)) / 3
    if square <= CONTRADICTION * (variance + own):
        return variance
    return max(variance, square / 3 - own)


def _symmetric(matrix: NDArray[np.floating]) -> Array:
    """Return a matrix that is symmetric but for rounding, exactly so: filters insist on it."""
    return np.asarray((matrix + matrix.T) / 2, np.float64)


def _usual_depth(seen: PatchPoints) -> float:
    """Return the median depth of a frame; 1 where it has none."""
    return float(np.median(seen.depth)) if len(seen.depth) else 1.0


def _diagonal(way: float, turn: float) -> Array:
    return np.diag([way] * 3 + [turn] * 3)


def _in_depths(covariance: NDArray[np.floating], length: float) -> Array:
    """Return a covariance whose lengths are multiplied by one."""
    unit = np.array([length] * 3 + [1.0] * 3)
    return np.asarray(covariance * np.outer(unit, unit), np.float64)
