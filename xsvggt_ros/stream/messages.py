# SPDX-License-Identifier: Apache-2.0
"""What ROS messages say, read by the names of their fields.

Those of rclpy and those that rosbags reads without ROS are alike. And which topics of a recording
belong to the camera.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xsvggt_ros.errors import FrameError, SourceError
from xsvggt_ros.geometry.cameras import Calibration
from xsvggt_ros.stream.frame import SECOND, BitsInUse, ImageArray
from xsvggt_ros.stream.imaging import decode_encoded, decode_raw

MILLIMETRES = 1000.0
"""Steps per metre of 16-bit depth (REP-118)."""

DEPTH_ENCODINGS = {"16UC1": "u2", "mono16": "u2", "32FC1": "f4"}


def nanoseconds(stamp: Any) -> int:
    """Return a ``Time`` in nanoseconds."""
    return int(stamp.sec) * SECOND + int(stamp.nanosec)


def frame_name(name: str) -> str:
    """Return the name of a coordinate frame without the slash that ROS 1 put before it.

    tf2 refuses such names; whatever reads a message's ``frame_id`` reads it through here.
    """
    return name.lstrip("/")


def image_of(message: Any, bits: BitsInUse | None = None) -> ImageArray:
    """Decode an ``Image`` to RGB, uint8 [h, w, 3].

    Raises:
        FrameError: its fields contradict each other.

    """
    return decode_raw(
        message.data,
        width=message.width,
        height=message.height,
        encoding=message.encoding,
        step=message.step,
        is_bigendian=bool(message.is_bigendian),
        bits=bits,
    )


def compressed_image_of(message: Any, bits: BitsInUse | None = None) -> ImageArray:
    """Decode a ``CompressedImage`` to RGB, uint8 [h, w, 3].

    Raises:
        FrameError: it is damaged, or no image of a camera.

    """
    return decode_encoded(message.data, message.format, bits=bits)


def calibration_of(message: Any, *, rectified: bool = False) -> Calibration:
    """Return what a ``CameraInfo`` says of images rectified or not.

    ROS 1 writes its matrices in capitals.
    """

    def numbers(name: str) -> tuple[float, ...]:
        values = getattr(message, name, None)
        return tuple(map(float, getattr(message, name.upper()) if values is None else values))

    region = message.roi
    return Calibration(
        width=message.width,
        height=message.height,
        distortion_model=message.distortion_model,
        d=numbers("d"),
        k=numbers("k"),
        r=numbers("r"),
        p=numbers("p"),
        binning=(message.binning_x, message.binning_y),
        region=(region.x_offset, region.y_offset, region.width, region.height),
        frame_id=frame_name(message.header.frame_id),
        rectified=rectified,
    )


def depth_of(message: Any, steps_per_metre: float = MILLIMETRES) -> NDArray[np.float32]:
    """Return an ``Image`` of depth in metres, [height, width], NaN where unknown.

    32FC1 holds metres, 16UC1 steps, with 0 for unknown (REP-118).

    Raises:
        FrameError: another encoding, no pixels, or less data than the size needs.

    """
    if message.encoding not in DEPTH_ENCODINGS:
        raise FrameError(
            f"depth of encoding '{message.encoding}' is not supported; publish 32FC1 or 16UC1"
        )
    height, width, step = int(message.height), int(message.width), int(message.step)
    if not width or not height:
        raise FrameError(f"depth of {width}x{height} has no pixels; publish whole images")
    order = ">" if message.is_bigendian else "<"
    kind = np.dtype(order + DEPTH_ENCODINGS[message.encoding])
    row = width * kind.itemsize
    if step < row or len(message.data) < height * step:
        raise FrameError(
            f"depth of {width}x{height} {message.encoding} needs {row} bytes a row; step is "
            f"{step}, data holds {len(message.data)} bytes"
        )
    lines = np.frombuffer(message.data, np.uint8, height * step).reshape(height, step)
    return in_metres(np.ascontiguousarray(lines[:, :row]).view(kind), steps_per_metre)


def in_metres(values: NDArray[Any], steps_per_metre: float = MILLIMETRES) -> NDArray[np.float32]:
    """Return depth [h, w] in metres: integers are steps, floats metres; NaN unless above zero."""
    depth = values.astype(np.float32)
    if values.dtype.kind == "u":
        depth /= np.float32(steps_per_metre)
    depth[~(np.isfinite(depth) & (depth > 0))] = np.nan
    return depth


IMAGE = "sensor_msgs/msg/Image"
COMPRESSED_IMAGE = "sensor_msgs/msg/CompressedImage"
CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
VIDEO_PACKETS = (
    "ffmpeg_image_transport_msgs/msg/FFMPEGPacket", "theora_image_transport/msg/Packet",
    "foxglove_msgs/msg/CompressedVideo", "foxglove.CompressedVideo",
)  # fmt: skip
"""Types whose images depend on each other."""
SEVERAL_KINDS = "several types"


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic of a recording.

    ``kind`` is the type of its messages; ``foreign`` says what they are written in where that is
    not ROS and they cannot be read, and is empty otherwise.
    """

    name: str
    kind: str
    count: int
    foreign: str = ""

    def __str__(self) -> str:
        """Describe the topic to somebody who has to choose one."""
        kind = f"{self.kind or 'no type'} in {self.foreign}" if self.foreign else self.kind
        return f"{self.name} ({kind}, {self.count} messages)"

    def holds(self, *kinds: str) -> bool:
        """Tell whether it has messages of one of some types that can be read."""
        return self.kind in kinds and self.count > 0 and not self.foreign


