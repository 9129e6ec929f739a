# SPDX-License-Identifier: Apache-2.0
"""map -> odom -> optical frame, on /tf."""

from __future__ import annotations

import numpy as np
from geometry_msgs.msg import TransformStamped
from numpy.typing import NDArray
from rclpy.node import Node
from tf2_msgs.msg import TFMessage

from xsvggt_ros.ros import qos
from xsvggt_ros.ros.conversions import NANOSECONDS, header, transform
from xsvggt_ros.ros.parameters import Settings


class TransformBroadcaster:
    """Broadcasts where the camera is, without tf2_ros, which a pip environment lacks."""

    def __init__(self, node: Node) -> None:
        self._publisher = node.create_publisher(TFMessage, "/tf", qos.TRANSFORMS)

    def publish(
        self, stamp: int, camera: str, camera_in_odom: NDArray[np.float64], settings: Settings
    ) -> None:
        """Broadcast the transforms that the settings ask for, where anybody listens."""
        transforms = _transforms(stamp, camera, camera_in_odom, settings)
        if transforms and self._publisher.get_subscription_count():
            self._publisher.publish(TFMessage(transforms=transforms))


def _transforms(
    stamp: int, camera: str, camera_in_odom: NDArray[np.float64], settings: Settings
) -> list[TransformStamped]:
    frames, tf = settings.frames, settings.tf
    shifted = stamp + round(tf.time_offset * NANOSECONDS)
    links = []
    if tf.publish_map:
        links.append(_link(shifted, frames.map, frames.odom, np.eye(4)))
    if tf.publish_odom:
        links.append(_link(shifted, frames.odom, camera, camera_in_odom))
    return links


def _link(stamp: int, parent: str, child: str, matrix: NDArray[np.float64]) -> TransformStamped:
    return TransformStamped(
        header=header(stamp, parent), child_frame_id=child, transform=transform(matrix)
    )
