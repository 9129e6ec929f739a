# SPDX-License-Identifier: Apache-2.0
"""Compares a stream with what is true: scores of its longest session, and what they cover."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from xsvggt_ros.evaluation.cloud import CloudScore, CorrespondenceSample, score_cloud
from xsvggt_ros.evaluation.odometry import (
    ONLINE,
    OdometryEvaluator,
    OdometryScores,
    reason_not_scored,
)
from xsvggt_ros.evaluation.request import ScoringOptions
from xsvggt_ros.evaluation.sources.base import FrameTruth
from xsvggt_ros.geometry.rigid import align, is_pose, is_position
from xsvggt_ros.metrics.depth import (
    DEPTH_ALIGNMENTS,
    DepthAlignmentKind,
    DepthErrors,
    DepthPairs,
    DepthScore,
)
from xsvggt_ros.metrics.trajectory import (
    TrajectoryAlignment,
    TrajectoryScore,
    is_straight,
    require_telling,
    score_trajectory,
)
from xsvggt_ros.stream.frame import FrameResult, ImageArray
from xsvggt_ros.stream.recording import EvenSample, RecordedFrame, Recording

Stamps = tuple[int, int]
"""The first and the last, nanoseconds."""

DISAGREEMENT = 2.0
"""Factor between the scales of path and depth from which they cannot both be right."""

_SECOND = 1e9


@dataclass(frozen=True)
class Association:
    """How many frames have a truth, and when images and truth were taken.

    Attributes:
        frames: with a result.
        with_pose: of these with a true pose.
        with_depth: of these with true depth.
        images: times of the images; None where there are none.
        truth: times of the true poses; None where poses have no times of their own.

    """

    frames: int
    with_pose: int
    with_depth: int
    images: Stamps | None
    truth: Stamps | None

    @property
    def words(self) -> str:
        """The association in a sentence."""
        text = (
            f"{self.with_pose} of {self.frames} frames have a true pose, {self.with_depth} true "
            "depth"
        )
        if self.images is None or (self.truth is None and not self.with_pose):
            return text
        text += f"; images were taken from {_range(self.images)}"
        if self.truth is None:
            return text
        return f"{text}, true poses from {_range(self.truth)}{self._apart}"

    @property
    def _apart(self) -> str:
        assert self.images is not None
        assert self.truth is not None
        if self.with_pose or self.overlap:
            return ""
        off = (self.truth[0] - self.images[0]) / _SECOND
        return (
            f": the truth begins {abs(off):.3f} s {'after' if off > 0 else 'before'} the images; "
            "bring both to the same clock"
        )

    @property
    def overlap(self) -> bool:
        """Whether there is a time at which there are images and truth."""
        if self.images is None or self.truth is None:
            return True
        return self.truth[0] <= self.images[1] and self.images[0] <= self.truth[1]

    def summary(self) -> dict[str, Any]:
        """Return it in types that JSON holds; times in seconds."""
        return {
            "frames": self.frames,
            "with_pose": self.with_pose,
            "with_depth": self.with_depth,
            "images_s": _seconds(self.images),
            "truth_s": _seconds(self.truth),
        }


def disagreement(
    path: TrajectoryScore | None, depth: DepthScore | None, steps_per_metre: float | None
) -> str:
    """Return a sentence where path and depth of the truth ask for scales that are far apart.

    Args:
        path: after Sim(3); its scale brings the estimate to the path's metres.
        depth: after alignment; its scale brings the estimate to the depth's metres.
        steps_per_metre: that depth was read with, where it is known.

    """
    if path is None or depth is None or min(path.scale, depth.alignment.scale) <= 0:
        return ""
    factor = depth.alignment.scale / path.scale
    if 1 / DISAGREEMENT < factor < DISAGREEMENT or path.ate.rmse > path.extent / 2:
        return ""
    given = f" (now {steps_per_metre:g})" if steps_per_metre else ""
    larger, large = ("larger", "large") if factor > 1 else ("smaller", "small")
    times = max(factor, 1 / factor)
    return (
        f"true depth is {times:.1f} times {larger} than the true path says: is it read at a wrong "
        f"scale? A --depth-scale{given} {times:.1f} times as {large} would fit; as it is, clouds "
        "are not to be trusted"
    )


def _range(stamps: Stamps) -> str:
    return f"{stamps[0] / _SECOND:.3f} to {stamps[1] / _SECOND:.3f} s"


def _seconds(stamps: Stamps | None) -> list[float] | None:
    return None if stamps is None else [each / _SECOND for each in stamps]


SCORED_ALIGNMENTS: tuple[TrajectoryAlignment, ...] = ("origin", "se3", ONLINE, "sim3")
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
    """Scores of a session; what could not be measured is missing, with the reason.

    Attributes:
        trajectory: by alignment.
        depth: by alignment.
        frame_depth: errors per frame (number in the session), all aligned as ``depth["l1"]``.
        cloud: None where there is no cloud to compare with.
        odometry: drift, steps, joins.
        missing: what was not scored, and why.
        remarks: what a reader of the numbers must know.

    """

    trajectory: dict[TrajectoryAlignment, TrajectoryScore] = field(default_factory=dict)
    depth: dict[DepthAlignmentKind, DepthScore] = field(default_factory=dict)
    frame_depth: dict[int, DepthErrors] = field(default_factory=dict)
    cloud: CloudScore | None = None
    odometry: OdometryScores = field(default_factory=OdometryScores)
    missing: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


class SessionEvaluator:
    """Takes the frames of one session, whose results share a world."""

    def __init__(self, options: ScoringOptions) -> None:
        self._options = options
        self.recording = Recording(images=1)
        self.estimated: list[NDArray[np.float64]] = []
        self.posed: list[int] = []
        self.true: list[NDArray[np.float64]] = []
        self.strips: EvenSample[Strip] = EvenSample(STRIPS)
        self._depth = DepthPairs(options.depth_pixels, options.farthest)
        self.cloud = CorrespondenceSample(options.cloud_points) if options.cloud_points else None
        self.odometry = OdometryEvaluator(options.scale_source)

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.recording)

    _depth_frames = 0
    _lost = 0

    def add(self, result: FrameResult, truth: FrameTruth | None, *, lost: bool = False) -> None:
        """Take one frame; ``lost`` = the node would have published its covariance as unknown."""
        self.recording.add(RecordedFrame.from_result(result))
        self.estimated.append(result.camera_to_world)
        truth = self._with_a_pose(truth or FrameTruth())
        if truth.camera_to_world is not None:
            self.posed.append(result.index)
            self.true.append(truth.camera_to_world)
        self.odometry.add(result, truth, lost=lost)
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
        """Return the ground truth without its pose where that is invalid."""
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
        """Score what has come so far."""
        missing: list[str] = []
        trajectory = self._score_trajectory(missing)
        depth = self._score_depth(missing)
        scaled = depth.get("l1")
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
            cloud=self._score_cloud(missing),
            odometry=self.odometry.scores(missing if self.posed else []),
            missing=tuple(missing),
            remarks=tuple(remarks),
        )

    def _score_trajectory(self, missing: list[str]) -> dict[TrajectoryAlignment, TrajectoryScore]:
        if not self.posed:
            missing.append("trajectory: no frame has a true pose")
            return {}
        scores: dict[TrajectoryAlignment, TrajectoryScore] = {}
        reasons: dict[str, list[str]] = {}
        for kind in SCORED_ALIGNMENTS:
            try:
                estimated, true = self.odometry.online_path() if kind == ONLINE else self.matched()
                require_telling(true, kind)
                scores[kind] = score_trajectory(
                    estimated, true, kind, delta=self._options.rpe_delta
                )
            except Exception as error:  # noqa: BLE001 - one score must not take the others with it
                reasons.setdefault(reason_not_scored(error), []).append(kind)
        for reason, kinds in reasons.items():
            of = "" if len(kinds) == len(SCORED_ALIGNMENTS) else f", alignment {', '.join(kinds)}"
            missing.append(f"trajectory{of}: {reason}")
        return scores

    def _score_depth(self, missing: list[str]) -> dict[DepthAlignmentKind, DepthScore]:
        if not self._depth_frames:
            missing.append("depth: no frame has a true depth map")
            return {}
        scores: dict[DepthAlignmentKind, DepthScore] = {}
        for kind in DEPTH_ALIGNMENTS:
            try:
                scores[kind] = self._depth.score(kind)
            except Exception as error:  # noqa: BLE001 - likewise
                missing.append(f"depth, alignment {kind}: {reason_not_scored(error)}")
        return scores

    def _score_cloud(self, missing: list[str]) -> CloudScore | None:
        """Align the estimated points with the true ones of the same pixels, then compare clouds."""
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
            missing.append(f"cloud: {reason_not_scored(error)}")
            return None


class Evaluator:
    """Takes a stream and scores its longest session, because each has a world of its own."""

    def __init__(self, options: ScoringOptions) -> None:
        self._options = options
        self._longest = self._newest = SessionEvaluator(options)
        self.frames = 0
        self.sessions = 0
        self._with_pose = self._with_depth = 0
        self._stamps: tuple[int, int] | None = None

    def add(self, result: FrameResult, truth: FrameTruth | None, *, lost: bool = False) -> None:
        """Take the next frame of the stream; see :meth:`SessionEvaluator.add`."""
        self._with_pose += truth is not None and truth.camera_to_world is not None
        self._with_depth += truth is not None and truth.depth is not None
        times = result.stamp, *(self._stamps or ())
        self._stamps = min(times), max(times)
        if result.index == 0:
            self._longest, self._newest = self.session, SessionEvaluator(self._options)
            self.sessions += 1
        self._newest.add(result, truth, lost=lost)
        self.frames += 1

    def association(self, truth: tuple[int, int] | None) -> Association:
        """Return how much of the stream has ground truth, whose poses span the given times."""
        return Association(self.frames, self._with_pose, self._with_depth, self._stamps, truth)

    @property
    def session(self) -> SessionEvaluator:
        """The longest session so far, or the first of several."""
        return max(self._longest, self._newest, key=len)


def at_size_of(prediction: NDArray[np.float32], truth: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a predicted depth map [h, w] at the size of the true one [H, W], as the reference.

    Bicubic, without looking at edges.
    """
    height, width = truth.shape
    if prediction.shape == (height, width):
        return prediction
    resized = cv2.resize(prediction, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.asarray(resized, np.float32)


def depth_at_truth(result: FrameResult, truth: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the predicted depth at the size of the true one [H, W], NaN where it was cut off.

    Bicubic, as the reference resizes.
    """
    mapping = result.mapping
    rows = len(truth)
    top = round(rows * mapping.crop_top / mapping.resized_height)
    bottom = round(rows * (mapping.crop_top + mapping.height) / mapping.resized_height)
    if (top, bottom) == (0, rows):
        return at_size_of(result.depth, truth)
    whole = np.full(truth.shape, np.nan, np.float32)
    whole[top:bottom] = at_size_of(result.depth, truth[top:bottom])
    return whole


def truth_at_result(truth: NDArray[np.float32], result: FrameResult) -> NDArray[np.float32]:
    """Return the true depth [H, W] at the size of the result [h, w], by nearest neighbor."""
    mapping = result.mapping
    rows = (np.arange(mapping.height) + mapping.crop_top + 0.5) / mapping.resized_height
    columns = (np.arange(mapping.width) + 0.5) / mapping.width
    height, width = truth.shape
    taken: NDArray[np.float32] = truth[(rows * height).astype(int)]
    return taken[:, (columns * width).astype(int)]
