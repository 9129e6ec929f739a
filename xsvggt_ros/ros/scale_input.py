# SPDX-License-Identifier: Apache-2.0
"""Where metres come from: measured depth or an odometry beside the pictures, or a fixed value."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping
from threading import Lock
from time import monotonic
from typing import Any

from nav_msgs.msg import Odometry
from rclpy.node import Node
from sensor_msgs.msg import Image

from xsvggt_ros.errors import FrameError, TransformMissingError
from xsvggt_ros.geometry.rigid import Matrix
from xsvggt_ros.geometry.transform_tree import TransformTree, fault_of
from xsvggt_ros.ros import qos
from xsvggt_ros.ros.conversions import metres, nanoseconds
from xsvggt_ros.ros.matched_subscription import MatchedSubscription
from xsvggt_ros.ros.parameters import Settings
from xsvggt_ros.ros.robot import Robot
from xsvggt_ros.stream.frame import FrameResult
from xsvggt_ros.stream.scale import MetricScale
from xsvggt_ros.stream.scale_estimates import WayScale, scale_from_depth

logger = logging.getLogger(__name__)

UNKNOWN = "none"
TOLERANCE = 20_000_000
"""Nanoseconds between a picture and the depth that belongs to it."""
_KEPT = 10
"""Depth pictures that wait for their picture; 6 MB at 640x480, 16 bit."""


class DepthScale:
    """Keeps the newest depth pictures, undecoded, and compares one with each result."""

    def __init__(self, node: Node) -> None:
        self._lock = Lock()
        self._newest: deque[Image] = deque(maxlen=_KEPT)
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

    def begin(self) -> None:
        """Take note that a session begins; depth pictures know nothing of sessions."""

    def match_publishers(self) -> None:
        """Subscribe anew where the publishers now ask for another reliability."""
        self._subscription.match_publishers()

    def estimate(self, result: FrameResult) -> float | None:
        """Return metres per unit, None where no depth belongs to this result.

        Raises:
            FrameError: a depth picture that cannot be read.

        """
        with self._lock:
            near = [(abs(nanoseconds(m.header.stamp) - result.stamp), m) for m in self._newest]
        gap, message = min(near, key=lambda pair: pair[0], default=(TOLERANCE + 1, None))
        if message is None or gap > TOLERANCE:
            return None
        return scale_from_depth(result, metres(message))

    def _receive(self, message: Image, _: Mapping[str, Any]) -> None:
        self.last_message = monotonic()
        with self._lock:
            self._newest.append(message)


class OdometryScale:
    """Keeps an odometry's poses and compares its way with the camera's."""

    def __init__(self, node: Node, robot: Robot) -> None:
        self._node = node
        self._robot = robot
        self._lock = Lock()
        self._poses = TransformTree()
        self._way = WayScale()
        self._first = True
        self._refused = False
        self.last_message = monotonic()
        self._subscription = node.create_subscription(
            Odometry, "odom", self._receive, qos.CALIBRATIONS
        )
        self.topic = self._subscription.topic_name

    def close(self) -> None:
        """Unsubscribe."""
        self._node.destroy_subscription(self._subscription)

    def begin(self) -> None:
        """Take note that a session begins: the camera's way before it does not count."""
        self._first = True

    def match_publishers(self) -> None:
        """Change nothing: a best-effort subscription matches every publisher of small messages."""

    def estimate(self, result: FrameResult) -> float | None:
        """Return metres per unit at the end of a straight way, else None."""
        first, self._first = self._first, False
        return self._way.estimate(result.camera_to_world, self._pose(result.stamp), first=first)

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
            logger.warning("no scale from this picture's depth: %s", error)
            return None

    def silence(self, timeout: float) -> str | None:
        """Return the complaint about a source that has been silent for ``timeout`` seconds."""
        if self._measured is None:
            return None
        self._measured.match_publishers()
        seconds = monotonic() - self._measured.last_message
        if seconds < timeout:
            return None
        count = self._node.count_publishers(self._measured.topic)
        return (
            f"scale.source is {self._settings().scale.source}, but nothing has come on "
            f"{self._measured.topic} for {seconds:.0f} s (publishers: {count}); start what "
            "publishes it, or remap the topic"
        )
