# SPDX-License-Identifier: Apache-2.0
"""tf2, cv_bridge and others answer as the real ones did, be they real or stand-ins.

``golden/underlay.json`` holds the answers of geometry2, common_interfaces and tf_transformations,
built from their sources, to these very questions. To record it again where the real packages are:
``python test/ros/test_underlay.py``.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

REASON = "needs ROS 2: run scripts/test, or source a workspace"
pytest.importorskip("rclpy", reason=REASON)

import rclpy
import tf2_ros
import tf_transformations as tft
from builtin_interfaces.msg import Time as TimeMessage
from cv_bridge import CvBridge, CvBridgeError
from geometry_msgs.msg import TransformStamped
from rclpy.duration import Duration
from rclpy.executors import SingleThreadedExecutor
from rclpy.time import Time
from sensor_msgs.msg import Image, PointField
from sensor_msgs_py import point_cloud2
from std_msgs.msg import Header

from xsvggt_ros.ros.processes import free_domain
from xsvggt_ros.stream.messages import image_of

ROOT = Path(__file__).parents[2]
ANSWERS = Path(__file__).parents[1] / "golden" / "underlay.json"
TREES = 24
FRAMES = "abcdefg"
BEGIN = 100 * 10**9

Numbers = list[Any]


def _transform(parent: str, child: str, stamp: int, rng: np.random.Generator) -> TransformStamped:
    message = TransformStamped(child_frame_id=child)
    message.header.frame_id = parent
    message.header.stamp = TimeMessage(sec=stamp // 10**9, nanosec=stamp % 10**9)
    moved, turned = message.transform.translation, message.transform.rotation
    moved.x, moved.y, moved.z = rng.normal(size=3).tolist()
    quaternion = rng.normal(size=4)
    length = rng.choice([1.0, 1.0, 1.0, 1.004, 1.2]) / np.linalg.norm(quaternion)
    turned.x, turned.y, turned.z, turned.w = (quaternion * length).tolist()
    return message


def _tree(rng: np.random.Generator) -> tf2_ros.Buffer:
    """Return a buffer of seven frames: two of them static as a rule, some without a parent."""
    buffer = tf2_ros.Buffer(Duration(seconds=int(rng.integers(3, 12))))
    for _ in range(int(rng.integers(5, 60))):
        at = int(rng.integers(1, len(FRAMES)))
        parent = FRAMES[int(rng.integers(0, at)) if rng.random() < 0.2 else (at - 1) // 2]
        message = _transform(parent, FRAMES[at], BEGIN + int(rng.integers(0, 200)) * 10**8, rng)
        put = buffer.set_transform_static if at in (2, 5) else buffer.set_transform
        put(message, "test")
    return buffer


def _numbers(found: TransformStamped) -> Numbers:
    moved, turned = found.transform.translation, found.transform.rotation
    return [
        found.header.stamp.sec, found.header.stamp.nanosec, moved.x, moved.y, moved.z,
        turned.x, turned.y, turned.z, turned.w,
    ]  # fmt: skip


def _answer(buffer: tf2_ros.Buffer, *asked: Any) -> Numbers:
    try:
        if len(asked) == 3:
            return _numbers(buffer.lookup_transform(*asked))
        return _numbers(buffer.lookup_transform_full(*asked))
    except tf2_ros.TransformException as error:
        return [type(error).__name__]


def _trees() -> Iterator[Numbers]:
    rng = np.random.default_rng(7)
    for _ in range(TREES):
        buffer = _tree(rng)
        if rng.random() < 0.1:
            buffer.clear()
        for _ in range(12):
            target, source = rng.choice([*FRAMES, "unknown"], 2).tolist()
            stamp = 0 if rng.random() < 0.2 else BEGIN + int(rng.integers(0, 2200)) * 10**7
            other = BEGIN + int(rng.integers(0, 200)) * 10**8
            time, later = Time(nanoseconds=stamp), Time(nanoseconds=other)
            yield _answer(buffer, target, source, time)
            yield [bool(buffer.can_transform(target, source, time))]
            yield _answer(buffer, target, time, source, later, "a")


def _rotations() -> Iterator[Numbers]:
    rng = np.random.default_rng(7)
    for _ in range(20):
        quaternion, other = rng.normal(size=(2, 4))
        unit, angles = quaternion / np.linalg.norm(quaternion), rng.uniform(-3, 3, 3)
        matrix = tft.quaternion_matrix(quaternion)
        for found in (
            matrix,
            tft.quaternion_from_matrix(matrix),
            tft.quaternion_from_euler(*angles),
            tft.euler_from_matrix(matrix),
            tft.euler_from_quaternion(unit),
            tft.euler_matrix(*angles),
            tft.quaternion_multiply(unit, other),
            tft.quaternion_inverse(quaternion),
            tft.quaternion_conjugate(quaternion),
            tft.quaternion_about_axis(angles[0], other[:3]),
            tft.quaternion_slerp(unit, other, 0.3),
        ):
            yield np.asarray(found, float).ravel().tolist()


def _clouds() -> Iterator[Numbers]:
    fields = [
        PointField(name=name, offset=4 * i, datatype=PointField.FLOAT32, count=1)
        for i, name in enumerate("xyzi")
    ]
    mixed = [
        PointField(name="x", offset=0, datatype=PointField.FLOAT32, count=1),
        PointField(name="k", offset=4, datatype=PointField.UINT16, count=2),
        PointField(name="", offset=8, datatype=PointField.FLOAT64, count=1),
    ]
    rows = np.arange(20, dtype=np.float32).reshape(5, 4)
    organised = np.zeros((3, 4), point_cloud2.dtype_from_fields(fields))
    organised["y"] = np.arange(12).reshape(3, 4)
    clouds = [
        point_cloud2.create_cloud(Header(), fields, rows),
        point_cloud2.create_cloud(Header(), fields, rows.tolist()),
        point_cloud2.create_cloud(Header(), fields, organised),
        point_cloud2.create_cloud(Header(), mixed, [(1.0, 2, 3, 4.5), (5.0, 6, 7, 8.5)]),
        point_cloud2.create_cloud_xyz32(Header(), rows[:, :3]),
    ]
    for cloud in clouds:
        yield [
            cloud.height, cloud.width, cloud.point_step, cloud.row_step, cloud.is_dense,
            cloud.is_bigendian, bytes(cloud.data).hex(),
        ]  # fmt: skip
        points = point_cloud2.read_points(cloud, reshape_organized_cloud=True)
        yield [list(points.shape), [list(each) for each in points.ravel().tolist()]]
        yield [float(each.x) for each in point_cloud2.read_points_list(cloud, ["x"], uvs=[1])]


def _images() -> Iterator[Numbers]:
    rng = np.random.default_rng(7)
    for kind in (np.uint8, np.uint16, np.float32, np.int16):
        for shape in ((4, 6), (4, 6, 3), (4, 6, 4)):
            message = CvBridge().cv2_to_imgmsg(rng.integers(0, 255, shape).astype(kind))
            yield [
                message.encoding, message.height, message.width, message.step,
                message.is_bigendian, bytes(message.data).hex(),
            ]  # fmt: skip


QUESTIONS = {"trees": _trees, "rotations": _rotations, "clouds": _clouds, "images": _images}


def _close(found: Any, expected: Any) -> bool:
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(_close, found, expected))
    if isinstance(expected, float):
        return bool(abs(found - expected) < 1e-9)
    return bool(found == expected)


@pytest.mark.parametrize("subject", QUESTIONS)
def test_answers_are_those_of_the_real_packages(subject: str) -> None:
    expected = json.loads(ANSWERS.read_text(encoding="utf-8"))[subject]
    found = list(QUESTIONS[subject]())
    assert len(found) == len(expected)
    differing = [pair for pair in zip(found, expected, strict=True) if not _close(*pair)]
    assert not differing, differing[:3]


@pytest.fixture
def node() -> Iterator[rclpy.node.Node]:
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=free_domain())
    node = rclpy.create_node("underlay", context=context)
    yield node
    node.destroy_node()
    rclpy.shutdown(context=context)


def test_what_is_broadcast_is_heard_and_waited_for(node: rclpy.node.Node) -> None:
    buffer = tf2_ros.Buffer(node=node)
    listener = tf2_ros.TransformListener(buffer, node)
    moving, static = tf2_ros.TransformBroadcaster(node), tf2_ros.StaticTransformBroadcaster(node)
    rng = np.random.default_rng(1)
    first, second = _transform("map", "odom", BEGIN, rng), _transform("odom", "base", BEGIN, rng)
    mast, camera = (_transform("base", "mast", 0, rng), _transform("mast", "camera", 0, rng))
    executor = SingleThreadedExecutor(context=node.context)
    executor.add_node(node)
    static.sendTransform(mast)
    static.sendTransform([camera])
    future = buffer.wait_for_transform_async("map", "camera", Time(nanoseconds=BEGIN))
    timer = node.create_timer(0.05, lambda: moving.sendTransform([first, second]))
    executor.spin_until_future_complete(future, timeout_sec=30.0)
    node.destroy_timer(timer)
    assert future.done()
    found = buffer.lookup_transform("map", "camera", Time(nanoseconds=BEGIN))
    assert (found.header.frame_id, found.child_frame_id) == ("map", "camera")
    chain = [_matrix(each) for each in (first, second, mast, camera)]
    np.testing.assert_allclose(_matrix(found), chain[0] @ chain[1] @ chain[2] @ chain[3], atol=1e-9)
    listener.unregister()


def _matrix(message: TransformStamped) -> Any:
    moved, turned = message.transform.translation, message.transform.rotation
    matrix = tft.quaternion_matrix([turned.x, turned.y, turned.z, turned.w])
    matrix[:3, 3] = moved.x, moved.y, moved.z
    return matrix


def test_quaternions_are_tuples_and_matrices_arrays() -> None:
    one = tft.quaternion_from_euler(0.1, 0.2, 0.3)
    for found in (
        one,
        tft.quaternion_from_matrix(np.eye(4)),
        tft.quaternion_about_axis(0.1, (0, 0, 1)),
        tft.quaternion_multiply(one, one),
    ):
        assert isinstance(found, tuple)
    for array in (
        tft.quaternion_matrix(one),
        tft.quaternion_slerp(one, one, 0.5),
        tft.quaternion_conjugate(one),
        tft.quaternion_inverse(one),
    ):
        assert isinstance(array, np.ndarray)


def _knows_encodings() -> bool:
    """Say whether cv_bridge can: ours does, a distribution's asks its compiled part."""
    try:
        CvBridge().encoding_to_dtype_with_channels("rgb8")
    except ImportError:
        return False
    return True


