# SPDX-License-Identifier: Apache-2.0
"""A result and its truth, pixel by pixel in the same image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xsvggt_ros.evaluation.depth import at_size_of
from xsvggt_ros.evaluation.frame import FrameTruth
from xsvggt_ros.geometry.cameras import Intrinsics
from xsvggt_ros.geometry.rigid import Matrix
from xsvggt_ros.stream.frame import FrameResult


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
    """Return the true depth [H, W] at the size of the result [h, w]; the nearest pixel stands."""
    mapping = result.mapping
    rows = (np.arange(mapping.height) + mapping.crop_top + 0.5) / mapping.resized_height
    columns = (np.arange(mapping.width) + 0.5) / mapping.width
    height, width = truth.shape
    return truth[(rows * height).astype(int)][:, (columns * width).astype(int)]


def camera_at_truth(result: FrameResult, shape: tuple[int, ...]) -> Intrinsics:
    """Return the predicted camera for images of the size of the truth (height, width)."""
    height, width = shape
    source = result.mapping.intrinsics_to_source(result.intrinsics)
    return source.at_size(width, height)


@dataclass(frozen=True)
class Correspondences:
    """Points of the same pixels: estimated and true, float32 [n, 3] each, each in its own world."""

    estimated: NDArray[np.float32]
    true: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.true)


def correspondences(
    result: FrameResult,
    predicted: NDArray[np.float32],
    truth: FrameTruth,
    most: int,
    random: np.random.Generator,
) -> Correspondences:
    """Return points of up to ``most`` pixels that have both depths, chosen at random.

    Args:
        result: gives the estimated pose and camera.
        predicted: depth at the size of the truth, float32 [H, W].
        truth: with depth, pose and camera.
        most: pixels.
        random: chooses.

    """
    assert truth.depth is not None
    assert truth.camera_to_world is not None
    assert truth.intrinsics is not None
    known = np.isfinite(predicted) & np.isfinite(truth.depth) & (truth.depth > 0)
    places = np.flatnonzero(known)
    if len(places) > most:
        places = places[np.unique(random.integers(0, len(places), most))]
    camera = camera_at_truth(result, truth.depth.shape)
    return Correspondences(
        _points(predicted, places, camera, result.camera_to_world),
        _points(truth.depth, places, truth.intrinsics, truth.camera_to_world),
    )


def _points(
    depth: NDArray[np.float32], places: NDArray[np.int64], camera: Intrinsics, pose: Matrix
) -> NDArray[np.float32]:
    """Return the points of some pixels in the world of ``pose``, float32 [n, 3]."""
    v, u = np.divmod(places, depth.shape[1])
    z = depth.ravel()[places].astype(np.float64)
    seen = np.stack([(u - camera.cx) / camera.fx * z, (v - camera.cy) / camera.fy * z, z], axis=1)
    return np.asarray(seen @ pose[:3, :3].T + pose[:3, 3], np.float32)


class CorrespondenceSample:
    """Corresponding points of a stream, at most ``limit`` and every one as likely.

    When it is full, half of it goes, and of what comes from then on half as much is taken.
    """

    PER_FRAME = 2_000

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._share = 1.0
        self._random = np.random.default_rng(0)
        self._estimated = np.empty((0, 3), np.float32)
        self._true = np.empty((0, 3), np.float32)

    def add(self, result: FrameResult, predicted: NDArray[np.float32], truth: FrameTruth) -> None:
        """Take points of a frame; ``predicted`` is its depth at the size of the truth."""
        most = max(1, round(self._share * self.PER_FRAME))
        points = correspondences(result, predicted, truth, most, self._random)
        self._estimated = np.concatenate([self._estimated, points.estimated])
        self._true = np.concatenate([self._true, points.true])
        while len(self._true) > self._limit:
            kept = self._random.random(len(self._true)) < 0.5
            self._estimated, self._true = self._estimated[kept], self._true[kept]
            self._share /= 2

    def points(self) -> Correspondences:
        """Return what is held."""
        return Correspondences(self._estimated, self._true)
