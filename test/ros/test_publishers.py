# SPDX-License-Identifier: Apache-2.0
"""What one frame puts on the topics of its camera."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

REASON = "needs ROS 2: run scripts/test, or source a workspace"
pytest.importorskip("rclpy", reason=REASON)
pytest.importorskip("tf2_msgs", reason=REASON)

from rclpy.node import Node
from results import HEIGHT, WIDTH, update_of, wall

from xsvggt_ros.geometry.rigid import Placement
from xsvggt_ros.ros.parameters import Depth, Settings, Tf
from xsvggt_ros.ros.publishers import CameraPublisher
from xsvggt_ros.ros.reconstruct_node import MAP_PERIOD, ReconstructNode
from xsvggt_ros.ros.transforms import TransformBroadcaster, TransformOwners
from xsvggt_ros.stream.frame import CameraMotion
from xsvggt_ros.stream.messages import nanoseconds

SECOND = 1_000_000_000


class _Heard:
    """CameraPublisher somebody listens to; keeps what they publish."""

    def __init__(self, node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
        self.messages: dict[str, Any] = {}
        self.publishers = CameraPublisher(node, TransformBroadcaster(node, TransformOwners()))
        for publisher in node.publishers:
            name = publisher.topic_name.removeprefix(f"{node.get_fully_qualified_name()}/")
            monkeypatch.setattr(publisher, "get_subscription_count", lambda: 1)
            monkeypatch.setattr(publisher, "publish", self._keeper(name))

    def _keeper(self, name: str) -> Any:
        return lambda message: self.messages.__setitem__(name, message)


def test_colour_lies_in_the_geometry_of_the_depth(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = _Heard(node, monkeypatch)
    result = wall(1)
    heard.publishers.publish(update_of(result), Settings())
    color, depth = heard.messages["color/image"], heard.messages["depth/image"]
    assert (color.width, color.height, color.encoding, color.step) == (
        WIDTH, HEIGHT, "rgb8", 3 * WIDTH,
    )  # fmt: skip
    assert color.header == depth.header
    assert (depth.width, depth.height) == (WIDTH, HEIGHT)
    pixels = np.frombuffer(color.data, np.uint8).reshape(HEIGHT, WIDTH, 3)
    np.testing.assert_array_equal(pixels, result.color)
    assert heard.messages["color/camera_info"] == heard.messages["depth/camera_info"]


@pytest.mark.parametrize(("encoding", "unknown"), [("32FC1", np.nan), ("16UC1", 0)])
def test_depth_that_is_not_sure_enough_is_unknown(
    node: Node, monkeypatch: pytest.MonkeyPatch, encoding: str, unknown: float
) -> None:
    heard = _Heard(node, monkeypatch)
    result = wall(1)
    confidence = result.confidence.copy()
    confidence[:, : WIDTH // 2] = 1.2
    settings = Settings(depth=Depth(encoding=encoding, min_confidence=1.5))
    heard.publishers.publish(update_of(replace(result, confidence=confidence)), settings)
    kind: type[Any] = np.float32 if encoding == "32FC1" else np.uint16
    message = heard.messages["depth/image"]
    values = np.frombuffer(message.data, kind).reshape(HEIGHT, WIDTH)
    np.testing.assert_array_equal(values[:, : WIDTH // 2], unknown)
    assert (values[:, WIDTH // 2 :] > 0).all()
    assert np.isfinite(result.depth).all()  # the result itself stays


@pytest.mark.parametrize("odometry", ["own", "external"])
def test_the_path_lies_in_the_map_though_odom_has_parted_from_it(
    node: Node, monkeypatch: pytest.MonkeyPatch, odometry: str
) -> None:
    """After a join, a pose in odom is somewhere else than the points of its image in the map."""
    heard = _Heard(node, monkeypatch)
    in_map, in_odom = np.eye(4), np.eye(4)
    in_map[0, 3], in_odom[0, 3] = 2.0, 1.5
    placement = Placement(in_map, in_map, in_map @ np.linalg.inv(in_odom), in_odom)
    settings = Settings(tf=Tf(odometry=odometry))
    heard.publishers.publish(replace(update_of(wall(1)), placement=placement), settings)
    heard.publishers.publish_path()
    path = heard.messages["path"]
    assert path.header.frame_id == path.poses[0].header.frame_id == "map"
    assert path.poses[0].pose.position.x == 2.0
    told = heard.messages["odometry"]
    expected = ("odom", 1.5) if odometry == "own" else ("map", 2.0)
    assert (told.header.frame_id, told.pose.pose.position.x) == expected
    pose = heard.messages["pose"]
    assert (pose.header.frame_id, pose.pose.pose.position.x) == ("map", 2.0)
    assert pose.header.stamp == told.header.stamp


def test_the_pose_in_the_map_is_as_uncertain_as_its_joins_make_it(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = _Heard(node, monkeypatch)
    update = update_of(wall(1))
    known = 0.01 * np.eye(6)
    motion = CameraMotion(np.eye(4), known, known + 4.0 * np.eye(6), np.eye(4), known, 0.1)
    update = replace(update, result=replace(update.result, motion=motion, metric=True))
    heard.publishers.publish(update, Settings())
    in_odom = np.array(heard.messages["odometry"].pose.covariance)
    in_map = np.array(heard.messages["pose"].pose.covariance)
    assert (in_map.reshape(6, 6).diagonal() > in_odom.reshape(6, 6).diagonal()).all()


class _Clock:
    """Stands for the node's clock."""

    def __init__(self, node: Node, monkeypatch: pytest.MonkeyPatch, now: int) -> None:
        self.nanoseconds = now
        monkeypatch.setattr(node, "get_clock", lambda: self)

    def now(self) -> _Clock:
        return self


