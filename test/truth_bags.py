# SPDX-License-Identifier: Apache-2.0
"""Writes small bags with images, depth and poses for tests."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import datasets
import numpy as np
from bags import SECOND, BagKind
from rosbags.rosbag1 import Writer as Ros1Writer
from rosbags.rosbag2 import StoragePlugin
from rosbags.rosbag2 import Writer as Ros2Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from scipy.spatial.transform import Rotation

CAMERA = "camera_optical_frame"
STAMPS = [(index + 10) * SECOND // 10 for index in range(datasets.COUNT)]


class Messages:
    """Makes messages of ROS 1 or ROS 2."""

    def __init__(self, kind: BagKind) -> None:
        self.ros1 = kind == "ros1"
        self.store = get_typestore(Stores.ROS1_NOETIC if self.ros1 else Stores.LATEST)
        if self.ros1:
            definition = "geometry_msgs/TransformStamped[] transforms"
            self.store.register(get_types_from_msg(definition, "tf2_msgs/msg/TFMessage"))

    def make(self, kind: str, **fields: Any) -> Any:
        package, name = kind.split("/")
        return self.store.types[f"{package}/msg/{name}"](**fields)

    def header(self, stamp: int, frame: str) -> Any:
        time = self.store.types["builtin_interfaces/msg/Time"](*divmod(stamp, SECOND))
        extra = {"seq": 0} if self.ros1 else {}
        return self.make("std_msgs/Header", **extra, stamp=time, frame_id=frame)

    def image(self, stamp: int, pixels: np.ndarray, encoding: str, frame: str = CAMERA) -> Any:
        height, width = pixels.shape[:2]
        return self.make(
            "sensor_msgs/Image", header=self.header(stamp, frame), height=height, width=width,
            encoding=encoding, is_bigendian=0, step=pixels.nbytes // height,
            data=np.frombuffer(np.ascontiguousarray(pixels).tobytes(), np.uint8),
        )  # fmt: skip

    def compressed(self, stamp: int, data: bytes, format_: str) -> Any:
        return self.make(
            "sensor_msgs/CompressedImage", header=self.header(stamp, CAMERA), format=format_,
            data=np.frombuffer(data, np.uint8),
        )  # fmt: skip

    def info(self, stamp: int) -> Any:
        k = np.array([[100.0, 0, 4], [0, 101, 3], [0, 0, 1]])
        matrices = {"d": np.zeros(5), "k": k.ravel(), "r": np.eye(3).ravel(),
                    "p": np.c_[k, np.zeros(3)].ravel()}  # fmt: skip
        if self.ros1:
            matrices = {name.upper(): value for name, value in matrices.items()}
        return self.make(
            "sensor_msgs/CameraInfo", header=self.header(stamp, CAMERA), height=datasets.HEIGHT,
            width=datasets.WIDTH, distortion_model="plumb_bob", **matrices, binning_x=0,
            binning_y=0, roi=self.make("sensor_msgs/RegionOfInterest", x_offset=0, y_offset=0,
                                       height=0, width=0, do_rectify=False),
        )  # fmt: skip

    def pose(self, pose: np.ndarray) -> Any:
        x, y, z, w = Rotation.from_matrix(pose[:3, :3]).as_quat()
        point = self.make("geometry_msgs/Point", **dict(zip("xyz", pose[:3, 3], strict=True)))
        turn = self.make("geometry_msgs/Quaternion", x=x, y=y, z=z, w=w)
        return self.make("geometry_msgs/Pose", position=point, orientation=turn)

    def odometry(self, stamp: int, pose: np.ndarray, child: str = CAMERA) -> Any:
        zero = self.make("geometry_msgs/Vector3", x=0.0, y=0.0, z=0.0)
        twist = self.make("geometry_msgs/Twist", linear=zero, angular=zero)
        return self.make(
            "nav_msgs/Odometry", header=self.header(stamp, "map"), child_frame_id=child,
            pose=self.make("geometry_msgs/PoseWithCovariance", pose=self.pose(pose),
                           covariance=np.zeros(36)),
            twist=self.make("geometry_msgs/TwistWithCovariance", twist=twist,
                            covariance=np.zeros(36)),
        )  # fmt: skip

    def pose_stamped(self, stamp: int, pose: np.ndarray) -> Any:
        return self.make(
            "geometry_msgs/PoseStamped", header=self.header(stamp, "map"), pose=self.pose(pose)
        )

    def tf(self, stamp: int, edges: Iterable[tuple[str, str, np.ndarray]]) -> Any:
        transforms = []
        for parent, child, pose in edges:
            plain = self.pose(pose)
            shift = self.make("geometry_msgs/Vector3", x=plain.position.x, y=plain.position.y,
                              z=plain.position.z)  # fmt: skip
            transform = self.make(
                "geometry_msgs/Transform", translation=shift, rotation=plain.orientation
            )
            transforms.append(
                self.make("geometry_msgs/TransformStamped", header=self.header(stamp, parent),
                          child_frame_id=child, transform=transform)
            )  # fmt: skip
        return self.make("tf2_msgs/TFMessage", transforms=transforms)


def write(
    path: Path, messages: Messages, kind: BagKind, records: Iterable[tuple[int, str, Any]]
) -> Path:
    """Write (stamp, topic, message) to a bag, and return its path."""
    if kind == "ros1":
        path = path.with_suffix(".bag")
        writer: Any = Ros1Writer(path)
    else:
        writer = Ros2Writer(path, version=9, storage_plugin=StoragePlugin[kind.upper()])
    store = messages.store
    serialize = store.serialize_ros1 if kind == "ros1" else store.serialize_cdr
    connections: dict[str, Any] = {}
    with writer:
        for stamp, topic, message in records:
            if topic not in connections:
                connections[topic] = writer.add_connection(
                    topic, message.__msgtype__, typestore=store
                )
            writer.write(connections[topic], stamp, serialize(message, message.__msgtype__))
    return path


def records(messages: Messages) -> list[tuple[int, str, Any]]:
    """Images, camera_info, depth 5 ms later in millimetres, and the true path."""
    made = []
    rows = zip(STAMPS, datasets.colors(), datasets.depths(), datasets.poses(), strict=True)
    for stamp, color, depth, pose in rows:
        later = stamp + 5_000_000
        millimetres = np.round(np.nan_to_num(depth) * 1000).astype(np.uint16)
        made += [
            (stamp, "/camera/camera_info", messages.info(stamp)),
            (stamp, "/camera/image_raw", messages.image(stamp, color, "rgb8")),
            (stamp, "/ground_truth/odometry", messages.odometry(stamp, pose)),
            (later, "/camera/depth/image_raw", messages.image(later, millimetres, "16UC1")),
        ]
    return made


def compressed_depth(depth: np.ndarray, encoding: str) -> bytes:
    """What compressed_depth_image_transport sends, written after its documentation."""
    a, b = 100.0, 10.0
    if encoding == "16UC1":
        raw = np.round(np.nan_to_num(depth) * 1000).astype(np.uint16)
    else:
        raw = np.nan_to_num(a / depth + b).astype(np.uint16)
    _, png = cv2.imencode(".png", raw)
    return np.array([0], "<i4").tobytes() + np.array([a, b], "<f4").tobytes() + png.tobytes()
