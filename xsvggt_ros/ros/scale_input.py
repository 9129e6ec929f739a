# SPDX-License-Identifier: Apache-2.0
"""Where metres come from: measured depth or an odometry beside the images, or a fixed value."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from threading import Lock
from time import monotonic
from typing import Any, Generic, TypeVar

from nav_msgs.msg import Odometry
from rclpy.node import Node
from sensor_msgs.msg import Image

from xsvggt_ros.errors import FrameError, TransformMissingError
from xsvggt_ros.geometry.rigid import Matrix, RobotPose, camera_pose
from xsvggt_ros.ros import topics
from xsvggt_ros.ros.parameters import Settings
from xsvggt_ros.ros.subscriptions import MatchedSubscription, SmallSubscription
from xsvggt_ros.ros.transform_buffer import HISTORY, TransformBuffer, transform_of
from xsvggt_ros.stream.frame import FrameResult
from xsvggt_ros.stream.messages import depth_of, frame_name, nanoseconds
from xsvggt_ros.stream.scale import (
    SHORTEST_CHORD,
    SMOOTHED,
    ChordScale,
    MetricScale,
    scale_from_depth,
)
from xsvggt_ros.stream.stamps import SHORTEST_JUMP

T = TypeVar("T")


class Recent(Generic[T]):
    """Holds stamped items, the newest always; the oldest go first. Thread-safe.

    A result may come long after its image, so what belongs to it must be held by memory, not by
    number.
    """

    def __init__(self, most_bytes: int) -> None:
        """Hold ``most_bytes`` at most, or one item that is larger."""
        self._most_bytes = most_bytes
        self._lock = Lock()
        self._items: deque[tuple[int, int, T]] = deque()
        self._nbytes = 0

    def __len__(self) -> int:
        return len(self._items)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self._nbytes

    def add(self, stamp: int, nbytes: int, item: T) -> None:
        """Take in an item; where the clock has jumped back, what came before goes.

        Args:
            stamp: nanoseconds.
            nbytes: of the item.
            item: that waits.

        """
        with self._lock:
            if self._items and self._items[-1][0] - stamp >= SHORTEST_JUMP:
                self._items.clear()
                self._nbytes = 0
            self._items.append((stamp, nbytes, item))
            self._nbytes += nbytes
            while self._nbytes > self._most_bytes and len(self._items) > 1:
                self._drop_oldest()

    def nearest(self, stamp: int, tolerance: int) -> T | None:
        """Return the item nearest to ``stamp``, None where none is within ``tolerance``."""
        with self._lock:
            gaps = [(abs(each - stamp), item) for each, _, item in self._items]
        gap, nearest = min(gaps, key=lambda pair: pair[0], default=(tolerance + 1, None))
        return nearest if gap <= tolerance else None

    def drop_before(self, stamp: int) -> None:
        """Forget the items from before ``stamp`` that came before all others."""
        with self._lock:
            while self._items and self._items[0][0] < stamp:
                self._drop_oldest()

    def _drop_oldest(self) -> None:
        self._nbytes -= self._items.popleft()[1]


logger = logging.getLogger(__name__)

UNKNOWN = "none"
TOLERANCE = 20_000_000
"""Nanoseconds between an image and the depth that belongs to it."""
MOST_DEPTH_BYTES = 128 << 20
"""Of depth images that wait for the result of theirs: 7 s of 640x480, 16 bit, at 30 Hz."""
LONGEST_UNMEASURED = 10.0
"""Seconds with results and without a measurement from which on ~/status says so."""
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
    type_name = topics.RAW_TYPE
    smoothed = SMOOTHED
    idle_remedy = "have the depth camera see what lies between 0.1 and 20 m, in the colour's view"
    unmatched_remedy = (
        f"within {TOLERANCE / 1e6:.0f} ms; give depth the stamp of its image, or publish it "
        f"smaller where images wait longer than {MOST_DEPTH_BYTES >> 20} MiB of it"
    )

    def __init__(self, node: Node) -> None:
        self._newest: Recent[Image] = Recent(MOST_DEPTH_BYTES)
        self.matches = Matches()
        self.last_message = monotonic()
        self.spread: float | None = None
        self._subscription = MatchedSubscription(
            node,
            Image,
            node.resolve_topic_name("depth"),
            self._receive,
            reliability="auto",
            depth=topics.LARGE_DEPTH,
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

    def estimate(self, result: FrameResult, transforms: RobotPose) -> float | None:
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
        self._newest.add(nanoseconds(message.header.stamp), len(message.data), message)


class OdometryScale:
    """Keeps an odometry's poses and compares its way with the camera's."""

    name = "odom"
    type_name = "nav_msgs/msg/Odometry"
    smoothed = 1  # least squares over many chords are smooth
    idle_remedy = (
        f"move by {SHORTEST_CHORD:g} m or more, and straight ahead where frames.base does not tell "
        "where on the robot the camera is"
    )
    unmatched_remedy = (
        f"around its time; stamp both by one clock, and the odometry no more than "
        f"{HISTORY / 1e9:.0f} s ahead of the result"
    )

    def __init__(self, node: Node) -> None:
        self._poses = TransformBuffer()
        self._chords = ChordScale()
        self._child = ""
        self._refused = False
        self.matches = Matches()
        self.last_message = monotonic()
        self.spread: float | None = None
        """How far single chords scatter around the scale; None before the first one."""
        self.topic = node.resolve_topic_name("odom")
        self._subscription = SmallSubscription(
            node, Odometry, self.topic, self._receive, depth=topics.TRANSFORMS_DEPTH
        )

    def close(self) -> None:
        """Unsubscribe."""
        self._subscription.close()

    def accepts(self, topic: str) -> bool:
        """Return whether a topic may carry an odometry, by its name."""
        return bool(topic)

    def begin(self) -> None:
        """Take note that a session begins: the camera's way before it does not count."""
        self._chords.begin()

    def match_publishers(self) -> None:
        """Subscribe again where the publishers now ask for another reliability."""
        self._subscription.match_publishers()

    def estimate(self, result: FrameResult, transforms: RobotPose) -> float | None:
        """Return metres per unit at the end of a chord, else None."""
        pose = self._pose(result.stamp, transforms)
        self.matches.note(pose is not None)
        if pose is None or result.pose_source == "held":
            return None  # a way that was guessed is no measure
        known = self._knows_lever_arm(result, transforms)
        if not self._chords.add(result.camera_to_world, pose, lever_arm_known=known):
            return None
        found = self._chords.estimate()
        if found is None:
            return None
        scale, self.spread = found
        return scale

    def measured_pose(self, result: FrameResult, transforms: RobotPose) -> Matrix | None:
        """Return the camera's pose [4, 4] in the frame of the odometry; None where not known."""
        known = self._knows_lever_arm(result, transforms)
        return self._pose(result.stamp, transforms) if known else None

    def _knows_lever_arm(self, result: FrameResult, transforms: RobotPose) -> bool:
        return transforms.carrier_from_camera is not None or self._child == result.frame_id

    def _pose(self, stamp: int, transforms: RobotPose) -> Matrix | None:
        """Return the camera's pose in the frame of the odometry; the carrier's, for want of it."""
        try:
            carrier = self._poses.lookup("odom", "carrier", stamp)
        except TransformMissingError:
            return None
        return camera_pose(carrier, transforms)

    def _receive(self, message: Odometry) -> None:
        self.last_message = monotonic()
        self._child = frame_name(message.child_frame_id)
        fault = self._poses.insert(transform_of(message, "odom", "carrier"))
        if fault and not self._refused:
            self._refused = True
            logger.warning("a pose on %s is %s", self.topic, fault)


