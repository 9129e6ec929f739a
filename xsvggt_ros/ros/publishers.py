# SPDX-License-Identifier: Apache-2.0
"""The result of a frame on its topics; nothing is packed for a topic that nobody listens to."""

from __future__ import annotations

from collections import deque
from typing import Any

from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Odometry, Path
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, Image, PointCloud2

from xsvggt_ros.geometry.rigid import world_to_map
from xsvggt_ros.ros import qos
from xsvggt_ros.ros.clouds import CloudPacker
from xsvggt_ros.ros.conversions import header, pose
from xsvggt_ros.ros.images import camera_info, confidence_image, depth_image
from xsvggt_ros.ros.parameters import Settings
from xsvggt_ros.ros.transforms import TransformBroadcaster
from xsvggt_ros.stream.frame import FrameResult

_UNKNOWN_COVARIANCE = -1.0
"""As first element: nothing is known of this quantity (as in sensor_msgs/Imu)."""


class Publishers:
    """Publishes results; called from the worker's thread only."""

    def __init__(self, node: Node) -> None:
        self._points = _large(node, PointCloud2, "~/points")
        self._depth = _large(node, Image, "~/depth/image")
        self._camera_info = node.create_publisher(CameraInfo, "~/depth/camera_info", qos.RESULTS)
        self._confidence = _large(node, Image, "~/confidence/image")
        self._odometry = node.create_publisher(Odometry, "~/odometry", qos.RESULTS)
        self._path = node.create_publisher(Path, "~/path", qos.RESULTS)
        self._transforms = TransformBroadcaster(node)
        self._cloud = CloudPacker()
        self._poses: deque[PoseStamped] = deque()

    def publish(self, result: FrameResult, settings: Settings) -> None:
        """Publish everything that this frame brought."""
        self._publish_pose(result, settings)
        self._publish_pictures(result, settings)

    def _publish_pose(self, result: FrameResult, settings: Settings) -> None:
        in_odom = world_to_map(result.camera_to_world)
        place = PoseStamped(header=header(result.stamp, settings.frames.odom), pose=pose(in_odom))
        self._transforms.publish(result.stamp, result.frame_id, in_odom, settings)
        if _wanted(self._odometry):
            self._odometry.publish(_odometry(place, result.frame_id))
        self._remember(place, result.index == 0, settings.path.max_poses)
        if _wanted(self._path):
            self._path.publish(Path(header=place.header, poses=list(self._poses)))

    def _publish_pictures(self, result: FrameResult, settings: Settings) -> None:
        optical = header(result.stamp, result.frame_id)
        if _wanted(self._depth):
            self._depth.publish(depth_image(optical, result.depth, settings.depth.encoding))
        if _wanted(self._camera_info):
            self._camera_info.publish(camera_info(optical, result.intrinsics))
        if _wanted(self._points):
            self._points.publish(self._cloud.pack(optical, result, settings.points))
        if _wanted(self._confidence):
            self._confidence.publish(confidence_image(optical, result.confidence))

    def _remember(self, place: PoseStamped, first: bool, max_poses: int) -> None:
        if first:
            self._poses.clear()
        self._poses.append(place)
        while len(self._poses) > max_poses:
            self._poses.popleft()


def _large(node: Node, message_type: type[Any], topic: str) -> Publisher:
    return node.create_publisher(
        message_type,
        topic,
        qos.RESULTS,
        qos_overriding_options=QoSOverridingOptions.with_default_policies(),
    )


def _wanted(publisher: Publisher) -> bool:
    return bool(publisher.get_subscription_count())


def _odometry(place: PoseStamped, camera: str) -> Odometry:
    """Return the pose as odometry; no velocity is estimated, and the message says so."""
    message = Odometry(header=place.header, child_frame_id=camera)
    message.pose.pose = place.pose
    message.pose.covariance[0] = _UNKNOWN_COVARIANCE
    message.twist.covariance[0] = _UNKNOWN_COVARIANCE
    return message
