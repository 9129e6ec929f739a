# SPDX-License-Identifier: Apache-2.0
"""What the field really sends, against the node on real DDS."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from selection import first_is_quick

REASON = "needs ROS 2 and this package's messages: run scripts/test, or source a built workspace"
pytest.importorskip("rclpy", reason=REASON)
pytest.importorskip("tf2_msgs", reason=REASON)
pytest.importorskip("xsvggt_ros.msg", reason=REASON)

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import TransformStamped
from node_process import OUTPUTS, TINY, NodeProcess, Peer, image, image_message, stamp_of
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from tf2_msgs.msg import TFMessage

from xsvggt_ros.ros.conversions import header, packed

SECOND = 1_000_000_000
PERIOD = SECOND // 10
ALL = {**TINY, "input.queue_policy": "all"}
WATCHED = {**OUTPUTS, "/diagnostics": DiagnosticArray}


def _input_status(peer: Peer, part: str) -> list[DiagnosticStatus]:
    arrays = peer.messages("/diagnostics")
    return [each for array in arrays for each in array.status if each.name == f"xsvggt: {part}"]


def test_a_single_wrong_stamp_costs_its_image_and_not_the_map() -> None:
    """5 s ahead, zero, and a counter of microseconds that begins again."""
    stamps = [1000 * SECOND + i * PERIOD for i in range(16)]
    wrong = {4: stamps[4] + 5 * SECOND, 8: 0, 12: stamps[12] - 2**32 * 1000}
    with NodeProcess(ALL) as node, Peer(node.domain, WATCHED) as peer:
        publisher = peer.publisher()
        for at, stamp in enumerate(stamps):
            publisher.publish(image_message(wrong.get(at, stamp)))
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
            one.publish(image_message(1000 * SECOND + i * PERIOD))
            other.publish(image_message(5 * SECOND + i * PERIOD))
        pattern = (
            r"/image has 2 publishers \(/peer, /peer\), and their images mix: stop all but one"
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
            left.publish(image_message(1000 * SECOND + i * PERIOD, "left_optical"))
            right.publish(image_message(960 * SECOND + i * PERIOD, "right_optical"))
        node.wait_for_line("camera 'right' lives in another clock: its stamps are 40.. s behind")
        peer.wait_until(
            lambda: any(
                each.level == DiagnosticStatus.WARN and "in another clock: -40" in each.message
                for each in _input_status(peer, "input right")
            ),
            "the offset in /diagnostics",
        )
        peer.wait_for_status(lambda s: "another clock" in s.message, "the offset in ~/status")


QOS = {
    f"{reliability.name} {durability.name}": QoSProfile(
        depth=10, reliability=reliability, durability=durability
    )
    for reliability in (ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT)
    for durability in (DurabilityPolicy.VOLATILE, DurabilityPolicy.TRANSIENT_LOCAL)
}
"""Every way to publish."""
LATCHED = "RELIABLE TRANSIENT_LOCAL"


def _link(parent: str, child: str, stamp: int = 0) -> TFMessage:
    link = TransformStamped(header=header(stamp, parent), child_frame_id=child)
    link.transform.rotation.w = 1.0
    return TFMessage(transforms=[link])


def _camera_info(frame_id: str = "camera_optical") -> CameraInfo:
    k = [40.0, 0.0, 32.0, 0.0, 40.0, 24.0, 0.0, 0.0, 1.0]
    return CameraInfo(
        header=header(1, frame_id), width=64, height=48, k=k, distortion_model="plumb_bob",
        d=[-0.3, 0.1, 0.0, 0.0, 0.0],
    )  # fmt: skip


def _driver(peer: Peer) -> None:
    """Broadcast as realsense2_camera does."""
    static = peer.node.create_publisher(TFMessage, "/tf_static", QOS[LATCHED])
    static.publish(_link("camera_link", "camera_color_frame"))
    static.publish(_link("camera_color_frame", "camera_optical"))


def test_the_driver_of_a_camera_keeps_its_optical_frame() -> None:
    with NodeProcess(ALL) as node, Peer(node.domain, WATCHED) as peer:
        _driver(peer)
        publisher = peer.publisher()
        publisher.publish(image_message(1000 * SECOND))
        node.wait_for_line(
            "frame 'camera_optical' has two parents: this node broadcasts it below 'odom', another "
            "one below 'camera_color_frame', .*; set frames.base to 'camera_link'"
        )
        peer.wait_for_status(lambda s: s.state == "degraded", "a state that tells of it")
        assert sum("has two parents" in line for line in node.lines) == 1

    with NodeProcess({**ALL, "frames.base": "camera_link"}) as node, Peer(node.domain) as peer:
        _driver(peer)
        publisher = peer.publisher()
        stamps = iter(range(1000 * SECOND, 1001 * SECOND))

        def accepted() -> bool:
            publisher.publish(image_message(next(stamps)))
            return any(s.state == "running" for s in peer.messages("status"))

        peer.wait_until(accepted, "an image among the driver's transforms")
        assert not node.said("two parents")


def test_another_node_of_the_same_name_is_told_before_its_transforms_are_blamed() -> None:
    """Its transforms are the same as ours: to switch ours off would leave none."""
    impatient = (
        "import sys; from xsvggt_ros.ros import node, reconstruct_node as n;"
        "n.NAMESAKE_PATIENCE = 3.0; sys.exit(node.main())"
    )
    with (
        NodeProcess(ALL, program=("-c", impatient)) as node,
        Peer(node.domain, WATCHED) as peer,
    ):
        namesake = Node("xsvggt", context=peer.node.context)
        transforms = peer.node.create_publisher(TFMessage, "/tf", QOS["RELIABLE VOLATILE"])
        publisher = peer.publisher()
        stamps = iter(range(1000 * SECOND, 1001 * SECOND))

        def told() -> bool:
            stamp = next(stamps)
            publisher.publish(image_message(stamp))
            transforms.publish(_link("map", "odom", stamp))
            return node.said("another node is named /xsvggt, too")

        peer.wait_until(told, "a warning of the other node")
        peer.wait_for_status(lambda s: "start it in another namespace" in s.message, "the same")
        assert not node.said("another node broadcasts")
        namesake.destroy_node()
        node.wait_for_line("another node broadcasts the transform from 'map' to 'odom', too")
        peer.wait_until(
            lambda: "is named" not in peer.messages("status")[-1].message, "a status without it"
        )


def test_somebody_else_who_knows_the_place_in_the_map_is_found() -> None:
    with NodeProcess(ALL) as node, Peer(node.domain, WATCHED) as peer:
        amcl = peer.node.create_publisher(TFMessage, "/tf", QOS["RELIABLE VOLATILE"])
        publisher = peer.publisher()
        peer.wait_until(lambda: amcl.get_subscription_count() >= 2, "listeners of /tf")
        publisher.publish(image_message(1000 * SECOND))
        peer.with_stamp("points", 1000 * SECOND)
        amcl.publish(_link("map", "odom", 1000 * SECOND))
        node.wait_for_line(
            "another node broadcasts the transform from 'map' to 'odom', too.*"
            "set tf.publish_map to false"
        )
        assert not node.said("incompatible QoS")


@pytest.mark.parametrize("offer", first_is_quick(QOS))
def test_a_camera_info_is_heard_whatever_its_publisher_offers(offer: str) -> None:
    """One that is kept for late ones comes before the node listens, and never again."""
    with NodeProcess(ALL) as node, Peer(node.domain, WATCHED) as peer:
        infos = peer.node.create_publisher(CameraInfo, "/camera_info", QOS[offer])
        infos.publish(_camera_info())
        publisher = peer.publisher()
        stamps = iter(range(1000 * SECOND, 1001 * SECOND))

        def calibrated() -> bool:
            if offer != LATCHED:
                infos.publish(_camera_info())
            publisher.publish(image_message(next(stamps)))
            return any(s.intrinsics_source == "calibrated" for s in peer.messages("status"))

        peer.wait_until(calibrated, "an image with a known camera")


@pytest.mark.parametrize("offer", first_is_quick(QOS))
@pytest.mark.parametrize("topic", first_is_quick(["/tf", "/tf_static"]))
def test_transforms_are_heard_whatever_their_publisher_offers(offer: str, topic: str) -> None:
    robot = {**ALL, "frames.base": "base_link", "tf.timeout": 0.0}
    with NodeProcess(robot) as node, Peer(node.domain) as peer:
        transforms = peer.node.create_publisher(TFMessage, topic, QOS[offer])
        at = 1000 * SECOND
        kept = offer == LATCHED and topic == "/tf_static"
        transforms.publish(_link("base_link", "camera_optical", at))
        publisher = peer.publisher()
        stamps = iter(range(at, at + SECOND))

        def placed() -> bool:
            stamp = next(stamps)
            if not kept:
                transforms.publish(_link("base_link", "camera_optical", stamp))
            publisher.publish(image_message(stamp))
            return bool(peer.messages("odometry"))

        peer.wait_until(placed, "an image whose transform was heard")


def test_the_first_image_waits_for_the_camera_info_behind_it() -> None:
    """As image_transport sends them: the image, then its camera_info."""
    with NodeProcess(ALL) as node, Peer(node.domain, WATCHED) as peer:
        infos = peer.publisher("/camera_info", CameraInfo)
        publisher = peer.publisher()
        publisher.publish(image_message(1000 * SECOND))
        infos.publish(_camera_info())
        first = peer.with_stamp("status", 1000 * SECOND)
        assert (first.intrinsics_source, first.session) == ("calibrated", 1)


def test_a_camera_that_becomes_known_begins_again_and_a_missing_camera_info_is_said_once() -> None:
    with NodeProcess({**ALL, "watchdog.timeout": 1.0}) as node, Peer(node.domain, WATCHED) as peer:
        peer.node.create_publisher(CameraInfo, "/front/camera_info", QOS[LATCHED])
        publisher = peer.publisher()
        stamp = 1000 * SECOND
        publisher.publish(image_message(stamp))
        assert peer.with_stamp("status", stamp).intrinsics_source != "calibrated"
        node.wait_for_line(
            "/camera_info has no publisher: remap camera_info to that of .*/front/camera_info"
        )
        infos = peer.publisher("/camera_info", CameraInfo)
        infos.publish(_camera_info())
        known: list[Any] = []

        def calibrated() -> bool:
            nonlocal stamp
            stamp += PERIOD
            publisher.publish(image_message(stamp))
            status = peer.with_stamp("status", stamp)
            known[:] = [status] if status.intrinsics_source == "calibrated" else []
            return bool(known)

        peer.wait_until(calibrated, "an image with a known camera")
        assert (known[0].session, known[0].session_frames) == (2, 1)
        node.wait_for_line("the camera has become known: a new session begins")
        assert sum("has no publisher: remap camera_info" in line for line in node.lines) == 1


def _black(stamp: int) -> Image:
    message = image_message(stamp)
    message.data = packed(np.zeros(len(message.data), np.uint8))
    return message


def test_black_images_from_the_start_are_no_scene_and_no_map() -> None:
    with NodeProcess(ALL) as node, Peer(node.domain, WATCHED) as peer:
        publisher = peer.publisher()
        stamps = [1000 * SECOND + i * PERIOD for i in range(3)]
        for stamp in stamps:
            publisher.publish(_black(stamp))
        status = peer.with_stamp("status", stamps[-1])
        assert (status.state, status.map_points, status.frames_processed) == ("degraded", 0, 3)
        assert "the image is dark" in status.message
        node.wait_for_line("degraded: the image is dark: .*; look for a covered lens")


FAILING = """
import sys
from xsvggt_ros.ros import conversions, node

