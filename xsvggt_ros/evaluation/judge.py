# SPDX-License-Identifier: Apache-2.0
"""Compares a stream of results with the truth, and keeps what the report needs.

Memory: two poses and three errors per frame, and bounded samples of pixels, points and images.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from xsvggt_ros.errors import XsvggtError, first_line
from xsvggt_ros.evaluation.association import Association
from xsvggt_ros.evaluation.cloud import CloudScore, score_cloud
from xsvggt_ros.evaluation.comparison import (
    CorrespondenceSample,
    depth_at_truth,
    truth_at_result,
)
from xsvggt_ros.evaluation.depth import (
    DEPTH_ALIGNMENTS,
    DepthAlignmentKind,
    DepthErrors,
    DepthPairs,
    DepthScore,
)
from xsvggt_ros.evaluation.frame import FrameTruth
from xsvggt_ros.evaluation.request import JudgingOptions
from xsvggt_ros.evaluation.trajectory import (
    TrajectoryAlignment,
    TrajectoryScore,
    is_straight,
    require_telling,
    score_trajectory,
)
from xsvggt_ros.geometry.alignment import align
from xsvggt_ros.geometry.rigid import is_pose, is_position
from xsvggt_ros.stream.frame import FrameResult, ImageArray
from xsvggt_ros.stream.recording import EvenSample, RecordedFrame, Recording

logger = logging.getLogger(__name__)

JUDGED_ALIGNMENTS: tuple[TrajectoryAlignment, ...] = ("origin", "se3", "sim3")
"""``origin`` stands for "no alignment": an estimate's world is its first camera."""

STRAIGHT_PATH = (
    "the true path is a straight line, which leaves turns about itself open: ATE is meant, "
    "orientation after alignment by positions is not"
)

STRIPS = 6
"""Frames whose images the report shows."""


@dataclass(frozen=True)
class Strip:
    """What the report shows of one frame, all at the size of the network's image [h, w]."""

    index: int
    color: ImageArray
    truth: NDArray[np.float32] | None
    depth: NDArray[np.float32]
    confidence: NDArray[np.float32]


@dataclass(frozen=True)
class Scores:
    """How good a session is; what could not be judged is missing, with the reason.

    Attributes:
        trajectory: by alignment.
        depth: by alignment.
        frame_depth: errors per frame (number in the session) under the alignment ``scale``.
        cloud: None where there is no cloud to compare with.
        missing: what was not judged, and why.
        remarks: what a reader of the numbers must know.

    """

    trajectory: dict[TrajectoryAlignment, TrajectoryScore] = field(default_factory=dict)
    depth: dict[DepthAlignmentKind, DepthScore] = field(default_factory=dict)
    frame_depth: dict[int, DepthErrors] = field(default_factory=dict)
    cloud: CloudScore | None = None
    missing: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


