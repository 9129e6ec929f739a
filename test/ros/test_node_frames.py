# SPDX-License-Identifier: Apache-2.0
"""The node among the transforms of a robot, on real DDS, by numbers."""

from __future__ import annotations

import numpy as np
import pytest

REASON = "needs ROS 2 and this package's messages: run scripts/test, or source a built workspace"
pytest.importorskip("rclpy", reason=REASON)
pytest.importorskip("tf2_msgs", reason=REASON)
pytest.importorskip("xsvggt_ros.msg", reason=REASON)

from motions import motion
from moving_node import MOVING, RobotTransforms, links_of, matrix_of
from node_process import TINY, NodeProcess, Peer, image_message

from xsvggt_ros.geometry.rigid import Matrix, invert

SECOND = 1_000_000_000
ROBOT = {
    **TINY,
    "input.queue_policy": "all",
    "pose.refinement": "off",  # images do not show the way
    "frames.base": "base_link",
    "tf.timeout": 0.05,
}
MOUNT = motion((0.3, 0.0, 1.2), (-0.5, 0.5, -0.5, 0.5))
"""A camera that looks ahead, 0.3 before and 1.2 above the base."""


def _camera(step: int) -> Matrix:
    return motion((0.1 * step, 0.0, 0.2 * step), (0.0, 0.0, 0.0, 1.0))


def test_a_rig_whose_transforms_are_missing_is_refused_until_they_come() -> None:
    with NodeProcess(ROBOT, program=("-c", MOVING)) as node, Peer(node.domain) as peer:
        publisher = peer.publisher()
        tf = RobotTransforms(peer)
        tf.wait()
        publisher.publish(image_message(SECOND))
        refused = peer.with_stamp("status", SECOND)
        assert (refused.state, refused.frames_refused) == ("error", 1)
        told = "no transform tells of frame 'base_link' and 'camera_optical'; known are none"
        assert told in refused.message
        tf.send("odom_combined", "base_link", np.eye(4), SECOND)
        peer.wait_until(lambda: bool(peer.messages("/tf")), "the transform came here, too")
        stamp = 2 * SECOND
        publisher.publish(image_message(stamp))
        told = "of frame 'camera_optical'; known are base_link, odom_combined"
        assert told in peer.with_stamp("status", stamp).message
        node.wait_for_line("broadcast it, or correct frames.base")

        tf.static("base_link", "camera_optical", MOUNT)
        stamps = [10 * SECOND + i * SECOND for i in range(4)]

        def accepted() -> bool:
            # A refusal shows that the static transform is still on its way.
            stamps.append(stamps[-1] + SECOND)
            publisher.publish(image_message(stamps[-1]))
            return bool(peer.with_stamp("status", stamps[-1]).session_frames == 1)

        peer.wait_until(accepted, "an accepted image")
        first = stamps[-1]
        for step in range(3):
            stamp = first + step * SECOND
            if step:
                publisher.publish(image_message(stamp))
            # The base goes with its camera: ahead is x, right is -y.
            expected = np.eye(4)
            expected[:3, 3] = 0.2 * step, -0.1 * step, 0.0
            links = links_of(peer, stamp)
            assert set(links) == {("map", "odom"), ("odom", "base_link")}
            np.testing.assert_allclose(links["map", "odom"], np.eye(4))
            np.testing.assert_allclose(links["odom", "base_link"], expected, atol=1e-6)
            odometry = peer.with_stamp("odometry", stamp)
            assert (odometry.header.frame_id, odometry.child_frame_id) == ("odom", "base_link")
            np.testing.assert_allclose(matrix_of(odometry.pose.pose), expected, atol=1e-6)
            assert peer.with_stamp("points", stamp).header.frame_id == "camera_optical"


def test_a_moving_mount_with_an_external_odometry_gives_the_map_the_drift() -> None:
    parameters = {**ROBOT, "tf.odometry": "external", "tf.timeout": 2.0, "tf.time_offset": 0.1}
    with NodeProcess(parameters, program=("-c", MOVING)) as node, Peer(node.domain) as peer:
        publisher = peer.publisher()
        tf = RobotTransforms(peer)
        tf.wait()
        refusal = peer.set_parameters(tf__invert_odom=True)
        assert "nothing to invert with tf.odometry external" in refusal.reason
        odom_0 = motion((5.0, -3.0, 0.0), (0.0, 0.0, np.sin(0.3), np.cos(0.3)))
        mounts = [
            MOUNT @ motion((0, 0, 0), (0, np.sin(turn / 2), 0, np.cos(turn / 2)))
            for turn in (0.0, 0.4, 0.8)
        ]
        stamps = [SECOND + i * SECOND for i in range(3)]
        for step, (stamp, mount) in enumerate(zip(stamps, mounts, strict=True)):
            # The camera moves as the network sees it; the robot is what the moving mount leaves.
            base = MOUNT @ _camera(step) @ invert(mount)
            drift = motion((0.05 * step, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0))
            true = odom_0 @ base
            publisher.publish(image_message(stamp))
            # Both come late and not at the image's own time.
            for at in (stamp - SECOND // 10, stamp + SECOND // 10):
                tf.send("odom", "base_link", true @ drift, at)
                tf.send("base_link", "camera_optical", mount, at)
            links = links_of(peer, stamp, shift=SECOND // 10)
            assert set(links) == {("map", "odom")}
            expected = true @ invert(true @ drift)
            np.testing.assert_allclose(links["map", "odom"], expected, atol=1e-6)
            odometry = peer.with_stamp("odometry", stamp)
            assert (odometry.header.frame_id, odometry.child_frame_id) == ("map", "base_link")
            np.testing.assert_allclose(matrix_of(odometry.pose.pose), true, atol=1e-6)


def test_inverted_a_camera_alone_is_the_parent_of_odom_and_map() -> None:
    parameters = {**TINY, "tf.invert_odom": True, "pose.refinement": "off"}
    with NodeProcess(parameters, program=("-c", MOVING)) as node, Peer(node.domain) as peer:
        publisher = peer.publisher()
        for step in range(3):
            stamp = SECOND * (1 + step)
            publisher.publish(image_message(stamp))
            links = links_of(peer, stamp)
            assert set(links) == {("odom", "map"), ("camera_optical", "odom")}
            pose = matrix_of(peer.with_stamp("odometry", stamp).pose.pose)
            np.testing.assert_allclose(links["camera_optical", "odom"] @ pose, np.eye(4), atol=1e-6)
            np.testing.assert_allclose(pose[:3, 3], [0.2 * step, -0.1 * step, 0.0], atol=1e-6)