@dataclass(frozen=True, slots=True)
class ScaleState:
    """The scale in force.

    Attributes:
        source: what makes lengths metres; none = the model's own unit.
        value: metres per unit, 0 where they are not known.
        spread: how far single measurements scatter around it, as a share; 0 where none count.
        age: seconds since the newest measurement, -1 where there has been none.

    """

    source: str = UNKNOWN
    value: float = 0.0
    spread: float = 0.0
    age: float = -1.0


class ScaleInput:
    """Brings results into metres, on the worker's thread, as ``scale.source`` says."""

    def __init__(self, node: Node, settings: Callable[[], Settings]) -> None:
        self._node = node
        self._settings = settings
        self._measured: DepthScale | OdometryScale | None = None
        self.begin()

    def begin(self) -> None:
        """Forget the stream."""
        source, value = self._settings().scale.source, self._settings().scale.value
        smoothed = OdometryScale.smoothed if source == "odometry" else DepthScale.smoothed
        self._scale = MetricScale(value if source == "fixed" else None, smoothed=smoothed)
        self._measured_at: float | None = None
        self._last_result = -LONGEST_UNMEASURED
        self._unmeasured_since: float | None = None
        """When the first result came of those since the newest measurement."""

    def listen(self) -> None:
        """Subscribe to what is asked for."""
        source = self._settings().scale.source
        if source == "depth":
            self._measured = DepthScale(self._node)
        elif source == "odometry":
            self._measured = OdometryScale(self._node)

    def close(self) -> None:
        """Unsubscribe."""
        if self._measured is not None:
            self._measured.close()
            self._measured = None

    @property
    def value(self) -> float | None:
        """Metres per unit of the model, None where that is not known."""
        return self._scale.value

    @property
    def state(self) -> ScaleState:
        """The scale in force, and how well it is known."""
        value, measured = self._scale.value, self._measured
        age = -1.0 if self._measured_at is None else monotonic() - self._measured_at
        if value is None:
            return ScaleState(age=age)
        spread = None if measured is None else measured.spread
        return ScaleState(
            source=self._settings().scale.source,
            value=value,
            spread=self._scale.spread if spread is None else spread,
            age=age,
        )

    def scale(self, result: FrameResult, transforms: RobotPose) -> tuple[FrameResult, bool]:
        """Return the result in metres, and whether lengths before it were in another unit."""
        settings = self._settings().scale
        if settings.source == "fixed":
            self._scale.fix(settings.value)
        estimate = self._estimate(result, transforms)
        self._note_measurement(found=estimate is not None)
        spread = None if self._measured is None else self._measured.spread
        self._scale.note(estimate, first=result.index == 0, spread=spread)
        return self._scale.applied(result)

    def measured_pose(self, result: FrameResult, transforms: RobotPose) -> Matrix | None:
        """Return where the odometry on ``odom`` has the camera, [4, 4] in metres.

        None where there is none, or it does not know. What comes there must not be fused from this
        node's own odometry; of the odometry in TF, that cannot be asked.
        """
        measured = self._measured
        if not isinstance(measured, OdometryScale):
            return None
        return measured.measured_pose(result, transforms)

    def _note_measurement(self, *, found: bool) -> None:
        self._last_result = monotonic()
        if found:
            self._measured_at, self._unmeasured_since = self._last_result, None
        elif self._unmeasured_since is None:
            self._unmeasured_since = self._last_result

    def _estimate(self, result: FrameResult, transforms: RobotPose) -> float | None:
        measured = self._measured
        if measured is None:
            return None
        if result.index == 0:
            measured.begin()
        if result.camera != self._settings().input.camera_names[0]:
            return None  # of a rig, only the first camera is measured
        try:
            return measured.estimate(result, transforms)
        except FrameError as error:
            logger.warning("no scale from this image's depth: %s", error)
            return None

    def idleness(self) -> str | None:
        """Return what to say where results come and nothing is measured on them.

        It is no fault: a robot at rest measures nothing.
        """
        since, now = self._unmeasured_since, monotonic()
        if self._measured is None or since is None or now - since < LONGEST_UNMEASURED:
            return None
        if now - self._last_result > LONGEST_UNMEASURED:
            return None  # there is nothing to measure on
        value = self._scale.value
        known = "none is known" if value is None else f"{value:.4g} m per unit stays"
        return (
            f"scale.source is {self._settings().scale.source}, and nothing has been measured for "
            f"{now - since:.0f} s, so {known}: {self._measured.idle_remedy}"
        )

    def silence(self, timeout: float) -> str | None:
        """Return the warning about a source of which nothing fits for ``timeout`` seconds."""
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
        published = topics.published_topics(self._node)
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
            return (
                f"{carried}remap {measured.name} to one of {', '.join(others[: topics.MOST_NAMED])}"
            )
        return f"{carried}start what publishes {measured.type_name} there, or remap {measured.name}"

    def _mismatch(self, timeout: float) -> str | None:
        """Return the warning about messages that belong to no image."""
        measured = self._measured
        if measured is None or not measured.matches.missing(timeout):
            return None
        return (
            f"scale.source is {self._settings().scale.source}, and messages come on "
            f"{measured.topic}, but for {timeout:g} s no image has found one "
            f"{measured.unmatched_remedy}"
        )
