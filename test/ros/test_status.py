# SPDX-License-Identifier: Apache-2.0
"""What ~/status says between two frames."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest

REASON = "needs ROS 2 and this package's messages: run scripts/test, or source a built workspace"
pytest.importorskip("rclpy", reason=REASON)
pytest.importorskip("xsvggt_ros.msg", reason=REASON)

from xsvggt_ros.msg import ReconstructionStatus

from xsvggt_ros.cache.layout import CacheStatistics
from xsvggt_ros.geometry.cameras import Intrinsics
from xsvggt_ros.ros import status as status_module
from xsvggt_ros.ros.scale_input import ScaleState
from xsvggt_ros.ros.status import StatusPublisher
from xsvggt_ros.stream.frame import (
    Execution,
    Frame,
    FrameResult,
    FrameUpdate,
    ImageMapping,
    SessionInfo,
    Timings,
)
from xsvggt_ros.stream.health import MEMORY, Counters, Health

TIMEOUT = 5.0


class _Topic:
    """Stands for the node and the publisher; keeps the state of each message."""

    def __init__(self) -> None:
        self.published: list[Any] = []

    def create_publisher(self, *_: object) -> _Topic:
        return self

    def publish(self, message: Any) -> None:
        self.published.append(
            {name: getattr(message, name) for name in message.get_fields_and_field_types()}
        )


class _Story:
    """A status board on a clock of its own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        health = partial(Health, clock=lambda: self.now)
        monkeypatch.setattr(status_module, "Health", health)
        self.topic = _Topic()
        self.board = StatusPublisher(self.topic)  # type: ignore[arg-type]
        self.board.timeout = TIMEOUT
        self.counters = Counters(0, 0, 0, 0, 0)

    def count(self, **changes: int) -> None:
        counts = {name: getattr(self.counters, name) + by for name, by in changes.items()}
        self.counters = replace(self.counters, **counts)

    def tick(self, *, after: float = 1.0, stuck: bool = False) -> str:
        self.now += after
        self.board.show_idle(self.counters, stuck=stuck)
        return self.last["state"]  # type: ignore[no-any-return]

    def refuse(self) -> None:
        frame = Frame(stamp=1, frame_id="f", decode=lambda: np.zeros((1, 1, 3), np.uint8))
        self.count(received=1, refused=1)
        self.board.show_refusal(frame, "refused", self.counters)

    def finish(
        self, session: int = 1, faults: tuple[str, ...] = (), **fields: Any
    ) -> dict[str, Any]:
        self.count(received=1, processed=1)
        frame = Frame(stamp=1, frame_id="f", decode=lambda: np.zeros((1, 1, 3), np.uint8))
        result = replace(_RESULT, **fields)
        update = FrameUpdate(frame, result, SessionInfo(session, 1), faults)
        self.board.show_update(update, self.counters)
        return self.last

    @property
    def last(self) -> dict[str, Any]:
        return self.topic.published[-1]  # type: ignore[no-any-return]


_ONES = np.ones((1, 1), np.float32)
_RESULT = FrameResult(
    index=0,
    stamp=1,
    frame_id="f",
    camera_to_world=np.eye(4),
    intrinsics=Intrinsics(1.0, 1.0, 0.0, 0.0, 1, 1),
    intrinsics_source="held",
    depth=_ONES,
    confidence=_ONES,
    color=np.zeros((1, 1, 3), np.uint8),
    mapping=ImageMapping(1, 1, 1, 1, 1, 0),
    pose_source="held",
    execution=Execution("eager", "budgets adapt"),
    cache=CacheStatistics("none", 0, 0, 16, 16, 0, 0, 0, 0, 0, 0, ()),
    timings=Timings(),
)


@pytest.fixture
def story(monkeypatch: pytest.MonkeyPatch) -> _Story:
    return _Story(monkeypatch)


def test_it_waits_until_the_first_frame_comes_and_warms_up_while_that_takes_long(
    story: _Story,
) -> None:
    assert story.tick() == "waiting"
    story.count(received=1, pending=1)
    assert [story.tick(after=10.0) for _ in range(3)] == ["warming up"] * 3
    story.count(received=-1, pending=-1)
    assert story.finish()["state"] == "running"
    story.count(received=1, pending=1)
    assert story.tick(after=10.0) == "running"


def test_a_fault_is_remembered_for_a_while(story: _Story) -> None:
    assert story.finish(faults=("depth is flat",))["state"] == "degraded"
    states = [story.finish()["state"] for _ in range(MEMORY + 1)]
    assert states == ["degraded"] * (MEMORY - 1) + ["running"] * 2


def test_a_fault_is_told_unless_there_is_other_news(story: _Story) -> None:
    assert story.finish(faults=("dark", "flat"))["message"] == "degraded: dark and flat"
    story.board.note("stamps jumped back")
    assert story.finish(2, faults=("flat",))["message"] == "stamps jumped back"
    assert story.finish(2, faults=("flat",))["message"] == "degraded: flat"


