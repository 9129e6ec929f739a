# SPDX-License-Identifier: Apache-2.0
"""Pace, stamps, topics and messages of a replay."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
from rclpy.duration import Duration
from rclpy.exceptions import NameValidationException
from rclpy.expand_topic_name import expand_topic_name
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.validate_full_topic_name import validate_full_topic_name
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from xsvggt_ros.errors import ConfigurationError, FrameError
from xsvggt_ros.geometry.cameras import Calibration, without_distortion
from xsvggt_ros.ros import topics
from xsvggt_ros.ros.conversions import camera_info_of, color_image, header, packed
from xsvggt_ros.stream.frame import EncodedImage, Frame, ImageArray
from xsvggt_ros.stream.imaging import encode_png

logger = logging.getLogger(__name__)


Transport = Literal["raw", "compressed", "both"]

TRANSPORTS: tuple[Transport, ...] = ("raw", "compressed", "both")

SLOWEST, FASTEST = 1e-3, 1e6
SANE = f"from {SLOWEST:g} to {FASTEST:.0f}"
MOST_KEPT = 1000


@dataclass(frozen=True, slots=True)
class ReplayOptions:
    """Pace, stamps and topics of a replay.

    Attributes:
        speed: factor on the recording's own pace.
        fixed_rate: images per second instead of the recording's pace.
        loop: start again at the end. Stamps then jump back, which resets a reconstruction,
            unless ``restamp`` is set.
        paused: start paused, until the service ``~/pause`` is called with false.
        wait_for: subscribers of the images to wait for before the first one.
        restamp: stamp with the time of publishing, not with the recording's.
        clock: publish the recording's time on ``/clock``, for nodes with ``use_sim_time``.
        transport: which image topics exist; each is filled only while somebody listens.
        image_topic: name of the raw images; ``<name>/compressed`` and the ``camera_info``
            beside it follow.
        best_effort: publish like a camera driver; lost images are then not sent again.
        depth: images kept for a slow subscriber.
        follow: name of a node of this package; images then wait until it has room for them, and
            none is lost, however slow it is.

    """

    speed: float = 1.0
    fixed_rate: float | None = None
    loop: bool = False
    paused: bool = False
    wait_for: int = 1
    restamp: bool = False
    clock: bool = False
    transport: Transport = "both"
    image_topic: str = "image"
    best_effort: bool = False
    depth: int = 10
    follow: str = ""

    def __post_init__(self) -> None:
        """Raise ConfigurationError where options are impossible or contradict each other."""
        _need(_sane(self.speed), f"speed is {self.speed}: give a factor {SANE}, such as 0.5")
        _need(
            self.fixed_rate is None or _sane(self.fixed_rate),
            f"the fixed rate is {self.fixed_rate} Hz: give one {SANE}, such as 10",
        )
        _need(
            self.fixed_rate is None or self.speed == 1,
            f"speed {self.speed} and a fixed rate of {self.fixed_rate} Hz both set the pace: "
            "leave one out",
        )
        _need(
            not (self.restamp and self.clock),
            "restamping uses the time of the machine, /clock gives that of the recording: "
            "leave one out",
        )
        _need(
            self.transport in TRANSPORTS,
            f"the transport is '{self.transport}': give one of {', '.join(TRANSPORTS)}",
        )
        _need(self.wait_for >= 0, f"cannot wait for {self.wait_for} subscribers: give 0 or more")
        _need(
            1 <= self.depth <= MOST_KEPT,
            f"the depth is {self.depth} images: give one from 1 to {MOST_KEPT}",
        )
        _need(
            not (self.follow and (self.best_effort or self.wait_for == 0)),
            f"following {self.follow} loses nothing, best effort and waiting for 0 subscribers do: "
            "leave one out",
        )


def _sane(pace: float) -> bool:
    return SLOWEST <= pace <= FASTEST  # neither holds for NaN


def _need(fulfilled: bool, otherwise: str) -> None:
    if not fulfilled:
        raise ConfigurationError(f"Cannot replay: {otherwise}.")


class ReplayTopics:
    """CameraPublisher of images, their calibration and the time."""

    def __init__(self, node: Node, options: ReplayOptions) -> None:
        self._logger = node.get_logger()
        profile = _profile(options)
        raw = topics.image_topic(node, "raw")
        self._raw = self._compressed = self._clock = None
        if options.transport != "compressed":
            self._raw = node.create_publisher(Image, raw, profile)
        if options.transport != "raw":
            name = topics.image_topic(node, "compressed")
            self._compressed = node.create_publisher(CompressedImage, name, profile)
        info = topics.calibration_topic(node, raw)
        self._info = node.create_publisher(CameraInfo, info, profile)
        if options.clock:
            self._clock = node.create_publisher(Clock, "/clock", QoSProfile(depth=10))

    @property
    def images(self) -> list[Publisher[Any]]:
        """The publishers of images."""
        return [each for each in (self._raw, self._compressed) if each]

    @property
    def names(self) -> str:
        """Names of the topics of images."""
        return " and ".join(each.topic_name for each in self.images)

    def listeners(self) -> int:
        """Count the subscribers of images."""
        return sum(each.get_subscription_count() for each in self.images)

    def tell_time(self, stamp: int) -> None:
        """Publish the time on /clock, if it is wanted."""
        if self._clock:
            self._clock.publish(Clock(clock=header(stamp, "").stamp))

    def publish(self, frame: Frame, stamp: int) -> None:
        """Publish a frame under a stamp; calibration first, so that the image finds it."""
        head = header(stamp, frame.frame_id)
        decode = cache(frame.decode)
        try:
            if info := _heard(self._info):
                info.publish(_camera_info(head, frame.calibration, decode))
            if raw := _heard(self._raw):
                raw.publish(color_image(head, decode()))
            if compressed := _heard(self._compressed):
                encoded = frame.encoded or encode_png(decode())
                compressed.publish(_compressed_image(head, encoded))
        except FrameError as error:
            self._logger.warning(f"the image of stamp {stamp} ns is left out: {error}")

    def flush(self, seconds: float) -> bool:
        """Wait until subscribers have what was sent, or until the time is over."""
        waiting = Duration(nanoseconds=round(seconds * 1e9))
        publishers = [*self.images, self._info, *([self._clock] if self._clock else [])]
        return all(each.wait_for_all_acked(waiting) for each in publishers)


def require_topic_name(name: str) -> None:
    """Raise ConfigurationError where ROS does not allow ``name`` for a topic or node."""
    try:
        if "{" in name:
            raise ValueError  # remapping to a substitution is not possible
        validate_full_topic_name(expand_topic_name(name, "replay", "/"))
    except (ValueError, NameValidationException) as error:
        raise ConfigurationError(
            f"Cannot replay: '{name}' cannot name a topic or node: give letters, digits and "
            "underscores, parted by single slashes, such as left/image_raw."
        ) from error


def _profile(options: ReplayOptions) -> QoSProfile:
    best_effort, reliable = ReliabilityPolicy.BEST_EFFORT, ReliabilityPolicy.RELIABLE
    return QoSProfile(
        depth=options.depth, reliability=best_effort if options.best_effort else reliable
    )


def _heard(publisher: Publisher[Any] | None) -> Publisher[Any] | None:
    return publisher if publisher and publisher.get_subscription_count() else None


def _compressed_image(head: Header, encoded: EncodedImage) -> CompressedImage:
    message = CompressedImage(header=head, format=encoded.format)
    message.data = packed(np.frombuffer(encoded.data, np.uint8))
    return message


def _camera_info(
    head: Header, known: Calibration | None, decode: Callable[[], ImageArray]
) -> CameraInfo:
    """Return the calibration; an unknown one has the image's size and a zero K (REP-104).

    That of rectified images has no distortion, since their new topic no longer tells.
    """
    if known is None:
        height, width = decode().shape[:2]
        return CameraInfo(header=head, height=height, width=width)
    return camera_info_of(head, without_distortion(known) if known.rectified else known)
