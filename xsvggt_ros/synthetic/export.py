# SPDX-License-Identifier: Apache-2.0
"""Writes a sequence where other programs can read it: a directory, TUM RGB-D, or a bag."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from xsvggt_ros.errors import ConfigurationError, OutputError
from xsvggt_ros.geometry.files import (
    UNFINISHED,
    Trajectory,
    replacing,
    replacing_directory,
    require_writable,
    seconds_text,
    write_tum,
)
from xsvggt_ros.geometry.rigid import Matrix, invert, quaternion_from_matrix
from xsvggt_ros.synthetic.sequence import Sequence, SyntheticFrame

JPEG_QUALITY = 95


def png(image: NDArray[np.uint8] | NDArray[np.uint16]) -> bytes:
    """Return RGB [H, W, 3] or 16-bit [H, W] as PNG, without loss."""
    return _encoded(".png", image, [])


def jpeg(image: NDArray[np.uint8]) -> bytes:
    """Return RGB [H, W, 3] as JPEG."""
    return _encoded(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])


def depth_steps(depth: NDArray[np.float32], steps: float) -> NDArray[np.uint16]:
    """Return depth [h, w] in 1/``steps`` metres, 0 where it is out of range."""
    scaled = np.rint(depth.astype(np.float64) * steps)
    scaled[~((scaled > 0) & (scaled <= 65535))] = 0
    return scaled.astype(np.uint16)


def _encoded(
    suffix: str, image: NDArray[np.uint8] | NDArray[np.uint16], options: list[int]
) -> bytes:
    ordered = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image
    good, data = cv2.imencode(suffix, ordered, options)
    assert good, f"OpenCV cannot write {suffix}"
    return bytes(data)


class FileWriter(ABC):
    """Writes the files of each frame, and lists of them once all are there."""

    def __init__(self, directory: Path) -> None:
        """Write into ``directory``."""
        self._directory = directory
        self._stamps: list[int] = []
        self._poses: list[Matrix] = []

    def __enter__(self) -> FileWriter:
        """Return itself."""
        return self

    def add(self, frame: SyntheticFrame) -> None:
        """Write image and depth of one frame."""
        self._write(frame)
        self._stamps.append(frame.stamp)
        self._poses.append(frame.camera_to_world)

    def __exit__(self, *exception: object) -> None:
        """Write the lists of the frames so far."""
        if self._stamps:
            self._finish(Trajectory.from_poses(self._stamps, self._poses))

    @abstractmethod
    def _write(self, frame: SyntheticFrame) -> None:
        """Write the files of one frame."""

    @abstractmethod
    def _finish(self, trajectory: Trajectory) -> None:
        """Write what is known of all frames."""

    def _lines(self, name: str, lines: list[str]) -> None:
        """Write a text file."""
        with replacing(self._directory / name) as stream:
            stream.write("\n".join([*lines, ""]).encode("ascii"))


class DirectoryWriter(FileWriter):
    """Writes ``NNNNNN.png``, and beside them what is true about them.

    ``depth/NNNNNN.npy`` is float32 in metres along the optical axis, ``trajectory.tum`` the pose of
    the camera's optical frame in a z-up world, ``cameras.csv`` the pinhole camera of each image.
    """

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._rows = ["file,timestamp,fx,fy,cx,cy,width,height"]

    def _write(self, frame: SyntheticFrame) -> None:
        name = f"{frame.index:06d}"
        with replacing(self._directory / f"{name}.png") as stream:
            stream.write(png(frame.color))
        with replacing(self._directory / "depth" / f"{name}.npy") as stream:
            np.save(stream, frame.depth)
        k = frame.intrinsics
        numbers = ",".join(f"{value:.6f}" for value in (k.fx, k.fy, k.cx, k.cy))
        self._rows.append(f"{name}.png,{seconds_text(frame.stamp)},{numbers},{k.width},{k.height}")

    def _finish(self, trajectory: Trajectory) -> None:
        write_tum(self._directory / "trajectory.tum", trajectory)
        self._lines("cameras.csv", self._rows)


STEPS_PER_METRE = 5000
"""Of the benchmark's 16-bit depth; what lies beyond 13.1 m is 0, unknown."""


class TumWriter(FileWriter):
    """Writes ``rgb/``, ``depth/``, their lists, ``groundtruth.txt`` and ``calibration.txt``."""

    def _write(self, frame: SyntheticFrame) -> None:
        name = f"{seconds_text(frame.stamp)}.png"
        with replacing(self._directory / "rgb" / name) as stream:
            stream.write(png(frame.color))
        with replacing(self._directory / "depth" / name) as stream:
            stream.write(png(depth_steps(frame.depth, STEPS_PER_METRE)))
        self._intrinsics = frame.intrinsics

    def _finish(self, trajectory: Trajectory) -> None:
        for part in ("rgb", "depth"):
            lines = [f"{seconds_text(s)} {part}/{seconds_text(s)}.png" for s in self._stamps]
            self._lines(f"{part}.txt", ["# timestamp filename", *lines])
        write_tum(self._directory / "groundtruth.txt", trajectory)
        k = self._intrinsics
        self._lines("calibration.txt", ["# fx fy cx cy", f"{k.fx:.9f} {k.fy:.9f} {k.cx} {k.cy}"])


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

    def __exit__(self, *exception: object) -> None:
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


def write_first_frames(
    sequence: Sequence, frames: int, place: Path, each: Callable[[int], None] = lambda done: None
) -> None:
    """Write the first ``frames`` frames as a bag that is there whole or not at all.

    Args:
        sequence: what is rendered.
        frames: how many of them, from the first one on.
        place: directory of the bag; another bag there is replaced.
        each: receives the number of frames rendered after every one.

    Raises:
        OutputError: nothing can be written there, or it holds something else than a bag.

    """
    if place.exists() and not (place / "metadata.yaml").is_file():
        raise OutputError(f"'{place}' is not a bag; remove it or choose another place")
    with replacing_directory(place) as unfinished, BagWriter(unfinished) as writer:
        for index in range(frames):
            writer.add(sequence.frame(index))
            each(index + 1)


class FrameWriter(Protocol):
    """Takes the frames of a sequence, one after the other."""

    def add(self, frame: SyntheticFrame) -> None:
        """Write one frame."""
        ...


FORMATS: dict[str, Callable[[Path], AbstractContextManager[FrameWriter]]] = {
    "directory": DirectoryWriter,
    "bag": BagWriter,
    "tum": TumWriter,
}
"""directory: images, depth, cameras and trajectory. bag: rosbag2 (mcap). tum: as TUM RGB-D."""


def write_sequence(
    sequence: Sequence,
    destination: Path,
    kind: str,
    each: Callable[[int], None] = lambda done: None,
) -> Path:
    """Write a sequence, whole or not at all.

    Args:
        sequence: that is rendered.
        destination: file or directory.
        kind: name of the format.
        each: is called with the number of frames done.

    Raises:
        ConfigurationError: an unknown format.
        OutputError: the place is taken, or nothing can be written there.

    """
    if kind not in FORMATS:
        raise ConfigurationError(f"format '{kind}' is unknown; choose one of {', '.join(FORMATS)}")
    if destination.exists() and (
        not destination.is_dir() or any(entry.name != UNFINISHED for entry in destination.iterdir())
    ):
        raise OutputError(
            f"'{destination}' exists and is not empty; choose another place or remove it"
        )
    require_writable(destination)
    with replacing_directory(destination) as place, FORMATS[kind](place) as writer:
        for done, frame in enumerate(sequence, start=1):
            writer.add(frame)
            each(done)
    return destination
