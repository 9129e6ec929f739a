# SPDX-License-Identifier: Apache-2.0
"""What stays of a reconstruction: cloud, trajectory, a few images, and numbers that sum it up.

And what is true about a stream, and how far a recording is from it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from xsvggt_ros.geometry.cameras import Intrinsics, unproject
from xsvggt_ros.geometry.files import Trajectory
from xsvggt_ros.geometry.rigid import (
    Similarity,
    align,
    mean_rotation,
    transform_points,
    world_to_map,
)
from xsvggt_ros.metrics.depth import comparable_pixels, score_depth
from xsvggt_ros.metrics.trajectory import ErrorStatistics, path_extent
from xsvggt_ros.stream.frame import FrameResult, ImageArray, PoseSource

if TYPE_CHECKING:
    from xsvggt_ros.cache.settings import CacheSettings


T = TypeVar("T")


class CacheBytes(NamedTuple):
    """Bytes of the cache after a frame.

    Attributes:
        allocated: for keys, values, scales, minima and indices of all layers.
        scratch: in addition, for decoding one layer at a time.
        uncompressed: what all tokens of the session so far would take as they came.

    """

    allocated: int
    scratch: int
    uncompressed: int


@dataclass(frozen=True, slots=True)
class RecordedFrame:
    """One frame as it is recorded, whether it came from the engine or over topics.

    ``index`` is its number in its session, from 0; ``camera_to_map`` is float64 [4, 4];
    ``intrinsics`` are those of the [h, w] images here; ``points`` are float32 [h, w, 3] in the
    optical frame, NaN where unknown; ``depth`` and ``confidence`` float32 [h, w]; ``color`` RGB
    uint8 [h, w, 3]; ``pose_source`` and ``joins`` are as in
    :class:`~xsvggt_ros.stream.frame.FrameResult`; ``policy`` is the cache's, in force.
    """

    index: int
    stamp: int
    camera_to_map: NDArray[np.float64]
    intrinsics: Intrinsics
    points: NDArray[np.float32]
    depth: NDArray[np.float32]
    confidence: NDArray[np.float32]
    color: ImageArray
    cache: CacheBytes
    pose_source: PoseSource = "predicted"
    joins: int = 0
    policy: str = ""

    @classmethod
    def from_result(cls, result: FrameResult) -> RecordedFrame:
        """Take what the engine answered."""
        return cls(
            index=result.index,
            stamp=result.stamp,
            camera_to_map=world_to_map(result.camera_to_world),
            intrinsics=result.intrinsics,
            points=unproject(result.depth, result.intrinsics),
            depth=result.depth,
            confidence=result.confidence,
            color=result.color,
            cache=CacheBytes(
                result.cache.nbytes, result.cache.scratch_nbytes, result.cache.uncompressed_nbytes
            ),
            pose_source=result.pose_source,
            joins=result.joins,
            policy=result.cache.policy,
        )

    def known_points(self, confident_share: float) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Return the most confident share of the points [n, 3], in the map frame, and colours.

        Where the pose is held, it is not known where they are: none.
        """
        known = np.isfinite(self.points).all(axis=-1) & (self.pose_source != "held")
        if known.any():
            least = np.quantile(self.confidence[known], 1 - confident_share)
            known &= self.confidence >= least
        return transform_points(self.camera_to_map, self.points[known]), self.color[known]


class CloudSample:
    """A random sample of coloured points, never more than ``limit``; every point is as likely.

    When it is full, half of it goes, and of what comes from then on half as much is taken.
    """

    def __init__(self, limit: int, seed: int = 0) -> None:
        self.limit = limit
        self._share = 1.0
        self._random = np.random.default_rng(seed)
        self._points = [np.empty((0, 3), np.float32)]
        self._colors = [np.empty((0, 3), np.uint8)]

    def __len__(self) -> int:
        """Return the number of points held."""
        return sum(map(len, self._points))

    def add(self, points: NDArray[np.float32], colors: NDArray[np.uint8]) -> None:
        """Take points [n, 3] and colours [n, 3]."""
        chosen = self._random.random(len(points)) < self._share
        self._points.append(points[chosen])
        self._colors.append(colors[chosen])
        while len(self) > self.limit:
            self._halve()

    def _halve(self) -> None:
        """Drop half of the points."""
        points, colors = self.arrays()
        chosen = self._random.random(len(points)) < 0.5
        self._points, self._colors = [points[chosen]], [colors[chosen]]
        self._share /= 2

    def arrays(self) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Return points float32 [n, 3] and colours uint8 [n, 3]."""
        return np.concatenate(self._points), np.concatenate(self._colors)


class EvenSample(Generic[T]):
    """Things spread evenly over a stream whose length nobody knows: at most twice ``limit``."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._stride = 1
        self._seen = 0
        self._items: list[T] = []

    def add(self, item: T) -> None:
        """Take every ``stride``-th thing."""
        if self._seen % self._stride == 0:
            self._items.append(item)
        self._seen += 1
        if len(self._items) > 2 * self.limit:
            self._items = self._items[::2]
            self._stride *= 2

    def pick(self) -> list[T]:
        """Return at most ``limit`` things, the first and the last held among them."""
        count = min(self.limit, len(self._items))
        indices = np.linspace(0, len(self._items) - 1, count).round().astype(int)
        return [self._items[index] for index in indices]


