# SPDX-License-Identifier: Apache-2.0
"""The node among the transforms of a robot, on real DDS, by numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

REASON = "needs ROS 2 and this package's messages: run scripts/test, or source a built workspace"
pytest.importorskip("rclpy", reason=REASON)
pytest.importorskip("tf2_msgs", reason=REASON)
pytest.importorskip("xsvggt_ros.msg", reason=REASON)

from geometry_msgs.msg import TransformStamped
from motions import motion
from node_process import TINY, NodeProcess, Peer, image_message, stamp_of
from rclpy.qos import DurabilityPolicy, QoSProfile
from tf2_msgs.msg import TFMessage

from xsvggt_ros.geometry.rigid import Matrix, invert, matrix_from_quaternion
from xsvggt_ros.ros.conversions import header, transform

SECOND = 1_000_000_000
ROBOT = {
    **TINY,
    "input.queue_policy": "all",
    "frames.base": "base_link",
    "tf.timeout": 0.05,
}
MOVING = """
import sys
import numpy as np
from xsvggt_ros.ros import node
from xsvggt_ros.stream import step_runner

to_host = step_runner.to_host
step = -1  # the warm-up

def moving(prediction):
    global step
    output = to_host(prediction)
    output.encoding[:3] = -0.1 * step, 0.0, -0.2 * step
    output.encoding[3:7] = 0.0, 0.0, 0.0, 1.0
    step += 1
    return output

step_runner.to_host = moving
sys.exit(node.main())
"""
"""The node with a network that sees its camera go 0.1 right and 0.2 ahead with each image."""


def _matrix(part: Any) -> Matrix:
    """Return a Transform or a Pose as [4, 4]."""
    moved = getattr(part, "translation", None) or part.position
    turned = getattr(part, "rotation", None) or part.orientation
    matrix = np.eye(4)
    matrix[:3, :3] = matrix_from_quaternion(np.array([turned.x, turned.y, turned.z, turned.w]))
    matrix[:3, 3] = moved.x, moved.y, moved.z
    return matrix


MOUNT = motion((0.3, 0.0, 1.2), (-0.5, 0.5, -0.5, 0.5))
"""A camera that looks ahead, 0.3 before and 1.2 above the base."""


def _camera(step: int) -> Matrix:
    return motion((0.1 * step, 0.0, 0.2 * step), (0.0, 0.0, 0.0, 1.0))


class _Tf:
    """Broadcasts as a robot does."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._moving = peer.node.create_publisher(TFMessage, "/tf", QoSProfile(depth=200))
        latched = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._static = peer.node.create_publisher(TFMessage, "/tf_static", latched)

    def static(self, parent: str, child: str, pose: Matrix) -> None:
        self._send(self._static, parent, child, pose, 0)

    def send(self, parent: str, child: str, pose: Matrix, stamp: int) -> None:
        self._send(self._moving, parent, child, pose, stamp)

    def wait(self) -> None:
        """Wait until the node listens."""
        # This peer listens to /tf as well.
        for publisher, least in ((self._moving, 2), (self._static, 1)):

            def heard(publisher: Any = publisher, least: int = least) -> bool:
                return bool(publisher.get_subscription_count() >= least)

            self._peer.wait_until(heard, "a listener of TF")

    def _send(self, publisher: Any, parent: str, child: str, pose: Matrix, stamp: int) -> None:
        link = TransformStamped(
            header=header(stamp, parent), child_frame_id=child, transform=transform(pose)
        )
        publisher.publish(TFMessage(transforms=[link]))


def _links(peer: Peer, stamp: int, shift: int = 0) -> dict[tuple[str, str], Matrix]:
    """Return what the node broadcast for an image, by parent and child."""
    peer.with_stamp("odometry", stamp)
    wanted = stamp + shift

    def own(message: TFMessage) -> bool:
        return stamp_of(message) == wanted and "map" in (
            message.transforms[0].header.frame_id,
            message.transforms[0].child_frame_id,
        )

    peer.wait_until(lambda: any(map(own, peer.messages("/tf"))), f"transforms of {stamp}")
    message = next(filter(own, peer.messages("/tf")))
    return {
        (link.header.frame_id, link.child_frame_id): _matrix(link.transform)
        for link in message.transforms
    }


def test_a_rig_whose_transforms_are_missing_is_refused_until_they_come() -> None:
    with NodeProcess(ROBOT, program=("-c", MOVING)) as node, Peer(node.domain) as peer:
        publisher = peer.publisher()
        tf = _Tf(peer)
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
            links = _links(peer, stamp)
            assert set(links) == {("map", "odom"), ("odom", "base_link")}
            np.testing.assert_allclose(links["map", "odom"], np.eye(4))
            np.testing.assert_allclose(links["odom", "base_link"], expected, atol=1e-6)
            odometry = peer.with_stamp("odometry", stamp)
            assert (odometry.header.frame_id, odometry.child_frame_id) == ("odom", "base_link")
            np.testing.assert_allclose(_matrix(odometry.pose.pose), expected, atol=1e-6)
            assert peer.with_stamp("points", stamp).header.frame_id == "camera_optical"


def test_a_moving_mount_with_an_external_odometry_gives_the_map_the_drift() -> None:
    parameters = {**ROBOT, "tf.odometry": "external", "tf.timeout": 2.0, "tf.time_offset": 0.1}
    with NodeProcess(parameters, program=("-c", MOVING)) as node, Peer(node.domain) as peer:
        publisher = peer.publisher()
        tf = _Tf(peer)
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
            links = _links(peer, stamp, shift=SECOND // 10)
            assert set(links) == {("map", "odom")}
            expected = true @ invert(true @ drift)
            np.testing.assert_allclose(links["map", "odom"], expected, atol=1e-6)
            odometry = peer.with_stamp("odometry", stamp)
            assert (odometry.header.frame_id, odometry.child_frame_id) == ("map", "base_link")
            np.testing.assert_allclose(_matrix(odometry.pose.pose), true, atol=1e-6)


def test_inverted_a_camera_alone_is_the_parent_of_odom_and_map() -> None:
    parameters = {**TINY, "tf.invert_odom": True}
    with NodeProcess(parameters, program=("-c", MOVING)) as node, Peer(node.domain) as peer:
        publisher = peer.publisher()
        for step in range(3):
            stamp = SECOND * (1 + step)
            publisher.publish(image_message(stamp))
            links = _links(peer, stamp)
            assert set(links) == {("odom", "map"), ("camera_optical", "odom")}
            pose = _matrix(peer.with_stamp("odometry", stamp).pose.pose)
            np.testing.assert_allclose(links["camera_optical", "odom"] @ pose, np.eye(4), atol=1e-6)
            np.testing.assert_allclose(pose[:3, 3], [0.2 * step, -0.1 * step, 0.0], atol=1e-6)
