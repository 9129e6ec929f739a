# SPDX-License-Identifier: Apache-2.0
"""What a robot that fuses the poses would get: drift, honest covariances, smooth odometry, joins.

Beside the scale that is fitted to the whole path afterwards (Sim(3)), everything is scored in the
metres that a node has while it runs: the ground truth stands in for a depth camera or an odometry,
and each step is scaled by what was known at its time.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xsvggt_ros.errors import EvaluationError, XsvggtError, first_line
from xsvggt_ros.evaluation.sources.base import FrameTruth
from xsvggt_ros.geometry.pose_covariance import USUAL_PERSISTENCE, Persistence
from xsvggt_ros.geometry.rigid import Matrix, invert, rotation_angle
from xsvggt_ros.metrics.odometry import (
    DriftScore,
    MapPoseScore,
    PoseScore,
    StepScore,
    score_drift,
    score_map_poses,
    score_poses,
    score_steps,
)
from xsvggt_ros.metrics.trajectory import (
    Poses,
    TrajectoryAlignment,
    align_poses,
    inverses,
    require_telling,
)
from xsvggt_ros.stream.frame import FrameResult
from xsvggt_ros.stream.scale import SMOOTHED, ChordScale, MetricScale, scale_from_depth

logger = logging.getLogger(__name__)

Array = NDArray[np.float64]

ONLINE: TrajectoryAlignment = "se3_online"
AFTERWARDS: TrajectoryAlignment = "sim3"


class OnlineScale:
    """Brings results into metres as a node does, with the ground truth as its sensor.

    Attributes:
        source: ``auto`` until a frame with a ground truth decides: ``depth`` where it has depth,
            else ``odometry``.

    """

    def __init__(self, source: str) -> None:
        self.source = source
        self._chords = ChordScale()
        self._spread: float | None = None
        self._scale = MetricScale(smoothed=1 if source == "odometry" else SMOOTHED)

    @property
    def value(self) -> float | None:
        """Metres per unit; None where that is not known yet."""
        return self._scale.value

    def applied(self, result: FrameResult, truth: FrameTruth) -> FrameResult:
        """Return a result in metres, as it is before the scale is known."""
        if self.source == "auto" and truth.depth is not None:
            self.source = "depth"
        elif self.source == "auto" and truth.camera_to_world is not None:
            self.source = "odometry"
            self._scale = MetricScale(smoothed=1)
        self._scale.note(self._estimate(result, truth), spread=self._spread)
        return self._scale.applied(result)[0]

    def _estimate(self, result: FrameResult, truth: FrameTruth) -> float | None:
        if self.source == "depth" and truth.depth is not None:
            return scale_from_depth(result, truth.depth)
        pose = truth.camera_to_world
        if self.source != "odometry" or pose is None or result.pose_source == "held":
            return None
        if not self._chords.add(result.camera_to_world, pose, lever_arm_known=True):
            return None
        found = self._chords.estimate()
        if found is None:
            return None
        scale, self._spread = found
        return scale


@dataclass(frozen=True, slots=True)
class _Followed:
    """What is kept of a frame.

    Attributes:
        before: number of the same camera's frame before it; -1 of its first one.
        world_from_camera: in the unit of the session.
        online_position: [3], metres; None before the scale is known.
        odom_from_camera: in the unit of the session.
        online_odom_position: [3], metres; None likewise.
        covariance: of the step from the frame before, [6, 6]; None where it is said to be unknown.
        persistence: how long the error of that step lasts.
        world_covariance: of the pose in the world, [6, 6]; None likewise.
        online_world_covariance: the same in metres, with what the scale may be off by.
        scale: metres per unit, as it was known then; NaN before.
        truth: camera-to-world pose; None where it is not known.

    """

    before: int
    world_from_camera: Matrix
    online_position: Array | None
    odom_from_camera: Matrix | None
    online_odom_position: Array | None
    covariance: Array | None
    persistence: Persistence
    world_covariance: Array | None
    online_world_covariance: Array | None
    scale: float
    truth: Matrix | None

    def online(self) -> Matrix:
        """Return the camera's pose in the world, in metres."""
        return _at(self.world_from_camera, self.online_position)

    def online_odom(self) -> Matrix:
        """Return the camera's pose in `odom`, in metres."""
        assert self.odom_from_camera is not None
        return _at(self.odom_from_camera, self.online_odom_position)


def _at(pose: Matrix, position: Array | None) -> Matrix:
    assert position is not None
    moved: Matrix = pose.copy()
    moved[:3, 3] = position
    return moved


