# SPDX-License-Identifier: Apache-2.0
"""A replay over real DDS."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from bags import SECOND, Info, Shot, encode, images, write_bag, write_directory
from present import present

from xsvggt_ros.stream.sources import DirectorySource

HOW = "needs ROS 2: run scripts/test, which sets it up"
pytest.importorskip("rclpy", reason=HOW)
pytest.importorskip("xsvggt_ros.msg", reason=HOW)

import rclpy
from rcl_interfaces.msg import Log
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_srvs.srv import SetBool
from xsvggt_ros.msg import ReconstructionStatus

from xsvggt_ros.errors import ConfigurationError, SourceError
from xsvggt_ros.geometry.cameras import Calibration
from xsvggt_ros.ros.processes import free_domain
from xsvggt_ros.ros.replay import ReplayNode, replay
from xsvggt_ros.ros.replay_topics import Follower, MeteredSource, ReplayOptions, ReplayTopics
from xsvggt_ros.stream.imaging import decode_encoded
from xsvggt_ros.stream.messages import nanoseconds
from xsvggt_ros.stream.sources import Source, open_source

DOMAIN = free_domain()
PATIENCE = 60.0
"""Seconds after which a test gives up; nothing takes this long."""

CALIBRATION = Calibration(
    width=32,
    height=24,
    distortion_model="plumb_bob",
    d=(0.1, 0.2),
    k=(30.0, 0.0, 16.0, 0.0, 30.0, 12.0, 0.0, 0.0, 1.0),
    r=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
    p=(30.0, 0.0, 16.0, 0.0, 0.0, 30.0, 12.0, 0.0, 0.0, 0.0, 1.0, 0.0),
)


class Listener:
    """Subscribes, and keeps what comes."""

    def __init__(self, context: Context) -> None:
        self.node = rclpy.create_node("listener", context=context)
        self.executor = SingleThreadedExecutor(context=context)
        self.executor.add_node(self.node)

    def hear(self, kind: type, topic: str) -> list[Any]:
        heard: list[Any] = []
        self.node.create_subscription(kind, topic, heard.append, QoSProfile(depth=100))
        return heard

    def until(self, fulfilled: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not fulfilled():
            assert time.monotonic() < deadline, "waited in vain"
            self.executor.spin_once(timeout_sec=0.1)

    def call(self, service: str, value: bool) -> SetBool.Response:
        client: Any = self.node.create_client(SetBool, service)
        self.until(client.service_is_ready)
        answer = client.call_async(SetBool.Request(data=value))
        self.until(answer.done)
        return answer.result()


@pytest.fixture
def listener() -> Iterator[Listener]:
    context = Context()
    rclpy.init(context=context, domain_id=DOMAIN)
    made = Listener(context)
    yield made
    made.executor.shutdown()
    made.node.destroy_node()
    context.try_shutdown()


@contextmanager
def replaying(listener: Listener, source: Source, **options: Any) -> Iterator[ReplayNode]:
    """Replay in the listener's process; it waits until the listener was discovered."""
    node = ReplayNode(source, ReplayOptions(**options), context=listener.node.context)
    listener.executor.add_node(node)
    try:
        yield node
    finally:
        node.stop()
        listener.executor.remove_node(node)
        node.destroy_node()


def _stamps(messages: list[Any]) -> list[int]:
    return [nanoseconds(message.header.stamp) for message in messages]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return write_directory(tmp_path / "directory", images(5))


def test_raw_images_arrive_as_they_are(listener: Listener, directory: Path) -> None:
    messages, infos = listener.hear(Image, "image"), listener.hear(CameraInfo, "camera_info")
    source = open_source(directory, rate=50.0)
    with replaying(listener, source, wait_for=1) as node:
        listener.until(lambda: node.count_subscribers("camera_info"))
        done = node.start()
        listener.until(lambda: len(messages) == len(infos) == 5)
        assert done.result(PATIENCE) == 5
    frames = list(source)
    assert _stamps(messages) == _stamps(infos) == [frame.stamp for frame in frames]
    for message, info, frame in zip(messages, infos, frames, strict=True):
        assert (message.width, message.height, message.encoding, message.step) == (
            32,
            24,
            "rgb8",
            96,
        )
        assert bytes(message.data) == frame.decode().tobytes()
        assert message.header.frame_id == info.header.frame_id == "camera_optical_frame"
        assert (info.width, info.height, info.k[0]) == (32, 24, 0.0)


