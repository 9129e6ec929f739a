# SPDX-License-Identifier: Apache-2.0
"""ROS 1 and ROS 2 bags with ground truth, read without ROS and without playing them.

The engine removes the distortion of images whose camera it knows. Their true depth, matched by
stamp and registered to what the lens saw, goes the same way here; points in the world stay.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from xsvggt_ros.errors import ConfigurationError, FrameError, SourceError, XsvggtError
from xsvggt_ros.evaluation.request import NO_TRUTH, SourceOptions
from xsvggt_ros.evaluation.sources.bag_truth import BagTruth, find_truth
from xsvggt_ros.evaluation.sources.base import EvaluationFrame, FrameTruth
from xsvggt_ros.geometry.cameras import Calibration, Intrinsics
from xsvggt_ros.geometry.rectification import Rectification, rectification
from xsvggt_ros.geometry.rigid import Matrix
from xsvggt_ros.stream.frame import SECOND, Frame
from xsvggt_ros.stream.messages import (
    COMPRESSED_IMAGE,
    DEPTH_ENCODINGS,
    IMAGE,
    MILLIMETRES,
    Topic,
    choose_image_topic,
    depth_of,
    in_metres,
    nanoseconds,
)
from xsvggt_ros.stream.sources.bag import BagSource
from xsvggt_ros.stream.sources.bag_reader import BagReader, Recorded

MOST_WARNINGS = 20


class BagEvaluationSource:
    """Images of one topic, with poses and depth of the same recording."""

    kind = "bag"

    def __init__(self, path: Path, options: SourceOptions) -> None:
        """Find the topics and read the true poses.

        Raises:
            ConfigurationError: an option that means nothing here.
            SourceError: the bag cannot be read, or topics are missing or ambiguous.

        """
        options.refuse(str(path), "kind", "sequence", "room", "width", "height")
        self._path, self._options = path, options
        self._tolerance = round(options.tolerance * SECOND)
        with closing(BagReader(path)) as reader:
            remarks = reader.remarks
            image, depths = _topics(reader, str(path), options)
            self._depth_topic = _depth_topic(str(path), depths, options)
            first = _first_header(reader, image)
            self._truth: BagTruth = find_truth(
                reader, options.truth, first.frame_id, self._tolerance
            )
            if options.truth not in (None, NO_TRUTH):
                _require_overlap(self._truth, first, reader.duration, self._tolerance)
        self._source = BagSource(path, topic=image.name)
        self._camera = BagCamera(options.intrinsics, self._warn)
        self.truth_stamps = self._truth.stamps
        self._image = image
        self.name = path.name or str(path)
        self.warnings = [*remarks, *self._truth.warnings]
        if options.intrinsics and self._depth_topic is None:
            self._warn("--intrinsics is of no use: the recording has no depth that it could place")
        if self._truth.by_index is not None and len(self._truth.by_index) != image.count:
            self._warn(
                f"{self._truth.origin} has {len(self._truth.by_index)} poses for {image.count} "
                "images: they are matched from the first on"
            )

    @property
    def frame_count(self) -> int:
        """Number of frames taken, if the bag is whole."""
        options = self._options
        return len(range(options.start, self._image.count, options.stride)[: options.limit])

    def __iter__(self) -> Iterator[EvaluationFrame]:
        """Yield the frames; a bag that breaks off ends with a warning."""
        options = self._options
        end = None if options.limit is None else options.start + options.limit * options.stride
        with ExitStack() as stack:
            depth = self._open_depth(stack)
            frames = islice(enumerate(self._whole_frames()), options.start, end, options.stride)
            for index, frame in frames:
                yield EvaluationFrame(frame, self._truth_of(index, frame, depth))

    def describe(self) -> dict[str, Any]:
        """Return topics and where the truth comes from."""
        options = self._options
        return {
            "kind": self.kind,
            "name": self.name,
            "path": str(self._path),
            "bytes": sum(file.stat().st_size for file in _files(self._path)),
            "topic": self._image.name,
            "frames": {"of": self._image.count, "start": options.start, "stride": options.stride,
                       "taken": self.frame_count},
            "poses": self._truth.origin,
            "depth": self._depth_topic.name if self._depth_topic else "none",
            "tolerance_s": options.tolerance,
        }  # fmt: skip

    def _whole_frames(self) -> Iterator[Frame]:
        """Yield frames as far as the bag can be read."""
        count = 0
        try:
            for frame in self._source:
                count += 1
                yield frame
        except SourceError as error:
            if not count:
                raise
            self._warn(f"after {count} of {self._image.count} images the bag breaks off: {error}")

    def _open_depth(self, stack: ExitStack) -> DepthStream | None:
        if self._depth_topic is None:
            return None
        reader = stack.enter_context(closing(BagReader(self._path)))
        steps = self._options.depth_scale or MILLIMETRES
        return DepthStream(reader, self._depth_topic, self._tolerance, steps)

    def _truth_of(self, index: int, frame: Frame, stream: DepthStream | None) -> FrameTruth:
        depth = self._depth_at(frame.stamp, stream) if stream else None
        return self._camera.truth(frame, self._pose(index, frame.stamp), depth)

    def _pose(self, index: int, stamp: int) -> Matrix | None:
        if self._truth.by_index is not None:
            return self._truth.by_index[index] if index < len(self._truth.by_index) else None
        pose = self._truth.poses.at(stamp) if self._truth.poses else None
        # A lever arm on a truth without rotations leaves no position either.
        return pose if pose is not None and np.isfinite(pose[:3, 3]).all() else None

    def _depth_at(self, stamp: int, stream: DepthStream) -> Depth | None:
        try:
            return stream.at(stamp)
        except (FrameError, SourceError) as error:
            self._warn(f"depth cannot be read: {error}")
            return None

    def _warn(self, text: str) -> None:
        if text not in self.warnings and len(self.warnings) < MOST_WARNINGS:
            self.warnings.append(text)


def _topics(reader: BagReader, recording: str, options: SourceOptions) -> tuple[Topic, list[Topic]]:
    """Return the topic of the images and those of depth."""
    depths, colors = [], []
    others = []
    for topic in reader.topics():
        if not topic.holds(IMAGE, COMPRESSED_IMAGE):
            others.append(topic)
        elif _is_depth(reader, topic):
            depths.append(topic)
        else:
            colors.append(topic)
    names = {each.name for each in colors}
    # A transport of images that are there raw as well is no second choice.
    single = [
        each for each in colors if each.name.removesuffix("/compressed") not in names - {each.name}
    ]
    candidates = colors if options.topic else single
    return choose_image_topic(recording, [*candidates, *others], options.topic), depths


def _is_depth(reader: BagReader, topic: Topic) -> bool:
    """Tell by name and first message whether a topic carries depth."""
    if topic.kind == COMPRESSED_IMAGE:
        return "compressedDepth" in topic.name
    for recorded in reader.messages(topic):
        try:
            encoding = reader.deserialize(recorded).encoding
            # Thermal and industrial cameras send mono16, too.
            return encoding in DEPTH_ENCODINGS and (encoding != "mono16" or "depth" in topic.name)
        except (FrameError, AttributeError):
            continue
    return False


def _depth_topic(recording: str, found: list[Topic], options: SourceOptions) -> Topic | None:
    if options.depth_topic == "none":
        return None
    listed = ", ".join(map(str, found)) or "none"
    if options.depth_topic is not None:
        for each in found:
            if each.name.strip("/") == options.depth_topic.strip("/"):
                return each
        raise SourceError(
            f"{recording} has no depth on '{options.depth_topic}'; topics with depth are {listed}"
        )
    names = {each.name for each in found}
    single = [
        each
        for each in found
        if each.name.removesuffix("/compressedDepth") not in names - {each.name}
    ]
    if len(single) > 1:
        raise SourceError(
            f"{recording} has {len(single)} depth topics: choose one (--depth-topic), or 'none'; "
            f"they are {listed}"
        )
    return single[0] if single else None


class _Header(NamedTuple):
    """Of the first image that can be read: its frame, its stamp, and when it was recorded."""

    frame_id: str
    stamp: int
    received: int


def _first_header(reader: BagReader, image: Topic) -> _Header:
    """Return what the first image that can be read says of itself."""
    for recorded in reader.messages(image):
        try:
            header = reader.deserialize(recorded).header
            stamp = nanoseconds(header.stamp) or recorded.received
            return _Header(str(header.frame_id), stamp, recorded.received)
        except (FrameError, AttributeError):
            continue
    return _Header("", 0, 0)


def _require_overlap(truth: BagTruth, header: _Header, duration: int, tolerance: int) -> None:
    """Refuse a truth that was asked for and lies wholly before or after the images.

    Raises:
        SourceError: it does, as far as the first image and the length of the bag tell, by its
            stamp and by the time of its recording, since one stamp alone may be wrong.

    """
    if truth.stamps is None or not header.stamp:
        return
    room = tolerance + SECOND
    spans = [(begin - room, begin + duration + room) for begin in (header.stamp, header.received)]
    begins, ends = truth.stamps
    if not any(begins <= end and begin <= ends for begin, end in spans):
        first = header.stamp
        off = (begins - first) / SECOND
        raise SourceError(
            f"the truth {truth.origin} belongs to no image: it goes from "
            f"{begins / SECOND:.3f} to {ends / SECOND:.3f} s, and "
            f"images from {first / SECOND:.3f} to {(first + duration) / SECOND:.3f} s; "
            f"it begins {abs(off):.3f} s {'after' if off > 0 else 'before'} them: bring both to "
            "the same clock, or give another --truth"
        )


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else [each for each in path.iterdir() if each.is_file()]


Depth = NDArray[np.float32]
HEADER = 12
"""Bytes before the PNG of a compressedDepth message: format, then two float32 for inverse depth."""

_WINDOW = 8
"""Depth messages held at most, around the stamp of the newest image."""


def recorded_depth(message: Any, kind: str, steps_per_metre: float = MILLIMETRES) -> Depth:
    """Return the metres [h, w] of an Image or a compressedDepth message, NaN where unknown.

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
        """Return the depth [h, w] nearest to an image's stamp; None where none is near enough.

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
        return FrameTruth(pose, fitting.rectify_depth(depth), fitting.intrinsics)

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
