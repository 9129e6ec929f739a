# SPDX-License-Identifier: Apache-2.0
"""The node with a network that answers the first images of a session together, on real DDS."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

REASON = "needs ROS 2 and this package's messages: run scripts/test, or source a built workspace"
pytest.importorskip("rclpy", reason=REASON)
pytest.importorskip("tf2_msgs", reason=REASON)
pytest.importorskip("xsvggt_ros.msg", reason=REASON)

from nav_msgs.msg import Odometry
from node_process import NodeProcess, Peer, image_message, stamp_of
from sensor_msgs.msg import Image, PointCloud2
from std_srvs.srv import Trigger
from xsvggt_ros.msg import ReconstructionStatus

from xsvggt_ros.model.config import PRESETS

SECOND = 1_000_000_000
ANCHORS = PRESETS["tiny_lingbot"].stream.anchor_frames
LINGBOT = {
    "model.preset": "tiny_lingbot",
    "input.width": 56,
    "input.queue_policy": "all",
    "cache.keyframe_interval": "auto",
}


def _has_received(count: int, status: ReconstructionStatus) -> bool:
    return bool(status.frames_received == count)


def test_the_first_images_wait_together_and_each_gets_its_own_result() -> None:
    with NodeProcess(LINGBOT) as node, Peer(node.domain) as peer:
        publisher = peer.publisher()
        stamps = [SECOND + k * SECOND // 10 for k in range(ANCHORS + 2)]
        for stamp in stamps[: ANCHORS - 1]:
            publisher.publish(image_message(stamp))
        waiting = peer.wait_for_status(
            lambda s: s.frames_received == ANCHORS - 1 and s.state == "warming up",
            "the first pass fills",
        )
        assert (waiting.frames_processed, waiting.frames_refused) == (0, 0)
        assert not peer.messages("odometry")
        for stamp in stamps[ANCHORS - 1 :]:
            publisher.publish(image_message(stamp))
        last = peer.with_stamp("status", stamps[-1])
        assert (last.frames_processed, last.session, last.session_frames) == (5, 1, 5)
        assert last.state in ("running", "degraded")
        assert last.policy == "lingbot"
        for topic in ("odometry", "points", "depth/image"):
            peer.with_stamp(topic, stamps[-1])
            assert [stamp_of(message) for message in peer.messages(topic)] == stamps

        # The network has no head for points, which a refinement needs.
        refused = peer.set_parameters(pose__refinement="on")
        assert not refused.successful
        assert "no point head" in refused.reason
        assert peer.set_parameters(cache__keyframe_interval=2, cache__key_bits=8).successful

        # A session that ends before its first pass is complete says so of each image that waited.
        reset: Any = peer.node.create_client(Trigger, "/xsvggt/reset")
        peer.wait_until(reset.service_is_ready, "the reset service")
        for first in (2 * SECOND, 3 * SECOND):
            answer = reset.call_async(Trigger.Request())
            peer.wait_until(answer.done, "a reset")
            count = 1 if first == 2 * SECOND else ANCHORS
            stamps = [first + k * SECOND // 10 for k in range(count)]
            for stamp in stamps:
                publisher.publish(image_message(stamp))
            peer.wait_for_status(partial(_has_received, 6 if count == 1 else 9), "images")
        last = peer.with_stamp("status", stamps[-1])
        assert (last.session, last.session_frames) == (3, ANCHORS)
        assert (last.frames_processed, last.frames_refused) == (5 + ANCHORS, 1)
        assert node.said("before the first pass")


def test_two_cameras_share_a_first_pass() -> None:
    cameras = ("left", "right")
    rig = {**LINGBOT, "input.cameras": "left, right", "input.rig_wait": 0.3, "map.enabled": True}
    watched = {
        **{f"/xsvggt/{camera}/odometry": Odometry for camera in cameras},
        "/xsvggt/map": PointCloud2,
        "/xsvggt/status": ReconstructionStatus,
    }
    with NodeProcess(rig) as node, Peer(node.domain, watched) as peer:
        publishers = {camera: peer.publisher(f"/{camera}/image", Image) for camera in cameras}
        stamps = [SECOND + k * SECOND // 10 for k in range(4)]
        for stamp in stamps:
            for camera, publisher in publishers.items():
                shift = 1000 if camera == "right" else 0
                publisher.publish(image_message(stamp + shift, f"{camera}_optical"))
        last = peer.with_stamp("status", stamps[-1] + 1000)
        assert (last.frames_processed, last.frames_refused, last.session_frames) == (8, 0, 8)
        for camera, shift in zip(cameras, (0, 1000), strict=True):
            expected = [stamp + shift for stamp in stamps]
            peer.with_stamp(f"/xsvggt/{camera}/odometry", expected[-1])
            found = peer.messages(f"/xsvggt/{camera}/odometry")
            assert [stamp_of(message) for message in found] == expected
        peer.wait_until(lambda: bool(peer.messages("map")), "a map")
