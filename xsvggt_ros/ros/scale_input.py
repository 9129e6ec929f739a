# SPDX-License-Identifier: Apache-2.0
"""Where metres come from: measured depth or an odometry beside the images, or a fixed value."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from threading import Lock
from time import monotonic
from typing import Any

from nav_msgs.msg import Odometry
from rclpy.node import Node
from sensor_msgs.msg import Image

from xsvggt_ros.errors import FrameError, TransformMissingError
from xsvggt_ros.geometry.rigid import Matrix
from xsvggt_ros.geometry.transform_tree import HISTORY, TransformTree, fault_of
from xsvggt_ros.ros import qos
from xsvggt_ros.ros.input_advice import MOST_NAMED, RAW_TYPE
from xsvggt_ros.ros.matched_subscription import MatchedSubscription
from xsvggt_ros.ros.parameters import Settings
from xsvggt_ros.ros.robot import Robot
from xsvggt_ros.ros.small_subscription import SmallSubscription
from xsvggt_ros.ros.topics import published_topics
from xsvggt_ros.stream.frame import FrameResult
from xsvggt_ros.stream.messages import depth_of, nanoseconds
from xsvggt_ros.stream.recent import Recent
from xsvggt_ros.stream.scale import MetricScale
from xsvggt_ros.stream.scale_estimates import WayScale, scale_from_depth

logger = logging.getLogger(__name__)

UNKNOWN = "none"
TOLERANCE = 20_000_000
"""Nanoseconds between an image and the depth that belongs to it."""
MOST_DEPTH_BYTES = 128 << 20
"""Of depth images that wait for the result of theirs: 7 s of 640x480, 16 bit, at 30 Hz."""
_FEWEST_UNMATCHED = 3
"""Results in a row without a match, from which on stamps, not chance, are to blame."""


class Matches:
    """Whether the messages of a source belong to the images, by their stamps.

    Noted on the worker's thread, asked for on the executor's.
    """

    def __init__(self) -> None:
        self._since = monotonic()
        self._unmatched = 0

    def note(self, found: bool) -> None:
        """Take note of whether a message belonged to a result."""
        if not self._unmatched:
            self._since = monotonic()
        self._unmatched = 0 if found else self._unmatched + 1

    def missing(self, timeout: float) -> bool:
        """Return whether results have found none for ``timeout`` seconds, several in a row."""
        return self._unmatched >= _FEWEST_UNMATCHED and monotonic() - self._since >= timeout


class DepthScale:
    """Keeps the newest depth images, undecoded, and compares one with each result."""

    name = "depth"
    type_name = RAW_TYPE
    unmatched_remedy = (
        f"within {TOLERANCE / 1e6:.0f} ms; give depth the stamp of its image, or publish it "
        f"smaller where images wait longer than {MOST_DEPTH_BYTES >> 20} MiB of it"
    )

    def __init__(self, node: Node) -> None:
        self._newest: Recent[Image] = Recent(MOST_DEPTH_BYTES)
        self.matches = Matches()
        self.last_message = monotonic()
        self._subscription = MatchedSubscription(
            node,
            Image,
            node.resolve_topic_name("depth"),
            self._receive,
            reliability="auto",
            depth=qos.LARGE_DEPTH,
        )
        self.topic = self._subscription.topic

    def close(self) -> None:
        """Unsubscribe."""
        self._subscription.close()

    def accepts(self, topic: str) -> bool:
        """Return whether a topic may carry measured depth, by its name."""
        return "depth" in topic

    def begin(self) -> None:
        """Take note that a session begins; depth images know nothing of sessions."""

    def match_publishers(self) -> None:
        """Subscribe again where the publishers now ask for another reliability."""
        self._subscription.match_publishers()

    def estimate(self, result: FrameResult) -> float | None:
        """Return metres per unit, None where no depth belongs to this result.

        Raises:
            FrameError: a depth image that cannot be read.

        """
        message = self._newest.nearest(result.stamp, TOLERANCE)
        self._newest.drop_before(result.stamp - TOLERANCE)
        self.matches.note(message is not None)
        return None if message is None else scale_from_depth(result, depth_of(message))

    def _receive(self, message: Image, _: Mapping[str, Any]) -> None:
        self.last_message = monotonic()
        self._newest.put(nanoseconds(message.header.stamp), len(message.data), message)


class OdometryScale:
    """Keeps an odometry's poses and compares its way with the camera's."""

    name = "odom"
    type_name = "nav_msgs/msg/Odometry"
    unmatched_remedy = (
        f"around its time; stamp both by one clock, and the odometry no more than "
        f"{HISTORY / 1e9:.0f} s ahead of the result"
    )

    def __init__(self, node: Node, robot: Robot) -> None:
        self._robot = robot
        self._lock = Lock()
        self._poses = TransformTree()
        self._way = WayScale()
        self._first = True
        self._refused = False
        self.matches = Matches()
        self.last_message = monotonic()
        self.topic = node.resolve_topic_name("odom")
        self._subscription = SmallSubscription(
            node, Odometry, self.topic, self._receive, depth=qos.TRANSFORMS_DEPTH
        )

    def close(self) -> None:
        """Unsubscribe."""
        self._subscription.close()

    def accepts(self, topic: str) -> bool:
        """Return whether a topic may carry an odometry, by its name."""
        return bool(topic)

    def begin(self) -> None:
        """Take note that a session begins: the camera's way before it does not count."""
        self._first = True

    def match_publishers(self) -> None:
        """Subscribe again where the publishers now ask for another reliability."""
        self._subscription.match_publishers()

    def estimate(self, result: FrameResult) -> float | None:
        """Return metres per unit at the end of a straight way, else None."""
        first, self._first = self._first, False
        pose = self._pose(result.stamp)
        self.matches.note(pose is not None)
        if result.pose_source == "held":
            return None  # a way that was guessed is no measure
        return self._way.estimate(result.camera_to_world, pose, first=first)

    def _pose(self, stamp: int) -> Matrix | None:
        try:
            with self._lock:
                carrier = self._poses.lookup("odom", "carrier", stamp)
        except TransformMissingError:
            return None
        return self._robot.camera_on(carrier)

    def _receive(self, message: Odometry) -> None:
        self.last_message = monotonic()
        position, turn = message.pose.pose.position, message.pose.pose.orientation
        place = (position.x, position.y, position.z, turn.x, turn.y, turn.z, turn.w)
        with self._lock:
            taken = self._poses.put("odom", "carrier", nanoseconds(message.header.stamp), place)
        if not taken and not self._refused:
            self._refused = True
            logger.warning("a pose on %s is %s", self.topic, fault_of(place))


