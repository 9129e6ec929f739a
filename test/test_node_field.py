# SPDX-License-Identifier: Apache-2.0
"""What the field really sends, against the node on real DDS."""

from __future__ import annotations

import pytest

REASON = "needs ROS 2 and this package's messages: run scripts/test, or source a built workspace"
pytest.importorskip("rclpy", reason=REASON)
pytest.importorskip("tf2_msgs", reason=REASON)
pytest.importorskip("xsvggt_ros.msg", reason=REASON)

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from node_process import OUTPUTS, TINY, NodeProcess, Peer, image, stamp_of
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image

SECOND = 1_000_000_000
PERIOD = SECOND // 10
ALL = {**TINY, "input.queue_policy": "all"}
WATCHED = {**OUTPUTS, "/diagnostics": DiagnosticArray}


def _input_status(peer: Peer, part: str) -> list[DiagnosticStatus]:
    arrays = peer.messages("/diagnostics")
    return [each for array in arrays for each in array.status if each.name == f"xsvggt: {part}"]


def test_a_single_wrong_stamp_costs_its_picture_and_not_the_map() -> None:
    """5 s ahead, zero, and a counter of microseconds that begins again."""
    stamps = [1000 * SECOND + i * PERIOD for i in range(16)]
    wrong = {4: stamps[4] + 5 * SECOND, 8: 0, 12: stamps[12] - 2**32 * 1000}
    with NodeProcess(ALL) as node, Peer(node.domain, WATCHED) as peer:
        publisher = peer.publisher()
        for at, stamp in enumerate(stamps):
            publisher.publish(image(wrong.get(at, stamp)))
        status = peer.with_stamp("status", stamps[-1])
        assert (status.frames_received, status.frames_processed) == (16, 13)
        assert (status.frames_refused, status.session, status.session_frames) == (3, 1, 13)
        assert set(wrong.values()).isdisjoint(map(stamp_of, peer.messages("points")))
        node.wait_for_line("refused: its stamp lies 5.100 s ahead of those around it")
        peer.wait_until(
            lambda: any(
                {"wrong stamps", "3"} <= {pair.key, pair.value}
                for status in _input_status(peer, "input")
                for pair in status.values
            ),
            "wrong stamps in /diagnostics",
        )


def test_two_publishers_on_one_topic_are_named() -> None:
    with NodeProcess(ALL) as node, Peer(node.domain, WATCHED) as peer:
        one = peer.publisher()
        other = peer.node.create_publisher(Image, "/image", QoSProfile(depth=200))
        peer.wait_until(lambda: other.get_subscription_count() > 0, "subscriber of the other")
        for i in range(12):
            one.publish(image(1000 * SECOND + i * PERIOD))
            other.publish(image(5 * SECOND + i * PERIOD))
        pattern = (
            r"/image has 2 publishers \(/peer, /peer\), and their pictures mix: stop all but one"
        )
        node.wait_for_line(pattern)
        status = peer.wait_for_status(lambda s: s.state == "degraded", "a state that tells of it")
        assert status.session <= 2
        peer.wait_until(
            lambda: any(
                each.level == DiagnosticStatus.WARN and "mixing: /peer, /peer" in each.message
                for each in _input_status(peer, "input")
            ),
            "two publishers in /diagnostics",
        )


def test_a_camera_of_a_rig_in_another_clock_is_named() -> None:
    rig = {**ALL, "input.cameras": "left right", "input.rig_wait": 0.05}
    with NodeProcess(rig) as node, Peer(node.domain, WATCHED) as peer:
        left, right = (peer.publisher(f"/{name}/image") for name in ("left", "right"))
        for i in range(6):
            left.publish(image(1000 * SECOND + i * PERIOD, "left_optical"))
            right.publish(image(960 * SECOND + i * PERIOD, "right_optical"))
        node.wait_for_line("camera 'right' lives in another clock: its stamps are 40.. s behind")
        peer.wait_until(
            lambda: any(
                each.level == DiagnosticStatus.WARN and "in another clock: -40" in each.message
                for each in _input_status(peer, "input right")
            ),
            "the offset in /diagnostics",
        )
        peer.wait_for_status(lambda s: "another clock" in s.message, "the offset in ~/status")
