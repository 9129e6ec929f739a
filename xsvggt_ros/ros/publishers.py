# SPDX-License-Identifier: Apache-2.0
"""What one frame puts on the topics of its camera, the path so far, and the map."""

from __future__ import annotations

import logging
from array import array
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from threading import Lock
from time import monotonic, perf_counter
from typing import Any

import numpy as np
from geometry_msgs.msg import (
    PoseStamped,
    PoseWithCovariance,
    PoseWithCovarianceStamped,
    Twist,
    Vector3,
)
from nav_msgs.msg import Odometry, Path
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from sensor_msgs_py import point_cloud2
from std_msgs.msg import Header

from xsvggt_ros.errors import OutputError, first_line
from xsvggt_ros.geometry.rigid import Matrix
from xsvggt_ros.ros import topics
from xsvggt_ros.ros.conversions import (
    FIELDS,
    POINT,
    POINT_STEP,
    CloudPacker,
    camera_info,
    color_image,
    confidence_image,
    depth_image,
    header,
    pose,
)
from xsvggt_ros.ros.parameters import Map, Settings
from xsvggt_ros.ros.transforms import TransformBroadcaster, TransformOwners
from xsvggt_ros.stream.frame import FrameResult, FrameUpdate
from xsvggt_ros.stream.mapping import MapBuilder
from xsvggt_ros.stream.odometry import CarrierMotion, carrier_motion


def odometry_message(update: FrameUpdate, world: str, carrier: str, *, in_map: bool) -> Odometry:
    """Return what a frame says of the carrier's motion.

    Args:
        update: of the frame.
        world: frame that the pose is in.
        carrier: frame whose pose it is; the twist is about its axes.
        in_map: whether ``world`` is the map, because another node has the odometry.

    """
    carrier_pose, motion = _carried(update, in_map=in_map)
    message = Odometry(header=header(update.result.stamp, world), child_frame_id=carrier)
    message.pose = PoseWithCovariance(pose=pose(carrier_pose), covariance=motion.covariance.ravel())
    linear, angular = (
        Vector3(x=x, y=y, z=z) for x, y, z in np.split(motion.twist, 2)
    )  # fmt: skip
    message.twist.twist = Twist(linear=linear, angular=angular)
    message.twist.covariance = motion.twist_covariance.ravel()
    return message


def pose_message(update: FrameUpdate, world: str) -> PoseWithCovarianceStamped:
    """Return the carrier's pose in ``world``, the map's frame, joins and all."""
    carrier_pose, motion = _carried(update, in_map=True)
    return PoseWithCovarianceStamped(
        header=header(update.result.stamp, world),
        pose=PoseWithCovariance(pose=pose(carrier_pose), covariance=motion.covariance.ravel()),
    )


def _carried(update: FrameUpdate, *, in_map: bool) -> tuple[Matrix, CarrierMotion]:
    """Return the carrier's pose [4, 4] in the map or in odom, and how it moves."""
    placement, camera = update.placement, update.frame.transforms.carrier_from_camera
    carrier_pose = placement.map_from_carrier if in_map else placement.odom_from_carrier
    motion = carrier_motion(
        update.result.motion,
        carrier_pose,
        np.eye(4) if camera is None else camera,
        metric=update.result.metric,
        lost=bool(update.faults),
        in_map=in_map,
    )
    return carrier_pose, motion


logger = logging.getLogger(__name__)


