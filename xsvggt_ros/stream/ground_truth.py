# SPDX-License-Identifier: Apache-2.0
"""What is true about a stream, and how far a recording is from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from xsvggt_ros.geometry.alignment import Similarity, align, mean_rotation
from xsvggt_ros.metrics.depth import comparable_pixels, score_depth
from xsvggt_ros.metrics.trajectory import ErrorStatistics, path_extent
from xsvggt_ros.stream.frame import ImageArray
from xsvggt_ros.stream.recording import RecordedFrame, Recording


@dataclass(frozen=True, slots=True)
class TopView:
    """A parallel image of a place from above: x to the right, y upwards.

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
        place: the place itself from above.

    """

    poses: Mapping[int, NDArray[np.float64]]
    depth: Callable[[int], NDArray[np.float32]]
    place: TopView


@dataclass(frozen=True, slots=True)
class TruthComparison:
    """A recording beside the truth.

    Attributes:
        transform: Sim(3) of least squares over all positions, from the map into the true world.
        places: estimated positions after it, float64 [n, 3], metres.
        true_places: where the camera was, float64 [n, 3], metres.
        depths: of each of the recording's images that has a truth, by stamp: the true depth at
            the image's size, float32 [h, w], metres.
        map_transform: lays the cloud on the true world: turned as the cameras are on average, with
            ``depth_scale``, the mean positions on each other. A straight path leaves the roll of
            ``transform`` open, and walls are measured by depth, not by the path.
        depth_scale: median true depth over median estimated depth of all these.
        abs_rel_median: see :mod:`xsvggt_ros.metrics.depth`; of all these, after that one scale.
        extent: of the true path, metres, see :func:`~xsvggt_ros.metrics.trajectory.path_extent`.
        place: the place itself from above.

    """

    transform: Similarity
    places: NDArray[np.float64]
    true_places: NDArray[np.float64]
    depths: Mapping[int, NDArray[np.float32]]
    map_transform: Similarity
    depth_scale: float
    abs_rel_median: float
    extent: float
    place: TopView

    @property
    def ate_sim3(self) -> float:
        """Root mean square distance of the positions from the true ones, metres."""
        offsets = np.linalg.norm(self.places - self.true_places, axis=1)
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
        places=transform.points(estimated[:, :3, 3]),
        true_places=true[:, :3, 3],
        depths=depths,
        map_transform=_lay_on(estimated, true, scale if np.isfinite(scale) else transform.scale),
        depth_scale=scale,
        abs_rel_median=error,
        extent=path_extent(true),
        place=truth.place,
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