def _broadcasting(
    node: Node, monkeypatch: pytest.MonkeyPatch, now: int
) -> tuple[_Clock, TransformBroadcaster, list[list[Any]]]:
    """Return a clock that stands at ``now``, a broadcaster by it, and what that will have sent."""
    clock = _Clock(node, monkeypatch, now)
    broadcaster, sent = TransformBroadcaster(node, TransformOwners()), list[list[Any]]()
    send = broadcaster._send

    def note(links: list[Any]) -> None:
        sent.append(links)
        send(links)

    monkeypatch.setattr(broadcaster, "_send", note)
    return clock, broadcaster, sent


def _correction(x: float) -> Placement:
    correction = np.eye(4)
    correction[0, 3] = x
    return Placement(np.eye(4), np.eye(4), correction, np.eye(4))


def test_map_to_odom_is_repeated_a_little_ahead_of_the_clock(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, broadcaster, sent = _broadcasting(node, monkeypatch, 100 * SECOND)
    settings = Settings(tf=Tf(map_rate=10.0, map_tolerance=0.25))
    broadcaster.repeat_map(settings)
    assert sent == []  # nothing is known yet
    broadcaster.publish(99 * SECOND, "base", _correction(0.5), settings)
    clock.nanoseconds += SECOND // 2
    broadcaster.repeat_map(settings)
    broadcaster.repeat_map(settings)
    assert len(sent) == 2
    (link,) = sent[1]
    assert (link.header.frame_id, link.child_frame_id) == ("map", "odom")
    assert link.transform.translation.x == 0.5
    assert (link.header.stamp.sec, link.header.stamp.nanosec) == (100, 750_000_000)
    clock.nanoseconds += SECOND
    broadcaster.repeat_map(Settings(tf=Tf(map_rate=0.0)))
    broadcaster.repeat_map(Settings(tf=Tf(publish_map=False)))
    broadcaster.forget_map()
    broadcaster.repeat_map(settings)
    assert len(sent) == 2


@pytest.mark.parametrize("map_rate", [20.0, 15.0, 10.0])
@pytest.mark.parametrize(("rate", "latency"), [(1, 0.1), (8, 0.3), (15, 0.3), (30, 0.1), (60, 1.0)])
def test_map_to_odom_can_be_looked_up_for_now_at_any_rate_of_images(
    node: Node, monkeypatch: pytest.MonkeyPatch, rate: int, latency: float, map_rate: float
) -> None:
    clock, broadcaster, sent = _broadcasting(node, monkeypatch, 100 * SECOND)
    random = np.random.default_rng(0)
    settings = Settings.from_values(
        {
            "frames.base": "base", "tf.odometry": "external", "tf.map_rate": map_rate,
            "tf.map_tolerance": 1 / map_rate + 0.06,
        }
    )  # fmt: skip
    next_image, next_tick, due = clock.nanoseconds, clock.nanoseconds + SECOND // 77, 0
    while clock.nanoseconds < 104 * SECOND:
        if clock.nanoseconds >= next_image:
            next_image += SECOND // rate
            stamp = clock.nanoseconds - round(latency * SECOND)
            broadcaster.publish(stamp, "base", _correction(0.5), settings)
        if clock.nanoseconds >= due:
            next_tick += round(MAP_PERIOD * SECOND)
            due = next_tick + round(0.004 * SECOND * random.random())
            broadcaster.repeat_map(settings)
        if clock.nanoseconds > 101 * SECOND:
            stamps = [nanoseconds(link.header.stamp) for links in sent for link in links]
            assert max(stamps) >= clock.nanoseconds
        clock.nanoseconds += SECOND // 200
    assert len(sent) == pytest.approx(4 * (rate + map_rate), rel=0.05, abs=3)


def test_with_its_own_odometry_map_to_odom_is_repeated_in_pauses_only(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, broadcaster, sent = _broadcasting(node, monkeypatch, 100 * SECOND)
    for _ in range(40):
        broadcaster.publish(clock.nanoseconds - SECOND // 3, "base", _correction(0.5), Settings())
        clock.nanoseconds += SECOND // 15
        broadcaster.repeat_map(Settings())
    assert len(sent) == 40
    clock.nanoseconds += SECOND // 10
    broadcaster.repeat_map(Settings())
    assert len(sent) == 41


def test_a_clock_that_is_corrected_ends_no_repetition(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, broadcaster, sent = _broadcasting(node, monkeypatch, 100 * SECOND)
    settings = Settings.from_values({"tf.odometry": "external"})
    broadcaster.publish(clock.nanoseconds, "base", _correction(0.5), settings)
    for back in (1, 1000, SECOND // 2):
        broadcaster.repeat_map(settings)
        clock.nanoseconds -= back
        before = len(sent)
        for _ in range(20):
            broadcaster.repeat_map(settings)
            clock.nanoseconds += SECOND // 20
        assert len(sent) - before == pytest.approx(10, abs=1)


@pytest.mark.parametrize(
    "values", [{"tf.odometry": "external"}, {"tf.publish_odom": False}], ids=str
)
def test_where_others_tell_of_odom_map_to_odom_is_repeated_between_images(
    node: Node, monkeypatch: pytest.MonkeyPatch, values: dict[str, Any]
) -> None:
    clock, broadcaster, sent = _broadcasting(node, monkeypatch, 100 * SECOND)
    settings = Settings.from_values(values)
    for _ in range(60):
        broadcaster.publish(clock.nanoseconds - SECOND // 3, "base", _correction(0.5), settings)
        clock.nanoseconds += SECOND // 30
        broadcaster.repeat_map(settings)
    assert len(sent) == pytest.approx(60 + 20, abs=2)


def test_any_rate_is_possible(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, broadcaster, sent = _broadcasting(node, monkeypatch, 100 * SECOND)
    settings = Settings.from_values({"tf.odometry": "external", "tf.map_rate": 1e-300})
    broadcaster.publish(clock.nanoseconds, "base", _correction(0.5), settings)
    broadcaster.repeat_map(settings)
    assert len(sent) == 1


@pytest.mark.parametrize("active", [True, False])
def test_only_an_active_node_repeats_map_to_odom(active: bool) -> None:
    repeated: list[Settings] = []
    node = SimpleNamespace(
        _parameter_server=SimpleNamespace(settings=Settings()),
        _outputs=SimpleNamespace(repeat_map=repeated.append),
        _input=object() if active else None,
        _engine=None,
        _map_publication=None,
    )
    ReconstructNode._on_map_timer(cast("ReconstructNode", node))
    assert len(repeated) == active


def test_nothing_is_repeated_where_images_are_stamped_by_another_clock(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, broadcaster, sent = _broadcasting(node, monkeypatch, 1000 * SECOND)
    broadcaster.publish(5 * SECOND, "base", _correction(0.5), Settings())  # a bag, without --clock
    clock.nanoseconds += SECOND
    broadcaster.repeat_map(Settings())
    assert len(sent) == 1
