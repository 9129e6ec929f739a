# SPDX-License-Identifier: Apache-2.0
"""Messages against the arrays they were made from."""

from __future__ import annotations

import array
import re
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from xsvggt_ros.stream.messages import nanoseconds

pytest.importorskip("rclpy", reason="needs ROS 2: run scripts/test, or source a ROS 2 distribution")

from results import result_with
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2

from xsvggt_ros.errors import FrameError
from xsvggt_ros.geometry.cameras import Intrinsics
from xsvggt_ros.geometry.rigid import matrix_from_quaternion
from xsvggt_ros.ros import conversions
from xsvggt_ros.ros.conversions import CloudPacker, camera_info, confidence_image, depth_image
from xsvggt_ros.ros.parameters import Frames, Points
from xsvggt_ros.stream.frame import FrameResult
from xsvggt_ros.stream.messages import calibration_of

TOP = conversions.header(1_500_000_000, "optical")
CAMERA = Intrinsics(fx=8.0, fy=7.0, cx=3.0, cy=2.0, width=6, height=4)


def _result(depth: NDArray[np.float32], confidence: NDArray[np.float32]) -> FrameResult:
    height, width = depth.shape
    return result_with(
        depth,
        confidence=confidence,
        intrinsics=replace(CAMERA, width=width, height=height),
        color=np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8),
    )


def _read(cloud: PointCloud2) -> NDArray[np.void]:
    """Read a cloud by what its fields say, as any other program would."""
    types = {7: "<f4"}
    dtype = np.dtype(
        {
            "names": [field.name for field in cloud.fields],
            "formats": [types[field.datatype] for field in cloud.fields],
            "offsets": [field.offset for field in cloud.fields],
            "itemsize": cloud.point_step,
        }
    )
    assert cloud.row_step == cloud.width * cloud.point_step
    assert len(cloud.data) == cloud.height * cloud.row_step
    assert not cloud.is_bigendian
    return np.frombuffer(cloud.data, dtype).reshape(cloud.height, cloud.width)


@given(st.integers(0, 2**31 * 10**9 - 1))
def test_stamps_survive(stamp: int) -> None:
    assert nanoseconds(conversions.header(stamp, "f").stamp) == stamp


@given(
    st.lists(st.floats(-1, 1), min_size=4, max_size=4).filter(lambda q: np.hypot.reduce(q) > 0.1)
)
def test_poses_and_transforms_say_what_the_matrix_says(quaternion: list[float]) -> None:
    matrix = np.eye(4)
    matrix[:3, :3] = matrix_from_quaternion(np.array(quaternion))
    matrix[:3, 3] = [1.0, -2.0, 3.0]
    pose, transform = conversions.pose(matrix), conversions.transform(matrix)
    q = pose.orientation
    assert (pose.position.x, pose.position.y, pose.position.z) == (1.0, -2.0, 3.0)
    np.testing.assert_allclose(
        matrix_from_quaternion(np.array([q.x, q.y, q.z, q.w])), matrix[:3, :3], atol=1e-9
    )
    assert (transform.rotation, transform.translation.y) == (q, -2.0)


def test_no_image_asks_the_compiled_part_of_cv_bridge(monkeypatch: pytest.MonkeyPatch) -> None:
    """It crashes where it was compiled for another major version of numpy."""

    def asked(*_: object) -> None:
        raise AssertionError("the compiled part was asked")

    for name in ("encoding_to_cvtype2", "encoding_to_dtype_with_channels"):
        monkeypatch.setattr(conversions._BRIDGE, name, asked, raising=False)
    color = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    message = conversions.color_image(TOP, color)
    assert (message.header, message.encoding) == (TOP, "rgb8")
    assert (message.height, message.width, message.step) == (2, 3, 9)
    assert message.data.tobytes() == color.tobytes()
    depth = np.ones((2, 3), np.float32)
    encodings = [depth_image(TOP, depth, name).encoding for name in ("32FC1", "16UC1")]
    assert [*encodings, confidence_image(TOP, depth).encoding] == ["32FC1", "16UC1", "32FC1"]


