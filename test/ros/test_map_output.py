# SPDX-License-Identifier: Apache-2.0
"""When ~/map is published, and what happens when there is no room for a map."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

REASON = "needs ROS 2: run scripts/test, or source a workspace"
pytest.importorskip("rclpy", reason=REASON)

from rclpy.node import Node
from results import update_of, wall

from xsvggt_ros.ros.conversions import POINT_STEP
from xsvggt_ros.ros.parameters import Map, Settings
from xsvggt_ros.ros.publishers import MapPublisher

SETTINGS = Settings(map=Map(min_confidence=0.0))


def _add(
    output: MapPublisher, settings: Settings = SETTINGS, index: int = 0, **changes: Any
) -> None:
    output.add(update_of(wall(index), **changes), settings)


def test_nothing_is_due_while_nobody_listens(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    output = MapPublisher(node)
    _add(output)
    assert output.points > 0
    assert not output.due(10.0)
    listeners = 1
    monkeypatch.setattr(output._publisher, "get_subscription_count", lambda: listeners)
    assert output.due(10.0)
    output.publish("map")
    assert not output.due(1000.0)  # nothing has changed since
    _add(output, index=1)
    assert not output.due(0.01)  # too soon
    monkeypatch.setattr(output, "_published_at", -1e9)
    assert output.due(0.01)


def test_a_disabled_map_takes_no_memory(node: Node) -> None:
    output = MapPublisher(node)
    _add(output)
    held = output.nbytes
    _add(output, Settings(map=Map(enabled=False)), index=1)
    assert (output.points, output.builder.map) == (0, None)
    assert output.nbytes < held


def test_lengths_of_another_unit_begin_the_map_again(node: Node) -> None:
    output = MapPublisher(node)
    _add(output)
    output.add(update_of(wall(1, depth=9.0), unit_changed=True), SETTINGS)
    assert output.builder.snapshot()[0][:, 2].min() == pytest.approx(9.0)


def test_without_memory_for_a_map_all_else_goes_on(
    node: Node, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    output = MapPublisher(node)

    def exhausted(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(output.builder, "add", exhausted)
        _add(output)
        _add(output, index=1)
    assert caplog.text.count("no memory for a map of 1000000 points") == 1
    _add(output, index=2)
    assert output.points == 0
    smaller = replace(SETTINGS, map=replace(SETTINGS.map, max_points=1000))
    _add(output, smaller, index=3)
    assert output.points > 0


def test_the_message_shrinks_and_grows_with_the_map(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = MapPublisher(node)
    sent: list[tuple[int, int]] = []

    def note(message: Any) -> None:
        sent.append((message.width, len(message.data)))

    monkeypatch.setattr(output._publisher, "publish", note)
    _add(output)
    output.publish("map")
    output.clear("map")
    _add(output, index=1)
    output.publish("map")
    points = output.points
    assert sent == [(points, 20 * points), (0, 0), (points, 20 * points)]
    assert POINT_STEP == 20
