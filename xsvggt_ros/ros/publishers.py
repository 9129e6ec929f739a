# SPDX-License-Identifier: Apache-2.0
"""What one frame puts on the topics of its camera, and the path so far."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from threading import Lock
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Odometry, Path
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, Image, PointCloud2

from xsvggt_ros.errors import OutputError, first_line
from xsvggt_ros.ros import qos
from xsvggt_ros.ros.clouds import CloudPacker
from xsvggt_ros.ros.conversions import header
from xsvggt_ros.ros.images import camera_info, color_image, confidence_image, depth_image
from xsvggt_ros.ros.odometry import odometry_message
from xsvggt_ros.ros.parameters import Settings
from xsvggt_ros.ros.transform_owners import TransformOwners
from xsvggt_ros.ros.transforms import TransformBroadcaster
from xsvggt_ros.stream.frame import FrameResult
from xsvggt_ros.stream.pipeline import FrameUpdate


class PathPublisher:
    """Collects poses on one thread and publishes the path on another.

    Packing a path takes time in proportion to its poses, so that is not done for every frame.
    """

    def __init__(self, node: Node, topic: str) -> None:
        self._node = node
        self._publisher = node.create_publisher(Path, topic, qos.RESULTS)
        self._lock = Lock()
        self._poses: deque[PoseStamped] = deque()
        self._changed = False

    def close(self) -> None:
        """Destroy the topic."""
        self._node.destroy_publisher(self._publisher)

    def restart(self) -> None:
        """Start an empty path."""
        with self._lock:
            self._poses.clear()
            self._changed = False

    def append(self, pose: PoseStamped, *, max_poses: int) -> None:
        """Add a pose."""
        with self._lock:
            self._poses.append(pose)
            while len(self._poses) > max_poses:
                self._poses.popleft()
            self._changed = True

    def publish(self) -> None:
        """Publish the path where it has grown and anybody listens."""
        if not self._publisher.get_subscription_count():
            return
        message = self._message()
        if message is not None:
            self._publisher.publish(message)

    def _message(self) -> Path | None:
        with self._lock:
            if not (self._changed and self._poses):  # the worker may forget them at any time
                return None
            self._changed = False
            return Path(header=self._poses[-1].header, poses=list(self._poses))


class CameraPublisher:
    """Publishes results; called from the worker's thread, :meth:`publish_path` from any."""

    def __init__(self, node: Node, transforms: TransformBroadcaster, prefix: str = "~") -> None:
        """Make the topics of one camera, under ``prefix``; all cameras share ``transforms``."""
        self._node = node
        self._transforms = transforms
        self._points = _large(node, PointCloud2, f"{prefix}/points")
        self._depth = _large(node, Image, f"{prefix}/depth/image")
        self._camera_info = node.create_publisher(
            CameraInfo, f"{prefix}/depth/camera_info", qos.RESULTS
        )
        self._confidence = _large(node, Image, f"{prefix}/confidence/image")
        self._color = _large(node, Image, f"{prefix}/color/image")
        self._color_info = node.create_publisher(
            CameraInfo, f"{prefix}/color/camera_info", qos.RESULTS
        )
        self._odometry = node.create_publisher(Odometry, f"{prefix}/odometry", qos.RESULTS)
        self._path = PathPublisher(node, f"{prefix}/path")
        self._cloud = CloudPacker()

    def close(self) -> None:
        """Destroy the topics."""
        for publisher in (
            self._points, self._depth, self._camera_info, self._confidence, self._color,
            self._color_info, self._odometry,
        ):  # fmt: skip
            self._node.destroy_publisher(publisher)
        self._path.close()

    def begin_path(self) -> None:
        """Start an empty path: another world begins, or another unit."""
        self._path.restart()

    def publish(self, update: FrameUpdate, settings: Settings) -> None:
        """Publish everything that this frame brought, and remember its pose for the path.

        Raises:
            OutputError: some of it could not be published; all the rest was.

        """
        failures = [
            f"{what} ({type(error).__name__}: {first_line(error)})"
            for what, step in self._steps(update, settings)
            if (error := _attempted(step)) is not None
        ]
        if failures:
            raise OutputError(
                f"{', '.join(failures)}; what nobody subscribes to is not packed, so close the "
                "subscribers, or restart the node"
            )

    def publish_path(self) -> None:
        """Publish the path where it has grown."""
        self._path.publish()

    def _steps(
        self, update: FrameUpdate, settings: Settings
    ) -> Iterator[tuple[str, Callable[[], None]]]:
        """Yield what is to be published, by the name of its topic."""
        result = update.result
        optical = header(result.stamp, result.frame_id)
        yield "pose", partial(self._publish_pose, update, settings)
        if _wanted(self._depth):
            yield (
                "depth",
                lambda: self._depth.publish(
                    depth_image(optical, _sure_depth(result, settings), settings.depth.encoding)
                ),
            )
        if _wanted(self._camera_info):
            yield (
                "camera_info",
                lambda: self._camera_info.publish(camera_info(optical, result.intrinsics)),
            )
        if _wanted(self._color):
            yield "color", lambda: self._color.publish(color_image(optical, result.color))
        if _wanted(self._color_info):
            yield (
                "color camera_info",
                lambda: self._color_info.publish(camera_info(optical, result.intrinsics)),
            )
        if _wanted(self._points):
            yield (
                "points",
                lambda: self._points.publish(self._cloud.pack(optical, result, settings.points)),
            )
        if _wanted(self._confidence):
            yield (
                "confidence",
                lambda: self._confidence.publish(confidence_image(optical, result.confidence)),
            )

    def _publish_pose(self, update: FrameUpdate, settings: Settings) -> None:
        result, placement = update.result, update.placement
        carrier = settings.frames.base or result.frame_id
        external = settings.tf.odometry == "external"
        world = settings.frames.map if external else settings.frames.odom
        message = odometry_message(update, world, carrier, in_map=external)
        self._transforms.publish(result.stamp, carrier, placement, settings)
        if _wanted(self._odometry):
            self._odometry.publish(message)
        stamped = PoseStamped(header=message.header, pose=message.pose.pose)
        self._path.append(stamped, max_poses=settings.path.max_poses)