def test_raw_images_are_decoded_only_when_asked() -> None:
    pixels = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    message = Image(header=TOP, height=2, width=3, encoding="bgr8", step=9)
    message.data = conversions.packed(pixels)
    frame = conversions.frame_from(message)
    assert (frame.stamp, frame.frame_id) == (1_500_000_000, "optical")
    np.testing.assert_array_equal(frame.decode(), pixels[..., ::-1])


def test_wrong_images_are_wrapped_without_an_error_and_refused_when_decoded() -> None:
    frame = conversions.frame_from(Image(header=TOP, height=2, width=3, encoding="rgb99"))
    with pytest.raises(FrameError, match="rgb99"):
        frame.decode()


def test_compressed_images_are_decoded_only_when_asked() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    message = CompressedImage(header=TOP, format="png")
    message.data = conversions.packed(cv2.imencode(".png", pixels)[1])
    frame = conversions.frame_from(message)
    np.testing.assert_array_equal(frame.decode(), pixels[..., ::-1])


MESSAGES = (Image, CompressedImage)


@pytest.mark.parametrize("message_type", MESSAGES)
@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("", "'' is empty"),
        ("/", "'' is empty"),
        ("left camera", "'left camera' holds a blank"),
        ("start", "'start' is the name of frames.map or frames.odom"),
        ("world", "'world' is the name of frames.map or frames.odom"),
    ],
)
def test_a_frame_that_tf_cannot_have_is_refused_unless_it_is_renamed(
    message_type: Any, name: str, fault: str
) -> None:
    message = message_type(header=conversions.header(1, name))
    frames = Frames(map="world", odom="start")
    refused = conversions.frame_from(message, frames=frames).fault
    assert re.search(rf"frame_id {fault}.* or set frames\.camera", refused)
    assert "frames.camera" not in conversions.frame_from(message, frames=frames, in_rig=True).fault
    renamed = conversions.frame_from(message, frames=replace(frames, camera="front"))
    assert (renamed.frame_id, renamed.fault) == ("front", "")


@pytest.mark.parametrize(("sec", "nanosec"), [(-1, 0), (-(2**31), 5), (2**31 - 1, 2**32 - 1)])
@pytest.mark.parametrize("message_type", MESSAGES)
def test_a_stamp_that_is_no_time_is_refused_and_can_be_told_of(
    message_type: Any, sec: int, nanosec: int
) -> None:
    message = message_type(header=conversions.header(1, "camera"))
    message.header.stamp.sec, message.header.stamp.nanosec = sec, nanosec
    frame = conversions.frame_from(message)
    assert "is no time of ROS; look at the clock" in frame.fault
    assert conversions.header(frame.stamp, "camera").stamp.sec in (0, 2**31 - 1)
    message.header.stamp.sec, message.header.stamp.nanosec = 2**31 - 1, 999_999_999
    assert not conversions.frame_from(message).fault


@pytest.mark.parametrize("name", ["/camera", "//camera", "camera"])
def test_the_slash_of_ros_1_is_left_out_of_every_frame(name: str) -> None:
    top = conversions.header(1, name)
    for message_type in MESSAGES:
        assert conversions.frame_from(message_type(header=top)).frame_id == "camera"
    assert calibration_of(CameraInfo(header=top)).frame_id == "camera"


def test_a_calibration_says_what_the_camera_info_says() -> None:
    message = CameraInfo(
        width=6, height=4, distortion_model="plumb_bob", d=[0.1, 0.0, 0.0, 0.0, 0.0]
    )
    message.k[0] = 5.0
    found = calibration_of(message)
    assert (found.width, found.height, found.distortion_model) == (6, 4, "plumb_bob")
    assert found.d == (0.1, 0.0, 0.0, 0.0, 0.0)
    assert found.k == (5.0, *(0.0,) * 8)
    assert (len(found.r), len(found.p)) == (9, 12)


