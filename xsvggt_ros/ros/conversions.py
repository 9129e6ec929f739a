# SPDX-License-Identifier: Apache-2.0
"""Between ROS messages and the types of the engine: time, images, calibrations, poses, clouds."""

from __future__ import annotations

from array import array
from functools import lru_cache, partial
from typing import Any

import cv2
import numpy as np
from builtin_interfaces.msg import Time
from cv_bridge import CvBridge
from geometry_msgs.msg import Point, Pose, Transform, Vector3
from numpy.typing import NDArray
from sensor_msgs.msg import (
    CameraInfo,
    CompressedImage,
    Image,
    PointCloud2,
    PointField,
    RegionOfInterest,
)
from sensor_msgs_py import point_cloud2
from std_msgs.msg import Header
from tf_transformations import quaternion_from_matrix, quaternion_matrix

from xsvggt_ros.geometry.cameras import Calibration, Intrinsics, unproject
from xsvggt_ros.geometry.rigid import Matrix
from xsvggt_ros.ros.parameters import Frames, Points
from xsvggt_ros.stream.frame import SECOND, BitsInUse, Frame, FrameResult, ImageArray
from xsvggt_ros.stream.messages import (
    compressed_image_of,
    frame_name,
    image_of,
    nanoseconds,
)

DEFAULT_FRAMES = Frames()
_CLOCK = "look at the clock of its publisher"


LATEST = 2**31 * SECOND - 1
"""Nanoseconds; ROS counts seconds in 32 bits with a sign."""


def header(stamp: int, frame_id: str) -> Header:
    """Return a header for a stamp in nanoseconds; what ROS cannot hold is brought to its bounds."""
    seconds, rest = divmod(min(max(stamp, 0), LATEST), SECOND)
    return Header(stamp=Time(sec=seconds, nanosec=rest), frame_id=frame_id)


def frame_from(
    message: Image | CompressedImage,
    *,
    frames: Frames = DEFAULT_FRAMES,
    calibration: Calibration | None = None,
    bits: BitsInUse | None = None,
    in_rig: bool = False,
) -> Frame:
    """Wrap an image, raw or compressed, without decoding it.

    Args:
        message: as it came; its pixels are decoded later.
        frames: names; ``frames.camera`` replaces the frame_id.
        calibration: of the camera, None where it is not known.
        bits: follows 16-bit images of this camera.
        in_rig: whether it is one of several cameras.

    """
    top = message.header
    read = image_of if isinstance(message, Image) else compressed_image_of
    return Frame(
        stamp=nanoseconds(top.stamp),
        fault=_fault(top, frames, in_rig),
        frame_id=frames.camera or frame_name(top.frame_id),
        decode=partial(read, message, bits),
        calibration=calibration,
        bits=bits,
    )


def camera_info_of(top: Header, known: Calibration) -> CameraInfo:
    """Return a calibration as a message; inverse of ``calibration_of``."""
    left, upper, width, height = known.region
    return CameraInfo(
        header=top,
        height=known.height,
        width=known.width,
        distortion_model=known.distortion_model,
        d=list(known.d),
        k=list(known.k),
        r=list(known.r),
        p=list(known.p),
        binning_x=known.binning[0],
        binning_y=known.binning[1],
        roi=RegionOfInterest(x_offset=left, y_offset=upper, width=width, height=height),
    )


def pose(matrix: Matrix) -> Pose:
    """Return a rigid [4, 4] as a pose."""
    x, y, z = matrix[:3, 3].tolist()
    message = Pose(position=Point(x=x, y=y, z=z))
    _set_rotation(message.orientation, matrix)
    return message


def pose_matrix(message: Pose) -> Matrix:
    """Return a pose as a rigid [4, 4]; inverse of :func:`pose`."""
    return _matrix(message.position, message.orientation)


def transform(matrix: Matrix) -> Transform:
    """Return a rigid [4, 4] as a transform."""
    x, y, z = matrix[:3, 3].tolist()
    message = Transform(translation=Vector3(x=x, y=y, z=z))
    _set_rotation(message.rotation, matrix)
    return message


