# SPDX-License-Identifier: Apache-2.0
"""map -> odom -> base (or camera), on /tf, and who else broadcasts the same."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from threading import Lock
from time import monotonic

import tf2_ros
from geometry_msgs.msg import TransformStamped
from rclpy.node import Node
from tf2_msgs.msg import TFMessage

from xsvggt_ros.errors import TransformMissingError, TransformTimeError
from xsvggt_ros.geometry.rigid import Matrix, Placement, PoseTuple, RobotPose, invert
from xsvggt_ros.ros import topics
from xsvggt_ros.ros.conversions import header, transform
from xsvggt_ros.ros.parameters import Settings
from xsvggt_ros.ros.subscriptions import SmallSubscription
from xsvggt_ros.ros.transform_buffer import HISTORY, TransformBuffer, pose_tuple
from xsvggt_ros.stream.frame import SECOND, Frame
from xsvggt_ros.stream.messages import frame_name, nanoseconds
from xsvggt_ros.stream.stamps import SHORTEST_JUMP

FORGOTTEN = 10.0
"""Seconds without a transform after which its broadcaster has gone."""
_MOST_REMEMBERED = 1000
_LONGEST_CHAIN = 100

Broadcast = tuple[str, str, int, PoseTuple]
"""Parent, child, stamp in nanoseconds, and pose of a transform."""


@dataclass(frozen=True, slots=True)
class OwnLink:
    """A transform that this node broadcasts, and the parameter that switches it off."""

    parent: str
    child: str
    switch: str


@dataclass(frozen=True, slots=True)
class _Foreign:
    parent: str
    static: bool
    seen: float


def own_links(carrier: str, settings: Settings) -> list[OwnLink]:
    """Return what the settings have this node broadcast for a carrier."""
    frames, tf = settings.frames, settings.tf
    links = []
    if tf.publish_map:
        links.append((frames.map, frames.odom, "tf.publish_map"))
    if tf.publish_odom and tf.odometry == "own":
        links.append((frames.odom, carrier, "tf.publish_odom"))
    if tf.invert_odom:
        links = [(child, parent, switch) for parent, child, switch in links]
    return [OwnLink(*link) for link in links]


class TransformOwners:
    """Tells the transforms of others from this node's, which come back on the same topic.

    Noted on several threads.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._lock = Lock()
        self._own: OrderedDict[Broadcast, int] = OrderedDict()
        """What has not come back yet."""
        self._carriers: set[str] = set()
        self._foreign: dict[str, dict[str, _Foreign]] = {}

    def forget(self) -> None:
        """Forget the transforms of others."""
        with self._lock:
            self._foreign.clear()
            self._carriers.clear()

    def note_carrier(self, carrier: str) -> None:
        """Take note of a frame whose pose this node broadcasts."""
        self._carriers.add(carrier)

    def note_own(self, link: Broadcast) -> None:
        """Take note of a transform that this node is about to broadcast."""
        with self._lock:
            # Two cameras of a rig may say the same at the same time.
            self._own[link] = self._own.get(link, 0) + 1
            if len(self._own) > _MOST_REMEMBERED:
                self._own.popitem(last=False)

    def comes_back(self, link: Broadcast) -> bool:
        """Return whether a transform that was received is this node's; each of these comes once.

        Another node may send the very same numbers: an identity with the stamp of an image.
        """
        with self._lock:
            left = self._own.pop(link, 0)
            if left > 1:
                self._own[link] = left - 1
            return left > 0

    def note_foreign(self, parent: str, child: str, *, static: bool) -> None:
        """Take note of a transform of another node.

        Args:
            parent: frame above.
            child: frame below.
            static: whether it came on /tf_static.

        """
        with self._lock:
            parents = self._foreign.setdefault(child, {})
            parents[parent] = _Foreign(parent, static, self._clock())

    def conflicts(self, settings: Settings, *, namesake: bool = False) -> list[str]:
        """Return a warning about each transform that another node broadcasts, too.

        Not about the same transforms where there is a ``namesake``: those are its own.
        """
        links: dict[OwnLink, str] = {}
        for carrier in sorted(self._carriers):
            links |= dict.fromkeys(own_links(carrier, settings), carrier)
        return [
            text
            for link, carrier in links.items()
            for text in self._of(link, carrier, settings, namesake)
        ]

    def _of(self, link: OwnLink, carrier: str, settings: Settings, namesake: bool) -> Iterator[str]:
        others = self._parents(link.child)
        for other in others:
            if other.parent == link.parent and namesake:
                continue
            remedy = self._remedy(link, other, carrier, settings)
            if other.parent == link.parent:
                yield (
                    f"another node broadcasts the transform from '{link.parent}' to "
                    f"'{link.child}', too, so that TF jumps between both; {remedy}"
                )
                continue
            yield (
                f"frame '{link.child}' has two parents: this node broadcasts it below "
                f"'{link.parent}', another one below '{other.parent}', so that TF jumps between "
                f"both or loses what hangs there; {remedy}"
            )
        if not others and link.child in self._above(link.parent):
            yield (
                f"this node broadcasts '{link.child}' below '{link.parent}', which hangs below "
                f"'{link.child}' already by another node's transforms: a loop; set {link.switch} "
                "to false"
            )

    def _remedy(self, link: OwnLink, other: _Foreign, carrier: str, settings: Settings) -> str:
        if link.child != carrier:
            return f"set {link.switch} to false, or stop the other one"
        frames = settings.frames
        chain = [other.parent, *self._above(other.parent)]
        if frames.odom in chain:
            return "set tf.odometry to external, where the other one is an odometry"
        if frames.map in chain:
            return f"set {link.switch} to false, where the other one knows the place in the map"
        top = chain[-1]
        if self._rigid([carrier, *chain]):
            return f"set frames.base to '{top}', to which the camera is fixed"
        return (
            f"set frames.base to '{top}' where that is the robot; or frames.odom to '{top}' and "
            "tf.odometry to external where that is the frame of an odometry"
        )

    def _above(self, name: str) -> list[str]:
        """Return the frames above one by the transforms of others, nearest first."""
        above: list[str] = []
        while len(above) < _LONGEST_CHAIN and (parents := self._parents(name)):
            name = parents[0].parent
            if name in above:
                break
            above.append(name)
        return above

    def _rigid(self, chain: list[str]) -> bool:
        return all(self._parents(child)[0].static for child in chain[:-1])

    def _parents(self, child: str) -> list[_Foreign]:
        """Return who else broadcasts a frame, as far as it has not gone; static ones stay."""
        with self._lock:
            found = list(self._foreign.get(child, {}).values())
        now = self._clock()
        return [each for each in found if each.static or now - each.seen < FORGOTTEN]