@given(hnp.arrays(np.float32, (3, 5), elements=st.floats(-1e3, 1e3, width=32)))
def test_packed_bytes_are_those_of_the_array(values: NDArray[np.float32]) -> None:
    data = conversions.packed(values)
    assert isinstance(data, array.array)
    np.testing.assert_array_equal(np.frombuffer(data, np.float32).reshape(3, 5), values)


def test_depth_in_metres_is_the_array_itself() -> None:
    depth = np.array([[1.5, np.nan], [0.25, 70.0]], np.float32)
    message = depth_image(TOP, depth, "32FC1")
    assert (message.encoding, message.height, message.width, message.step) == ("32FC1", 2, 2, 8)
    np.testing.assert_array_equal(np.frombuffer(message.data, np.float32).reshape(2, 2), depth)


def test_depth_in_millimetres_rounds_saturates_and_marks_the_unknown() -> None:
    depth = np.array([[1.0004, 1.0006, np.nan], [65.535, 70.0, np.inf], [-1, 0, 1e-4]], np.float32)
    message = depth_image(TOP, depth, "16UC1")
    assert (message.encoding, message.step) == ("16UC1", 6)
    found = np.frombuffer(message.data, np.uint16).reshape(3, 3)
    assert found.tolist() == [[1000, 1001, 0], [65535, 65535, 65535], [0, 0, 0]]


def test_images_of_views_are_made_contiguous() -> None:
    confidence = np.arange(24, dtype=np.float32).reshape(4, 6)[:, ::2]
    message = confidence_image(TOP, confidence)
    assert (message.width, message.step) == (3, 12)
    np.testing.assert_array_equal(np.frombuffer(message.data, np.float32).reshape(4, 3), confidence)


def test_the_camera_info_is_complete() -> None:
    message = camera_info(TOP, CAMERA)
    assert (message.width, message.height, message.distortion_model) == (6, 4, "plumb_bob")
    assert list(message.k) == [8.0, 0.0, 3.0, 0.0, 7.0, 2.0, 0.0, 0.0, 1.0]
    assert list(message.p) == [8.0, 0.0, 3.0, 0.0, 0.0, 7.0, 2.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    assert list(message.r) == [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    assert list(message.d) == [0.0] * 5


DEPTHS = hnp.arrays(
    np.float32, (4, 6), elements=st.floats(0.125, 64, width=32) | st.just(float("nan"))
)
CONFIDENCES = hnp.arrays(np.float32, (4, 6), elements=st.floats(1, 8, width=32))


@given(DEPTHS, CONFIDENCES, st.integers(1, 7), st.floats(0, 9))
def test_a_cloud_is_depth_unprojected_where_it_is_trusted(
    depth: NDArray[np.float32], confidence: NDArray[np.float32], stride: int, threshold: float
) -> None:
    result = _result(depth, confidence)
    cloud = CloudPacker().pack(TOP, result, Points(stride=stride, min_confidence=threshold))
    points = _read(cloud)
    v, u = np.mgrid[0:4:stride, 0:6:stride]
    z = np.where(confidence >= threshold, depth, np.nan)[::stride, ::stride]
    np.testing.assert_array_equal(points["z"], z)
    np.testing.assert_allclose(points["x"], (u - 3.0) / 8.0 * z, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(points["y"], (v - 2.0) / 7.0 * z, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(points["confidence"], confidence[::stride, ::stride])
    packed = points["rgb"].copy().view(np.uint32)
    rgb = np.stack([packed >> 16 & 255, packed >> 8 & 255, packed & 255], axis=-1)
    np.testing.assert_array_equal(rgb, result.color[::stride, ::stride])
    assert not (packed >> 24).any()
    assert cloud.is_dense == (not np.isnan(z).any())


def test_the_packer_follows_a_change_of_size() -> None:
    packer = CloudPacker()
    for shape in ((4, 6), (2, 3), (4, 6)):
        depth = np.full(shape, 2.0, np.float32)
        cloud = packer.pack(TOP, _result(depth, depth), Points())
        assert (cloud.height, cloud.width) == shape
        assert (_read(cloud)["z"] == 2.0).all()
        assert cloud.is_dense
