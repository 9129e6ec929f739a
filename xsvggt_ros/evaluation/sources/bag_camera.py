# SPDX-License-Identifier: Apache-2.0
"""The truth of an image, in the camera whose image the engine reconstructs.

The engine removes the distortion of images whose camera it knows. Their true depth, registered to
what the lens saw, goes the same way here; points in the world stay where they are.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from xsvggt_ros.errors import ConfigurationError, XsvggtError
from xsvggt_ros.evaluation.frame import FrameTruth
from xsvggt_ros.evaluation.sources.bag_depth import Depth
from xsvggt_ros.geometry.cameras import Calibration, Intrinsics
from xsvggt_ros.geometry.rectification import Rectification, rectification
from xsvggt_ros.geometry.rigid import Matrix
from xsvggt_ros.stream.frame import Frame

Numbers = tuple[float, float, float, float]


class BagCamera:
    """Knows the camera of a recording's images, by its ``camera_info`` or by what was given."""

    def __init__(self, given: Numbers | None, warn: Callable[[str], None]) -> None:
        """Take fx, fy, cx, cy in pixels of the image, for recordings that do not say."""
        self._given = given
        self._warn = warn
        self._size: tuple[int, int] | None = None

    def truth(self, frame: Frame, pose: Matrix | None, depth: Depth | None) -> FrameTruth:
        """Return what is true about the image that the engine makes of ``frame``.

        Args:
            frame: image and calibration, as recorded.
            pose: camera to world, float64 [4, 4], of the camera as recorded.
            depth: metres, float32 [H, W], registered to the image as recorded.

        """
        size = self._image_size(frame)
        calibration = frame.calibration
        if size is None:
            return FrameTruth(pose, depth)
        if calibration is None or not calibration.known:
            given = Intrinsics(*self._given, *size) if self._given else None
            return FrameTruth(pose, depth, self._at_size_of(depth, given))
        if self._given:
            self._warn("--intrinsics is not used: the recording has a camera_info")
        found = _rectification(calibration, *size)
        if found is None:
            return FrameTruth(pose, depth, self._at_size_of(depth, self._unused(calibration, size)))
        if pose is not None and found.rotation is not None:
            pose = pose.copy()
            pose[:3, :3] = pose[:3, :3] @ found.rotation.T
        if depth is None or found.maps is None:
            return FrameTruth(pose, depth, self._at_size_of(depth, found.intrinsics))
        self._at_size_of(depth, found.intrinsics)
        fitting = _rectification(calibration, depth.shape[1], depth.shape[0])
        if fitting is None:
            self._warn("depth is left out: it has another shape than images that are rectified")
            return FrameTruth(pose, None, found.intrinsics)
        return FrameTruth(pose, fitting.apply_to_depth(depth), fitting.intrinsics)

    def _image_size(self, frame: Frame) -> tuple[int, int] | None:
        """Return width and height of the recording's images, None while none can be decoded."""
        if self._size is None:
            try:
                height, width = frame.decode().shape[:2]
            except XsvggtError:  # the engine refuses this frame, and says why
                return None
            self._size = width, height
        return self._size

    def _unused(self, calibration: Calibration, size: tuple[int, int]) -> Intrinsics | None:
        """Return the camera where the engine takes images as they are, and says why."""
        k = calibration.k
        if not np.isfinite(k).all() or min(k[0], k[4]) <= 0:
            return None
        if any(calibration.d):
            self._warn("the lens distorts, and images are taken as they are")
        across, down = size[0] / max(1, calibration.width), size[1] / max(1, calibration.height)
        return Intrinsics(k[0] * across, k[4] * down, k[2] * across, k[5] * down, *size)

    def _at_size_of(self, depth: Depth | None, camera: Intrinsics | None) -> Intrinsics | None:
        """Carry the image's camera over to depth of another size that shows the same."""
        if depth is None or camera is None:
            return camera
        height, width = depth.shape
        if (width, height) == (camera.width, camera.height):
            return camera
        self._warn(
            f"depth is {width}x{height} and images {camera.width}x{camera.height}: it is "
            "taken to show the same; check that the depth is registered to the image"
        )
        return camera.at_size(width, height)


@lru_cache(maxsize=8)
def _rectification(calibration: Calibration, width: int, height: int) -> Rectification | None:
    """Return what the engine does to images of this size, None where it leaves them."""
    try:
        return rectification(calibration, width, height)
    except ConfigurationError:
        return None