class ScaleInput:
    """Brings results into metres, on the worker's thread, as ``scale.source`` says."""

    def __init__(self, node: Node, robot: Robot, settings: Callable[[], Settings]) -> None:
        self._node = node
        self._robot = robot
        self._settings = settings
        self._measured: DepthScale | OdometryScale | None = None
        self._scale = MetricScale()

    def begin(self) -> None:
        """Forget the stream."""
        source, value = self._settings().scale.source, self._settings().scale.value
        self._scale = MetricScale(value if source == "fixed" else None)

    def listen(self) -> None:
        """Subscribe to what is asked for."""
        source = self._settings().scale.source
        if source == "depth":
            self._measured = DepthScale(self._node)
        elif source == "odometry":
            self._measured = OdometryScale(self._node, self._robot)

    def close(self) -> None:
        """Unsubscribe."""
        if self._measured is not None:
            self._measured.close()
            self._measured = None

    @property
    def source(self) -> str:
        """What makes lengths metres now; none = the model's own unit."""
        return UNKNOWN if self._scale.value is None else self._settings().scale.source

    @property
    def value(self) -> float | None:
        """Metres per unit of the model, None where that is not known."""
        return self._scale.value

    def applied(self, result: FrameResult) -> tuple[FrameResult, bool]:
        """Return the result in metres, and whether lengths before it were in another unit."""
        settings = self._settings().scale
        if settings.source == "fixed":
            self._scale.fix(settings.value)
        self._scale.note(self._estimate(result), first=result.index == 0)
        return self._scale.applied(result)

    def _estimate(self, result: FrameResult) -> float | None:
        measured = self._measured
        if measured is None:
            return None
        if result.index == 0:
            measured.begin()
        if result.camera != self._settings().input.camera_names[0]:
            return None  # of a rig, only the first camera is measured
        try:
            return measured.estimate(result)
        except FrameError as error:
            logger.warning("no scale from this image's depth: %s", error)
            return None

    def silence(self, timeout: float) -> str | None:
        """Return the complaint about a source of which nothing fits for ``timeout`` seconds."""
        if self._measured is None:
            return None
        self._measured.match_publishers()
        seconds = monotonic() - self._measured.last_message
        if seconds < timeout:
            return self._mismatch(timeout)
        count = self._node.count_publishers(self._measured.topic)
        return (
            f"scale.source is {self._settings().scale.source}, but nothing has come on "
            f"{self._measured.topic} for {seconds:.0f} s (publishers: {count}); "
            f"{self._remedy(self._measured)}"
        )

    def _remedy(self, measured: DepthScale | OdometryScale) -> str:
        """Return what to do where nothing comes, by what is published."""
        published = published_topics(self._node)
        here = published.get(measured.topic, set())
        if measured.type_name in here:
            return "they are silent: see what they wait for"
        others = [
            topic
            for topic, types in sorted(published.items())
            if measured.type_name in types and measured.accepts(topic)
        ]
        carried = (
            f"they carry {', '.join(sorted(here))}, not {measured.type_name}; " if here else ""
        )
        if others:
            return f"{carried}remap {measured.name} to one of {', '.join(others[:MOST_NAMED])}"
        return f"{carried}start what publishes {measured.type_name} there, or remap {measured.name}"

    def _mismatch(self, timeout: float) -> str | None:
        """Return the complaint about messages that belong to no image."""
        measured = self._measured
        if measured is None or not measured.matches.missing(timeout):
            return None
        return (
            f"scale.source is {self._settings().scale.source}, and messages come on "
            f"{measured.topic}, but for {timeout:g} s no image has found one "
            f"{measured.unmatched_remedy}"
        )