@dataclass(frozen=True, slots=True)
class JoinScore:
    """Another gauge of the network, and what it did to the poses.

    Attributes:
        frame: of the session; the first one after it was tried.
        reason: why it was due.
        objection: why it was refused; empty where it took over.
        scale: units of the session per unit of the new gauge; NaN where it was not found.
        distance: of the points of both gauges, as a share of depth; NaN likewise.
        jump: by how much `map` to `odom` moved; units of the session.
        jump_deg: the same of its rotation, degrees.

    """

    frame: int
    reason: str
    objection: str
    scale: float
    distance: float
    jump: float
    jump_deg: float


@dataclass(frozen=True)
class OdometryScores:
    """Scores of what a robot fuses; what could not be measured is missing.

    Attributes:
        drift: by alignment, of the path in the world (`map`), which joins correct.
        odom_drift: the same of the path in `odom`, which never jumps.
        steps: by alignment, of the steps in `odom` against their covariances.
        poses: by alignment, of poses in `odom` that are sums of these steps, over 10, 50 and 200
            frames.
        map_poses: by alignment, of the poses in the world against their covariances.
        step_frames: by alignment, numbers [n] of the frames that end the steps.
        unknown_steps: steps whose covariance was said to be unknown, because a result was
            implausible; they are in no score of ``steps``.
        joins: that were tried, in order; those after the last frame are not among them.
        scale_source: where metres came from.
        scales: smallest, largest and newest metres per unit that were known; None where never.
        frames_without_scale: before the scale was known; they are in no number of ``se3_online``.

    """

    drift: dict[TrajectoryAlignment, DriftScore] = field(default_factory=dict)
    odom_drift: dict[TrajectoryAlignment, DriftScore] = field(default_factory=dict)
    steps: dict[TrajectoryAlignment, StepScore] = field(default_factory=dict)
    poses: dict[TrajectoryAlignment, tuple[PoseScore, ...]] = field(default_factory=dict)
    map_poses: dict[TrajectoryAlignment, MapPoseScore] = field(default_factory=dict)
    step_frames: dict[TrajectoryAlignment, NDArray[np.intp]] = field(default_factory=dict)
    unknown_steps: int = 0
    joins: tuple[JoinScore, ...] = ()
    scale_source: str = "none"
    scales: tuple[float, float, float] | None = None
    frames_without_scale: int = 0

    @property
    def joined(self) -> int:
        """Gauges that took over."""
        return sum(not each.objection for each in self.joins)

    def summary(self) -> dict[str, Any]:
        """Return the scores in types that JSON holds."""
        return {
            "drift": {kind: each.summary() for kind, each in self.drift.items()},
            "odom_drift": {kind: each.summary() for kind, each in self.odom_drift.items()},
            "steps": {kind: each.summary() for kind, each in self.steps.items()},
            "poses": {
                kind: {name: value for score in each for name, value in score.metrics().items()}
                for kind, each in self.poses.items()
            },
            "map_poses": {kind: each.metrics() for kind, each in self.map_poses.items()},
            "unknown_steps": self.unknown_steps,
            "joined": self.joined,
            "joins_refused": len(self.joins) - self.joined,
            "joins": [asdict(each) for each in self.joins],
            "scale_source": self.scale_source,
            "scale_online": None
            if self.scales is None
            else dict(zip(("min", "max", "last"), self.scales, strict=True)),
            "frames_without_scale": self.frames_without_scale,
        }


