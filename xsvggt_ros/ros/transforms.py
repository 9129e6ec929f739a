# SPDX-License-Identifier: Apache-2.0
"""map -> odom -> base (or camera), on /tf."""

from __future__ import annotations

from collections.abc import Iterator

from geometry_msgs.msg import TransformStamped
from rclpy.node import Node
from tf2_msgs.msg import TFMessage

from xsvggt_ros.geometry.rigid import Matrix, invert
from xsvggt_ros.geometry.robot_frames import Placement
from xsvggt_ros.geometry.trajectory_io import NANOSECONDS
from xsvggt_ros.ros import qos
from xsvggt_ros.ros.conversions import header, transform
from xsvggt_ros.ros.parameters import Settings


class TransformBroadcaster:
    """Broadcasts where the robot is, without tf2_ros, which a pip environment lacks."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._publisher = node.create_publisher(TFMessage, "/tf", qos.TRANSFORMS)

    def close(self) -> None:
        """Destroy the topic."""
        self._node.destroy_publisher(self._publisher)

    def publish(self, stamp: int, carrier: str, placement: Placement, settings: Settings) -> None:
        """Broadcast the transforms that the settings ask for, where anybody listens."""
        if self._publisher.get_subscription_count():
            shifted = stamp + round(settings.tf.time_offset * NANOSECONDS)
            links = [_stamped(shifted, *link) for link in _links(carrier, placement, settings)]
            if links:
                self._publisher.publish(TFMessage(transforms=links))


def _links(
    carrier: str, placement: Placement, settings: Settings
) -> Iterator[tuple[str, str, Matrix]]:
    """Yield parent, child and the child's pose in the parent."""
    frames, tf = settings.frames, settings.tf
    links = []
    if tf.publish_map:
        links.append((frames.map, frames.odom, placement.map_from_odom))
    if tf.publish_odom and tf.odometry == "own":
        # Here map and odom are the same.
        links.append((frames.odom, carrier, placement.map_from_carrier))
    for parent, child, pose in links:
        yield (child, parent, invert(pose)) if tf.invert_odom else (parent, child, pose)


def _stamped(stamp: int, parent: str, child: str, pose: Matrix) -> TransformStamped:
    return TransformStamped(
        header=header(stamp, parent), child_frame_id=child, transform=transform(pose)
    )