needs_encodings = pytest.mark.skipif(
    not _knows_encodings(), reason="this cv_bridge came without its compiled part"
)


@needs_encodings
def test_images_go_there_and_back() -> None:
    bridge = CvBridge()
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    message = bridge.cv2_to_imgmsg(pixels, "rgb8", Header(frame_id="camera"))
    assert (message.encoding, message.step, message.header.frame_id) == ("rgb8", 12, "camera")
    np.testing.assert_array_equal(bridge.imgmsg_to_cv2(message), pixels)
    np.testing.assert_array_equal(bridge.imgmsg_to_cv2(message, "bgr8"), pixels[..., ::-1])
    with pytest.raises(CvBridgeError):
        bridge.cv2_to_imgmsg(pixels, "mono8")
    with pytest.raises(CvBridgeError):
        bridge.imgmsg_to_cv2(bridge.cv2_to_imgmsg(pixels.astype(np.float32)), "rgb8")
    padded = Image(height=2, width=3, encoding="mono16", step=8)
    padded.data.frombytes(np.arange(8, dtype=np.uint16).tobytes())
    np.testing.assert_array_equal(bridge.imgmsg_to_cv2(padded), [[0, 1, 2], [4, 5, 6]])
    np.testing.assert_array_equal(bridge.imgmsg_to_cv2(padded, "mono8"), 0)