def test_compressed_images_pass_as_the_very_bytes(listener: Listener, tmp_path: Path) -> None:
    files = [encode(image, ".jpg") for image in images(4)]
    heard = listener.hear(CompressedImage, "image/compressed")
    source = open_source(write_directory(tmp_path / "directory", files, ".jpg"), rate=50.0)
    with replaying(listener, source, transport="compressed") as node:
        assert not node.count_publishers("image")
        node.start()
        listener.until(lambda: len(heard) == 4)
    assert [bytes(message.data) for message in heard] == files
    assert {message.format for message in heard} == {"jpeg"}


def test_a_raw_bag_is_compressed_without_loss(listener: Listener, tmp_path: Path) -> None:
    shots = images(3)
    records: list[Info | Shot] = [
        Info(1, CALIBRATION),
        *(Shot(2 + index, each) for index, each in enumerate(shots)),
    ]
    heard = listener.hear(CompressedImage, "left/image/compressed")
    infos = listener.hear(CameraInfo, "left/camera_info")
    source = open_source(write_bag(tmp_path / "bag", records))
    with replaying(listener, source, image_topic="left/image", fixed_rate=50.0) as node:
        listener.until(lambda: node.count_subscribers("left/camera_info"))
        node.start()
        listener.until(lambda: len(heard) == len(infos) == 3)
    assert _stamps(heard) == [2, 3, 4]
    for message, shot in zip(heard, shots, strict=True):
        assert message.format == "png"
        assert message.header.frame_id == "lens"
        np.testing.assert_array_equal(decode_encoded(message.data), shot)
    for info in infos:
        assert (info.width, info.height, info.distortion_model) == (32, 24, "plumb_bob")
        assert tuple(info.d) == CALIBRATION.d
        assert tuple(info.k) == CALIBRATION.k
        assert tuple(info.r) == CALIBRATION.r
        assert tuple(info.p) == CALIBRATION.p


def test_a_loop_starts_the_stamps_again(listener: Listener, directory: Path) -> None:
    messages = listener.hear(Image, "image")
    source = open_source(directory, rate=50.0)
    with replaying(listener, source, loop=True) as node:
        done = node.start()
        listener.until(lambda: len(messages) >= 12)
        node.stop()
        assert done.result(PATIENCE) >= 12
    once = [frame.stamp for frame in source]
    assert _stamps(messages)[:12] == (once * 3)[:12]


def test_restamped_images_are_of_now(listener: Listener, directory: Path) -> None:
    messages = listener.hear(Image, "image")
    clock = listener.node.get_clock()
    before = clock.now().nanoseconds
    with replaying(listener, open_source(directory, rate=50.0), restamp=True, loop=True) as node:
        node.start()
        listener.until(lambda: len(messages) >= 12)
    stamps = _stamps(messages)
    assert stamps == sorted(set(stamps))
    assert before < stamps[0]
    assert stamps[-1] < clock.now().nanoseconds