class SessionJudge:
    """Takes the frames of one session, whose results share a world."""

    def __init__(self, options: JudgingOptions) -> None:
        self._options = options
        self.recording = Recording(images=1)
        self.estimated: list[NDArray[np.float64]] = []
        self.posed: list[int] = []
        self.true: list[NDArray[np.float64]] = []
        self.strips: EvenSample[Strip] = EvenSample(STRIPS)
        self._depth = DepthPairs(options.depth_pixels, options.farthest)
        self.cloud = CorrespondenceSample(options.cloud_points) if options.cloud_points else None

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.recording)

    @property
    def depth_frames(self) -> int:
        """Frames whose depth was compared."""
        return self._depth_frames

    _depth_frames = 0
    _lost = 0

    def add(self, result: FrameResult, truth: FrameTruth | None) -> None:
        """Take one frame."""
        self.recording.add(RecordedFrame.from_result(result))
        self.estimated.append(result.camera_to_world)
        truth = self._with_a_pose(truth or FrameTruth())
        if truth.camera_to_world is not None:
            self.posed.append(result.index)
            self.true.append(truth.camera_to_world)
        shown = None
        if truth.depth is not None:
            predicted = depth_at_truth(result, truth.depth)
            self._depth.add(result.index, predicted, truth.depth)
            self._depth_frames += 1
            shown = truth_at_result(truth.depth, result)
            if self.cloud and truth.has_points:
                self.cloud.add(result, predicted, truth)
        self.strips.add(Strip(result.index, result.color, shown, result.depth, result.confidence))

    def _with_a_pose(self, truth: FrameTruth) -> FrameTruth:
        """Return the truth without its pose where that is none, whatever source it comes from."""
        pose = truth.camera_to_world
        if pose is None or is_pose(pose) or is_position(pose):
            return truth
        self._lost += 1
        return replace(truth, camera_to_world=None)

    def matched(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return estimated and true poses of the frames that have both, float64 [n, 4, 4]."""
        estimated = [self.estimated[index] for index in self.posed]
        return (
            np.array(estimated, np.float64).reshape(-1, 4, 4),
            np.array(self.true, np.float64).reshape(-1, 4, 4),
        )

    def scores(self) -> Scores:
        """Judge what has come so far."""
        missing: list[str] = []
        trajectory = self._judge_trajectory(missing)
        depth = self._judge_depth(missing)
        scaled = depth.get("scale")
        remarks = []
        if "se3" in trajectory and is_straight(self.matched()[1]):
            remarks.append(STRAIGHT_PATH)
        if self._lost:
            remarks.append(
                f"{self._lost} true poses are none (not finite, or no rotation): they are left out"
            )
        return Scores(
            trajectory=trajectory,
            depth=depth,
            frame_depth=self._depth.frame_errors(scaled.alignment) if scaled else {},
            cloud=self._judge_cloud(missing),
            missing=tuple(missing),
            remarks=tuple(remarks),
        )

    def _judge_trajectory(self, missing: list[str]) -> dict[TrajectoryAlignment, TrajectoryScore]:
        if not self.posed:
            missing.append("trajectory: no frame has a true pose")
            return {}
        scores: dict[TrajectoryAlignment, TrajectoryScore] = {}
        reasons: dict[str, list[str]] = {}
        for kind in JUDGED_ALIGNMENTS:
            try:
                estimated, true = self.matched()
                require_telling(true, kind)
                scores[kind] = score_trajectory(
                    estimated, true, kind, delta=self._options.rpe_delta
                )
            except Exception as error:  # noqa: BLE001 - one score must not take the others with it
                reasons.setdefault(_reason(error), []).append(kind)
        for reason, kinds in reasons.items():
            of = "" if len(kinds) == len(JUDGED_ALIGNMENTS) else f", alignment {', '.join(kinds)}"
            missing.append(f"trajectory{of}: {reason}")
        return scores

    def _judge_depth(self, missing: list[str]) -> dict[DepthAlignmentKind, DepthScore]:
        if not self._depth_frames:
            missing.append("depth: no frame has a true depth map")
            return {}
        scores: dict[DepthAlignmentKind, DepthScore] = {}
        for kind in DEPTH_ALIGNMENTS:
            try:
                scores[kind] = self._depth.score(kind)
            except Exception as error:  # noqa: BLE001 - likewise
                missing.append(f"depth, alignment {kind}: {_reason(error)}")
        return scores

    def _judge_cloud(self, missing: list[str]) -> CloudScore | None:
        """Lay the estimated points upon the true ones of the same pixels, then compare clouds."""
        if self.cloud is None:
            missing.append("cloud: not asked for")
            return None
        points = self.cloud.points()
        if not len(points):
            missing.append("cloud: no frame has true depth, pose and camera")
            return None
        try:
            moved = align(points.estimated, points.true, scale=True).points(points.estimated)
            true = points.true.astype(np.float64)
            return score_cloud(moved, true, distance=self._options.fscore_distance)
        except Exception as error:  # noqa: BLE001 - likewise
            missing.append(f"cloud: {_reason(error)}")
            return None


def _reason(error: Exception) -> str:
    """Return why a score is missing; what was not foreseen goes to the log, too."""
    if isinstance(error, XsvggtError):
        return str(error)
    logger.debug("unexpected failure while scoring", exc_info=error)
    return f"unexpected {type(error).__name__}: {first_line(error)}"


class Judge:
    """Takes a stream and judges its longest session, because each has a world of its own."""

    def __init__(self, options: JudgingOptions) -> None:
        self._options = options
        self._longest = self._newest = SessionJudge(options)
        self.frames = 0
        self.sessions = 0
        self._with_pose = self._with_depth = 0
        self._stamps: tuple[int, int] | None = None

    def add(self, result: FrameResult, truth: FrameTruth | None) -> None:
        """Take the next frame of the stream."""
        self._with_pose += truth is not None and truth.camera_to_world is not None
        self._with_depth += truth is not None and truth.depth is not None
        times = result.stamp, *(self._stamps or ())
        self._stamps = min(times), max(times)
        if result.index == 0:
            self._longest, self._newest = self.session, SessionJudge(self._options)
            self.sessions += 1
        self._newest.add(result, truth)
        self.frames += 1

    def association(self, truth: tuple[int, int] | None) -> Association:
        """Return how much of the stream has a truth, whose poses were taken from when to when."""
        return Association(self.frames, self._with_pose, self._with_depth, self._stamps, truth)

    @property
    def session(self) -> SessionJudge:
        """The longest session so far; of equally long ones the first."""
        return max(self._longest, self._newest, key=len)