class Recording:
    """Collects frames: memory grows by a pose and three numbers per frame and by nothing else.

    Of each frame the ``confident_share`` of its points with the highest confidence is kept.
    """

    def __init__(
        self, *, max_points: int = 500_000, confident_share: float = 0.75, images: int = 8
    ) -> None:
        self.confident_share = confident_share
        self.cloud = CloudSample(max_points)
        self.images: EvenSample[RecordedFrame] = EvenSample(images)
        self.stamps: list[int] = []
        self.poses: list[NDArray[np.float64]] = []
        self.cache: list[CacheBytes] = []
        self.joins = 0
        self._policy = ""

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.stamps)

    def add(self, frame: RecordedFrame) -> None:
        """Take one frame."""
        self.stamps.append(frame.stamp)
        self.poses.append(frame.camera_to_map)
        self.images.add(frame)
        self.cloud.add(*frame.known_points(self.confident_share))
        self.cache.append(frame.cache)
        self.joins = frame.joins
        self._policy = frame.policy

    def in_force(self, asked: CacheSettings) -> CacheSettings:
        """Return the settings asked for, with the policy that was in force, not ``auto``."""
        return replace(asked, policy=self._policy or asked.policy)

    def trajectory(self) -> Trajectory:
        """Return the poses of the camera's optical frame in the map frame."""
        return Trajectory.from_poses(self.stamps, self.poses)


class LongestSession:
    """Records a stream and keeps its longest session, because each has a world of its own.

    Each of ``listeners`` hears every frame of every session.

    Attributes:
        frames: frames taken, of all sessions.
        sessions: sessions begun.

    """

    def __init__(self, *listeners: Callable[[RecordedFrame], None]) -> None:
        self.frames = 0
        self.sessions = 0
        self._listeners = listeners
        self._longest = self._newest = Recording()

    def add(self, frame: RecordedFrame) -> None:
        """Take the next frame of the stream."""
        if frame.index == 0:
            self._longest, self._newest = self.recording, Recording()
            self.sessions += 1
        self._newest.add(frame)
        self.frames += 1
        for hear in self._listeners:
            hear(frame)

    @property
    def recording(self) -> Recording:
        """The longest session so far; of equally long ones the first."""
        return max(self._longest, self._newest, key=len)

    @property
    def left_out(self) -> str:
        """What is not in the recording, in a sentence; empty where all of it is."""
        if self.sessions <= 1:
            return ""
        return (
            f"The stream fell into {self.sessions} sessions, and each has a world of its own: the "
            f"results are those of the longest, {len(self.recording)} of {self.frames} frames."
        )


MIB = 1 << 20


class Figure(NamedTuple):
    """A number that counts: its value with the unit, and what it is."""

    value: str
    meaning: str


def mebibytes(count: int) -> str:
    """Return bytes in MiB, to three digits."""
    mib = count / MIB
    return f"{mib:.{max(0, min(2, 2 - len(str(int(mib))) + 1))}f} MiB"


def summarize_path(recording: Recording) -> list[Figure]:
    """Return how many frames there are and how long the path is, whatever becomes of the files."""
    positions = np.array([pose[:3, 3] for pose in recording.poses]).reshape(-1, 3)
    length = float(np.linalg.norm(np.diff(positions, axis=0), axis=1).sum())
    figures = [Figure(f"{len(recording)}", "frames in the results")]
    figures.append(Figure(f"{length:.3f}", "length of the path, in the network's unit"))
    if recording.joins:
        figures.append(Figure(f"{recording.joins}", "times a new first frame took over"))
    return figures


def summarize(recording: Recording, comparison: TruthComparison | None) -> list[Figure]:
    """Return errors, where the truth is known, and the bytes of the cache after the last frame."""
    figures: list[Figure] = []
    if comparison is not None:
        figures += [
            Figure(
                f"{100 * comparison.relative_ate_sim3:.1f} %",
                "ATE after Sim(3), of the path's extent",
            ),
            Figure(
                f"{comparison.abs_rel_median:.3f}",
                f"depth AbsRel after one median scale, {len(comparison.depths)} frames",
            ),
        ]
    if recording.cache:
        last = recording.cache[-1]
        held = last.allocated + last.scratch
        figures += [
            Figure(mebibytes(held), "allocated for the cache, scratch included"),
            Figure(
                mebibytes(last.uncompressed),
                f"uncompressed: {last.uncompressed / max(held, 1):.1f} times as much",
            ),
        ]
    return figures