def test_a_paused_start_holds_the_clock_until_resumed(listener: Listener, tmp_path: Path) -> None:
    shots = [Shot(7 * SECOND + index * SECOND // 5, each) for index, each in enumerate(images(3))]
    messages, clocks = listener.hear(Image, "image"), listener.hear(Clock, "/clock")
    source = open_source(write_bag(tmp_path / "bag", shots))
    with replaying(listener, source, paused=True, clock=True) as node:
        node.start()
        listener.until(lambda: len(clocks) >= 5)
        assert not messages
        assert {nanoseconds(each.clock) for each in clocks} == {7 * SECOND}
        answer = listener.call("replay/pause", value=False)
        assert (answer.success, answer.message) == (True, "running")
        last = shots[-1].stamp
        listener.until(lambda: len(messages) == 3 and nanoseconds(clocks[-1].clock) == last)
    told = [nanoseconds(each.clock) for each in clocks]
    assert told == sorted(told)
    assert set(_stamps(messages)) <= set(told)
    assert any(7 * SECOND < each < 7 * SECOND + SECOND // 5 for each in told)


def test_a_pause_in_between_is_answered(listener: Listener, directory: Path) -> None:
    messages, clocks = listener.hear(Image, "image"), listener.hear(Clock, "/clock")
    source = open_source(directory, rate=50.0)
    with replaying(listener, source, loop=True, clock=True) as node:
        node.start()
        listener.until(lambda: messages)
        assert listener.call("replay/pause", value=True).message == "paused"
        clocks.clear()
        listener.until(lambda: len(clocks) >= 5)
        held = len(messages)
        clocks.clear()
        listener.until(lambda: len(clocks) >= 5)
        assert len(messages) == held
        listener.call("replay/pause", value=False)
        listener.until(lambda: len(messages) > held)


def test_a_bad_image_is_left_out(listener: Listener, tmp_path: Path) -> None:
    jpeg = encode(images(1)[0], ".jpg")
    messages = listener.hear(Image, "image")
    path = write_directory(tmp_path / "directory", [jpeg, jpeg[:99], jpeg], ".jpg")
    with replaying(listener, open_source(path, rate=50.0)) as node:
        node.start()
        listener.until(lambda: len(messages) == 2)
    assert _stamps(messages) == [SECOND // 50, 3 * SECOND // 50]


def test_a_source_that_breaks_ends_the_replay(listener: Listener, directory: Path) -> None:
    class Broken(DirectorySource):
        def __iter__(self) -> Iterator[Any]:
            yield next(super().__iter__())
            raise SourceError("the disk is gone")

    messages = listener.hear(Image, "image")
    with replaying(listener, Broken(directory)) as node:
        done = node.start()
        listener.until(done.done)
        with pytest.raises(SourceError, match="the disk is gone"):
            done.result()
        listener.until(lambda: len(messages) == 1)


EPOCH = 1_700_000_000 * SECOND
PERIOD = SECOND // 20
GAPS = {
    "before the first /clock": (
        [0, 0, 5 * SECOND, 5 * SECOND + PERIOD],
        [EPOCH + i * PERIOD for i in range(4)],
    ),
    "recorder without /clock": ([0, 0, EPOCH, EPOCH + PERIOD], [0, PERIOD, EPOCH, EPOCH + PERIOD]),
    "stamps that jump": (
        [SECOND, SECOND + PERIOD, EPOCH, EPOCH + PERIOD],
        [EPOCH + i * PERIOD for i in range(4)],
    ),
    "a long break": ([EPOCH, EPOCH + PERIOD, EPOCH + 4000 * SECOND],) * 2,
}


@pytest.mark.parametrize("case", GAPS)
def test_no_gap_makes_a_replay_silent(listener: Listener, tmp_path: Path, case: str) -> None:
    stamps, received = GAPS[case]
    shots = [
        Shot(stamp, each, received=at)
        for stamp, at, each in zip(stamps, received, images(len(stamps)), strict=True)
    ]
    messages, logs = listener.hear(Image, "image"), listener.hear(Log, "/rosout")
    source = open_source(write_bag(tmp_path / "bag", shots))
    assert 1 <= source.rate <= 100
    with replaying(listener, source) as node:
        done = node.start()
        listener.until(lambda: len(messages) == len(stamps))
        assert done.result(PATIENCE) == len(stamps)
        cut = case in ("recorder without /clock", "a long break")
        if cut:
            listener.until(lambda: any("cut to 1 s" in each.msg for each in logs))
        assert any("cut to" in each.msg for each in logs) == cut
    told = _stamps(messages)
    assert [a for a, b in zip(told, stamps, strict=True) if b] == [s for s in stamps if s]
    if case == "before the first /clock":
        assert told[:2] == [5 * SECOND - 2 * PERIOD, 5 * SECOND - PERIOD]


def test_the_format_of_compressed_images_is_kept(listener: Listener, tmp_path: Path) -> None:
    data = encode(images(1)[0], ".jpg")
    text = "rgb8; jpeg compressed bgr8"
    bag = write_bag(tmp_path / "bag", [Shot(SECOND, data, fields={"format": text})])
    heard = listener.hear(CompressedImage, "image/compressed")
    with replaying(listener, open_source(bag), transport="compressed") as node:
        node.start()
        listener.until(lambda: heard)
    assert (bytes(heard[0].data), heard[0].format) == (data, text)


def test_the_name_of_the_compressed_topic_is_no_image_topic(directory: Path) -> None:
    with pytest.raises(ConfigurationError, match="give the name of the raw images, '/a/raw'"):
        ReplayNode(open_source(directory), ReplayOptions(image_topic="/a/raw/compressed"))


@pytest.mark.parametrize("name", ["bad-name!", "/", "", "a//b", "image/", "{node}/image"])
def test_a_name_that_no_topic_can_have_is_refused(directory: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"'{re.escape(name)}' cannot name a topic"):
        ReplayNode(open_source(directory), ReplayOptions(image_topic=name))


@pytest.mark.parametrize("domain", ["500", "233", "-1", "abc", "²"])
def test_a_domain_that_is_none_is_refused(
    monkeypatch: pytest.MonkeyPatch, directory: Path, domain: str
) -> None:
    monkeypatch.setenv("ROS_DOMAIN_ID", domain)
    with pytest.raises(ConfigurationError, match=f"ROS_DOMAIN_ID is '{domain}'; set it to a"):
        replay(open_source(directory))


@pytest.mark.parametrize("best_effort", [False, True])
def test_images_are_offered_as_asked_for(directory: Path, best_effort: bool) -> None:
    context = Context()
    rclpy.init(context=context, domain_id=DOMAIN)
    node = rclpy.create_node("offers", context=context)
    topics = ReplayTopics(node, ReplayOptions(best_effort=best_effort, depth=7))
    offered = [publisher.qos_profile for publisher in topics.images]
    kind = ReliabilityPolicy.BEST_EFFORT if best_effort else ReliabilityPolicy.RELIABLE
    assert [(each.reliability, each.depth) for each in offered] == [(kind, 7)] * 2
    node.destroy_node()
    context.try_shutdown()


def test_the_announcement_names_the_service_in_full(listener: Listener, directory: Path) -> None:
    with _run(directory, "--paused", "--ros-args", "-r", "__ns:=/left") as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        process.send_signal(signal.SIGINT)
    assert "paused until /left/replay/pause says false" in line


class Answering:
    """Stands in for a node that is followed."""

    def __init__(self, listener: Listener) -> None:
        self.images = listener.hear(Image, "image")
        self._publisher = listener.node.create_publisher(
            ReconstructionStatus, "/left/xsvggt/status", 10
        )
        self._listener = listener

    def answer(self, **counts: int) -> None:
        counters = {f"frames_{name}": count for name, count in counts.items()}
        self._publisher.publish(ReconstructionStatus(**counters))

    def follow(self, source: Source, **options: Any) -> Any:
        return replaying(self._listener, source, follow="/left/xsvggt", fixed_rate=1e6, **options)

    def wait_for_follower(self) -> None:
        self._listener.until(self._publisher.get_subscription_count)


def test_a_follower_never_leaves_more_than_two_unanswered(
    listener: Listener, directory: Path
) -> None:
    followed = Answering(listener)
    with followed.follow(open_source(directory)) as node:
        done = node.start()
        followed.wait_for_follower()
        earlier = {"processed": 90, "dropped": 8, "refused": 2}
        followed.answer(received=100, **earlier)
        for answered in range(1, 4):
            listener.until(_has(followed.images, answered + 1))
            assert node.published <= answered + 1
            assert not done.done()
            how = ("processed", "dropped", "refused")[answered - 1]
            earlier[how] += 1
            followed.answer(received=101 + answered, pending=1, **earlier)
        listener.until(lambda: len(followed.images) == 5)
        assert done.result(PATIENCE) == 5
    assert _stamps(followed.images) == [frame.stamp for frame in open_source(directory)]


def test_a_follower_goes_on_with_a_node_that_was_started_again(
    listener: Listener, directory: Path
) -> None:
    followed = Answering(listener)
    with followed.follow(open_source(directory)) as node:
        done = node.start()
        followed.wait_for_follower()
        followed.answer(received=7, processed=7)
        listener.until(lambda: len(followed.images) == 2)
        followed.answer(received=0)
        listener.until(lambda: len(followed.images) == 4)
        assert node.published == 4
        followed.answer(received=1, processed=1)
        listener.until(done.done)
        assert done.result() == 5


def test_a_follower_without_a_node_stops_at_once(listener: Listener, directory: Path) -> None:
    with Answering(listener).follow(open_source(directory)) as node:
        done = node.start()
        node.stop()
        assert done.result(PATIENCE) == 0


def _has(messages: list[Any], count: int) -> Callable[[], bool]:
    return lambda: len(messages) == count


class Meter:
    """Takes what a follower allows."""

    allowed = 0

    def allow(self, answered: int) -> None:
        self.allowed = answered


def test_a_follower_tells_of_silence_and_of_images_that_got_lost(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(
        type(listener.node.get_logger()), "warning", lambda _, text: said.append(text)
    )
    meter, published = Meter(), [0]
    follower = Follower(listener.node, "/xsvggt", cast(MeteredSource, meter), lambda: published[0])
    follower.look()
    assert "nothing on /xsvggt/status for 5 s" in said.pop()
    follower.on_status(ReconstructionStatus())
    follower.look()
    assert not said
    published[0] = 2
    follower.on_status(ReconstructionStatus(frames_received=1, frames_processed=1))
    follower.look()
    assert (said, meter.allowed) == ([], 1)
    follower.on_status(ReconstructionStatus(frames_received=1, frames_processed=1))
    follower.look()
    assert "1 images did not reach the node of /xsvggt/status" in said.pop()
    assert meter.allowed == 2
    follower.look()
    assert "nothing on /xsvggt/status" in said.pop()


def test_stopping_does_not_wait_for_listeners(listener: Listener, directory: Path) -> None:
    with replaying(listener, open_source(directory), wait_for=3) as node:
        done = node.start()
        node.stop()
        assert done.result(PATIENCE) == 0


def _run(*words: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "xsvggt_ros.ros.replay", *map(str, words)]
    environment = {**os.environ, "ROS_DOMAIN_ID": str(DOMAIN)}
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def test_a_process_delivers_every_image_and_exits(listener: Listener, directory: Path) -> None:
    messages = listener.hear(Image, "/cam/image")
    words = ["--rate", 50, "--ros-args", "-r", "image:=/cam/image"]
    with _run(directory, *words) as process:
        listener.until(lambda: len(messages) == 5)
        assert process.wait(PATIENCE) == 0
        assert "5 images replayed" in present(process.stderr).read()
    expected = [frame.decode().tobytes() for frame in open_source(directory)]
    assert [bytes(message.data) for message in messages] == expected


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_process_cleanly(
    listener: Listener, directory: Path, kind: signal.Signals
) -> None:
    messages = listener.hear(Image, "image")
    with _run(directory, "--loop", "--speed", 3) as process:
        listener.until(lambda: len(messages) > 7)
        process.send_signal(kind)
        assert process.wait(PATIENCE) == 0
        assert "Traceback" not in present(process.stderr).read()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["/nowhere"], "replay_node: /nowhere does not exist"),
        ([".", "--speed", "0"], "replay_node: Cannot replay: speed is 0.0"),
        ([".", "--rate", "0"], "replay_node: A rate of 0.0 Hz is impossible"),
    ],
)
def test_a_mistake_is_explained(words: list[str], message: str) -> None:
    with _run(*words) as process:
        assert process.wait(PATIENCE) == 1
        assert present(process.stderr).read().startswith(message)