def test_compressed_images_go_there_and_back() -> None:
    bridge = CvBridge()
    pixels = np.random.default_rng(1).integers(0, 255, (16, 16, 3)).astype(np.uint8)
    message = bridge.cv2_to_compressed_imgmsg(pixels, "png")
    assert message.format == "png"
    np.testing.assert_array_equal(bridge.compressed_imgmsg_to_cv2(message), pixels)


KNOWN_TO_CV_BRIDGE = [
    *(f"{name}{bits}" for name in ("rgb", "bgr", "rgba", "bgra", "mono") for bits in (8, 16)),
    *(f"bayer_{name}{bits}" for name in ("rggb", "bggr", "gbrg", "grbg") for bits in (8, 16)),
    "yuv422", "yuv422_yuy2",
]  # fmt: skip


@needs_encodings
@pytest.mark.parametrize("encoding", KNOWN_TO_CV_BRIDGE)
def test_images_are_decoded_as_cv_bridge_decodes_them(encoding: str) -> None:
    height, width = 12, 16
    kind, channels = CvBridge().encoding_to_dtype_with_channels(encoding)
    step = width * channels * np.dtype(kind).itemsize
    message = Image(height=height, width=width, encoding=encoding, step=step)
    octets = np.random.default_rng(7).integers(0, 256, height * step, np.uint8)
    message.data.frombytes(octets.tobytes())
    theirs = CvBridge().imgmsg_to_cv2(message, "rgb8").astype(int)
    # The order of demosaicing and rounding to 8 bits differs.
    tolerance = 1 if encoding.startswith("bayer") and encoding.endswith("16") else 0
    assert np.abs(image_of(message).astype(int) - theirs).max() <= tolerance


def _record() -> None:
    logging.basicConfig(level=logging.INFO)
    logging.info("recording the answers of %s", Path(tf2_ros.__file__).parent)
    answers = {subject: list(ask()) for subject, ask in QUESTIONS.items()}
    if str(ROOT / "scripts") in tf2_ros.__file__:
        sys.exit("these are the stand-ins: source a ROS 2 distribution")
    ANSWERS.write_text(json.dumps(answers) + "\n", encoding="utf-8")


if __name__ == "__main__":
    _record()
