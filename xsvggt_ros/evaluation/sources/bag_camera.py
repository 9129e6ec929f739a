# SPDX-License-Identifier: Apache-2.0
"""The truth of a bag's image, in the camera whose image the engine reconstructs.

The engine removes the distortion of images whose camera it knows. Their true depth, matched by
stamp and registered to what the lens saw, goes the same way here; points in the world stay.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from xsvggt_ros.errors import ConfigurationError, FrameError, XsvggtError
from xsvggt_ros.evaluation.sources.base import FrameTruth
from xsvggt_ros.geometry.cameras import Calibration, Intrinsics
from xsvggt_ros.geometry.rectification import Rectification, rectification
from xsvggt_ros.geometry.rigid import Matrix
from xsvggt_ros.stream.frame import Frame
from xsvggt_ros.stream.messages import MILLIMETRES, depth_of, in_metres, nanoseconds
from xsvggt_ros.stream.sources.bag_reader import BagReader, Recorded
from xsvggt_ros.stream.sources.topics import IMAGE, Topic

Depth = NDArray[np.float32]
HEADER = 12
"""Bytes before the PNG of a compressedDepth message: format, then two float32 for inverse depth."""

_WINDOW = 8
"""Depth messages held at most, around the stamp of the newest image."""


def recorded_depth(message: Any, kind: str, steps_per_metre: float = MILLIMETRES) -> Depth:
    """Return the metres of an Image or a compressedDepth message, NaN where unknown.

    Raises:
        FrameError: an encoding that is no depth, or damaged data.

    """
    try:
        if kind == IMAGE:
            return depth_of(message, steps_per_metre)
        return _compressed(message, steps_per_metre)
    except (AttributeError, TypeError, ValueError) as error:
        raise FrameError(f"a depth message is damaged ({error})") from error


def _compressed(message: Any, steps_per_metre: float) -> Depth:
    """Decode what compressed_depth_image_transport sends.

    Float depth is sent as 16-bit inverse depth, depth = a / (raw - b), with a and b in the header.
    """
    if "rvl" in message.format:
        raise FrameError("depth compressed as RVL is not read; record it as PNG, or raw")
    data = np.ascontiguousarray(message.data, np.uint8)
    raw = cv2.imdecode(data[HEADER:], cv2.IMREAD_UNCHANGED) if len(data) > HEADER else None
    if raw is None or raw.dtype != np.uint16 or raw.ndim != 2:
        raise FrameError(f"{len(data)} bytes of '{message.format}' hold no 16-bit depth")
    if "32FC1" not in message.format:
        return in_metres(raw, steps_per_metre)
    a, b = np.frombuffer(data[4:HEADER].tobytes(), "<f4")
    with np.errstate(all="ignore"):
        depth = np.where(raw > 0, a / (raw.astype(np.float32) - b), np.nan)
    return in_metres(depth, steps_per_metre)


class _Held(NamedTuple):
    stamp: int
    message: Any


class DepthStream:
    """Finds the depth of each image while both run on; holds a few messages."""

    def __init__(
        self, reader: BagReader, topic: Topic, tolerance: int, steps_per_metre: float
    ) -> None:
        """Read ``topic``; stamps may differ by ``tolerance`` nanoseconds."""
        self._reader = reader
        self._topic = topic
        self._tolerance = tolerance
        self._steps = steps_per_metre
        self._messages: Iterator[Recorded] = reader.messages(topic)
        self._held: deque[_Held] = deque(maxlen=_WINDOW)

    def at(self, stamp: int) -> Depth | None:
        """Return the depth nearest to an image's stamp, or None where none is near enough.

        Raises:
            FrameError: it is damaged.
            SourceError: the bag cannot be read on.

        """
        while not self._held or self._held[-1].stamp < stamp:
            recorded = next(self._messages, None)
            if recorded is None:
                break
            self._hold(recorded)
        if not self._held:
            return None
        nearest = min(self._held, key=lambda each: abs(each.stamp - stamp))
        if abs(nearest.stamp - stamp) > self._tolerance:
            return None
        return recorded_depth(nearest.message, self._topic.kind, self._steps)

    def _hold(self, recorded: Recorded) -> None:
        try:
            message = self._reader.deserialize(recorded)
            stamp = nanoseconds(message.header.stamp)
        except (FrameError, AttributeError):
            return  # Without a stamp it belongs to no image.
        self._held.append(_Held(stamp or recorded.received, message))


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
