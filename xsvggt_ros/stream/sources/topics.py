# SPDX-License-Identifier: Apache-2.0
"""Which topics of a recording belong to the camera."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from xsvggt_ros.errors import SourceError

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
