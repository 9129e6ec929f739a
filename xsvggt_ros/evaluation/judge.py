# SPDX-License-Identifier: Apache-2.0
"""Compares a stream of results with the truth, and keeps what the report needs.

Memory: two poses and three errors per frame, and bounded samples of pixels, points and pictures.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from xsvggt_ros.errors import EvaluationError
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
    score_alignments,
)
from xsvggt_ros.geometry.alignment import align
from xsvggt_ros.stream.frame import FrameResult, Picture
from xsvggt_ros.stream.recording import EvenSample, RecordedFrame, Recording

STRIPS = 6
"""Frames whose pictures the report shows."""


@dataclass(frozen=True)
class Strip:
    """What the report shows of one frame, all at the size of the network's picture [h, w]."""

    index: int
    color: Picture
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

    """

    trajectory: dict[TrajectoryAlignment, TrajectoryScore] = field(default_factory=dict)
    depth: dict[DepthAlignmentKind, DepthScore] = field(default_factory=dict)
    frame_depth: dict[int, DepthErrors] = field(default_factory=dict)
    cloud: CloudScore | None = None
    missing: tuple[str, ...] = ()


class SessionJudge:
    """Takes the frames of one session, whose results share a world."""

    def __init__(self, options: JudgingOptions) -> None:
        self._options = options
        self.recording = Recording(pictures=1)
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

    def add(self, result: FrameResult, truth: FrameTruth | None) -> None:
        """Take one frame."""
        self.recording.add(RecordedFrame.from_result(result))
        self.estimated.append(result.camera_to_world)
        truth = truth or FrameTruth()
        if truth.camera_to_world is not None:
            self.posed.append(result.index)
            self.true.append(truth.camera_to_world)
        shown = None
        if truth.depth is not None:
            predicted = depth_at_truth(result, truth.depth)
            self._depth.add(result.index, predicted, truth.depth)
            self._depth_frames += 1
            shown = truth_at_result(truth.depth, result)
            if self.cloud and truth.camera_to_world is not None and truth.intrinsics is not None:
                self.cloud.add(result, predicted, truth)
        self.strips.add(Strip(result.index, result.color, shown, result.depth, result.confidence))

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
        return Scores(
            trajectory=trajectory,
            depth=depth,
            frame_depth=self._depth.frame_errors(scaled.alignment) if scaled else {},
            cloud=self._judge_cloud(missing),
            missing=tuple(missing),
        )

    def _judge_trajectory(self, missing: list[str]) -> dict[TrajectoryAlignment, TrajectoryScore]:
        if not self.posed:
            missing.append("trajectory: no frame has a true pose")
            return {}
        try:
            return score_alignments(*self.matched(), delta=self._options.rpe_delta)
        except EvaluationError as error:
            missing.append(f"trajectory: {error}")
            return {}

    def _judge_depth(self, missing: list[str]) -> dict[DepthAlignmentKind, DepthScore]:
        if not self._depth_frames:
            missing.append("depth: no frame has a true depth map")
            return {}
        scores: dict[DepthAlignmentKind, DepthScore] = {}
        for kind in DEPTH_ALIGNMENTS:
            try:
                scores[kind] = self._depth.score(kind)
            except EvaluationError as error:
                missing.append(f"depth, alignment {kind}: {error}")
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
        except EvaluationError as error:
            missing.append(f"cloud: {error}")
            return None


class Judge:
    """Takes a stream and judges its longest session, because each has a world of its own."""

    def __init__(self, options: JudgingOptions) -> None:
        self._options = options
        self._longest = self._newest = SessionJudge(options)
        self.frames = 0
        self.sessions = 0

    def add(self, result: FrameResult, truth: FrameTruth | None) -> None:
        """Take the next frame of the stream."""
        if result.index == 0:
            self._longest, self._newest = self.session, SessionJudge(self._options)
            self.sessions += 1
        self._newest.add(result, truth)
        self.frames += 1

    @property
    def session(self) -> SessionJudge:
        """The longest session so far; of equally long ones the first."""
        return max(self._longest, self._newest, key=len)
