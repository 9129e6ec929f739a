# SPDX-License-Identifier: Apache-2.0
"""What is true about a stream, and how far a recording is from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from xsvggt_ros.geometry.alignment import Similarity, align, mean_rotation
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
class Comparison:
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
        depth_scale: median of true over estimated depth of all these.
        abs_rel: mean of |depth - truth| / truth over all these, after that one scale.
        place: the place itself from above.

    """

    transform: Similarity
    places: NDArray[np.float64]
    true_places: NDArray[np.float64]
    depths: Mapping[int, NDArray[np.float32]]
    map_transform: Similarity
    depth_scale: float
    abs_rel: float
    place: TopView

    @property
    def ate(self) -> float:
        """Absolute trajectory error: RMS distance of the positions from the true ones, metres."""
        return _root_mean_square(self.places - self.true_places)

    @property
    def extent(self) -> float:
        """Diagonal of the box around the true path, metres."""
        return float(np.linalg.norm(np.ptp(self.true_places, axis=0)))

    @property
    def relative_ate(self) -> float:
        """ATE in shares of the extent; NaN of a camera that stands still."""
        return self.ate / self.extent if self.extent else float("nan")


def compare(recording: Recording, truth: GroundTruth) -> Comparison | None:
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
    return Comparison(
        transform=transform,
        places=transform.points(estimated[:, :3, 3]),
        true_places=true[:, :3, 3],
        depths=depths,
        map_transform=_lay_on(estimated, true, scale if np.isfinite(scale) else transform.scale),
        depth_scale=scale,
        abs_rel=error,
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
    """Return median scale and mean relative error of depth, NaN where nothing can be compared."""
    if not frames:
        return float("nan"), float("nan")
    estimated = np.concatenate([each.depth.ravel() for each in frames])
    true = np.concatenate([depths[each.stamp].ravel() for each in frames])
    both = np.isfinite(estimated) & (estimated > 0) & np.isfinite(true) & (true > 0)
    if not both.any():
        return float("nan"), float("nan")
    p, g = estimated[both].astype(np.float64), true[both].astype(np.float64)
    scale = float(np.median(g / p))
    return scale, float(np.mean(np.abs(scale * p - g) / g))


def _root_mean_square(offsets: NDArray[np.float64]) -> float:
    return float(np.sqrt((offsets**2).sum(axis=1).mean()))