def transform_matrix(message: Transform) -> Matrix:
    """Return a transform as a rigid [4, 4]; inverse of :func:`transform`."""
    return _matrix(message.translation, message.rotation)


def packed(values: NDArray[Any]) -> array[int]:
    """Return the bytes of a contiguous array as ``data`` of a message takes them.

    Anything else (bytes, an ndarray, a list) is copied byte by byte by some distributions.
    """
    data = array("B")
    data.frombytes(values.data.cast("B"))
    return data


def _fault(top: Header, frames: Frames, in_rig: bool) -> str:
    """Return why a frame of this header is to be refused, empty where it is not."""
    stamp = nanoseconds(top.stamp)
    if not 0 <= stamp <= LATEST:
        return f"its stamp of {stamp / 1e9:.3f} s is no time of ROS; {_CLOCK}"
    frame_id = frames.camera or frame_name(top.frame_id)
    if not (fault := frames.fault_of_camera(frame_id)):
        return ""
    # frames.camera would be one name for all cameras of a rig.
    remedy = "" if in_rig else ", or set frames.camera"
    return (
        f"The image's frame_id '{frame_id}' {fault}: have its publisher name the optical "
        f"frame{remedy}."
    )


def _set_rotation(quaternion: Any, matrix: Matrix) -> None:
    rotation = np.ascontiguousarray(matrix[:3, :3], np.float64)
    quaternion.x, quaternion.y, quaternion.z, quaternion.w = _quaternion(rotation.tobytes())


@lru_cache(maxsize=8)
def _quaternion(rotation: bytes) -> tuple[float, float, float, float]:
    """Return x, y, z, w of a rotation, float64 [3, 3].

    tf_transformations takes 0.2 ms, and a frame needs the same rotation for pose and transform.
    """
    matrix = np.eye(4)
    matrix[:3, :3] = np.frombuffer(rotation).reshape(3, 3)
    x, y, z, w = map(float, quaternion_from_matrix(matrix))
    return x, y, z, w


def _matrix(translation: Any, rotation: Any) -> Matrix:
    """Return the rigid [4, 4] of a point or vector and a quaternion."""
    matrix: Matrix = quaternion_matrix((rotation.x, rotation.y, rotation.z, rotation.w))
    matrix[:3, 3] = translation.x, translation.y, translation.z
    return matrix


MILLIMETRES = 1000.0
MAX_MILLIMETRES = 65535
_BRIDGE = CvBridge()
"""Names an encoding by the type of the array: 32FC1 and 16UC1 here."""


def depth_image(header: Header, depth: NDArray[np.float32], encoding: str) -> Image:
    """Return depth in metres: 32FC1 with NaN, or 16UC1 millimetres with 0, where unknown.

    Args:
        header: stamp and optical frame.
        depth: float32 [height, width] in metres, NaN where unknown.
        encoding: 32FC1 or 16UC1.

    """
    values = depth if encoding == "32FC1" else _millimetres(depth)
    return _BRIDGE.cv2_to_imgmsg(values, header=header)


def confidence_image(header: Header, confidence: NDArray[np.float32]) -> Image:
    """Return a confidence map [h, w] as 32FC1."""
    return _BRIDGE.cv2_to_imgmsg(confidence, header=header)


def color_image(header: Header, color: NDArray[np.uint8]) -> Image:
    """Return an RGB image, uint8 [height, width, 3], as rgb8."""
    # Named afterwards: cv_bridge asks its compiled part about any name, and that part crashes where
    # it was compiled for another major version of numpy.
    message = _BRIDGE.cv2_to_imgmsg(color, header=header)
    message.encoding = "rgb8"
    return message


def camera_info(header: Header, intrinsics: Intrinsics) -> CameraInfo:
    """Return the camera of an image that has no distortion and is not rotated."""
    k = intrinsics.matrix()
    return CameraInfo(
        header=header,
        height=intrinsics.height,
        width=intrinsics.width,
        distortion_model="plumb_bob",
        d=[0.0] * 5,
        k=k.ravel().tolist(),
        r=np.eye(3).ravel().tolist(),
        p=np.hstack([k, np.zeros((3, 1))]).ravel().tolist(),
    )


