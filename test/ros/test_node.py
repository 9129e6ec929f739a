# SPDX-License-Identifier: Apache-2.0
"""The node in its own process, on real DDS."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from selection import first_is_quick

REASON = (
    "needs ROS 2 and this package's messages: run scripts/test, or build and source a workspace"
)
pytest.importorskip("rclpy", reason=REASON)
pytest.importorskip("tf2_msgs", reason=REASON)
pytest.importorskip("xsvggt_ros.msg", reason=REASON)

from forked_process import ROOT
from node_process import (
    TINY,
    NodeProcess,
    Peer,
    image,
    image_message,
    stamp_of,
)
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.utilities import get_rmw_implementation_identifier
from sensor_msgs.msg import CompressedImage, Image
from xsvggt_ros.msg import ReconstructionStatus

from xsvggt_ros.ros.conversions import header, packed

BEST_EFFORT = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
SECOND = 1_000_000_000
ALL = {**TINY, "input.queue_policy": "all", "input.queue_size": 2, "pose.refinement": "off"}
SLOW = {**TINY, "input.width": 280, "cache.budget_tokens": 2000}


def _floats(message: Image) -> NDArray[np.float32]:
    return np.frombuffer(message.data, np.float32).reshape(message.height, message.width)


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[NodeProcess, Peer, Any]]:
    """A node with default.yaml and the tiny network, and a publisher that it has found."""
    defaults = ("--params-file", str(ROOT / "config/default.yaml"))
    with NodeProcess(ALL, *defaults) as node, Peer(node.domain) as peer:
        yield node, peer, peer.publisher()
        assert node.interrupt() == 0


@pytest.fixture(scope="module")
def five(running: tuple[NodeProcess, Peer, Any]) -> tuple[Peer, list[int]]:
    """What came of five images, and their stamps."""
    _, peer, publisher = running
    stamps = [SECOND + 123_456_789 * i for i in range(5)]
    for stamp in stamps:
        publisher.publish(image_message(stamp))
    for topic in ("points", "depth/image", "depth/camera_info", "confidence/image", "odometry"):
        peer.with_stamp(topic, stamps[-1])
    peer.with_stamp("pose", stamps[-1])
    peer.with_stamp("path", stamps[-1])
    peer.with_stamp("/tf", stamps[-1])
    peer.with_stamp("status", stamps[-1])
    return peer, stamps


@pytest.mark.parametrize(
    ("topic", "frame"),
    [
        ("points", "camera_optical"),
        ("depth/image", "camera_optical"),
        ("depth/camera_info", "camera_optical"),
        ("confidence/image", "camera_optical"),
        ("odometry", "odom"),
        ("pose", "map"),
    ],
)
def test_stamps_and_frames_are_those_of_the_images(
    five: tuple[Peer, list[int]], topic: str, frame: str
) -> None:
    peer, stamps = five
    messages = peer.messages(topic)[:5]
    assert [stamp_of(message) for message in messages] == stamps
    assert {message.header.frame_id for message in messages} == {frame}


def test_the_cloud_is_the_published_depth_unprojected_by_the_published_camera(
    five: tuple[Peer, list[int]],
) -> None:
    peer, stamps = five
    for stamp in stamps:
        depth = _floats(peer.with_stamp("depth/image", stamp))
        camera = peer.with_stamp("depth/camera_info", stamp)
        cloud = peer.with_stamp("points", stamp)
        height, width = depth.shape
        assert (cloud.height, cloud.width) == (camera.height, camera.width) == (height, width)
        rows = np.frombuffer(cloud.data, np.float32).reshape(height, width, 6)
        u, v = np.meshgrid(np.arange(width), np.arange(height))
        homogeneous = np.stack([u, v, np.ones_like(u)], axis=-1)
        rays = homogeneous @ np.linalg.inv(camera.k.reshape(3, 3)).T
        np.testing.assert_allclose(rows[..., :3], rays * depth[..., None], rtol=1e-4, atol=1e-5)
        confidence = _floats(peer.with_stamp("confidence/image", stamp))
        np.testing.assert_array_equal(rows[..., 4], confidence)
        assert confidence.min() >= 1.0


def test_transforms_are_the_odometry(five: tuple[Peer, list[int]]) -> None:
    peer, stamps = five
    for stamp in stamps:
        to_odom, to_camera = peer.with_stamp("/tf", stamp).transforms
        odometry = peer.with_stamp("odometry", stamp)
        position = odometry.pose.pose.position
        moved = to_camera.transform.translation
        assert (moved.x, moved.y, moved.z) == (position.x, position.y, position.z)
        assert to_camera.transform.rotation == odometry.pose.pose.orientation
        assert to_camera.header == odometry.header
        assert to_camera.child_frame_id == odometry.child_frame_id == "camera_optical"
        assert (to_odom.header.frame_id, to_odom.child_frame_id) == ("map", "odom")
        assert (to_odom.transform.translation.x, to_odom.transform.rotation.w) == (0.0, 1.0)


def test_the_first_camera_looks_along_x_with_its_image_upright(
    five: tuple[Peer, list[int]],
) -> None:
    peer, stamps = five
    q = peer.with_stamp("odometry", stamps[0]).pose.pose.orientation
    np.testing.assert_allclose([q.x, q.y, q.z, q.w], [-0.5, 0.5, -0.5, 0.5], atol=1e-6)


def test_the_path_is_the_odometry_so_far(five: tuple[Peer, list[int]]) -> None:
    peer, stamps = five
    poses = peer.with_stamp("path", stamps[-1]).poses
    assert [stamp_of(pose) for pose in poses] == stamps
    expected = [peer.with_stamp("odometry", stamp).pose.pose for stamp in stamps]
    assert [pose.pose for pose in poses] == expected


def test_the_status_tells_of_the_frame_and_the_cache(five: tuple[Peer, list[int]]) -> None:
    peer, stamps = five
    status = peer.with_stamp("status", stamps[-1])
    # With random weights the pose jumps.
    assert (status.state, status.header.frame_id) == ("degraded", "camera_optical")
    assert status.message.startswith("degraded: the pose jumped by")
    assert (status.frames_received, status.frames_processed) == (5, 5)
    assert (status.frames_dropped, status.frames_refused, status.frames_pending) == (0, 0, 0)
    assert (status.session, status.session_frames) == (1, 5)
    assert (status.policy, status.budget_tokens) == ("xstreamvggt", 200)
    assert 0 < status.cache_tokens <= 200
    assert status.cache_bytes > 0
    assert status.scale_source == "none"
    assert 0 < status.latency_network < status.latency_total
    assert status.mean_confidence > 1.0


def test_default_yaml_holds_no_unknown_parameter(
    running: tuple[NodeProcess, Peer, Any],
) -> None:
    assert not running[0].said("does not exist")


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"points__stride": 0}, "out of range. Min: 1, Max: 64"),
        ({"points__stride": 2.0}, "Wrong parameter type"),
        ({"points__min_confidence": "high"}, "Wrong parameter type"),
        ({"cache__group_size": 32}, "read-only"),
        ({"cache__budget_tokens": 9}, "set it to at least 10"),
        ({"cache__key_bits": 3}, "cache.key_bits is '3', not one of 2, 4, 8, 16"),
        ({"cache__policy": "none", "cache__adaptive": "scene"}, "policy none has none"),
        ({"cache__budget_tokens": 100, "cache__key_bits": 5}, "cache.key_bits is '5'"),
        ({"depth__encoding": "32FC2"}, "depth.encoding is '32FC2', not one of 32FC1, 16UC1"),
        ({"points__stride": 2, "depth__encoding": "f"}, "depth.encoding is 'f'"),
    ],
)
def test_illegal_parameters_are_refused_with_the_reason(
    running: tuple[NodeProcess, Peer, Any], values: dict[str, Any], reason: str
) -> None:
    answer = running[1].set_parameters(**values)
    assert not answer.successful
    assert reason in answer.reason


def test_an_integer_for_a_float_is_taken_while_it_runs(
    running: tuple[NodeProcess, Peer, Any],
) -> None:
    peer = running[1]
    assert peer.set_parameters(points__min_confidence=2, tf__time_offset=0).successful
    assert peer.set_parameters(points__min_confidence=1.0).successful


def test_what_yaml_makes_of_a_file_is_taken(tmp_path: Path) -> None:
    """A list of cameras, integers for floats, off without quotes, nothing for no cameras."""
    path = tmp_path / "parameters.yaml"
    text = (
        "/**: {ros__parameters: {input: {cameras: [left, right], rig_wait: 1}, "
        "cache: {budget_mib: 0, adaptive: off}}}"
    )
    path.write_text(text, encoding="utf-8")
    with NodeProcess(TINY, "--params-file", str(path)) as node:
        node.wait_for_line("waiting for images on /left/image, /right/image")
    path.write_text(text.replace("[left, right]", "[]"), encoding="utf-8")
    with NodeProcess(TINY, "--params-file", str(path)) as node:
        node.wait_for_line("waiting for images on /image$")


def test_live_parameters_take_effect_at_the_next_image(
    running: tuple[NodeProcess, Peer, Any], five: tuple[Peer, list[int]]
) -> None:
    _, peer, publisher = running
    full = peer.with_stamp("points", five[1][-1])
    stamp = five[1][-1] + SECOND
    changes = {"points__stride": 3, "points__min_confidence": 1e6, "depth__encoding": "16UC1"}
    more = {"tf__publish_map": False, "tf__time_offset": 0.5, "path__max_poses": 2}
    assert peer.set_parameters(**changes, **more).successful
    publisher.publish(image_message(stamp))
    cloud = peer.with_stamp("points", stamp)
    assert (cloud.height, cloud.width) == (-(-full.height // 3), -(-full.width // 3))
    rows = np.frombuffer(cloud.data, np.float32).reshape(-1, 6)
    assert np.isnan(rows[:, :3]).all()
    assert not cloud.is_dense
    assert peer.with_stamp("depth/image", stamp).encoding == "16UC1"
    (link,) = peer.with_stamp("/tf", stamp + SECOND // 2).transforms
    assert (link.header.frame_id, link.child_frame_id) == ("odom", "camera_optical")
    poses = peer.with_stamp("path", stamp).poses
    assert [stamp_of(pose) for pose in poses] == [five[1][-1], stamp]
    restored = {"points__stride": 1, "points__min_confidence": 1.0, "depth__encoding": "32FC1"}
    more = {"tf__publish_map": True, "tf__time_offset": 0.0, "path__max_poses": 500}
    assert peer.set_parameters(**restored, **more).successful


def test_a_transform_that_is_not_asked_for_is_not_broadcast(
    running: tuple[NodeProcess, Peer, Any], five: tuple[Peer, list[int]]
) -> None:
    _, peer, publisher = running
    stamp = five[1][-1] + 2 * SECOND
    assert peer.set_parameters(tf__publish_odom=False).successful
    publisher.publish(image_message(stamp))
    (link,) = peer.with_stamp("/tf", stamp).transforms
    assert (link.header.frame_id, link.child_frame_id) == ("map", "odom")
    assert peer.set_parameters(tf__publish_odom=True).successful


def _altered(**fields: Any) -> Callable[[int], Image]:
    def make(stamp: int) -> Image:
        message = image_message(stamp)
        for name, value in fields.items():
            setattr(message, name, value)
        return message

    return make


def _without_data(stamp: int) -> Image:
    message = image_message(stamp)
    message.data = packed(np.zeros(0, np.uint8))
    return message


BAD_IMAGES = {
    "unknown encoding": (_altered(encoding="rgb99"), "'rgb99' is not supported", "rgb99"),
    "short step": (_altered(step=3), "step is 3 bytes, a row of 64 pixels", "step is"),
    "too high for its data": (_altered(height=480), "data holds 9216 bytes", "data holds"),
    "no data": (_without_data, "data holds 0 bytes", "data holds"),
    "no size": (_altered(width=0, height=0), "0 x 0", "0 x 0"),
    "no frame": (lambda stamp: image_message(stamp, ""), "frame_id '' is empty", "'' is empty"),
    "world frame": (
        lambda stamp: image_message(stamp, "odom"),
        "frames.odom",
        "frame_id 'odom' is the",
    ),
}
"""What is sent, what ~/status says of it, and what the log does at least once."""


@pytest.mark.parametrize("kind", BAD_IMAGES)
def test_a_bad_image_is_refused_and_the_next_one_is_not(
    running: tuple[NodeProcess, Peer, Any], five: tuple[Peer, list[int]], kind: str
) -> None:
    node, peer, publisher = running
    make, reason, log = BAD_IMAGES[kind]
    stamp = (100 + list(BAD_IMAGES).index(kind)) * SECOND
    publisher.publish(make(stamp))
    status = peer.wait_for_status(
        lambda s: stamp_of(s) == stamp and s.state == "error", f"refusal of {kind}"
    )
    assert reason in status.message
    node.wait_for_line(f"image with stamp .* refused: .*{log}")
    publisher.publish(image_message(stamp + 1))
    peer.with_stamp("points", stamp + 1)
    after = peer.with_stamp("status", stamp + 1)
    assert after.state != "error"
    assert after.frames_refused == status.frames_refused
    assert stamp not in map(stamp_of, peer.messages("points"))


def test_a_stamp_that_comes_twice_is_refused(
    running: tuple[NodeProcess, Peer, Any], five: tuple[Peer, list[int]]
) -> None:
    _, peer, publisher = running
    stamp = 200 * SECOND
    publisher.publish(image_message(stamp))
    publisher.publish(image_message(stamp))
    status = peer.wait_for_status(
        lambda s: stamp_of(s) == stamp and s.state == "error", "refusal of a repeated stamp"
    )
    assert "twice in a row" in status.message
    assert [stamp_of(message) for message in peer.messages("points")].count(stamp) == 1


def test_a_change_of_size_is_told_and_the_node_goes_on(
    running: tuple[NodeProcess, Peer, Any], five: tuple[Peer, list[int]]
) -> None:
    node, peer, publisher = running
    publisher.publish(image_message(300 * SECOND, width=48, height=48))
    assert peer.with_stamp("points", 300 * SECOND).height == 56
    node.wait_for_line("the network's image changes from 56x42 to 56x56")
    publisher.publish(image_message(301 * SECOND))
    assert peer.with_stamp("points", 301 * SECOND).height == 42


def test_the_cache_changes_while_images_flow(
    running: tuple[NodeProcess, Peer, Any],
) -> None:
    _, peer, publisher = running
    stamp = 350 * SECOND
    publisher.publish(image_message(stamp - 1))
    before = peer.with_stamp("status", stamp - 1)
    assert (before.budget_tokens, before.key_bits, before.value_bits) == (200, 4, 4)
    wide = {"cache__key_bits": 8, "cache__value_bits": 16, "cache__policy": "value_aware"}
    assert peer.set_parameters(cache__budget_tokens=150, **wide).successful
    publisher.publish(image_message(stamp))
    changed = peer.with_stamp("status", stamp)
    assert (changed.budget_tokens, changed.key_bits, changed.value_bits) == (150, 8, 16)
    assert (changed.policy, changed.session) == ("value_aware", before.session)
    assert max(changed.layer_tokens) == changed.cache_tokens <= 150
    # Two caches of a chain share it.
    assert peer.set_parameters(cache__budget_mib=0.1).successful
    publisher.publish(image_message(stamp + 1))
    small = peer.with_stamp("status", stamp + 1)
    assert small.cache_bytes + small.scratch_bytes <= 0.1 * 2**20
    assert small.budget_tokens < 150
    back = {"cache__key_bits": 4, "cache__value_bits": 4, "cache__policy": "xstreamvggt"}
    assert peer.set_parameters(cache__budget_mib=0.0, cache__budget_tokens=200, **back).successful


def test_stamps_that_go_back_begin_a_session(
    running: tuple[NodeProcess, Peer, Any], five: tuple[Peer, list[int]]
) -> None:
    node, peer, publisher = running
    publisher.publish(image_message(400 * SECOND))
    before = peer.with_stamp("status", 400 * SECOND)
    publisher.publish(image_message(7))
    after = peer.with_stamp("status", 7)
    assert (after.session, after.session_frames) == (before.session + 1, 1)
    assert "jumped back" in after.message
    assert [stamp_of(pose) for pose in peer.with_stamp("path", 7).poses] == [7]
    node.wait_for_line("stamps jumped back by 400.000 s")


def test_refusals_of_one_kind_are_one_line() -> None:
    parameters = {**ALL, "input.image_transport": "compressed"}
    with NodeProcess(parameters) as node, Peer(node.domain) as peer:
        publisher = peer.publisher("/image/compressed", CompressedImage)
        rng = np.random.default_rng(0)
        for i in range(40):
            message = CompressedImage(header=header(SECOND + i, "f"), format="jpeg")
            message.data = packed(rng.integers(0, 128, 8 + i, np.uint8))
            publisher.publish(message)
        status = peer.wait_for_status(lambda s: s.frames_refused == 40, "40 refusals")
        assert status.state == "error"
        assert node.interrupt() == 0
        told = [line for line in node.lines if "are no image that OpenCV can decode" in line]
        assert 1 <= len(told) <= 2


def test_queue_policy_all_processes_a_burst_in_order() -> None:
    with NodeProcess(ALL) as node, Peer(node.domain) as peer:
        publisher = peer.publisher()
        stamps = [SECOND + i for i in range(40)]
        for stamp in stamps:
            publisher.publish(image_message(stamp))
        status = peer.with_stamp("status", stamps[-1])
        assert (status.frames_received, status.frames_processed) == (40, 40)
        peer.with_stamp("odometry", stamps[-1])
        assert [stamp_of(message) for message in peer.messages("odometry")] == stamps


def test_queue_policy_latest_drops_and_counts_under_load() -> None:
    deep = {"qos_overrides./image.subscription.depth": 200}
    with NodeProcess({**SLOW, **deep}) as node, Peer(node.domain) as peer:
        publisher = peer.publisher()
        sent = [SECOND + i for i in range(60)]
        for stamp in sent:
            message = image_message(stamp)
            message.encoding = "rgb99" if stamp % 10 == 9 else "rgb8"
            publisher.publish(message)
        status = peer.wait_for_status(
            lambda s: s.frames_received == len(sent) and s.frames_pending == 0, "all accounted for"
        )
        assert status.frames_dropped == len(sent) - status.frames_processed - status.frames_refused
        assert status.frames_dropped > 0
        peer.with_stamp("odometry", max(s for s in sent if s % 10 != 9))
        assert len(peer.messages("odometry")) == status.frames_processed
        assert not node.said("does not exist")


def _publish_until_heard(peer: Peer, publisher: Any) -> None:
    """Publish until a cloud comes: best-effort images are lost until both have discovered."""
    stamps = iter(range(SECOND, 2 * SECOND))

    def heard() -> bool:
        publisher.publish(image_message(next(stamps)))
        return bool(peer.messages("points"))

    peer.wait_until(heard, "points")


@pytest.mark.parametrize("reliability", [ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT])
def test_publishers_of_either_reliability_are_heard(reliability: ReliabilityPolicy) -> None:
    with NodeProcess(TINY) as node, Peer(node.domain) as peer:
        node.wait_for_line("waiting for images on /image")
        publisher = peer.publisher(reliability=reliability)
        _publish_until_heard(peer, publisher)
        expected = reliability == ReliabilityPolicy.BEST_EFFORT
        assert node.said("subscribing to /image again as best_effort") == expected


def test_a_subscription_that_asks_for_too_much_is_told_the_remedy() -> None:
    parameters = {**TINY, "input.reliability": "reliable"}
    with NodeProcess(parameters) as node, Peer(node.domain, {}) as peer:
        peer.node.create_publisher(Image, "/image", BEST_EFFORT)
        node.wait_for_line(
            r"a publisher of /image offers less .*\(reliable\).*set input.reliability to auto"
        )


def test_a_qos_override_goes_before_the_publishers() -> None:
    override = {"qos_overrides./image.subscription.reliability": "best_effort"}
    with NodeProcess({**TINY, **override}) as node, Peer(node.domain) as peer:
        publisher = peer.publisher()
        infos = peer.node.get_subscriptions_info_by_topic("/image")
        assert [i.qos_profile.reliability for i in infos] == [ReliabilityPolicy.BEST_EFFORT]
        _publish_until_heard(peer, publisher)
        assert not node.said("again")
        assert not node.said("does not exist")


def test_compressed_images_and_a_truncated_one() -> None:
    frames = {"frames.map": "world", "frames.odom": "start", "frames.camera": "front"}
    parameters = {**TINY, **frames, "input.image_transport": "compressed"}
    remapped = ("-r", "image:=/front/image_raw")
    with NodeProcess(parameters, *remapped) as node, Peer(node.domain) as peer:
        publisher = peer.publisher("/front/image_raw/compressed", CompressedImage)
        whole = cv2.imencode(".jpg", image())[1].tobytes()
        for stamp, data in ((1, whole), (2, whole[: len(whole) // 2]), (3, whole)):
            message = CompressedImage(header=header(stamp * SECOND, ""), format="jpeg")
            message.data = packed(np.frombuffer(data, np.uint8))
            publisher.publish(message)
            peer.with_stamp("status", stamp * SECOND)
        refusal = peer.with_stamp("status", 2 * SECOND)
        assert refusal.state == "error"
        assert "JPEG image is truncated" in refusal.message
        node.wait_for_line("image with stamp 2.000 refused: The JPEG image is truncated")
        peer.with_stamp("points", 3 * SECOND)
        assert [stamp_of(cloud) for cloud in peer.messages("points")] == [SECOND, 3 * SECOND]
        assert {cloud.header.frame_id for cloud in peer.messages("points")} == {"front"}
        links = peer.with_stamp("/tf", 3 * SECOND).transforms
        names = [(link.header.frame_id, link.child_frame_id) for link in links]
        assert names == [("world", "start"), ("start", "front")]


def _assert_ends_cleanly(node: NodeProcess, number: int) -> None:
    segments = node.shared_memory
    assert node.interrupt(number) == 0
    assert "Traceback" not in node.output
    assert "terminate called" not in node.output
    assert not any(segment.exists() for segment in segments)


@pytest.mark.parametrize("number", first_is_quick([signal.SIGINT, signal.SIGTERM, signal.SIGHUP]))
def test_a_signal_under_load_ends_it_cleanly(number: int) -> None:
    with (
        NodeProcess(SLOW, fresh=True) as node,
        Peer(node.domain, {"/xsvggt/status": ReconstructionStatus}) as peer,
    ):
        publisher = peer.publisher()
        stamps = iter(range(SECOND, 2 * SECOND))

        def overloaded() -> bool:
            publisher.publish(image_message(next(stamps)))
            return any(s.frames_processed and s.frames_dropped for s in peer.messages("status"))

        peer.wait_until(overloaded, "a processed and a dropped image")
        for _ in range(20):
            publisher.publish(image_message(next(stamps)))
        _assert_ends_cleanly(node, number)


STUCK = """
import sys
from threading import Event
import torch
from xsvggt_ros.ros import node, reconstruct_node
from xsvggt_ros.stream.chain_settings import ChainSettings