@dataclass(frozen=True, slots=True)
class TopView:
    """A parallel image of a room from above: x to the right, y upwards.

    Attributes:
        image: RGB uint8 [h, w, 3].
        low: x and y of its lower left corner, metres.
        high: x and y of its upper right corner, metres.

    """

    image: ImageArray
    low: tuple[float, float]
    high: tuple[float, float]


@dataclass(frozen=True, slots=True)
class GroundTruth:
    """The truth about a stream, in a world with z up, metres.

    Attributes:
        poses: camera-to-world, float64 [4, 4], optical frame, by stamp in nanoseconds.
        depth: returns the true depth map of a stamp in ``poses``, float32 [H, W].
        top_view: the room itself from above.

    """

    poses: Mapping[int, NDArray[np.float64]]
    depth: Callable[[int], NDArray[np.float32]]
    top_view: TopView


@dataclass(frozen=True, slots=True)
class TruthComparison:
    """A recording beside the truth.

    Attributes:
        transform: Sim(3) of least squares over all positions, from the map into the true world.
        positions: estimated positions after it, float64 [n, 3], metres.
        true_positions: where the camera was, float64 [n, 3], metres.
        depths: of each of the recording's images that has a truth, by stamp: the true depth at
            the image's size, float32 [h, w], metres.
        map_transform: lays the cloud on the true world: turned as the cameras are on average, with
            ``depth_scale``, the mean positions on each other. A straight path leaves the roll of
            ``transform`` open, and walls are measured by depth, not by the path.
        depth_scale: median true depth over median estimated depth of all these.
        abs_rel_median: see :mod:`xsvggt_ros.metrics.depth`; of all these, after that one scale.
        extent: of the true path, metres, see :func:`~xsvggt_ros.metrics.trajectory.path_extent`.
        top_view: the room itself from above.

    """

    transform: Similarity
    positions: NDArray[np.float64]
    true_positions: NDArray[np.float64]
    depths: Mapping[int, NDArray[np.float32]]
    map_transform: Similarity
    depth_scale: float
    abs_rel_median: float
    extent: float
    top_view: TopView

    @property
    def ate_sim3(self) -> float:
        """Root mean square distance of the positions from the true ones, metres."""
        offsets = np.linalg.norm(self.positions - self.true_positions, axis=1)
        return ErrorStatistics.of(offsets).rmse

    @property
    def relative_ate_sim3(self) -> float:
        """ATE as a share of the path's extent; NaN of a camera that stands still."""
        return self.ate_sim3 / self.extent if self.extent else float("nan")


def compare(recording: Recording, truth: GroundTruth) -> TruthComparison | None:
    """Return how far a recording is from the truth, None where no frame of it has one."""
    known = [index for index, stamp in enumerate(recording.stamps) if stamp in truth.poses]
    if not known:
        return None
    estimated = np.array([recording.poses[index] for index in known])
    true = np.array([truth.poses[recording.stamps[index]] for index in known])
    transform = align(estimated[:, :3, 3], true[:, :3, 3], scale=True)
    frames = [each for each in recording.images.pick() if each.stamp in truth.poses]
    depths = {each.stamp: _at_size_of(each, truth.depth(each.stamp)) for each in frames}
    scale, error = _depth_error(frames, depths)
    return TruthComparison(
        transform=transform,
        positions=transform.points(estimated[:, :3, 3]),
        true_positions=true[:, :3, 3],
        depths=depths,
        map_transform=_lay_on(estimated, true, scale if np.isfinite(scale) else transform.scale),
        depth_scale=scale,
        abs_rel_median=error,
        extent=path_extent(true),
        top_view=truth.top_view,
    )


def _lay_on(estimated: NDArray[np.float64], true: NDArray[np.float64], scale: float) -> Similarity:
    """Return the motion that turns poses [n, 4, 4] as the true ones are, at a given scale."""
    turns = true[:, :3, :3] @ np.swapaxes(estimated[:, :3, :3], 1, 2)
    rotation = mean_rotation(turns)
    middle, aim = estimated[:, :3, 3].mean(axis=0), true[:, :3, 3].mean(axis=0)
    return Similarity(scale, rotation, aim - scale * rotation @ middle)


def _at_size_of(frame: RecordedFrame, depth: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return true depth at the size of a frame's own; the nearest value, since a mean is none."""
    height, width = frame.depth.shape
    return np.asarray(cv2.resize(depth, (width, height), interpolation=cv2.INTER_NEAREST_EXACT))


def _depth_error(
    frames: list[RecordedFrame], depths: Mapping[int, NDArray[np.float32]]
) -> tuple[float, float]:
    """Return scale and AbsRel of depth after one median scale, NaN where nothing compares."""
    if not frames:
        return float("nan"), float("nan")
    estimated = np.concatenate([each.depth.ravel() for each in frames])
    true = np.concatenate([depths[each.stamp].ravel() for each in frames])
    if not comparable_pixels(estimated, true)[1].any():
        return float("nan"), float("nan")
    score = score_depth(estimated, true, "median")
    return score.alignment.scale, score.errors.abs_rel
