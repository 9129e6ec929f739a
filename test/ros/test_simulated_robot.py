# SPDX-License-Identifier: Apache-2.0
"""A robot with a base, wheel odometry and a camera on it: its map is metric, z up and smooth."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

REASON = "needs ROS 2 and this package's messages: run scripts/test, or source a built workspace"
pytest.importorskip("rclpy", reason=REASON)
pytest.importorskip("tf2_msgs", reason=REASON)
pytest.importorskip("xsvggt_ros.msg", reason=REASON)

import simulated_robot as robot
from moving_node import RobotTransforms, matrix_of
from nav_msgs.msg import Odometry
from node_process import OUTPUTS, TINY, NodeProcess, Peer, image_message
from numpy.typing import NDArray
from rclpy.qos import QoSProfile
from sensor_msgs.msg import PointCloud2

from xsvggt_ros.geometry.rigid import Matrix, invert, rotation_angle
from xsvggt_ros.ros.conversions import header
from xsvggt_ros.ros.conversions import pose as pose_message

SECOND = 1_000_000_000
STEP = SECOND // 10
PARAMETERS = {
    **TINY,
    "input.queue_policy": "all",
    "pose.refinement": "off",  # images do not show the robot's way
    "frames.base": "base_link",
    "tf.timeout": 5.0,
    "scale.source": "odometry",
    "map.rate": 10.0,
}


def _points(message: PointCloud2) -> NDArray[np.float32]:
    rows = np.frombuffer(message.data, np.float32).reshape(message.width, -1)
    return rows[:, :3]


def _drive(peer: Peer, tf: RobotTransforms, *, external: bool) -> list[int]:
    """Send what the robot sends on one round; return the stamps of its images."""
    wheels = peer.node.create_publisher(Odometry, "/odom", QoSProfile(depth=200))
    images = peer.publisher()
    tf.wait()
    peer.wait_until(lambda: wheels.get_subscription_count() > 0, "a listener of /odom")
    tf.static("base_link", "camera_optical", robot.MOUNT)
    stamps = [SECOND + i * STEP for i in range(robot.FRAMES)]
    for stamp, pose in zip(stamps, robot.wheel_odometry(), strict=True):
        message = Odometry(header=header(stamp, "odom"), child_frame_id="base_link")
        message.pose.pose = pose_message(pose)
        wheels.publish(message)
        if external:
            tf.send("odom", "base_link", pose, stamp)
        images.publish(image_message(stamp))
        peer.with_stamp("status", stamp)
    return stamps


def _estimates(peer: Peer, stamps: list[int]) -> list[Matrix]:
    return [matrix_of(peer.with_stamp("odometry", stamp).pose.pose) for stamp in stamps]


@pytest.mark.parametrize("external", [False, True], ids=["own odometry", "wheel odometry in TF"])
def test_its_map_is_metric_and_z_up_and_its_way_is_smooth(external: bool) -> None:
    parameters = {**PARAMETERS, "tf.odometry": "external" if external else "own"}
    outputs = {"/xsvggt/map": PointCloud2, **OUTPUTS}
    with (
        NodeProcess(parameters, program=robot.PROGRAM) as node,
        Peer(node.domain, outputs) as peer,
    ):
        stamps = _drive(peer, RobotTransforms(peer), external=external)
        status = peer.with_stamp("status", stamps[-1])
        assert status.scale_source == "odometry"
        assert status.scale == pytest.approx(robot.UNIT, rel=0.02)
        assert 0.0 < status.scale_spread < 0.1
        assert 0.0 <= status.scale_age < 10.0
        assert (status.frames_processed, status.frames_refused) == (robot.FRAMES, 0)

        # The first way is in the network's unit, until wheels have measured it: no step is longer
        # than the robot's, then either.
        known = next(i for i, stamp in enumerate(stamps) if peer.with_stamp("status", stamp).scale)
        assert known < 20
        start = invert(robot.base(0))
        estimates = _estimates(peer, stamps)
        true = [start @ robot.base(i) for i in range(robot.FRAMES)]
        if not external:
            steps = [np.linalg.norm((invert(a) @ b)[:3, 3]) for a, b in pairwise(estimates)]
            longest = max(np.linalg.norm((invert(a) @ b)[:3, 3]) for a, b in pairwise(true))
            assert max(steps) < longest + 0.02
        for i in range(known + 1, robot.FRAMES):
            error = invert(invert(true[i - 1]) @ true[i]) @ invert(estimates[i - 1]) @ estimates[i]
            assert np.linalg.norm(error[:3, 3]) < 0.02
            assert rotation_angle(error) < np.radians(0.5)
        broadcast = {
            (link.header.frame_id, link.child_frame_id)
            for message in peer.messages("/tf")
            for link in message.transforms
        }
        assert ("map", "odom") in broadcast

        peer.wait_until(
            lambda: any(_stamp(each) == stamps[-1] for each in peer.messages("/xsvggt/map")),
            "the map of the last image",
        )
        cloud = peer.messages("/xsvggt/map")[-1]
        assert cloud.header.frame_id == "map"
        _assert_is_the_room(_points(cloud), start)


def _stamp(message: Any) -> int:
    return int(message.header.stamp.sec) * SECOND + int(message.header.stamp.nanosec)


def _assert_is_the_room(points: NDArray[np.float32], map_from_room: Matrix) -> None:
    """Hold the map against the corners of the room, within 3 % of each edge."""
    corners = np.stack([robot.ROOM_LOW, robot.ROOM_HIGH]) + map_from_room[:3, 3]
    edges = corners[1] - corners[0]
    low, high = np.percentile(points, (1, 99), axis=0)
    np.testing.assert_array_less(np.abs(low - corners[0]), 0.03 * edges + 0.05)
    np.testing.assert_array_less(np.abs(high - corners[1]), 0.03 * edges + 0.05)
    np.testing.assert_allclose(high - low, edges, rtol=0.03)
    # The floor is flat and level: z is up. The walls stand on it.
    inside = np.all(
        (points[:, :2] > corners[0, :2] + 0.4) & (points[:, :2] < corners[1, :2] - 0.4), axis=1
    )
    floor = points[inside & (points[:, 2] < 0.3)]
    assert len(floor) > 1000
    assert abs(float(np.median(floor[:, 2]))) < 0.05
    assert float(np.percentile(np.abs(floor[:, 2]), 95)) < 0.1


def test_wheels_that_move_the_same_base_are_noticed() -> None:
    parameters = {**PARAMETERS, "scale.source": "none"}
    with NodeProcess(parameters, program=robot.PROGRAM) as node, Peer(node.domain) as peer:
        images, tf = peer.publisher(), RobotTransforms(peer)
        tf.wait()
        tf.static("base_link", "camera_optical", robot.MOUNT)
        for i, pose in enumerate(robot.wheel_odometry()[:5]):
            stamp = SECOND + i * STEP
            tf.send("odom", "base_link", pose, stamp)
            images.publish(image_message(stamp))
            peer.with_stamp("status", stamp)
        told = "another node broadcasts the transform from 'odom' to 'base_link', too"
        status = peer.wait_for_status(lambda s: told in s.message, "the warning")
        assert "set tf.odometry to external" in status.message
        peer.wait_for_status(lambda s: s.state == "degraded", "the state")
        node.wait_for_line(told)


def test_map_to_odom_never_grows_old_in_a_pause() -> None:
    with NodeProcess({**TINY, "tf.map_rate": 20.0}) as node, Peer(node.domain) as peer:
        images = peer.publisher()
        stamp = time.time_ns()
        images.publish(image_message(stamp))
        peer.with_stamp("odometry", stamp)

        def repeated() -> list[int]:
            return [
                int(link.header.stamp.sec) * SECOND + int(link.header.stamp.nanosec)
                for message in peer.messages("/tf")
                for link in message.transforms
                if (link.header.frame_id, link.child_frame_id) == ("map", "odom")
            ]

        peer.wait_until(lambda: len(repeated()) > 5, "map to odom is repeated")
        stamps = repeated()
        assert stamps[0] == stamp
        assert stamps == sorted(stamps)
        # Each was ahead of the clock when it was sent; this one has just come.
        assert stamps[-1] > stamp + SECOND // 10
        assert not any("two parents" in each.message for each in peer.messages("status"))