class TransformBroadcaster:
    """Broadcasts where the robot is, by tf2_ros, and keeps account of what it has sent."""

    def __init__(self, node: Node, owners: TransformOwners) -> None:
        """Announce the topic; ``owners`` hears of each transform."""
        self._node = node
        self._owners = owners
        self._broadcaster = tf2_ros.TransformBroadcaster(node)
        self._lock = Lock()
        self._map: TransformStamped | None = None
        """The newest transform of map and odom that may be repeated."""
        self._sent_at = self._repeated_at = 0
        """When a result and when a repetition were sent, by the node's clock in nanoseconds."""

    def close(self) -> None:
        """Destroy the topic."""
        self._node.destroy_publisher(self._broadcaster.pub_tf)

    def publish(self, stamp: int, carrier: str, placement: Placement, settings: Settings) -> None:
        """Broadcast the transforms that the settings ask for.

        Args:
            stamp: of the image, nanoseconds.
            carrier: frame whose pose is broadcast.
            placement: where everything is, [4, 4] each.
            settings: of the moment.

        """
        shifted = stamp + round(settings.tf.time_offset * SECOND)
        self._owners.note_carrier(carrier)
        links = {
            link.switch: _stamped(
                shifted, link.parent, link.child, _pose(link.switch, placement, settings)
            )
            for link in own_links(carrier, settings)
        }
        with self._lock:
            # Where images are stamped by another clock, now is no time of theirs.
            now = self._node.get_clock().now().nanoseconds
            self._sent_at, self._repeated_at = now, min(self._repeated_at, now)
            self._map = links.get("tf.publish_map") if abs(now - stamp) < HISTORY else None
            self._send(list(links.values()))

    def repeat_map(self, settings: Settings) -> None:
        """Broadcast the newest map to odom again, a little ahead of the clock, where that is due.

        Others look it up at the time of their own data, which is later than that of any image that
        has a result. With this node's own odometry, which is as old, only while no result comes.
        """
        tf = settings.tf
        with self._lock:
            if self._map is None or not (tf.map_rate and tf.publish_map):
                return
            now = self._node.get_clock().now().nanoseconds
            if now < max(self._sent_at, self._repeated_at) - SHORTEST_JUMP:
                self._map = None  # the clock jumped back, to where it is not known yet
                return
            self._sent_at, self._repeated_at = min(self._sent_at, now), min(self._repeated_at, now)
            period = SECOND / tf.map_rate
            external = tf.odometry == "external" or not tf.publish_odom
            due = period + max(self._repeated_at, 0 if external else self._sent_at)
            if now < due:
                return
            self._repeated_at = int(due) if now - due < period else now
            stamp = now + round(tf.map_tolerance * SECOND)
            repeated = TransformStamped(
                header=header(stamp, self._map.header.frame_id),
                child_frame_id=self._map.child_frame_id,
                transform=self._map.transform,
            )
            self._send([repeated])

    def forget_map(self) -> None:
        """Repeat map to odom no more."""
        with self._lock:
            self._map = None

    def _send(self, links: list[TransformStamped]) -> None:
        for link in links:
            self._owners.note_own(broadcast(link))
        if links:
            self._broadcaster.sendTransform(links)


