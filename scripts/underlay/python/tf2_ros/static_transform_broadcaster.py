# SPDX-License-Identifier: Apache-2.0
"""Sends transforms on /tf_static, for those who come later, too."""

from __future__ import annotations

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from tf2_msgs.msg import TFMessage

from .transform_broadcaster import Sent, as_list


class StaticTransformBroadcaster:
    """Publishes what holds for ever; each message repeats all that was sent before."""

    def __init__(self, node: Node, qos: QoSProfile | int | None = None) -> None:
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.pub_tf = node.create_publisher(TFMessage, "/tf_static", qos or latched)
        self.net_message = TFMessage()

    def sendTransform(self, transform: Sent) -> None:  # noqa: N802 - the name in tf2_ros
        """Send one transform or several at once; a frame's newest one replaces the one before."""
        known = {each.child_frame_id: each for each in self.net_message.transforms}
        known |= {each.child_frame_id: each for each in as_list(transform)}
        self.net_message.transforms = list(known.values())
        self.pub_tf.publish(self.net_message)
