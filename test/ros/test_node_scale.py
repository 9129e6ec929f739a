# SPDX-License-Identifier: Apache-2.0
"""Metres in the outputs of the node, on real DDS."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

REASON = "needs ROS 2 and this package's messages: run scripts/test, or source a built workspace"
pytest.importorskip("rclpy", reason=REASON)
pytest.importorskip("tf2_msgs", reason=REASON)
pytest.importorskip("xsvggt_ros.msg", reason=REASON)

from moving_node import MOVING, links_of
from nav_msgs.msg import Odometry
from node_process import TINY, NodeProcess, Peer, image_message, stamp_of
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image
from xsvggt_ros.msg import ReconstructionStatus

from xsvggt_ros.errors import FrameError
from xsvggt_ros.ros.conversions import depth_image, header
from xsvggt_ros.stream.messages import depth_of

SECOND = 1_000_000_000
ALL = {**TINY, "input.queue_policy": "all", "pose.refinement": "off"}


def _depth(peer: Peer, stamp: int) -> Any:
    message = peer.with_stamp("depth/image", stamp)
    return np.frombuffer(message.data, np.float32).reshape(message.height, message.width)


def _x(peer: Peer, stamp: int) -> float:
    """Return where the camera is in odom."""
    return float(peer.with_stamp("odometry", stamp).pose.pose.position.x)


def _x_in_map(peer: Peer, stamp: int) -> float:
    moved = links_of(peer, stamp)
    return float((moved["map", "odom"] @ moved["odom", "camera_optical"])[0, 3])


def test_a_fixed_scale_may_change_while_it_runs() -> None:
    parameters = {**ALL, "scale.source": "fixed", "scale.value": 2.0}
    with NodeProcess(parameters, program=("-c", MOVING)) as node, Peer(node.domain) as peer:
        publisher = peer.publisher()
        for step in range(3):
            publisher.publish(image_message((1 + step) * SECOND))
            assert _x(peer, (1 + step) * SECOND) == pytest.approx(0.4 * step, abs=1e-6)
        assert peer.with_stamp("status", 3 * SECOND).scale_source == "fixed"
        one = _depth(peer, 3 * SECOND)
        assert peer.set_parameters(scale__value=10.0).successful
        publisher.publish(image_message(3 * SECOND + 1000))  # the very same image
        # In the map the way so far is scaled as well; in odom it stays, and nothing jumps.
        assert _x_in_map(peer, 3 * SECOND + 1000) == pytest.approx(10.0 * 0.6, abs=1e-5)
        assert _x(peer, 3 * SECOND + 1000) == pytest.approx(0.8 + 10.0 * 0.2, abs=1e-5)
        assert _depth(peer, 3 * SECOND + 1000).shape == one.shape


def test_measured_depth_gives_metres_from_its_first_image_on() -> None:
    parameters = {**ALL, "scale.source": "depth", "watchdog.timeout": 1.0}
    with NodeProcess(parameters, program=("-c", MOVING)) as node, Peer(node.domain) as peer:
        publisher = peer.publisher()
        node.wait_for_line(r"scale.source is depth, but nothing has come on /depth .*publishers: 0")
        publisher.publish(image_message(SECOND))
        unit = _depth(peer, SECOND)
        assert peer.with_stamp("status", SECOND).scale_source == "none"
        measured = peer.publisher("/depth", Image)
        stamp = 2 * SECOND
        broken = depth_image(header(stamp, "camera_optical"), unit, "32FC1")
        broken.encoding = "rgb8"
        measured.publish(broken)
        good = depth_image(header(stamp + 1, "camera_optical"), 3.0 * unit, "16UC1")
        measured.publish(good)
        stamps = iter(range(stamp, 2 * stamp))
        told: list[ReconstructionStatus] = []

        def known() -> bool:
            # Depth and images come on their own ways. The first status with an image's stamp is
            # that of its result; one between two results tells of a scale that is for the next.
            at = next(stamps)
            publisher.publish(image_message(at))
            told.append(peer.with_stamp("status", at))
            return bool(told[-1].scale_source == "depth")

        peer.wait_until(known, "a scale")
        newest = peer.messages("odometry")[-1]
        first = told[-1]
        steps = first.session_frames - 1
        x = _x_in_map(peer, stamp_of(first))
        # Images differ in their noise, so predicted depth is only about the same.
        assert x == pytest.approx(0.2 * steps * 3.0, rel=0.2)
        assert stamp_of(newest) >= stamp_of(first)
        path = peer.with_stamp("path", stamp_of(first))
        assert stamp_of(path.poses[0]) >= stamp_of(first)


def test_an_odometry_gives_metres_after_a_straight_way() -> None:
    parameters = {**ALL, "scale.source": "odometry"}
    with NodeProcess(parameters, program=("-c", MOVING)) as node, Peer(node.domain) as peer:
        publisher = peer.publisher()
        odometry = peer.node.create_publisher(Odometry, "/odom", QoSProfile(depth=50))
        peer.wait_until(lambda: odometry.get_subscription_count() > 0, "the node listens")
        # The robot goes 5 m for each unit of the camera.
        way = 5.0 * float(np.hypot(0.1, 0.2))
        stamps = iter(range(1, 200))

        def known() -> bool:
            step = next(stamps)
            message = Odometry(header=header(step * SECOND, "odom"), child_frame_id="base_link")
            message.pose.pose.position.x = way * step
            message.pose.pose.orientation.w = 1.0
            odometry.publish(message)
            publisher.publish(image_message(step * SECOND))
            return bool(peer.with_stamp("status", step * SECOND).scale_source == "odometry")

        peer.wait_until(known, "a scale")
        first = next(m for m in peer.messages("status") if m.scale_source == "odometry")
        step = first.session_frames - 1
        assert _x_in_map(peer, stamp_of(first)) == pytest.approx(0.2 * step * 5.0, rel=1e-3)
        assert _x(peer, stamp_of(first)) == pytest.approx(0.2 * (step - 1) + 0.2 * 5.0, rel=1e-3)


def test_depth_is_read_in_every_layout() -> None:
    depth = np.array([[0.5, np.nan], [1.25, 3.0]], np.float32)
    for encoding in ("32FC1", "16UC1"):
        message = depth_image(header(0, "f"), depth, encoding)
        np.testing.assert_allclose(depth_of(message), depth)
        padded = Image(height=2, width=2, encoding=encoding, step=message.step + 3)
        rows = bytes(message.data)
        padded.data = rows[: message.step] + b"abc" + rows[message.step :] + b"abc"
        np.testing.assert_allclose(depth_of(padded), depth)
        swapped = Image(height=2, width=2, encoding=encoding, step=message.step, is_bigendian=1)
        kind = ">f4" if encoding == "32FC1" else ">u2"
        native = np.frombuffer(rows, kind.replace(">", "<"))
        swapped.data = native.astype(kind).tobytes()
        np.testing.assert_allclose(depth_of(swapped), depth)
    with pytest.raises(FrameError, match="'rgb8' is not supported; publish 32FC1 or 16UC1"):
        depth_of(Image(height=1, width=1, encoding="rgb8", step=3, data=b"abc"))
    with pytest.raises(FrameError, match="needs 4 bytes a row; step is 4, data holds 4 bytes"):
        depth_of(Image(height=2, width=2, encoding="16UC1", step=4, data=b"abcd"))