def choose_image_topic(recording: str, topics: Iterable[Topic], wanted: str | None) -> Topic:
    """Return the wanted image topic, or the only one that has messages.

    Args:
        recording: as messages call it.
        topics: of the recording.
        wanted: name of the topic; None for the only one.

    Raises:
        SourceError: it is not there, or there are several; the message lists them.

    """
    every = sorted(topics, key=lambda topic: topic.name)
    images = [each for each in every if each.holds(IMAGE, COMPRESSED_IMAGE)]
    if not images:
        convert = any(each.foreign for each in every)
        video = next((each for each in every if each.kind in VIDEO_PACKETS and each.count), None)
        raise SourceError(
            f"{recording} holds no image: looked for messages of {IMAGE} and "
            f"{COMPRESSED_IMAGE} and found {_listed(every)}."
            + (" Convert what is not in ROS messages to ROS 2 first." if convert else "")
            + (
                f" The images on {video.name} are a video stream: decode it first, with "
                "'ros2 run image_transport republish', and record the raw or compressed images."
                if video
                else ""
            )
        )
    matching = [each for each in images if wanted is None or _same(each.name, wanted)]
    if not matching:
        raise SourceError(
            f"{recording} holds no images on '{wanted}': choose the topic (--topic) among "
            f"{_listed(images)}."
        )
    if len(matching) > 1:
        raise SourceError(
            f"{recording} holds {len(matching)} image topics: choose the topic (--topic) among "
            f"{_listed(matching)}."
        )
    return matching[0]


def camera_info_topics(image_topic: str) -> tuple[str, ...]:
    """Name the ``camera_info`` topics that may belong to an image topic, likeliest first.

    They lie beside ``<image>``, and ``<image>/compressed`` is a transport of ``<image>``.
    """
    beside = _sibling(image_topic)
    if not image_topic.endswith("/compressed"):
        return (beside,)
    return _sibling(image_topic.removesuffix("/compressed")), beside


def _sibling(topic: str) -> str:
    above, slash, _ = topic.rpartition("/")
    return f"{above}{slash}camera_info"


def choose_camera_info_topic(topics: Iterable[Topic], image_topic: str) -> Topic | None:
    """Return the ``camera_info`` topic of an image topic that has messages, if there is one."""
    infos = {each.name: each for each in topics if each.holds(CAMERA_INFO)}
    return next((infos[name] for name in camera_info_topics(image_topic) if name in infos), None)


def _same(name: str, wanted: str) -> bool:
    return name.strip("/") == wanted.strip("/")


def _listed(topics: list[Topic]) -> str:
    return ", ".join(map(str, topics)) or "no topics"