class OdometryEvaluator:
    """Takes the frames of one session; keeps about a kilobyte of each."""

    def __init__(self, source: str) -> None:
        self._scale = OnlineScale(source)
        self._frames: list[_Followed] = []
        self._newest: dict[str, int] = {}
        self._changes: list[tuple[int, FrameResult]] = []
        self._unknown = 0

    def add(self, result: FrameResult, truth: FrameTruth, *, lost: bool = False) -> None:
        """Take one frame; ``lost`` = it was published as implausible, its covariances unknown."""
        metric = self._scale.applied(result, truth)
        motion = result.motion
        before = self._newest.get(result.camera, -1)
        first = before < 0 or motion is None or not motion.step_covariance.any()
        self._unknown += lost and not first
        told = None if first or lost else motion
        online = None if told is None else metric.motion
        online_odom = metric.motion.odom_from_camera[:3, 3] if metric.motion else None
        self._frames.append(
            _Followed(
                before=before,
                world_from_camera=result.camera_to_world,
                online_position=metric.camera_to_world[:3, 3].copy() if metric.metric else None,
                odom_from_camera=None if motion is None else motion.odom_from_camera,
                online_odom_position=online_odom.copy()
                if metric.metric and online_odom is not None
                else None,
                covariance=None if told is None else told.step_covariance,
                persistence=USUAL_PERSISTENCE if told is None else told.persistence,
                world_covariance=None if told is None else told.world_covariance,
                online_world_covariance=None if online is None else online.world_covariance,
                scale=(self._scale.value or np.nan) if metric.metric else np.nan,
                truth=truth.camera_to_world,
            )
        )
        if result.gauge_change is not None:
            self._changes.append((len(self._frames) - 1, result))
        self._newest[result.camera] = len(self._frames) - 1

    def online_path(self) -> tuple[Poses, Poses]:
        """Return estimated poses, in metres as known at the time, and true ones, [n, 4, 4] each.

        Raises:
            EvaluationError: no frame has both.

        """
        frames = [each for each in self._frames if each.truth is not None and each.scale > 0]
        if not frames:
            raise EvaluationError(self._why_no_scale())
        return _path([each.online() for each in frames]), _path([each.truth for each in frames])

    def _why_no_scale(self) -> str:
        return (
            f"no frame with a true pose has a scale: scale_source is '{self._scale.source}', which "
            "never told one"
        )

    def scores(self, missing: list[str]) -> OdometryScores:
        """Score what has come so far; tell what could not be measured, and why."""
        scales = np.array([each.scale for each in self._frames])
        known = scales[np.isfinite(scales)]
        drift: dict[TrajectoryAlignment, DriftScore] = {}
        odom_drift: dict[TrajectoryAlignment, DriftScore] = {}
        steps: dict[TrajectoryAlignment, StepScore] = {}
        poses: dict[TrajectoryAlignment, tuple[PoseScore, ...]] = {}
        map_poses: dict[TrajectoryAlignment, MapPoseScore] = {}
        step_frames: dict[TrajectoryAlignment, NDArray[np.intp]] = {}
        for kind in (AFTERWARDS, ONLINE):
            if reason := self._score_drift(kind, drift, odom_drift):
                missing.append(f"drift, alignment {kind}: {reason}")
            if reason := self._score_steps(kind, steps, poses, step_frames):
                missing.append(f"steps, alignment {kind}: {reason}")
            reason = self._score_map_poses(kind, map_poses)
            if reason and kind in steps:  # else the same is said of steps
                missing.append(f"poses in the map, alignment {kind}: {reason}")
        return OdometryScores(
            drift=drift,
            odom_drift=odom_drift,
            steps=steps,
            poses=poses,
            map_poses=map_poses,
            step_frames=step_frames,
            unknown_steps=self._unknown,
            joins=tuple(self._join(*each) for each in self._changes),
            scale_source=self._scale.source,
            scales=(float(known.min()), float(known.max()), float(known[-1]))
            if len(known)
            else None,
            frames_without_scale=len(scales) - len(known),
        )

    def _score_drift(
        self,
        kind: TrajectoryAlignment,
        drift: dict[TrajectoryAlignment, DriftScore],
        odom_drift: dict[TrajectoryAlignment, DriftScore],
    ) -> str:
        """Score the paths in world and `odom`; return why not, if so."""
        online = kind == ONLINE
        frames = self._with_whole_truth(online=online)
        if not frames:
            return self._why_no_scale() if online else "no frame has a true pose with a rotation"
        truth = _path([each.truth for each in frames])
        try:
            require_telling(truth, kind)
            world = [each.online() if online else each.world_from_camera for each in frames]
            drift[kind] = score_drift(_path(world), truth, kind)
            if all(each.odom_from_camera is not None for each in frames):
                odom = [each.online_odom() if online else each.odom_from_camera for each in frames]
                odom_drift[kind] = score_drift(_path(odom), truth, kind)
        except Exception as error:  # noqa: BLE001 - one score must not take the others with it
            return reason_not_scored(error)
        return ""

    def _score_steps(
        self,
        kind: TrajectoryAlignment,
        steps: dict[TrajectoryAlignment, StepScore],
        poses: dict[TrajectoryAlignment, tuple[PoseScore, ...]],
        step_frames: dict[TrajectoryAlignment, NDArray[np.intp]],
    ) -> str:
        """Score steps and their sums against their covariances; return why not, if so."""
        ends = [index for index in range(len(self._frames)) if self._is_step(index)]
        if kind == ONLINE:
            ends = [index for index in ends if self._frames[index].scale > 0]
        if not ends and self._unknown:
            return f"the covariances of all {self._unknown} steps are unknown: implausible results"
        if not ends:
            return "no step has a covariance, true poses with rotations at both ends, and a scale"
        later = [self._frames[index] for index in ends]
        earlier = [self._frames[each.before] for each in later]
        odom = _path([each.odom_from_camera for each in later])
        truth = _path([each.truth for each in later])
        try:
            if kind == ONLINE:
                scale: float | Array = np.array([each.scale for each in later])
            else:
                require_telling(truth, kind)
                scale = align_poses(odom, truth, kind).scale
            found = inverses(_path([each.odom_from_camera for each in earlier])) @ odom
            true = inverses(_path([each.truth for each in earlier])) @ truth
            covariances = np.array([each.covariance for each in later], np.float64)
            steps[kind] = score_steps(found, true, covariances, kind, scale=scale)
            step_frames[kind] = np.array(ends, np.intp)
            persistences = [each.persistence for each in later]
            poses[kind] = score_poses(
                found, true, covariances, persistences, self._runs(ends), kind, scale=scale
            )
        except Exception as error:  # noqa: BLE001 - one score must not take the others with it
            return reason_not_scored(error)
        return ""

    def _score_map_poses(
        self, kind: TrajectoryAlignment, map_poses: dict[TrajectoryAlignment, MapPoseScore]
    ) -> str:
        """Score the poses in the world against their covariances; return why not, if so."""
        online = kind == ONLINE
        frames = [
            each
            for each in self._with_whole_truth(online=online)
            if each.world_covariance is not None
        ]
        if not frames:
            return "no pose has a covariance, a true pose with a rotation, and a scale"
        first = self._frames[0]
        if not _whole(first):
            return "the first frame has no true pose with a rotation"
        truth = _path([each.truth for each in frames])
        try:
            if online:
                scale = 1.0
                relative = [_since(first, each.scale, each.online()) for each in frames]
                covariances = [each.online_world_covariance for each in frames]
            else:
                require_telling(truth, kind)
                world = [each.world_from_camera for each in frames]
                scale = align_poses(_path(world), truth, kind).scale
                relative = [_since(first, 1.0, each) for each in world]
                covariances = [each.world_covariance for each in frames]
            map_poses[kind] = score_map_poses(
                _path(relative),
                invert(_path([first.truth])[0]) @ truth,
                np.array(covariances, np.float64),
                kind,
                scale=scale,
            )
        except Exception as error:  # noqa: BLE001 - one score must not take the others with it
            return reason_not_scored(error)
        return ""

    def _runs(self, ends: list[int]) -> list[NDArray[np.intp]]:
        """Return places in ``ends``, the frames that end steps, of steps that follow another."""
        runs: list[list[int]] = []
        ended_by: dict[int, list[int]] = {}
        for place, end in enumerate(ends):
            run = ended_by.pop(self._frames[end].before, None)
            if run is None:
                runs.append(run := [])
            run.append(place)
            ended_by[end] = run
        return [np.array(run, np.intp) for run in runs]

    def _with_whole_truth(self, *, online: bool) -> list[_Followed]:
        return [each for each in self._frames if _whole(each) and (not online or each.scale > 0)]

    def _is_step(self, index: int) -> bool:
        each = self._frames[index]
        if each.covariance is None or not _whole(each):
            return False
        before = self._frames[each.before]
        return _whole(before) and before.odom_from_camera is not None

    def _join(self, index: int, result: FrameResult) -> JoinScore:
        """Return what another gauge did to `map` to `odom`."""
        change, here = result.gauge_change, self._frames[index]
        assert change is not None
        jump, turn = np.nan, np.nan
        before = self._frames[here.before] if here.before >= 0 else None
        if (
            before is not None
            and here.odom_from_camera is not None
            and before.odom_from_camera is not None
        ):
            step = invert(before.odom_from_camera) @ here.odom_from_camera
            in_world = invert(before.world_from_camera) @ here.world_from_camera
            moved = invert(step) @ in_world
            jump = float(np.linalg.norm(moved[:3, 3]))
            turn = float(np.degrees(rotation_angle(moved)))
        return JoinScore(
            frame=result.index,
            reason=change.reason,
            objection=change.objection,
            scale=change.scale,
            distance=change.distance,
            jump=jump,
            jump_deg=turn,
        )


def reason_not_scored(error: Exception) -> str:
    """Return why a score is missing; unexpected errors go to the log as well."""
    if isinstance(error, XsvggtError):
        return str(error)
    logger.debug("unexpected failure while scoring", exc_info=error)
    return f"unexpected {type(error).__name__}: {first_line(error)}"


def _whole(frame: _Followed) -> bool:
    """Return whether the true pose is known, with its rotation."""
    return frame.truth is not None and bool(np.isfinite(frame.truth).all())


def _since(first: _Followed, scale: float, pose: Matrix) -> Matrix:
    """Return a pose [4, 4] in the first frame, which is scaled to its unit."""
    begun = first.world_from_camera.copy()
    begun[:3, 3] *= scale
    return invert(begun) @ pose


def _path(poses: list[Matrix | None] | list[Matrix]) -> Poses:
    return np.array(poses, np.float64).reshape(-1, 4, 4)
