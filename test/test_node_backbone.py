# SPDX-License-Identifier: Apache-2.0
"""A network that answers its first images together, in the real node on real DDS."""

from __future__ import annotations

import pytest

REASON = "needs ROS 2 and this package's messages: run scripts/test, or source a built workspace"
pytest.importorskip("rclpy", reason=REASON)
pytest.importorskip("xsvggt_ros.msg", reason=REASON)

from nav_msgs.msg import Odometry
from node_process import TINY, NodeProcess, Peer, image_message, stamp_of
from sensor_msgs.msg import Image, PointCloud2
from xsvggt_ros.msg import ReconstructionStatus

from xsvggt_ros.model.config import PRESETS

SECOND = 1_000_000_000
ANCHORS = PRESETS["tiny_lingbot"].stream.anchor_frames
PARAMETERS = {**TINY, "model.preset": "tiny_lingbot", "input.queue_policy": "all"}
WATCHED = {
    "/xsvggt/odometry": Odometry,
    "/xsvggt/points": PointCloud2,
    "/xsvggt/status": ReconstructionStatus,
}


def test_the_node_warms_up_and_then_answers_each_image_with_its_own_stamp() -> None:
    stamps = [SECOND + i * SECOND // 10 for i in range(ANCHORS + 2)]
    with NodeProcess(PARAMETERS) as node, Peer(node.domain, WATCHED) as peer:
        camera = peer.publisher("/image", Image)
        for stamp in stamps[: ANCHORS - 1]:
            camera.publish(image_message(stamp))
        peer.wait_until(
            lambda: any(
                s.state == "warming up" and s.frames_pending == ANCHORS - 1
                for s in peer.messages("status")
            ),
            "warming up",
        )
        assert not peer.messages("odometry")
        for stamp in stamps[ANCHORS - 1 :]:
            camera.publish(image_message(stamp))
        last = peer.with_stamp("/xsvggt/odometry", stamps[-1])
        assert last is not None
        peer.wait_until(lambda: len(peer.messages("points")) == len(stamps), "points")
        for topic in ("odometry", "points"):
            assert [stamp_of(each) for each in peer.messages(topic)] == stamps
        status = peer.with_stamp("status", stamps[-1])
        assert (status.policy, status.frames_refused, status.frames_pending) == ("lingbot", 0, 0)
        assert status.session_frames == len(stamps)
