# SPDX-License-Identifier: Apache-2.0
"""map -> odom -> base (or camera), on /tf."""

from __future__ import annotations

from threading import Lock
from time import monotonic

import tf2_ros
from geometry_msgs.msg import TransformStamped
from rclpy.node import Node

from xsvggt_ros.geometry.rigid import Matrix, invert
from xsvggt_ros.geometry.robot_frames import Placement
from xsvggt_ros.geometry.trajectory_io import NANOSECONDS
from xsvggt_ros.ros.conversions import header, transform
from xsvggt_ros.ros.parameters import Settings
from xsvggt_ros.ros.transform_buffer import HISTORY, place_of
from xsvggt_ros.ros.transform_owners import Broadcast, TransformOwners, own_links
from xsvggt_ros.stream.messages import frame_name, nanoseconds


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
        self._sent_at = 0.0

    def close(self) -> None:
        """Destroy the topic."""
        self._node.destroy_publisher(self._broadcaster.pub_tf)

    def publish(self, stamp: int, carrier: str, placement: Placement, settings: Settings) -> None:
        """Broadcast the transforms that the settings ask for."""
        shifted = stamp + round(settings.tf.time_offset * NANOSECONDS)
        self._owners.note_carrier(carrier)
        links = {
            link.switch: _stamped(
                shifted, link.parent, link.child, _pose(link.switch, placement, settings)
            )
            for link in own_links(carrier, settings)
        }
        with self._lock:
            self._sent_at = monotonic()
            # Where images are stamped by another clock, now is no time of theirs.
            now = self._node.get_clock().now().nanoseconds
            self._map = links.get("tf.publish_map") if abs(now - stamp) < HISTORY else None
            self._send(list(links.values()))

    def repeat_map(self, settings: Settings) -> None:
        """Broadcast map to odom again, a little ahead of the clock, where it has grown old.

        Others look it up at the time of their own data while no result comes here.
        """
        tf = settings.tf
        with self._lock:
            if self._map is None or not (tf.map_rate and tf.publish_map):
                return
            if monotonic() - self._sent_at < 1 / tf.map_rate:
                return
            self._sent_at = monotonic()
            now = self._node.get_clock().now().nanoseconds + round(tf.map_tolerance * NANOSECONDS)
            repeated = TransformStamped(
                header=header(now, self._map.header.frame_id),
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
        place_of(link),
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
