# SPDX-License-Identifier: Apache-2.0
"""Writes small bags and directories of images for tests."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from rosbags.rosbag1 import Writer as Ros1Writer
from rosbags.rosbag2 import StoragePlugin
from rosbags.rosbag2 import Writer as Ros2Writer
from rosbags.typesys import Stores, get_typestore

from xsvggt_ros.geometry.cameras import Calibration
from xsvggt_ros.stream.frame import ImageArray

SECOND = 1_000_000_000
BAG_KINDS = ("ros1", "sqlite3", "mcap")

BagKind = Literal["ros1", "sqlite3", "mcap"]


@dataclass(frozen=True)
class Shot:
    """One recorded image: RGB pixels, or the bytes of a file; ``received`` = its stamp."""

    stamp: int
    content: ImageArray | bytes
    topic: str = "/camera/image_raw"
    frame_id: str = "lens"
    received: int | None = None
    fields: dict[str, Any] = field(default_factory=dict)
    """Fields of the message to overwrite, such as ``{"step": 3}``."""


@dataclass(frozen=True)
class Info:
    """One recorded ``camera_info``."""

    stamp: int
    calibration: Calibration
    topic: str = "/camera/camera_info"
    frame_id: str = "lens"


def images(count: int, *, height: int = 24, width: int = 32, seed: int = 0) -> list[ImageArray]:
    """Draw smooth images, which survive lossy compression; each its own."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (count, 3, 4, 3), dtype=np.uint8)
    return [cv2.resize(each, (width, height), interpolation=cv2.INTER_LINEAR) for each in small]


def encode(image: ImageArray, suffix: str = ".png") -> bytes:
    """Return what a file with this suffix holds."""
    _, data = cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    return data.tobytes()


def write_directory(
    directory: Path, shots: Sequence[ImageArray | bytes], suffix: str = ".png"
) -> Path:
    """Write images as numbered files."""
    directory.mkdir(parents=True)
    for index, each in enumerate(shots):
        data = each if isinstance(each, bytes) else encode(each, suffix)
        (directory / f"{index}{suffix}").write_bytes(data)
    return directory


def write_bag(path: Path, records: Iterable[Shot | Info], kind: BagKind = "mcap") -> Path:
    """Write a bag, and return its path (a directory, or a ``.bag`` file for ROS 1).

    Images as arrays become ``Image`` (rgb8), as bytes ``CompressedImage``.
    """
    ros1 = kind == "ros1"
    store = get_typestore(Stores.ROS1_NOETIC if ros1 else Stores.LATEST)
    if ros1:
        path = path.with_suffix(".bag")
    path.parent.mkdir(parents=True, exist_ok=True)
    writer: Any = (
        Ros1Writer(path)
        if ros1
        else Ros2Writer(path, version=9, storage_plugin=StoragePlugin[kind.upper()])
    )
    serialize = store.serialize_ros1 if ros1 else store.serialize_cdr
    connections: dict[str, Any] = {}
    with writer:
        for record in records:
            message = _message(store, record, ros1=ros1)
            if record.topic not in connections:
                connections[record.topic] = writer.add_connection(
                    record.topic, message.__msgtype__, typestore=store
                )
            received = getattr(record, "received", None)
            writer.write(
                connections[record.topic],
                record.stamp if received is None else received,
                serialize(message, message.__msgtype__),
            )
    return path


def write_jumping_bag(path: Path) -> Path:
    """Write 2 images and then 3 that are from long before, of seconds 1, 2 and 3."""
    stamps = [8 * SECOND, 9 * SECOND, 1 * SECOND, 2 * SECOND, 3 * SECOND]
    shots = enumerate(zip(stamps, images(5), strict=True))
    return write_bag(path, [Shot(stamp, each, received=n) for n, (stamp, each) in shots])


def _message(store: Any, record: Shot | Info, *, ros1: bool) -> Any:
    types = store.types
    header = types["std_msgs/msg/Header"](
        **({"seq": 0} if ros1 else {}),
        stamp=types["builtin_interfaces/msg/Time"](*divmod(record.stamp, SECOND)),
        frame_id=getattr(record, "frame_id", "lens"),
    )
    if isinstance(record, Info):
        return _camera_info(types, header, record.calibration, ros1=ros1)
    if isinstance(record.content, bytes):
        data: NDArray[np.uint8] = np.frombuffer(record.content, np.uint8)
        filled = {"format": "jpeg", "data": data, **record.fields}
        return types["sensor_msgs/msg/CompressedImage"](header=header, **filled)
    height, width = record.content.shape[:2]
    filled = {
        "height": height,
        "width": width,
        "encoding": "rgb8",
        "is_bigendian": 0,
        "step": 3 * width,
        "data": record.content.ravel(),
        **record.fields,
    }
    return types["sensor_msgs/msg/Image"](header=header, **filled)


def _camera_info(types: Any, header: Any, calibration: Calibration, *, ros1: bool) -> Any:
    matrices = {
        name.upper() if ros1 else name: np.array(getattr(calibration, name), np.float64)
        for name in "dkrp"
    }
    region = types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
    return types["sensor_msgs/msg/CameraInfo"](
        header=header,
        height=calibration.height,
        width=calibration.width,
        distortion_model=calibration.distortion_model,
        **matrices,
        binning_x=0,
        binning_y=0,
        roi=region,
    )