def test_a_pause_goes_before_everything_that_images_tell(story: _Story) -> None:
    story.refuse()
    story.board._health.paused = True
    assert story.tick(stuck=True) == "paused"


def test_refusals_keep_the_error_until_they_end(story: _Story) -> None:
    for _ in range(20):
        story.refuse()
        assert story.last["state"] == "error"
        assert story.tick() == "error"
    assert story.tick(after=TIMEOUT) == "waiting"
    story.finish()
    assert story.tick() == "running"


def test_it_waits_once_nothing_has_come_for_the_timeout(story: _Story) -> None:
    assert story.finish()["state"] == "running"
    assert story.tick(after=TIMEOUT - 1) == "running"
    assert story.tick(after=1.0) == "waiting"


def test_a_stuck_frame_stalls_it_as_long_as_it_is_stuck(story: _Story) -> None:
    story.finish()
    story.count(received=1, pending=1)
    assert story.tick(after=10.0, stuck=True) == "stalled"
    assert story.tick(after=1.0) == "running"


def _unlike() -> CacheStatistics:
    return CacheStatistics(
        policy="xstreamvggt",
        budget_tokens=1,
        tokens=2,
        key_bits=3,
        value_bits=4,
        nbytes=5,
        scratch_nbytes=6,
        camera_nbytes=7,
        uncompressed_nbytes=8,
        evicted=9,
        evicted_total=10,
        layer_tokens=(2, 1),
    )


def test_every_field_is_filled_from_its_own_source(story: _Story) -> None:
    timings = Timings(decode=1.0, preprocess=2.0, network=3.0, collect=4.0)
    message = story.finish(cache=_unlike(), timings=timings)
    names = [
        "budget_tokens", "cache_tokens", "key_bits", "value_bits", "cache_bytes", "scratch_bytes",
        "camera_cache_bytes", "uncompressed_bytes", "tokens_evicted", "tokens_evicted_total",
    ]  # fmt: skip
    assert [message[name] for name in names] == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
    assert list(message["layer_tokens"]) == [2, 1]
    stages = ("decode", "preprocess", "network", "collect")
    assert [message[f"latency_{stage}"] for stage in stages] == [1.0, 2.0, 3.0, 4.0]
    assert (message["policy"], message["intrinsics_source"]) == ("xstreamvggt", "held")
    assert message["pose_source"] == "held"
    assert (message["execution"], message["execution_reason"]) == ("eager", "budgets adapt")


def test_a_new_session_forgets_the_message_of_the_one_before_but_not_why_it_ended(
    story: _Story,
) -> None:
    story.board.note("random weights")
    assert story.finish(1)["message"] == "random weights"
    story.board.note("stamps jumped back")
    assert story.finish(2)["message"] == "stamps jumped back"
    assert story.finish(2)["message"] == "stamps jumped back"
    assert story.finish(3)["message"] == ""


def test_a_result_that_did_not_come_out_is_an_error_until_one_does(story: _Story) -> None:
    story.finish()
    story.count(received=1, processed=1)
    story.board.show_refusal(_RESULT, "the result was not published", story.counters)
    assert (story.last["state"], story.last["message"]) == ("error", "the result was not published")
    assert story.tick() == "error"
    assert story.finish()["state"] == "running"


def test_a_fault_of_the_input_degrades_and_says_why(story: _Story) -> None:
    story.finish()
    story.board.note_fault("two publishers")
    assert (story.tick(), story.last["message"]) == ("degraded", "two publishers")


def test_what_is_said_of_the_scale_is_no_warning(story: _Story) -> None:
    story.board.set_scale(ScaleState("odometry", 2.5, 0.01, 12.0), "nothing measured for 12 s")
    told = story.finish()
    assert (told["scale_source"], told["scale"]) == ("odometry", 2.5)
    assert told["scale_spread"] == pytest.approx(0.01)
    assert told["scale_age"] == pytest.approx(12.0)
    assert (told["message"], told["state"]) == ("nothing measured for 12 s", "running")
    story.board.note("a warning")
    assert story.finish()["message"] == "a warning"
    story.board.begin()
    story.board.set_scale(ScaleState())
    assert story.finish()["message"] == ""


def test_after_cleanup_nothing_is_left_of_the_session(story: _Story) -> None:
    story.board.note("a warning")
    story.finish(session=3)
    story.board.begin()
    story.board.show_phase("unconfigured")
    assert story.last == {
        **{
            name: getattr(ReconstructionStatus(), name)
            for name in ReconstructionStatus.get_fields_and_field_types()
        },
        "state": "unconfigured",
        "scale_source": "none",
        "scale_age": -1.0,
    }