def broadcast(link: TransformStamped) -> Broadcast:
    """Return what a message says; slashes before names are those of ROS 1."""
    return (
        frame_name(link.header.frame_id),
        frame_name(link.child_frame_id),
        nanoseconds(link.header.stamp),
        pose_tuple(link),
    )


def _pose(switch: str, placement: Placement, settings: Settings) -> Matrix:
    """Return the child's pose in the parent."""
    of_map = switch == "tf.publish_map"
    pose = placement.map_from_odom if of_map else placement.odom_from_carrier
    return invert(pose) if settings.tf.invert_odom else pose


def _stamped(stamp: int, parent: str, child: str, pose: Matrix) -> TransformStamped:
    return TransformStamped(
        header=header(stamp, parent), child_frame_id=child, transform=transform(pose)
    )


logger = logging.getLogger(__name__)


class TransformListener:
    """Fills a buffer on the executor's thread; another thread may wait for what is still to come.

    That of tf2_ros hears nothing of best-effort publishers on /tf, nor of volatile ones on
    /tf_static, such as a bag that is played without its QoS.
    """

    def __init__(self, node: Node, owners: TransformOwners, *, follow: bool) -> None:
        """Listen; ``owners`` hears of the links of others, the buffer only where it follows."""
        self._owners = owners
        self._follow = follow
        self._buffer = TransformBuffer()
        self._refused: set[tuple[str, str]] = set()
        self._subscriptions = [
            SmallSubscription(
                node,
                TFMessage,
                topic,
                partial(self._receive, static),
                depth=topics.TRANSFORMS_DEPTH,
                latched=static,
            )
            for topic, static in (("/tf", False), ("/tf_static", True))
        ]

    def match_publishers(self) -> None:
        """Subscribe again where the publishers now ask for another reliability."""
        for subscription in self._subscriptions:
            subscription.match_publishers()

    def close(self) -> None:
        """Unsubscribe, and release whoever waits."""
        for subscription in self._subscriptions:
            subscription.close()
        self._buffer.close()

    def wait_for(self, target: str, source: str, stamp: int, timeout: float) -> Matrix:
        """Return ``source`` in ``target``, [4, 4]; see :meth:`TransformBuffer.wait_for`.

        A transform often comes after the image that it belongs to.
        """
        return self._buffer.wait_for(target, source, stamp, timeout)

    def _receive(self, static: bool, message: TFMessage) -> None:
        for stamped in message.transforms:
            link = broadcast(stamped)
            if self._owners.comes_back(link):
                continue
            parent, child, _, _ = link
            self._owners.note_foreign(parent, child, static=static)
            if not self._follow:
                continue
            if fault := self._buffer.insert(stamped, static=static):
                self._warn(parent, child, fault)

    def _warn(self, parent: str, child: str, fault: str) -> None:
        """Tell of a transform that was refused, once for each link."""
        if (parent, child) not in self._refused:
            self._refused.add((parent, child))
            logger.warning("the transform from '%s' to '%s' is %s", parent, child, fault)