class Stuck:
    chain = ChainSettings()
    session, session_frames, reset_reason, device = 1, 0, "", torch.device("cpu")
    waiting_frames = 0
    def check_refinement(self, refinement):
        pass
    def set_refinement(self, refinement):
        pass
    def set_chain(self, chain):
        pass
    def take(self, image, **_):
        print("in the network", flush=True)
        Event().wait()

reconstruct_node.SHUTDOWN_TIMEOUT = 0.1
reconstruct_node.build_reconstructor = lambda settings: Stuck()
sys.exit(node.main())
"""


@pytest.mark.parametrize("number", first_is_quick([signal.SIGINT, signal.SIGTERM]))
def test_a_signal_while_the_network_takes_too_long_ends_it_cleanly(number: int) -> None:
    stuck = NodeProcess({}, program=("-c", STUCK), fresh=True)
    with stuck as node, Peer(node.domain, {}) as peer:
        peer.publisher().publish(image_message(SECOND))
        node.wait_for_line("in the network")
        fast_dds = "fastrtps" in get_rmw_implementation_identifier()
        assert bool(node.shared_memory) == fast_dds
        _assert_ends_cleanly(node, number)
        assert node.said("takes longer than 0.1 s; leaving without it")


START_UP = [
    *(rf"import time:.*\b{module}$" for module in ("rclpy.impl", "numpy", "rclpy.node", "cv2")),
    r"import time:.*\bxsvggt_ros.ros.reconstruct_node$",
    r"import time:.*\btorch._C$",
    r"import time:.*\btorch$",
    "no checkpoint given",
    "waiting for images",
]
"""What Python, told to name what it has imported, and the node say on their way."""


@pytest.mark.parametrize("moment", first_is_quick(START_UP))
@pytest.mark.parametrize("number", first_is_quick([signal.SIGINT, signal.SIGTERM]))
def test_a_signal_while_it_starts_ends_it_cleanly(number: int, moment: str) -> None:
    naming = {"PYTHONPROFILEIMPORTTIME": "1"}
    with NodeProcess({**TINY, "model.preset": "small"}, env=naming) as node:
        node.wait_for_line(moment)
        _assert_ends_cleanly(node, number)


UNUSABLE: dict[str, tuple[dict[str, Any], str]] = {
    "checkpoint": ({"model.checkpoint": "/nowhere/weights.pth"}, "/nowhere/weights.pth"),
    "device": ({**TINY, "model.device": "abacus"}, "abacus"),
    "preset": ({"model.preset": "tinny"}, "model.preset is 'tinny'.*did you mean 'tiny'"),
    "range": ({"points.stride": 65}, "points.stride.*legal are 1 to 64 pixels"),
    "step": ({"input.width": 300}, "input.width.*0 to 2044 in steps of 14"),
    "type": ({"points.stride": 2.5}, "points.stride must be of type int, such as 1, but is 2.5"),
    "no value": ({"points.stride": []}, "points.stride must be of type int.* has no value"),
    "no number": (
        {"cache.budget_mib": []},
        "cache.budget_mib must be of type float.* has no value",
    ),
    "not a number": ({"scale.value": float("nan")}, "scale.value.*legal are 1e-06 to 1000000"),
    "a list": ({"frames.base": ["a", "b"]}, "frames.base must be of type str.*but is .'a', 'b'."),
    "time": ({"use_sim_time": []}, "use_sim_time"),
    "QoS": ({"qos_overrides./image.subscription.depth": "deep"}, "qos_overrides"),
    "QoS without a value": ({"qos_overrides./image.subscription.depth": []}, "qos_overrides"),
    "QoS that is none": (
        {"qos_overrides./image.subscription.reliability": "besteffort"},
        "qos_overrides./image.subscription.reliability: 'besteffort' is none of system_default, "
        "reliable, best_effort",
    ),
    "QoS of an output that is none": (
        {"qos_overrides./xsvggt/points.publisher.durability": "latched"},
        "qos_overrides./xsvggt/points.publisher.durability: 'latched' is none of system_default, "
        "transient_local, volatile",
    ),
    "frames": ({"frames.odom": "map"}, "must differ"),
    "frame name": ({"frames.odom": "/odom"}, "frames.odom '/odom' begins with a slash"),
    "ROS parameter": ({"use_sim_time": "yes please"}, "use_sim_time"),
}


@pytest.mark.parametrize("kind", first_is_quick(UNUSABLE))
def test_what_cannot_work_is_one_sentence_and_exit_code_1(kind: str) -> None:
    parameters, sentence = UNUSABLE[kind]
    with NodeProcess(parameters) as node:
        assert node.wait() == 1
        node.wait_for_line(rf"\[FATAL\].*{sentence}")
        assert "Traceback" not in node.output
        assert "terminate called" not in node.output


def test_ros_arguments_that_cannot_be_read_are_one_sentence(tmp_path: Path) -> None:
    with NodeProcess({}, "--params-file", str(tmp_path / "missing.yaml")) as node:
        assert node.wait() == 1
        node.wait_for_line(r"the ROS arguments cannot be used: .*missing\.yaml")
        assert "Traceback" not in node.output


@pytest.mark.parametrize(
    ("namespace", "reason"), [("/robot/", "invalid node namespace"), ("/" + 226 * "r", "name")]
)
def test_a_namespace_that_is_none_is_one_sentence(namespace: str, reason: str) -> None:
    with NodeProcess({}, "-r", f"__ns:={namespace}") as node:
        assert node.wait() == 1
        node.wait_for_line(rf"\[FATAL\].*{reason}.*correct __ns or __node among the ROS arguments")
        assert "Traceback" not in node.output


def test_without_pytorch_it_names_the_interpreter_and_the_command(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('not here')\n", encoding="utf-8")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    with NodeProcess(TINY, env={"PYTHONPATH": path}) as node:
        assert node.wait() == 1
        node.wait_for_line(r"PyTorch cannot be imported by \S*python\S* \(not here\).* pip install")
        assert "Traceback" not in node.output


@pytest.mark.slow
def test_silence_is_explained() -> None:
    parameters = {**TINY, "watchdog.timeout": 1.0, "cache.bugdet_tokens": 3}
    with NodeProcess(parameters) as node, Peer(node.domain, {}) as peer:
        node.wait_for_line("'cache.bugdet_tokens' does not exist.*mean 'cache.budget_tokens'")
        node.wait_for_line(r"no image for \d+ s on /image: it has no publisher; start a camera")
        peer.node.create_publisher(Image, "/front/image_raw", 1)
        node.wait_for_line("it has no publisher; remap image to one of /front/image_raw$")
        wrong = peer.node.create_publisher(CompressedImage, "/image", 1)
        node.wait_for_line("it carries sensor_msgs/msg/CompressedImage, not sensor_msgs/msg/Image")
        peer.node.destroy_publisher(wrong)
        peer.node.create_publisher(Image, "/image", 1)
        node.wait_for_line(r"publishers 1 \(reliable\), subscription reliable; either")
        assert node.interrupt() == 0