def _millimetres(depth: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Round to millimetres; unknown and negative depth is 0, too great depth saturates."""
    scaled = np.nan_to_num(depth * MILLIMETRES, nan=0.0, posinf=MAX_MILLIMETRES, neginf=0.0)
    rounded: NDArray[np.uint16] = np.rint(scaled.clip(0.0, MAX_MILLIMETRES)).astype(np.uint16)
    return rounded


_NAMES = ("x", "y", "z", "rgb", "confidence", "stddev")
_MAP_FIELDS = 5
_FLOAT = 4
_RGB_TO_BGR0 = [0, 2, 1, 1, 2, 0]
POINT_FIELDS = [
    PointField(name=name, offset=_FLOAT * i, datatype=PointField.FLOAT32, count=1)
    for i, name in enumerate(_NAMES)
]
"""Of the points of one frame."""
_FRAME_POINT = point_cloud2.dtype_from_fields(POINT_FIELDS)
FIELDS = POINT_FIELDS[:_MAP_FIELDS]
"""Of the points of a map."""
POINT = point_cloud2.dtype_from_fields(FIELDS)
POINT_STEP = POINT.itemsize


class CloudPacker:
    """Packs clouds into one message that is used again for every frame.

    Fresh memory for each cloud, as ``create_cloud`` takes it, costs more than filling it.
    """

    def __init__(self) -> None:
        self._allocate(1, 1)

    def pack(self, header: Header, result: FrameResult, points: Points) -> PointCloud2:
        """Return every ``stride``-th pixel's point in the optical frame, NaN where not trusted.

        ``rgb`` holds 0x00RRGGBB in the bits of a float32, as RViz and PCL read it. ``stddev`` is
        the standard deviation along the ray in metres, NaN where no scale or no error is known.
        The message is valid until the next call.

        Args:
            header: stamp and optical frame.
            result: whose depth [h, w] and colour [h, w, 3] become points.
            points: stride and least confidence.

        """
        every = slice(None, None, points.stride)
        trusted = result.confidence >= points.min_confidence
        xyz = unproject(np.where(trusted, result.depth, np.float32(np.nan)), result.intrinsics)
        confidence = result.confidence[every, every]
        if confidence.shape != self._rows.shape[:2]:
            self._allocate(*confidence.shape)
        for axis in range(3):
            self._rows[..., axis] = xyz[every, every, axis]
        self._rows.view(np.uint32)[..., 3] = _packed_color(result.color)[every, every]
        self._rows[..., 4] = confidence
        self._rows[..., 5] = result.depth[every, every] * np.float32(_relative_error(result))
        self._message.header = header
        self._message.is_dense = not bool(np.isnan(self._rows[..., 2]).any())
        return self._message

    def _allocate(self, height: int, width: int) -> None:
        self._message = point_cloud2.create_cloud(
            Header(), POINT_FIELDS, np.zeros(height * width, _FRAME_POINT)
        )
        # Of an organised array, create_cloud takes the first axis for the width.
        self._message.height, self._message.width = height, width
        self._message.row_step = width * _FRAME_POINT.itemsize
        # What the message holds, not what it was given: some distributions' setters copy.
        rows = np.frombuffer(self._message.data, np.float32)
        self._rows = rows.reshape(height, width, len(_NAMES))


def _relative_error(result: FrameResult) -> float:
    """Return the standard deviation of depth as a share of it; NaN where nobody knows metres."""
    if result.motion is None or not result.metric:
        return float("nan")
    return result.motion.depth_error


def _packed_color(color: ImageArray) -> NDArray[np.uint32]:
    bgr0 = np.zeros((*color.shape[:2], 4), np.uint8)
    cv2.mixChannels([color], [bgr0], _RGB_TO_BGR0)
    return bgr0.view("<u4")[..., 0]