class TransformLookup:
    """Looks up the transforms of each frame, on the worker's thread.

    A frame whose transforms are missing is refused before the network has seen it: an identity in
    their place would bend the map for good.
    """

    def __init__(self, node: Node, settings: Callable[[], Settings]) -> None:
        self._node = node
        self._settings = settings
        self._listener: TransformListener | None = None
        self._follows = False
        self.owners = TransformOwners()
        """Who broadcasts which transforms."""

    def listen(self) -> None:
        """Subscribe to TF; follow it where its transforms are needed."""
        settings = self._settings()
        self._follows = bool(settings.frames.base) or settings.tf.odometry == "external"
        if settings.frames.base:
            self.owners.note_carrier(settings.frames.base)
        self._listener = TransformListener(self._node, self.owners, follow=self._follows)

    def match_publishers(self) -> None:
        """Subscribe again if the publishers of TF now offer another reliability."""
        if self._listener is not None:
            self._listener.match_publishers()

    def close(self) -> None:
        """Unsubscribe from TF."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
            self.owners.forget()

    def look_up(self, frame: Frame) -> RobotPose:
        """Return the transforms of the robot at the time of a frame, as far as they are needed.

        Raises:
            TransformMissingError: it has not come within ``tf.timeout``.

        """
        if not self._follows:
            return RobotPose()
        settings = self._settings()
        carrier = settings.frames.base or frame.frame_id
        external = settings.tf.odometry == "external"
        odometry = self._pose(settings.frames.odom, carrier, frame) if external else None
        camera = self._pose(carrier, frame.frame_id, frame) if settings.frames.base else None
        return RobotPose(camera, odometry)

    def _pose(self, target: str, source: str, frame: Frame) -> Matrix:
        listener = self._listener
        if listener is None:  # unsubscribed while this frame was waiting
            raise TransformMissingError("the node was deactivated; activate it again")
        timeout, odom = self._settings().tf.timeout, self._settings().frames.odom
        try:
            return listener.wait_for(target, source, frame.stamp, timeout)
        except TransformTimeError as error:
            raise TransformMissingError(
                f"{error}. It was waited for {timeout:g} s: raise tf.timeout where it comes later, "
                "or have its broadcaster and the camera stamp by one clock"
            ) from error
        except TransformMissingError as error:
            names = ["frames.base", "frames.odom"] if target == odom else ["frames.base"]
            if not frame.camera:  # frames.camera is none of a rig's parameters
                names.append("frames.camera")
            remedy = f"broadcast it, or correct {' or '.join(names)}"
            if target == odom:
                remedy += (
                    "; a filter that fuses nothing but this node's odometry waits for this node: "
                    "give it an IMU or wheels, too"
                )
            raise TransformMissingError(
                f"{error}. It was waited for {timeout:g} s (tf.timeout): {remedy}"
            ) from error
