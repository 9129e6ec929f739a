# SPDX-License-Identifier: Apache-2.0
"""A sequence as a rosbag2 in MCAP, as a robot with a perfect depth camera records it."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from xsvggt_ros.errors import OutputError
from xsvggt_ros.geometry.rigid import Matrix, invert, quaternion_from_matrix
from xsvggt_ros.synthetic.images import jpeg
from xsvggt_ros.synthetic.sequence import SyntheticFrame

SECOND = 1_000_000_000
CAMERA_FRAME = "camera_optical_frame"
WORLD_FRAME = "map"
TRUTH_FRAME = "ground_truth_optical_frame"
"""The camera's true pose in TF; under its own name, two nodes would give it a parent each."""
IMAGE_TOPIC = "/camera/image_raw"
COMPRESSED_TOPIC = "/camera/image_raw/compressed"
INFO_TOPIC = "/camera/camera_info"
DEPTH_TOPIC = "/camera/depth/image_raw"
DEPTH_INFO_TOPIC = "/camera/depth/camera_info"
ODOMETRY_TOPIC = "/ground_truth/odometry"


class BagWriter:
    """Writes images raw and as JPEG, camera_info, depth (32FC1, metres), odometry and /tf.

    Messages are received at their own stamps, so that ``ros2 bag play --clock`` runs on the time of
    the recording. The pose is that of the optical frame in ``map``, which is z-up.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._store = get_typestore(Stores.LATEST)
        self._connections: dict[str, Any] = {}
        self._previous: tuple[int, Matrix] | None = None

    def __enter__(self) -> BagWriter:
        """Make the bag.

        Raises:
            OutputError: that place is taken, or takes no files.

        """
        try:
            self._writer = Writer(self._directory, version=9, storage_plugin=StoragePlugin.MCAP)
            self._writer.open()
        except OSError as error:
            raise OutputError(
                f"the bag '{self._directory}' cannot be made ({error.strerror or error}); choose "
                "another place"
            ) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Finish the bag."""
        self._writer.close()

    def add(self, frame: SyntheticFrame) -> None:
        """Write all messages of one frame."""
        header = self._header(frame.stamp, CAMERA_FRAME)
        self._send(frame.stamp, INFO_TOPIC, self._camera_info(header, frame))
        self._send(frame.stamp, DEPTH_INFO_TOPIC, self._camera_info(header, frame))
        self._send(frame.stamp, IMAGE_TOPIC, self._image(header, frame.color, "rgb8"))
        compressed = self._type("sensor_msgs/msg/CompressedImage")(
            header=header, format="jpeg", data=np.frombuffer(jpeg(frame.color), np.uint8)
        )
        self._send(frame.stamp, COMPRESSED_TOPIC, compressed)
        self._send(frame.stamp, DEPTH_TOPIC, self._image(header, frame.depth, "32FC1"))
        self._send(frame.stamp, ODOMETRY_TOPIC, self._odometry(frame))
        self._send(frame.stamp, "/tf", self._transform(frame))
        self._previous = frame.stamp, frame.camera_to_world

    def _type(self, name: str) -> Any:
        return self._store.types[name]

    def _send(self, stamp: int, topic: str, message: Any) -> None:
        if topic not in self._connections:
            self._connections[topic] = self._writer.add_connection(
                topic, message.__msgtype__, typestore=self._store
            )
        data = self._store.serialize_cdr(message, message.__msgtype__)
        self._writer.write(self._connections[topic], stamp, data)

    def _header(self, stamp: int, frame_id: str) -> Any:
        time = self._type("builtin_interfaces/msg/Time")(*divmod(stamp, SECOND))
        return self._type("std_msgs/msg/Header")(stamp=time, frame_id=frame_id)

    def _image(self, header: Any, image: np.ndarray[Any, Any], encoding: str) -> Any:
        height, width = image.shape[:2]
        return self._type("sensor_msgs/msg/Image")(
            header=header,
            height=height,
            width=width,
            encoding=encoding,
            is_bigendian=0,
            step=image.nbytes // height,
            data=np.frombuffer(np.ascontiguousarray(image).tobytes(), np.uint8),
        )

    def _camera_info(self, header: Any, frame: SyntheticFrame) -> Any:
        k = frame.intrinsics
        matrix = k.matrix()
        region = self._type("sensor_msgs/msg/RegionOfInterest")(0, 0, 0, 0, False)
        return self._type("sensor_msgs/msg/CameraInfo")(
            header=header,
            height=k.height,
            width=k.width,
            distortion_model="plumb_bob",
            d=np.zeros(5),
            k=matrix.ravel(),
            r=np.eye(3).ravel(),
            p=np.hstack([matrix, np.zeros((3, 1))]).ravel(),
            binning_x=0,
            binning_y=0,
            roi=region,
        )

    def _odometry(self, frame: SyntheticFrame) -> Any:
        linear, angular = self._velocity(frame)
        pose = self._type("geometry_msgs/msg/Pose")(
            position=self._type("geometry_msgs/msg/Point")(
                *map(float, frame.camera_to_world[:3, 3])
            ),
            orientation=self._quaternion(frame.camera_to_world),
        )
        vector = self._type("geometry_msgs/msg/Vector3")
        twist = self._type("geometry_msgs/msg/Twist")(
            linear=vector(*map(float, linear)), angular=vector(*map(float, angular))
        )
        covariance = np.zeros(36)
        return self._type("nav_msgs/msg/Odometry")(
            header=self._header(frame.stamp, WORLD_FRAME),
            child_frame_id=CAMERA_FRAME,
            pose=self._type("geometry_msgs/msg/PoseWithCovariance")(pose, covariance),
            twist=self._type("geometry_msgs/msg/TwistWithCovariance")(twist, covariance),
        )

    def _velocity(self, frame: SyntheticFrame) -> tuple[Matrix, Matrix]:
        """Return m/s and rad/s since the last frame, in the camera's own axes; zero at first."""
        if self._previous is None:
            return np.zeros(3), np.zeros(3)
        stamp, pose = self._previous
        seconds = (frame.stamp - stamp) / SECOND
        back = invert(frame.camera_to_world) @ pose
        x, y, z, w = quaternion_from_matrix(back[:3, :3].T)
        axis = np.array([x, y, z])
        sine = float(np.linalg.norm(axis))
        angle = 2 * np.arctan2(sine, w)
        turn = axis * (angle / sine if sine > 1e-12 else 2.0)
        return -back[:3, 3] / seconds, turn / seconds

    def _quaternion(self, pose: Matrix) -> Any:
        numbers = map(float, quaternion_from_matrix(pose[:3, :3]))
        return self._type("geometry_msgs/msg/Quaternion")(*numbers)

    def _transform(self, frame: SyntheticFrame) -> Any:
        transform = self._type("geometry_msgs/msg/Transform")(
            translation=self._type("geometry_msgs/msg/Vector3")(
                *map(float, frame.camera_to_world[:3, 3])
            ),
            rotation=self._quaternion(frame.camera_to_world),
        )
        stamped = self._type("geometry_msgs/msg/TransformStamped")(
            header=self._header(frame.stamp, WORLD_FRAME),
            child_frame_id=TRUTH_FRAME,
            transform=transform,
        )
        return self._type("tf2_msgs/msg/TFMessage")(transforms=[stamped])
