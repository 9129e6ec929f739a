# SPDX-License-Identifier: Apache-2.0
"""What the node does while its engine is busy: the engine here waits until the test lets it go."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from threading import Event, Thread
from typing import Any
from unittest.mock import Mock

import pytest

REASON = "needs ROS 2 and this package's messages: run scripts/test, or source a built workspace"
pytest.importorskip("rclpy", reason=REASON)
pytest.importorskip("tf2_msgs", reason=REASON)
pytest.importorskip("xsvggt_ros.msg", reason=REASON)

import rclpy
import torch
from node_process import PATIENCE, Peer, image_message, stamp_of
from present import present
from rclpy.duration import Duration
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from results import result_of, result_with, slope, update_of
from sensor_msgs.msg import Image
from xsvggt_ros.msg import ReconstructionStatus

from xsvggt_ros.cache.settings import CacheSettings
from xsvggt_ros.errors import ConfigurationError
from xsvggt_ros.geometry.cameras import Calibration
from xsvggt_ros.ros import publishers as publishers_module
from xsvggt_ros.ros import reconstruct_node as node_module
from xsvggt_ros.ros.image_input import BackPressureGroup, Watchdog
from xsvggt_ros.ros.parameters import Settings
from xsvggt_ros.ros.processes import free_domain
from xsvggt_ros.ros.publishers import CameraPublisher
from xsvggt_ros.ros.reconstruct_node import ReconstructNode
from xsvggt_ros.ros.topics import LEAST_WAITING
from xsvggt_ros.ros.transforms import TransformBroadcaster, TransformOwners
from xsvggt_ros.stream.chain_settings import ChainSettings
from xsvggt_ros.stream.frame import Frame, FrameResult, ImageArray
from xsvggt_ros.stream.worker import FrameQueue

SECOND = 1_000_000_000
STATUS = {"/xsvggt/status": ReconstructionStatus}


class Gate:
    """An engine that is in its network until it is let go."""

    def __init__(self) -> None:
        self.entered = Event()
        self.released = Event()
        self.session = 1
        self.session_frames = 0
        self.reset_reason = ""
        self.device = torch.device("cpu")
        self.cache: CacheSettings | None = None
        self.waiting_frames = 0
        self.fails = True
        self.chain = ChainSettings()

    def check_cache(self, settings: CacheSettings, *, caches: int = 0) -> None:
        """Find no room for two caches where there was one."""
        if caches > 1 and not self.chain.length:
            raise ConfigurationError("two caches do not fit")

    def set_chain(self, chain: ChainSettings) -> None:
        """Take it on, or fail."""
        if chain.overlap == 33:
            raise ConfigurationError("no such chain")
        self.chain = chain

    def set_refinement(self, refinement: str) -> None:
        """Take no notice."""

    def check_refinement(self, refinement: str) -> None:
        """Find nothing wrong."""

    def configure_cache(self, settings: CacheSettings) -> None:
        """Note what is asked for, or fail."""
        if settings.budget_tokens == 666 and self.fails:
            raise ConfigurationError("no such budget")
        self.cache = settings

    def take(
        self,
        image: ImageArray,
        *,
        stamp: int,
        frame_id: str,
        camera: str,
        calibration: Calibration | None,
    ) -> list[FrameResult]:
        """Wait, then return something."""
        self.entered.set()
        self.released.wait()
        self.session_frames += 1
        depth = slope(*image.shape[:2])
        return [result_with(depth, stamp=stamp, frame_id=frame_id, color=image)]


Start = Callable[..., "tuple[ReconstructNode, Peer]"]


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.released.set()


@contextmanager
def _running(gate: Gate, *parameters: str) -> Iterator[tuple[ReconstructNode, Peer]]:
    """Run the node on a thread of this process."""
    domain = free_domain()
    arguments = [part for parameter in parameters for part in ("-p", parameter)]
    rclpy.init(args=["--ros-args", *arguments], domain_id=domain)
    node = ReconstructNode()
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    thread = Thread(target=executor.spin)
    node.start()
    thread.start()
    try:
        with Peer(domain, STATUS) as peer:
            yield node, peer
    finally:
        gate.released.set()
        executor.shutdown()
        thread.join()
        try:
            assert node.close()
        finally:
            rclpy.shutdown()


@pytest.fixture(autouse=True)
def _engine(monkeypatch: pytest.MonkeyPatch, gate: Gate) -> None:
    monkeypatch.setattr(node_module, "build_reconstructor", lambda settings: gate)


def test_parameters_are_answered_while_an_image_is_in_the_network(gate: Gate) -> None:
    with _running(gate) as (_, peer):
        publisher = peer.publisher()
        publisher.publish(image_message(SECOND))
        peer.wait_until(gate.entered.is_set, "the image is in the network")
        assert peer.set_parameters(points__stride=2).successful
        assert gate.session_frames == 0
        busy = peer.wait_for_status(lambda s: s.frames_pending == 1, "status while it is busy")
        assert busy.state == "warming up"
        gate.released.set()
        assert peer.with_stamp("status", SECOND).frames_processed == 1


def test_a_change_of_the_cache_waits_for_the_frame_boundary(gate: Gate) -> None:
    with _running(gate) as (_, peer):
        publisher = peer.publisher()
        publisher.publish(image_message(SECOND))
        peer.wait_until(gate.entered.is_set, "the image is in the network")
        assert peer.set_parameters(cache__budget_tokens=300, cache__key_bits=2).successful
        assert gate.cache is None
        gate.released.set()
        peer.wait_until(lambda: gate.cache is not None, "the change")
        assert gate.cache == CacheSettings(budget_tokens=300, key_bits=2)


def test_a_change_that_fails_on_the_way_is_told(gate: Gate) -> None:
    gate.released.set()
    with _running(gate) as (_, peer):
        assert peer.set_parameters(cache__budget_tokens=666).successful
        status = peer.wait_for_status(lambda s: "no such budget" in s.message, "the failure")
        assert status.state == "waiting"
        gate.fails = False
        assert peer.set_parameters(cache__budget_tokens=666).successful
        peer.wait_until(lambda: gate.cache is not None, "the same change, tried again")


def test_a_chain_that_cannot_be_taken_on_is_refused_or_told(gate: Gate) -> None:
    gate.released.set()
    with _running(gate) as (_, peer):
        assert peer.set_parameters(chain__overlap=33).successful
        peer.wait_for_status(lambda s: "no such chain" in s.message, "the failure")
        assert peer.set_parameters(chain__overlap=4, chain__length=0).successful
        peer.wait_until(lambda: gate.chain.length == 0, "the change")
        refused = peer.set_parameters(chain__length=300)
        assert not refused.successful
        assert "two caches do not fit" in refused.reason


def test_an_image_that_is_stuck_is_told_with_its_stage(gate: Gate) -> None:
    with _running(gate, "watchdog.timeout:=1.0") as (_, peer):
        peer.publisher().publish(image_message(SECOND))
        status = peer.wait_for_status(lambda s: s.state == "stalled", "a warning")
        assert "in stage 'reconstructing'" in status.message
        assert "model.device" in status.message
        assert (status.frames_received, status.frames_pending) == (1, 1)
        gate.released.set()
        assert peer.with_stamp("status", SECOND).state == "running"
        peer.wait_for_status(lambda s: stamp_of(s) == SECOND and s.state == "waiting", "silence")


def test_images_wait_in_the_middleware_while_the_queue_is_full(gate: Gate) -> None:
    with _running(gate, "input.queue_policy:=all", "input.queue_size:=1") as (_, peer):
        publisher = peer.publisher()
        stamps = [SECOND + i for i in range(10)]
        for stamp in stamps:
            publisher.publish(image_message(stamp))
        held = peer.wait_for_status(lambda s: s.frames_pending == 2, "network and queue are full")
        assert held.frames_received == 2
        assert peer.set_parameters(points__stride=2).successful
        gate.released.set()
        last = peer.with_stamp("status", stamps[-1])
        assert (last.frames_received, last.frames_processed, last.frames_dropped) == (10, 10, 0)


def test_room_in_the_queue_alone_lets_the_next_image_in(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_module, "TICK_PERIOD", 3600.0)
    with _running(gate, "input.queue_policy:=all", "input.queue_size:=1") as (node, peer):
        publisher = peer.publisher(wait_for_outputs=False)
        status = next(each for each in node.publishers if each.topic_name == "/xsvggt/status")
        peer.wait_until(lambda: status.get_subscription_count() > 0, "the node sees the peer")
        stamps = [SECOND + i for i in range(10)]
        for stamp in stamps:
            publisher.publish(image_message(stamp))
        peer.wait_until(gate.entered.is_set, "the image is in the network")
        gate.released.set()
        assert peer.with_stamp("status", stamps[-1]).frames_processed == 10


class _Input:
    """An input that is silent, or full."""

    topic, type_name, reliability, last_image = "/image", "T", "reliable", -math.inf

    def __init__(self, held_back: bool) -> None:
        self.held_back = held_back

    def publishers(self) -> list[Any]:
        """Return nobody."""
        return []


def test_a_full_queue_is_not_taken_for_silence() -> None:
    rclpy.init(domain_id=free_domain())
    node = Node("watched")
    warnings = [
        Watchdog(node, _Input(held_back), lambda: None).silence(5.0)  # type: ignore[arg-type,return-value]
        for held_back in (False, True)
    ]
    node.destroy_node()
    rclpy.shutdown()
    assert "no image for inf s on /image" in (warnings[0] or "")
    assert warnings[1] is None


def test_images_that_the_middleware_loses_are_counted_and_warned_of(
    gate: Gate, capfd: pytest.CaptureFixture[str]
) -> None:
    with _running(gate, "input.queue_policy:=all", "input.queue_size:=1") as (_, peer):
        publisher = peer.publisher()
        publisher.publish(image_message(SECOND))
        publisher.publish(image_message(SECOND + 1))
        peer.wait_for_status(lambda s: s.frames_pending == 2, "network and queue are full")
        for i in range(2, 102):
            publisher.publish(image_message(SECOND + i))
        assert publisher.wait_for_all_acked(Duration(seconds=PATIENCE))
        gate.released.set()
        last = peer.with_stamp("status", SECOND + 101)
        assert (last.frames_received, last.frames_processed) == (102, 2 + LEAST_WAITING)
        assert (last.frames_dropped, last.frames_pending) == (100 - LEAST_WAITING, 0)
    said = capfd.readouterr().err
    assert f"{100 - LEAST_WAITING} images were lost before the node took them" in said


def test_images_that_wait_survive_a_publisher_of_another_reliability(
    gate: Gate, capfd: pytest.CaptureFixture[str]
) -> None:
    said: list[str] = []

    def warned() -> bool:
        said.append(capfd.readouterr().err)
        return "now offer best_effort, the subscription stays reliable" in "".join(said)

    with _running(gate, "input.queue_policy:=all", "input.queue_size:=1") as (_, peer):
        publisher = peer.publisher()
        for i in range(10):
            publisher.publish(image_message(SECOND + i))
        peer.wait_for_status(lambda s: s.frames_pending == 2, "network and queue are full")
        other = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        peer.node.create_publisher(Image, "/image", other)
        peer.wait_until(warned, "a warning")
        gate.released.set()
        last = peer.with_stamp("status", SECOND + 9)
        assert (last.frames_processed, last.frames_dropped) == (10, 0)
    assert "again as" not in "".join(said)


def test_it_does_not_wait_for_a_network_that_takes_too_long(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _running(gate) as (node, peer):
        peer.publisher().publish(image_message(SECOND))
        peer.wait_until(gate.entered.is_set, "the image is in the network")
        with monkeypatch.context() as patch:
            patch.setattr(node_module, "SHUTDOWN_TIMEOUT", 0.0)
            assert not node.close()


def test_a_node_that_is_destroyed_waits_for_what_still_publishes_on_it(
    gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever runs it among other nodes destroys it like any other, whatever it is doing."""
    with _running(gate) as (node, peer):
        worker, executor = present(node._engine).worker, present(node.executor)
        peer.publisher().publish(image_message(SECOND))
        peer.wait_until(gate.entered.is_set, "the image is in the network")
        executor.shutdown()
        with caplog.at_level(logging.WARNING):
            destroying = Thread(target=node.destroy_node)
            destroying.start()
            peer.wait_until(lambda: worker._stopping, "the end to begin")
            node.get_publishers_info_by_topic("/tf")  # nothing is gone yet
            assert destroying.is_alive()
            gate.released.set()
            destroying.join(PATIENCE)
        assert not destroying.is_alive()
        assert not worker.alive
        assert worker.counters.processed == 1
        assert not caplog.records
        assert node.close()  # once more does no harm


def _refuse_to_decode() -> ImageArray:
    raise AssertionError("not to be decoded")


def test_the_group_holds_only_while_a_queue_that_must_not_drop_is_full() -> None:
    frame = Frame(stamp=0, frame_id="f", decode=_refuse_to_decode)
    for policy, holds in (("all", True), ("latest", False)):
        queue = FrameQueue(policy, 1)  # type: ignore[arg-type]
        group = BackPressureGroup(queue)
        assert not group.holding
        queue.put(frame)
        assert group.holding == holds
        queue.close()
        assert not group.holding


def test_nothing_is_packed_for_topics_that_nobody_listens_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("odometry_message", "pose_message"):
        monkeypatch.setattr(publishers_module, name, Mock(side_effect=AssertionError(name)))
    rclpy.init(domain_id=free_domain())
    node = Node("silent")
    result = result_of()
    unpackable: Any = None
    unpacked = replace(result, depth=unpackable, confidence=unpackable, intrinsics=unpackable)
    CameraPublisher(node, TransformBroadcaster(node, TransformOwners())).publish(
        update_of(unpacked), Settings()
    )
    node.destroy_node()
    rclpy.shutdown()
