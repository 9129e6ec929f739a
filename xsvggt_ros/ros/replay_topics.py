# SPDX-License-Identifier: Apache-2.0
"""Pace, stamps, topics and messages of a replay: by its stamps, at a rate, or as a node answers."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from threading import Condition
from typing import Any, Literal

import numpy as np
from rclpy.clock import Clock, ClockType  # type: ignore[attr-defined]
from rclpy.duration import Duration
from rclpy.exceptions import NameValidationException
from rclpy.expand_topic_name import expand_topic_name
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.validate_full_topic_name import validate_full_topic_name
from rosgraph_msgs.msg import Clock as ClockMessage
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from xsvggt_ros.errors import ConfigurationError, FrameError
from xsvggt_ros.geometry.cameras import Calibration, without_distortion
from xsvggt_ros.msg import ReconstructionStatus
from xsvggt_ros.ros import topics
from xsvggt_ros.ros.conversions import camera_info_of, color_image, header, packed
from xsvggt_ros.stream.frame import EncodedImage, Frame, ImageArray
from xsvggt_ros.stream.imaging import encode_png
from xsvggt_ros.stream.sources import Source

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
            self._clock = node.create_publisher(ClockMessage, "/clock", QoSProfile(depth=10))

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
            self._clock.publish(ClockMessage(clock=header(stamp, "").stamp))

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


TICK = 0.02
"""Seconds between two calls of ``on_tick``."""


class ReplayClock:
    """Waits for one thread, and is paused, resumed and stopped by others."""

    def __init__(self, *, paused: bool = False) -> None:
        self._changed = Condition()
        self._held_at = time.monotonic() if paused else None
        self._stopped = False
        self._due = 0.0

    @property
    def stopped(self) -> bool:
        """Whether the replay is to end."""
        return self._stopped

    def pause(self, paused: bool) -> None:
        """Hold the time, or let it go on."""
        with self._changed:
            now = time.monotonic()
            if not paused and self._held_at is not None:
                self._due += now - self._held_at
                self._held_at = None
            elif paused and self._held_at is None:
                self._held_at = now
            self._changed.notify_all()

    def stop(self) -> None:
        """End the wait under way and every later one."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def wait(self, seconds: float, on_tick: Callable[[float], None] | None = None) -> bool:
        """Wait until ``seconds`` after the instant at which the wait before was due to end.

        Time spent paused does not count. One who comes too late does not wait, and what was lost
        is not made up for. ``on_tick`` is called meanwhile with the seconds that are left.

        Returns:
            False where the replay was stopped.

        """
        with self._changed:
            self._due = max(self._due + seconds, self._now())
        while self._wait_a_little(TICK if on_tick else None):
            if on_tick:
                on_tick(self._left())
        return not self._stopped

    def _now(self) -> float:
        return time.monotonic() if self._held_at is None else self._held_at

    def _left(self) -> float:
        with self._changed:
            return max(0.0, self._due - self._now())

    def _wait_a_little(self, longest: float | None) -> bool:
        """Wait once; False where there is nothing to wait for any more."""
        with self._changed:
            left = self._due - self._now() if self._held_at is None else None
            if self._stopped or (left is not None and left <= 0):
                return False
            self._changed.wait(min((each for each in (left, longest) if each), default=None))
            return True


class MeteredSource(Source):
    """Gives out an image when fewer than ``window`` of those before are still under way.

    Nothing at all comes out before the first :meth:`allow`. Images that cannot be decoded are
    left out here, so that each one given out gets an answer.

    Attributes:
        sent: images given out.
        left_out: images that could not be decoded.
        cut: whether the source had more than ``limit`` images; without one, never.

    """

    def __init__(self, source: Source, *, window: int, limit: int | None = None) -> None:
        self.name = source.name
        self.rate = source.rate
        self.sent = 0
        self.left_out = 0
        self.cut = False
        self._source = source
        self._limit = limit
        self._window = window
        self._allowed = 0
        self._closed = False
        self._changed = Condition()

    @property
    def frame_count(self) -> int | None:
        """Number of images that will come, None where only reading tells."""
        count = self._source.frame_count
        return count if count is None or self._limit is None else min(count, self._limit)

    def allow(self, answered: int) -> None:
        """Say how many images have been answered, refusals included."""
        with self._changed:
            self._allowed = answered + self._window
            self._changed.notify_all()

    def close(self) -> None:
        """End the iteration under way."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def __iter__(self) -> Iterator[Frame]:
        """Yield decoded frames, each when there is room for it."""
        for frame in self._source:
            if self.sent == self._limit:
                self.cut = True
                return
            decoded = self._decoded(frame)
            if decoded is None:
                continue
            if not self._wait_for_room():
                return
            self.sent += 1
            yield decoded

    def _decoded(self, frame: Frame) -> Frame | None:
        try:
            image: ImageArray = frame.decode()
        except FrameError as error:
            logger.warning("the image of stamp %d ns is left out: %s", frame.stamp, error)
            self.left_out += 1
            return None
        return replace(frame, decode=lambda: image)

    def _wait_for_room(self) -> bool:
        """Return False where the source was closed meanwhile."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self.sent < self._allowed)
            return not self._closed


NOT_SUBSCRIBED = ("unconfigured", "inactive", "warming up")
"""States in which a node that has received nothing may not be listening yet."""

_LOOK_EVERY = 5.0
"""Seconds; a node tells its status once a second."""


class Follower:
    """Lets a metered source go on as a node answers the images published, by its ``~/status``.

    Counting begins with the node's first status, and again where the node does. Images that
    others send to it meanwhile are taken for ours.
    """

    def __init__(
        self, node: Node, followed: str, images: MeteredSource, published: Callable[[], int]
    ) -> None:
        self._logger = node.get_logger()
        self._images = images
        self._published = published
        self._newest: ReconstructionStatus | None = None
        self._seen: ReconstructionStatus | None = None
        self._not_ours = 0
        self._topic = node.create_subscription(
            ReconstructionStatus, f"{followed}/status", self.on_status, QoSProfile(depth=10)
        ).topic_name
        node.create_timer(_LOOK_EVERY, self.look, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def on_status(self, status: ReconstructionStatus) -> None:
        """Let as many images go as have been answered; none before the node subscribes."""
        if status.state in NOT_SUBSCRIBED and not status.frames_received:
            return
        before, self._newest = self._newest, status
        if before is None or status.frames_received < before.frames_received:
            self._not_ours = status.frames_received - self._published()
        self._images.allow(_done(status) - self._not_ours)

    def look(self) -> None:
        """Say why nothing goes on: a node that says nothing, or one that has lost images."""
        before, self._seen = self._seen, self._newest
        if self._newest is None or self._newest is before:
            self._logger.warning(
                f"nothing on {self._topic} for {_LOOK_EVERY:g} s, and nothing is replayed without "
                "it; start the node to follow, or give its full name, such as /xsvggt"
            )
        elif before and before.frames_received == self._newest.frames_received:
            self._forget_lost(self._newest)

    def _forget_lost(self, status: ReconstructionStatus) -> None:
        """Take for lost what an idle node has not received in all this time."""
        lost = self._published() - (status.frames_received - self._not_ours)
        if lost > 0 and status.frames_pending == 0:
            self._logger.warning(
                f"{lost} images did not reach the node of {self._topic}; look whether it "
                "subscribes to the topic of this replay"
            )
            self._not_ours -= lost
            self._images.allow(_done(status) - self._not_ours)


def _done(status: ReconstructionStatus) -> int:
    return int(status.frames_processed + status.frames_dropped + status.frames_refused)
