# SPDX-License-Identifier: Apache-2.0
"""Records what the node publishes, as anybody else would get it: over its topics."""

from __future__ import annotations

from typing import Any

import numpy as np
from nav_msgs.msg import Odometry
from numpy.typing import NDArray
from rclpy.context import Context
from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from sensor_msgs_py import point_cloud2

from xsvggt_ros.geometry.cameras import Intrinsics
from xsvggt_ros.msg import ReconstructionStatus
from xsvggt_ros.ros.conversions import pose_matrix
from xsvggt_ros.stream.messages import depth_of, nanoseconds
from xsvggt_ros.stream.recording import CacheBytes, LongestSession, RecordedFrame

EVERYTHING = QoSProfile(
    depth=1, history=HistoryPolicy.KEEP_ALL, reliability=ReliabilityPolicy.RELIABLE
)
_PARTS = frozenset({"points", "depth", "camera", "odometry", "status"})


class Recorder(Node):
    """Puts together points, depth, camera, pose and status of one stamp and hands them on.

    Attributes:
        recorded: what they are handed to.
        status: the newest ``~/status``, None before the first.

    """

    def __init__(
        self, recorded: LongestSession, *, of_node: str = "/xsvggt", context: Context | None = None
    ) -> None:
        super().__init__("xsvggt_recorder", context=context)
        self.recorded = recorded
        self._parts: dict[int, dict[str, Any]] = {}
        self.status: ReconstructionStatus | None = None
        topics = {
            "points": (PointCloud2, f"{of_node}/points"),
            "depth": (Image, f"{of_node}/depth/image"),
            "camera": (CameraInfo, f"{of_node}/depth/camera_info"),
            "odometry": (Odometry, f"{of_node}/odometry"),
        }
        for part, (kind, topic) in topics.items():
            self.create_subscription(kind, topic, self._keeper(part), EVERYTHING)
        self.create_subscription(
            ReconstructionStatus, f"{of_node}/status", self._on_status, EVERYTHING
        )

    @property
    def ready(self) -> bool:
        """Whether the node is up and sends its results here.

        Its first status tells so: that topic was subscribed to last, and the node learns of
        subscriptions in their order.
        """
        return self.status is not None

    @property
    def refused(self) -> int:
        """Number of images that the node could not use."""
        return self.status.frames_refused if self.status else 0

    @property
    def answered(self) -> int:
        """Number of images that are done with."""
        return self.recorded.frames + self.refused

    def has_all(self, sent: int) -> bool:
        """Return whether all images sent are done with and the node says so too."""
        status = self.status
        return (
            status is not None
            and status.frames_received == sent
            and status.frames_pending == 0
            and self.answered == sent
        )

    def _keeper(self, part: str) -> Any:
        """Return the callback of one topic."""
        return lambda message: self._keep(part, message)

    def _keep(self, part: str, message: Any) -> None:
        """Keep one part of a frame; record the frame when it is complete."""
        stamp = nanoseconds(message.header.stamp)
        parts = self._parts.setdefault(stamp, {})
        parts[part] = message
        if parts.keys() == _PARTS:
            self.recorded.add(recorded_frame(**self._parts.pop(stamp)))

    def _on_status(self, message: ReconstructionStatus) -> None:
        """Take a status; only one that tells of a new frame is part of it."""
        before, self.status = self.status, message
        if message.session_frames and (before is None or _place(message) != _place(before)):
            self._keep("status", message)


def _place(status: ReconstructionStatus) -> tuple[int, int]:
    return status.session, status.session_frames


def recorded_frame(
    points: PointCloud2,
    depth: Image,
    camera: CameraInfo,
    odometry: Odometry,
    status: ReconstructionStatus,
) -> RecordedFrame:
    """Read the messages of one frame.

    Args:
        points: organised cloud in the optical frame.
        depth: 32FC1, metres.
        camera: of the depth.
        odometry: pose in the map.
        status: of this frame.

    """
    packed = cloud_field(points, "rgb").view(np.uint32)
    color = np.stack([packed >> 16 & 0xFF, packed >> 8 & 0xFF, packed & 0xFF], axis=-1)
    return RecordedFrame(
        index=status.session_frames - 1,
        stamp=nanoseconds(points.header.stamp),
        camera_to_map=pose_matrix(odometry.pose.pose),
        intrinsics=pinhole(camera),
        points=np.stack([cloud_field(points, axis) for axis in ("x", "y", "z")], axis=-1),
        depth=depth_of(depth),
        confidence=cloud_field(points, "confidence"),
        color=color.astype(np.uint8),
        cache=CacheBytes(status.cache_bytes, status.scratch_bytes, status.uncompressed_bytes),
        pose_source="held" if status.pose_source == "held" else "predicted",
    )


def cloud_field(points: PointCloud2, name: str) -> NDArray[np.float32]:
    """Return a float32 field of an organised cloud, [height, width]."""
    values = point_cloud2.read_points(points, [name])[name]
    return values.astype(np.float32).reshape(points.height, points.width)


def pinhole(message: CameraInfo) -> Intrinsics:
    """Return the camera of an undistorted image."""
    fx, _, cx, _, fy, cy, *_ = map(float, message.k)
    return Intrinsics(fx, fy, cx, cy, message.width, message.height)
