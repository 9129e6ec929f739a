# SPDX-License-Identifier: Apache-2.0
"""The node with a network that sees its camera move, and transforms as a robot broadcasts them."""

from __future__ import annotations

from typing import Any

import numpy as np
from geometry_msgs.msg import TransformStamped
from node_process import Peer, stamp_of
from rclpy.qos import DurabilityPolicy, QoSProfile
from tf2_msgs.msg import TFMessage

from xsvggt_ros.geometry.rigid import Matrix, matrix_from_quaternion
from xsvggt_ros.ros.conversions import header, transform

MOVING = """
import sys
import numpy as np
from xsvggt_ros.ros import node
from xsvggt_ros.stream import step_runner

to_host = step_runner.to_host
step = -1  # the warm-up

def moving(prediction):
    global step
    output = to_host(prediction)
    output.encoding[:3] = -0.1 * step, 0.0, -0.2 * step
    output.encoding[3:7] = 0.0, 0.0, 0.0, 1.0
    step += 1
    return output

step_runner.to_host = moving
sys.exit(node.main())
"""
"""The node with a network that sees its camera go 0.1 right and 0.2 ahead with each image.

Images do not show it: with ``pose.refinement: off`` poses are the network's.
"""


def matrix_of(part: Any) -> Matrix:
    """Return a Transform or a Pose as [4, 4]."""
    moved = getattr(part, "translation", None) or part.position
    turned = getattr(part, "rotation", None) or part.orientation
    matrix = np.eye(4)
    matrix[:3, :3] = matrix_from_quaternion(np.array([turned.x, turned.y, turned.z, turned.w]))
    matrix[:3, 3] = moved.x, moved.y, moved.z
    return matrix


class RobotTransforms:
    """Broadcasts as a robot does."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._moving = peer.node.create_publisher(TFMessage, "/tf", QoSProfile(depth=200))
        latched = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._static = peer.node.create_publisher(TFMessage, "/tf_static", latched)

    def static(self, parent: str, child: str, pose: Matrix) -> None:
        self._send(self._static, parent, child, pose, 0)

    def send(self, parent: str, child: str, pose: Matrix, stamp: int) -> None:
        self._send(self._moving, parent, child, pose, stamp)

    def wait(self) -> None:
        """Wait until the node listens."""
        # This peer listens to /tf as well.
        for publisher, least in ((self._moving, 2), (self._static, 1)):

            def heard(publisher: Any = publisher, least: int = least) -> bool:
                return bool(publisher.get_subscription_count() >= least)

            self._peer.wait_until(heard, "a listener of TF")

    def _send(self, publisher: Any, parent: str, child: str, pose: Matrix, stamp: int) -> None:
        link = TransformStamped(
            header=header(stamp, parent), child_frame_id=child, transform=transform(pose)
        )
        publisher.publish(TFMessage(transforms=[link]))


def links_of(peer: Peer, stamp: int, shift: int = 0) -> dict[tuple[str, str], Matrix]:
    """Return what the node broadcast for an image, by parent and child."""
    peer.with_stamp("odometry", stamp)
    wanted = stamp + shift

    def own(message: TFMessage) -> bool:
        return stamp_of(message) == wanted and "map" in (
            message.transforms[0].header.frame_id,
            message.transforms[0].child_frame_id,
        )

    peer.wait_until(lambda: any(map(own, peer.messages("/tf"))), f"transforms of {stamp}")
    message = next(filter(own, peer.messages("/tf")))
    return {
        (link.header.frame_id, link.child_frame_id): matrix_of(link.transform)
        for link in message.transforms
    }
