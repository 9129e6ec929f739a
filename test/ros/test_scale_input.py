# SPDX-License-Identifier: Apache-2.0
"""Faulty and late messages of a scale's source: none of them costs a result."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from xsvggt_ros.stream.frame import PoseSource

REASON = "needs ROS 2: run scripts/test, or source a workspace"
pytest.importorskip("rclpy", reason=REASON)

from nav_msgs.msg import Odometry
from rclpy.node import Node
from results import result_of
from sensor_msgs.msg import Image

from xsvggt_ros.geometry.rigid import RobotPose, exp_se3
from xsvggt_ros.ros import scale_input
from xsvggt_ros.ros.conversions import depth_image, header
from xsvggt_ros.ros.parameters import Scale, Settings
from xsvggt_ros.ros.scale_input import DepthScale, OdometryScale, ScaleInput, ScaleState

SECOND = 1_000_000_000
TOPICS = {"depth": "depth", "odometry": "odom"}


def _listening(node: Node, source: str) -> ScaleInput:
    settings = Settings(scale=Scale(source=source))
    scale = ScaleInput(node, lambda: settings)
    scale.begin()
    scale.listen()
    return scale


def _depth(stamp: int) -> Image:
    metres = (3.0 * result_of().depth).astype(np.float32)
    return depth_image(header(stamp, "camera_optical"), metres, "32FC1")


def _odometry(stamp: int, x: float, w: float = 1.0) -> Odometry:
    message = Odometry(header=header(stamp, "odom"))
    message.pose.pose.position.x = x
    message.pose.pose.orientation.w = w
    return message


def _send(scale: ScaleInput, stamp: int) -> None:
    if isinstance(scale._measured, DepthScale):
        scale._measured._receive(_depth(stamp), {})
    elif isinstance(scale._measured, OdometryScale):
        scale._measured._receive(_odometry(stamp, 0.0))


def test_depth_without_pixels_costs_no_result(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    scale = _listening(node, "depth")
    assert isinstance(scale._measured, DepthScale)
    scale._measured._receive(Image(header=header(SECOND, "camera_optical"), encoding="32FC1"), {})
    scaled, restarted = scale.scale(result_of(stamp=SECOND), RobotPose())
    assert (scaled.stamp, restarted, scale.value) == (SECOND, False, None)
    assert "depth of 0x0 has no pixels; publish whole images" in caplog.text
    scale.close()


def test_a_pose_without_rotation_is_refused_and_told_once(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    scale = _listening(node, "odometry")
    assert isinstance(scale._measured, OdometryScale)
    for stamp, w in ((SECOND, 0.0), (SECOND, float("nan")), (2 * SECOND, 0.0)):
        scale._measured._receive(_odometry(stamp, 0.0, w))
    assert scale.scale(result_of(stamp=SECOND), RobotPose())[0].stamp == SECOND
    assert caplog.text.count("broadcast a unit quaternion") == 1
    for index in (1, 2):
        stamp = (2 + index) * SECOND
        scale._measured._receive(_odometry(stamp, 0.5 * index))
        pose = np.eye(4)
        pose[2, 3] = 0.1 * index
        scale.scale(replace(result_of(index, stamp), camera_to_world=pose), RobotPose())
    assert scale.value == pytest.approx(5.0)
    scale.close()


def test_a_held_pose_is_no_measure(node: Node) -> None:
    scale = _listening(node, "odometry")
    assert isinstance(scale._measured, OdometryScale)
    ways: list[tuple[float, PoseSource]] = [(0.0, "predicted"), (0.9, "held"), (0.2, "predicted")]
    for index, (way, source) in enumerate(ways):
        stamp = (1 + index) * SECOND
        scale._measured._receive(_odometry(stamp, 0.5 * index))
        pose = np.eye(4)
        pose[2, 3] = way
        result = replace(result_of(index, stamp), camera_to_world=pose, pose_source=source)
        scale.scale(result, RobotPose())
    assert scale.value == pytest.approx(5.0)
    scale.close()


def test_only_an_odometry_with_a_known_lever_arm_tells_where_the_camera_is(node: Node) -> None:
    mount = exp_se3(np.array([0.2, 0.1, 0.4, 0.0, 0.3, 0.1]))
    mounted = RobotPose(carrier_from_camera=mount, odom_from_carrier=np.eye(4))
    depth = _listening(node, "depth")
    assert depth.measured_pose(result_of(stamp=SECOND), mounted) is None
    depth.close()
    scale = _listening(node, "odometry")
    assert scale.measured_pose(result_of(stamp=SECOND), mounted) is None  # nothing has come
    assert isinstance(scale._measured, OdometryScale)
    scale._measured._receive(_odometry(SECOND, 0.7))
    carrier = np.eye(4)
    carrier[0, 3] = 0.7  # by the topic, and not by TF
    pose = scale.measured_pose(result_of(stamp=SECOND), mounted)
    assert pose is not None
    np.testing.assert_allclose(pose, carrier @ mount)
    assert scale.measured_pose(result_of(stamp=SECOND), RobotPose()) is None
    message = _odometry(2 * SECOND, 0.9)
    message.child_frame_id = result_of().frame_id
    scale._measured._receive(message)
    pose = scale.measured_pose(result_of(1, stamp=2 * SECOND), RobotPose())
    assert pose is not None
    assert pose[0, 3] == pytest.approx(0.9)
    scale.close()


def test_depth_is_still_there_when_a_result_comes_seconds_later(node: Node) -> None:
    scale = _listening(node, "depth")
    assert isinstance(scale._measured, DepthScale)
    stamps = [SECOND + i * SECOND // 30 for i in range(90)]
    for stamp in stamps:
        scale._measured._receive(_depth(stamp), {})
    scale.scale(result_of(stamp=stamps[0]), RobotPose())
    assert scale.value == pytest.approx(3.0)
    scale.scale(result_of(1, stamp=stamps[60]), RobotPose())
    assert len(scale._measured._newest) == 30
    scale.close()


@pytest.mark.parametrize("source", ["depth", "odometry"])
def test_messages_of_which_none_fits_are_told(
    node: Node, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(scale_input, "monotonic", lambda: now)
    scale = _listening(node, source)
    for index in range(4):
        now += 1.0
        _send(scale, 900 * SECOND + index)  # by another clock
        assert scale.silence(3.5) is None
        scale.scale(result_of(index, stamp=SECOND + index), RobotPose())
    now += 1.0
    warning = scale.silence(3.5) or ""
    assert f"messages come on /{TOPICS[source]}, but for 3.5 s no image has found one" in warning
    _send(scale, 5 * SECOND)
    scale.scale(result_of(4, stamp=5 * SECOND), RobotPose())
    assert scale.silence(3.5) is None
    scale.close()


def test_the_scale_in_force_its_spread_and_its_age_are_known(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(scale_input, "monotonic", lambda: now)
    scale = _listening(node, "odometry")
    assert scale.state == ScaleState("none", 0.0, 0.0, -1.0)
    assert isinstance(scale._measured, OdometryScale)
    for index in range(30):
        now += 0.1
        stamp = SECOND + index * SECOND // 10
        scale._measured._receive(_odometry(stamp, 0.1 * index))
        pose = np.eye(4)
        pose[2, 3] = 0.05 * index * (1.01 if index % 2 else 0.99)
        scale.scale(replace(result_of(index, stamp), camera_to_world=pose), RobotPose())
    state = scale.state
    assert (state.source, state.age) == ("odometry", 0.0)
    assert state.value == pytest.approx(2.0, rel=0.02)
    assert 0.001 < state.spread < 0.1
    assert scale.idleness() is None
    for index in range(30, 42):
        now += 1.0
        stamp = SECOND + index * SECOND // 10
        scale._measured._receive(_odometry(stamp, 2.9))
        scale.scale(replace(result_of(index, stamp), camera_to_world=pose), RobotPose())
    assert scale.state.age == pytest.approx(12.0)
    said = scale.idleness() or ""
    assert "nothing has been measured for 11 s, so 1.99" in said
    assert "m per unit stays: move by 0.5 m or more" in said
    now += 11.0  # nothing comes any more: that is another warning
    assert scale.idleness() is None
    scale.close()


def test_depth_tells_its_spread_too(node: Node) -> None:
    scale = _listening(node, "depth")
    assert isinstance(scale._measured, DepthScale)
    for index in range(9):
        stamp = (1 + index) * SECOND
        scale._measured._receive(_depth(stamp), {})
        scale.scale(result_of(index, stamp), RobotPose())
    assert scale.state.value == pytest.approx(3.0)
    assert scale.state.spread == pytest.approx(0.0, abs=1e-6)
    scale.close()