def fail(*_):
    raise MemoryError("no room")

conversions.CloudPacker.pack = fail
sys.exit(node.main())
"""
"""The node, which cannot pack clouds."""


def test_a_result_that_cannot_be_published_is_no_success() -> None:
    with NodeProcess(ALL, program=("-c", FAILING)) as node, Peer(node.domain, WATCHED) as peer:
        publisher = peer.publisher()
        publisher.publish(image_message(1000 * SECOND))
        status = peer.wait_for_status(lambda s: s.state == "error", "a state that tells of it")
        told = "the result of stamp 1000.000 was not published: points (MemoryError: no room)"
        assert told in status.message
        peer.with_stamp("depth/image", 1000 * SECOND)  # all else comes out
        peer.with_stamp("odometry", 1000 * SECOND)
        node.wait_for_line("was not published: points")
        assert not node.said("Traceback")


SILENT = {**TINY, "watchdog.timeout": 1.0}


def test_the_advice_about_a_compressed_topic_leads_to_images() -> None:
    """First as most people start: the name of the compressed topic, and raw transport."""
    named = ("-r", "image:=/cam/image_raw/compressed")
    with NodeProcess(SILENT, *named) as node, Peer(node.domain, {}) as peer:
        peer.node.create_publisher(CompressedImage, "/cam/image_raw/compressed", 1)
        node.wait_for_line("it carries .*CompressedImage.*set input.image_transport to compressed")
    obedient = {**SILENT, "input.image_transport": "compressed"}
    with NodeProcess(obedient, *named) as node, Peer(node.domain) as peer:
        publisher = peer.publisher("/cam/image_raw/compressed", CompressedImage)
        message = CompressedImage(header=header(1000 * SECOND, "camera_optical"), format="png")
        message.data = packed(np.frombuffer(cv2.imencode(".png", image())[1], np.uint8))
        publisher.publish(message)
        peer.with_stamp("points", 1000 * SECOND)


def test_where_only_the_compressed_topic_exists_it_is_named() -> None:
    with NodeProcess(SILENT, "-r", "image:=/cam/image_raw") as node, Peer(node.domain, {}) as peer:
        peer.node.create_publisher(CompressedImage, "/cam/image_raw/compressed", 1)
        peer.node.create_publisher(CompressedImage, "/cam/image_raw/compressedDepth", 1)
        node.wait_for_line(
            "/cam/image_raw: it has no publisher; set input.image_transport to compressed$"
        )


def test_an_override_of_reliability_is_named_where_it_keeps_images_away() -> None:
    override = {"qos_overrides./image.subscription.reliability": "reliable"}
    with NodeProcess({**TINY, **override}) as node, Peer(node.domain, {}) as peer:
        peer.node.create_publisher(Image, "/image", QOS["BEST_EFFORT VOLATILE"])
        node.wait_for_line(
            "offers less .*; remove the parameter qos_overrides./image.subscription.reliability"
        )


def test_the_topic_of_measured_depth_is_named() -> None:
    measured = {**SILENT, "scale.source": "depth"}
    with NodeProcess(measured) as node, Peer(node.domain, {}) as peer:
        peer.node.create_publisher(Image, "/cam/color/image_raw", 1)
        peer.node.create_publisher(Image, "/cam/aligned_depth_to_color/image_raw", 1)
        node.wait_for_line(
            "nothing has come on /depth .*remap depth to one of "
            "/cam/aligned_depth_to_color/image_raw$"
        )


DYING = """
import sys
from xsvggt_ros.ros import node
from xsvggt_ros.stream import pipeline

def die(*_):
    raise SystemExit

pipeline.FramePipeline.process = die
sys.exit(node.main())
"""
"""The node, whose worker ends with the first image."""


def test_a_worker_that_has_ended_is_no_running_node() -> None:
    with NodeProcess(ALL, program=("-c", DYING)) as node, Peer(node.domain, WATCHED) as peer:
        peer.publisher().publish(image_message(1000 * SECOND))
        status = peer.wait_for_status(lambda s: s.state == "stalled", "a state that tells of it")
        assert "the worker has ended unexpectedly" in status.message
        node.wait_for_line("the worker has ended unexpectedly.*restart the node")
