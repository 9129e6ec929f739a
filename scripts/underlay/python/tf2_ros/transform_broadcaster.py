# SPDX-License-Identifier: Apache-2.0
"""Sends transforms on /tf."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

from geometry_msgs.msg import TransformStamped
from rclpy.node import Node
from rclpy.qos import QoSProfile
from tf2_msgs.msg import TFMessage

Sent: TypeAlias = TransformStamped | Iterable[TransformStamped]


class TransformBroadcaster:
    """Publishes what holds at its stamp."""

    def __init__(self, node: Node, qos: QoSProfile | int | None = None) -> None:
        self.pub_tf = node.create_publisher(TFMessage, "/tf", qos or QoSProfile(depth=100))

    def sendTransform(self, transform: Sent) -> None:  # noqa: N802 - the name in tf2_ros
        """Send one transform or several at once."""
        self.pub_tf.publish(TFMessage(transforms=as_list(transform)))


def as_list(transform: Sent) -> list[TransformStamped]:
    """Return one transform or several as a list."""
    return [transform] if isinstance(transform, TransformStamped) else list(transform)