def _attempted(step: Callable[[], None]) -> Exception | None:
    """Run a step; return its error, so that the other steps run as well."""
    try:
        step()
    except Exception as error:  # noqa: BLE001 - told by whoever asked for it
        return error
    return None


def _large(node: Node, message_type: type[Any], topic: str) -> Publisher:
    return node.create_publisher(
        message_type,
        topic,
        qos.RESULTS,
        qos_overriding_options=QoSOverridingOptions.with_default_policies(),
    )


def _sure_depth(result: FrameResult, settings: Settings) -> NDArray[np.float32]:
    """Return depth, NaN where it is less sure than asked for."""
    least = settings.depth.min_confidence
    if least <= 1.0:  # where confidences begin
        return result.depth
    return np.where(result.confidence >= least, result.depth, np.float32(np.nan))


def _wanted(publisher: Publisher) -> bool:
    return bool(publisher.get_subscription_count())


class RigPublisher:
    """Hands each result to the publishers of its camera."""

    def __init__(self, node: Node, owners: TransformOwners) -> None:
        self._node = node
        self._transforms = TransformBroadcaster(node, owners)
        self._cameras: dict[str, CameraPublisher] = {}

    def prepare(self, cameras: Sequence[str]) -> None:
        """Make the topics of these cameras, and of no others; no name is a single camera's."""
        for camera in set(self._cameras) - set(cameras):
            self._cameras.pop(camera).close()
        for camera in cameras:
            if camera not in self._cameras:
                prefix = f"~/{camera}" if camera else "~"
                self._cameras[camera] = CameraPublisher(self._node, self._transforms, prefix)

    def publish(self, update: FrameUpdate, settings: Settings) -> None:
        """Publish what this frame brought."""
        if update.starts_over:
            for outputs in self._cameras.values():
                outputs.begin_path()
        self._cameras[update.result.camera].publish(update, settings)

    def repeat_map(self, settings: Settings) -> None:
        """Broadcast map to odom again where it has grown old."""
        self._transforms.repeat_map(settings)

    def forget_map(self) -> None:
        """Repeat map to odom no more: this node ceases to know it."""
        self._transforms.forget_map()

    def publish_path(self) -> None:
        """Publish each path that has grown."""
        for outputs in list(self._cameras.values()):
            outputs.publish_path()