class PathPublisher:
    """Collects poses on one thread and publishes the path on another.

    Packing a path takes time in proportion to its poses, so that is not done for every frame.
    """

    def __init__(self, node: Node, topic: str) -> None:
        self._node = node
        self._publisher = node.create_publisher(Path, topic, topics.RESULTS)
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
            CameraInfo, f"{prefix}/depth/camera_info", topics.RESULTS
        )
        self._confidence = _large(node, Image, f"{prefix}/confidence/image")
        self._color = _large(node, Image, f"{prefix}/color/image")
        self._color_info = node.create_publisher(
            CameraInfo, f"{prefix}/color/camera_info", topics.RESULTS
        )
        self._odometry = node.create_publisher(Odometry, f"{prefix}/odometry", topics.RESULTS)
        self._pose = node.create_publisher(
            PoseWithCovarianceStamped, f"{prefix}/pose", topics.RESULTS
        )
        self._path = PathPublisher(node, f"{prefix}/path")
        self._cloud = CloudPacker()

    def close(self) -> None:
        """Destroy the topics."""
        for publisher in (
            self._points, self._depth, self._camera_info, self._confidence, self._color,
            self._color_info, self._odometry, self._pose,
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
        self._transforms.publish(result.stamp, carrier, placement, settings)
        if _wanted(self._odometry):
            self._odometry.publish(odometry_message(update, world, carrier, in_map=external))
        if _wanted(self._pose):
            self._pose.publish(pose_message(update, settings.frames.map))
        # In the map, where its points are; odom parts from them with every step and join.
        stamped = PoseStamped(
            header=header(result.stamp, settings.frames.map), pose=pose(placement.map_from_carrier)
        )
        self._path.append(stamped, max_poses=settings.path.max_poses)


def _attempted(step: Callable[[], None]) -> Exception | None:
    """Run a step; return its error, so that the other steps run as well."""
    try:
        step()
    except Exception as error:  # noqa: BLE001 - told by whoever asked for it
        return error
    return None


def _large(node: Node, message_type: type[Any], topic: str) -> Publisher[Any]:
    return node.create_publisher(
        message_type,
        topic,
        topics.RESULTS,
        qos_overriding_options=QoSOverridingOptions.with_default_policies(),
    )


def _sure_depth(result: FrameResult, settings: Settings) -> NDArray[np.float32]:
    """Return depth, NaN where it is less sure than asked for."""
    least = settings.depth.min_confidence
    if least <= 1.0:  # where confidences begin
        return result.depth
    return np.where(result.confidence >= least, result.depth, np.float32(np.nan))


def _wanted(publisher: Publisher[Any]) -> bool:
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
        """Broadcast map to odom again where that is due."""
        self._transforms.repeat_map(settings)

    def forget_map(self) -> None:
        """Repeat map to odom no more: this node ceases to know it."""
        self._transforms.forget_map()

    def publish_path(self) -> None:
        """Publish each path that has grown."""
        for outputs in list(self._cameras.values()):
            outputs.publish_path()


class MapPublisher:
    """Keeps the map and publishes it; all on the worker's thread but :meth:`due`."""

    def __init__(self, node: Node) -> None:
        self._publisher = node.create_publisher(
            PointCloud2,
            "~/map",
            topics.LATCHED,
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )
        self.builder = MapBuilder()
        self.seconds = 0.0
        """What the newest frame cost."""
        self._message = point_cloud2.create_cloud(Header(), FIELDS, np.zeros(1, POINT))
        self._message.is_dense = True
        self._too_large: Map | None = None
        self._stamp = 0
        self._published_changes = 0
        self._published_at = -float("inf")

    @property
    def points(self) -> int:
        """Voxels held."""
        return 0 if self.builder.map is None else len(self.builder.map)

    @property
    def nbytes(self) -> int:
        """Bytes allocated for the map and for packing it."""
        return self.builder.nbytes + len(self._message.data)

    @property
    def facts(self) -> dict[str, str]:
        """What /diagnostics says of the map."""
        return {
            "points": str(self.points),
            "held back": str(self.builder.held_back),
            "cleared": str(self.builder.cleared),
        }

    def add(self, update: FrameUpdate, settings: Settings) -> None:
        """Take in what one frame brought, but nothing of an image that shows nothing."""
        started = perf_counter()
        result = update.result
        if update.unit_changed or (update.blind and result.index == 0):
            self.builder.clear()
        self._stamp = result.stamp
        if not settings.map.enabled:
            self.builder.drop()
        elif settings.map != self._too_large and not update.blind:
            self._add(update, settings)
        self.seconds = perf_counter() - started

    def _add(self, update: FrameUpdate, settings: Settings) -> None:
        try:
            self.builder.add(update.result, update.placement.map_from_camera, settings.map_settings)
        except MemoryError:
            # Whatever else comes of this image must come out all the same.
            self.builder.drop()
            self._too_large = settings.map
            logger.error(
                f"no memory for a map of {settings.map.max_points} points, so none is kept; lower "
                "map.max_points"
            )

    def due(self, rate: float) -> bool:
        """Return whether it is time to publish: changed, listened to, and not too soon."""
        return (
            self._published_changes != self.builder.changes
            and monotonic() - self._published_at >= 1 / rate
            and bool(self._publisher.get_subscription_count())
        )

    def publish(self, frame_id: str) -> None:
        """Publish the whole map; who comes later gets the same."""
        changes = self.builder.changes
        self._pack()
        self._message.header = header(self._stamp, frame_id)
        self._publisher.publish(self._message)
        self._published_changes = changes
        self._published_at = monotonic()

    def clear(self, frame_id: str) -> None:
        """Forget every point, and say so: what was latched would outlive it."""
        self.builder.clear()
        self.publish(frame_id)

    def drop(self, frame_id: str) -> None:
        """Forget every point and free the memory."""
        self.builder.drop()
        self.publish(frame_id)

    def _pack(self) -> None:
        count = self.points
        self._resize(count * POINT_STEP)
        self._message.width = count
        self._message.row_step = count * POINT_STEP
        if self.builder.map is not None:
            rows = np.frombuffer(self._message.data, np.float32)
            self.builder.map.pack(rows.reshape(count, len(FIELDS)))

    def _resize(self, size: int) -> None:
        """Let the message hold ``size`` bytes; fresh memory each time would cost more."""
        data = self._message.data
        assert isinstance(data, array)
        missing = size - len(data)
        if missing > 0:
            data.frombytes(bytes(missing))
        else:
            del data[size:]
