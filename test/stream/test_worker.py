# SPDX-License-Identifier: Apache-2.0
"""The queue never grows, the worker never dies, and the counters always add up."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from present import present

from xsvggt_ros.cache.settings import CacheSettings
from xsvggt_ros.errors import ConfigurationError, FrameError
from xsvggt_ros.model.network import StreamVggt
from xsvggt_ros.stream.frame import Frame, FrameResult
from xsvggt_ros.stream.pipeline import FramePipeline, PipelineHooks
from xsvggt_ros.stream.reconstructor import Reconstructor, ReconstructorSettings
from xsvggt_ros.stream.worker import FrameQueue, QueuePolicy, Worker

PATIENCE = 30.0


def make_frame(stamp: int, decode: Callable[[], np.ndarray] | None = None) -> Frame:
    image = np.full((28, 28, 3), stamp % 256, np.uint8)
    return Frame(stamp, "eye", decode or (lambda: image))


Item = TypeVar("Item")


class Rig:
    """A worker whose results are collected."""

    def __init__(self, network: StreamVggt, policy: QueuePolicy = "all", size: int = 4) -> None:
        self.queue = FrameQueue(policy, size)
        self.results: list[FrameResult] = []
        self.refused: list[tuple[int, str]] = []
        self.on_result: Callable[[FrameResult], None] = self.keep
        self.changed = threading.Condition()
        settings = ReconstructorSettings(28, CacheSettings(budget_tokens=64))
        self.reconstructor = Reconstructor(network, settings)
        hooks = PipelineHooks(
            report=lambda update: self.on_result(update.result),
            report_refusal=lambda frame, error: self.note(self.refused, (frame.stamp, str(error))),
        )
        self.worker = Worker(FramePipeline(self.reconstructor, hooks), self.queue)

    def keep(self, result: FrameResult) -> None:
        self.note(self.results, result)

    def note(self, target: list[Item], item: Item) -> None:
        with self.changed:
            target.append(item)
            self.changed.notify_all()

    def wait(self, results: int = 0, refused: int = 0) -> None:
        with self.changed:
            assert self.changed.wait_for(
                lambda: len(self.results) >= results and len(self.refused) >= refused, PATIENCE
            )


@pytest.fixture
def rig(network: StreamVggt) -> Iterator[Rig]:
    rig = Rig(network)
    rig.worker.start()
    yield rig
    assert rig.worker.stop(PATIENCE)


def test_frames_come_out_in_order_with_their_stamps(rig: Rig) -> None:
    for stamp in range(1, 9):
        assert rig.queue.put(make_frame(stamp))
    rig.wait(results=8)
    assert [result.stamp for result in rig.results] == list(range(1, 9))
    assert [result.index for result in rig.results] == list(range(8))
    assert all(result.timings.decode >= 0 for result in rig.results)


def test_a_bad_frame_is_refused_and_the_next_one_goes_on(rig: Rig) -> None:
    def damaged() -> np.ndarray:
        raise FrameError("truncated")

    def unforeseen() -> np.ndarray:
        raise KeyError("surprise")

    rig.queue.put(make_frame(1))
    rig.queue.put(make_frame(2, damaged))
    rig.queue.put(make_frame(3, unforeseen))
    rig.queue.put(make_frame(4))
    rig.wait(results=2, refused=2)
    assert [result.stamp for result in rig.results] == [1, 4]
    assert rig.refused == [(2, "truncated"), (3, "unexpected KeyError: 'surprise'")]
    counters = rig.worker.counters
    assert (counters.received, counters.processed, counters.refused) == (4, 2, 2)


def test_a_repeated_stamp_is_refused(rig: Rig) -> None:
    for stamp in (1, 2, 2, 3):
        rig.queue.put(make_frame(stamp))
    rig.wait(results=3, refused=1)
    assert rig.refused[0][0] == 2
    assert "came twice in a row" in rig.refused[0][1]
    assert rig.results[-1].index == 2


def test_stamps_that_go_back_begin_a_new_session(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    for stamp in (5_000_000_000, 6_000_000_000, 1_000_000_000, 2_000_000_000):
        rig.queue.put(make_frame(stamp))
    rig.wait(results=4)
    assert [result.index for result in rig.results] == [0, 1, 0, 1]
    assert rig.reconstructor.session == 2
    assert "stamps jumped back by 5.000 s: a new session begins" in caplog.text


def test_a_late_image_is_refused_and_the_session_goes_on(rig: Rig) -> None:
    for stamp in (5_000_000_000, 5_000_000_100, 5_000_000_050, 5_000_000_200):
        rig.queue.put(make_frame(stamp))
    rig.wait(results=3, refused=1)
    assert [result.index for result in rig.results] == [0, 1, 2]
    assert "older than the image before it" in rig.refused[0][1]


def test_a_refused_image_leaves_stamps_and_session_as_they_were(rig: Rig) -> None:
    def damaged() -> np.ndarray:
        raise FrameError("truncated")

    rig.queue.put(make_frame(5_000_000_000))
    rig.queue.put(make_frame(1, damaged))
    rig.queue.put(make_frame(9_000_000_000, damaged))
    rig.queue.put(make_frame(6_000_000_000))
    rig.wait(results=2, refused=2)
    assert [result.index for result in rig.results] == [0, 1]
    assert rig.reconstructor.session == 1


def test_commands_after_the_end_are_cancelled(network: StreamVggt) -> None:
    rig = Rig(network)
    rig.worker.start()
    assert rig.worker.stop(PATIENCE)
    assert rig.worker.submit(lambda _: None).cancelled()
    assert rig.worker.stop(PATIENCE)


def test_a_queue_closed_by_others_ends_the_worker(network: StreamVggt) -> None:
    rig = Rig(network)
    rig.worker.start()
    rig.queue.close()
    rig.worker._thread.join(PATIENCE)
    assert not rig.worker._thread.is_alive()
    assert rig.worker.submit(lambda _: None).cancelled()


def test_a_worker_that_never_ran_can_be_stopped(network: StreamVggt) -> None:
    rig = Rig(network)
    waiting = rig.worker.submit(lambda _: None)
    assert rig.worker.stop(PATIENCE)
    assert waiting.cancelled()


def test_the_counters_add_up_at_every_moment(network: StreamVggt) -> None:
    rig = Rig(network, "latest", 2)
    samples = []

    def sample(_: FrameResult) -> None:
        counters = rig.worker.counters
        samples.append(counters)

    rig.on_result = sample
    rig.worker.start()
    source = threading.Thread(
        target=lambda: [rig.queue.put(make_frame(stamp)) for stamp in range(1, 400)]
    )
    source.start()
    while source.is_alive():
        counters = rig.worker.counters
        samples.append(counters)
    source.join(PATIENCE)
    assert rig.worker.stop(PATIENCE)
    samples.append(rig.worker.counters)
    for each in samples:
        assert each.received == each.processed + each.dropped + each.refused + each.pending
        assert each.pending >= 0
    assert samples[-1].received == 399
    assert samples[-1].pending == 0


def test_a_failing_callback_does_not_end_the_worker(network: StreamVggt) -> None:
    rig = Rig(network)
    seen = []

    def fail(result: FrameResult) -> None:
        seen.append(result.stamp)
        if len(seen) == 3:
            done.set()
        raise ValueError("publisher gone")

    done = threading.Event()
    rig.on_result = fail
    rig.worker.start()
    for stamp in (1, 2, 3):
        rig.queue.put(make_frame(stamp))
    assert done.wait(PATIENCE)
    assert rig.worker.stop(PATIENCE)
    assert seen == [1, 2, 3]


def test_commands_run_between_frames_and_answer(rig: Rig) -> None:
    rig.queue.put(make_frame(1))
    rig.wait(results=1)
    assert (
        rig.worker.submit(lambda reconstructor: reconstructor.session_frames).result(PATIENCE) == 1
    )
    rig.worker.submit(lambda reconstructor: reconstructor.reset("asked")).result(PATIENCE)
    rig.queue.put(make_frame(2))
    rig.wait(results=2)
    assert rig.results[1].index == 0


def test_a_failing_command_answers_with_its_error(rig: Rig) -> None:
    def fail(reconstructor: Reconstructor) -> None:
        raise FrameError("no")

    with pytest.raises(FrameError, match="no"):
        rig.worker.submit(fail).result(PATIENCE)
    rig.queue.put(make_frame(1))
    rig.wait(results=1)


def test_latest_drops_the_oldest_and_counts(network: StreamVggt) -> None:
    rig = Rig(network, "latest", 1)
    gate, entered = threading.Event(), threading.Event()

    def slow() -> NDArray[np.uint8]:
        entered.set()
        assert gate.wait(PATIENCE)
        return np.zeros((28, 28, 3), np.uint8)

    rig.worker.start()
    rig.queue.put(make_frame(1, slow))
    assert entered.wait(PATIENCE)
    for stamp in range(2, 10):
        rig.queue.put(make_frame(stamp))
    pending = rig.worker.counters
    assert (pending.received, pending.dropped, pending.pending) == (9, 7, 2)
    assert rig.worker.activity.stage == "decoding"
    gate.set()
    rig.wait(results=2)
    assert [result.stamp for result in rig.results] == [1, 9]
    assert rig.worker.stop(PATIENCE)
    counters = rig.worker.counters
    assert counters.received == counters.processed + counters.dropped
    assert counters.pending == 0


def test_all_holds_the_source_back() -> None:
    queue = FrameQueue("all", 2)
    for stamp in (1, 2):
        queue.put(make_frame(stamp))
    assert queue.full
    finished = threading.Event()

    def third() -> None:
        queue.put(make_frame(3))
        finished.set()

    source = threading.Thread(target=third)
    source.start()
    assert not finished.is_set()
    assert present(queue.take()).stamp == 1
    assert finished.wait(PATIENCE)
    source.join(PATIENCE)
    assert [present(queue.take()).stamp, present(queue.take()).stamp] == [2, 3]
    assert (queue.received, queue.dropped) == (3, 0)


@pytest.mark.parametrize("policy", ["latest", "all"])
def test_a_pause_drops_and_counts_what_comes_and_keeps_what_waits(policy: QueuePolicy) -> None:
    queue = FrameQueue(policy, 2)
    for stamp in (1, 2):
        queue.put(make_frame(stamp))
    queue.pause()
    assert queue.paused
    assert not queue.full  # whoever is held back may go on, to be dropped
    assert all(queue.put(make_frame(stamp)) for stamp in (3, 4, 5))
    assert (queue.received, queue.dropped, len(queue)) == (5, 3, 2)
    assert queue.resume() == 3
    assert [present(queue.take()).stamp, present(queue.take()).stamp] == [1, 2]
    queue.put(make_frame(6))
    assert present(queue.take()).stamp == 6
    queue.pause()
    assert queue.resume() == 0
    assert queue.counts() == (6, 3)


def test_a_pause_lets_a_held_source_go() -> None:
    queue = FrameQueue("all", 1)
    queue.put(make_frame(1))
    source = threading.Thread(target=queue.put, args=(make_frame(2),))
    source.start()
    queue.pause()
    source.join(PATIENCE)
    assert not source.is_alive()
    assert (queue.received, queue.dropped) == (2, 1)


def test_closing_lets_a_held_source_go() -> None:
    queue = FrameQueue("all", 1)
    queue.put(make_frame(1))
    accepted = []
    source = threading.Thread(target=lambda: accepted.append(queue.put(make_frame(2))))
    source.start()
    queue.close()
    source.join(PATIENCE)
    assert accepted == [False]
    assert (queue.received, queue.dropped, len(queue)) == (1, 1, 0)
    assert queue.take() is None


@given(size=st.integers(1, 5), actions=st.lists(st.booleans(), max_size=60))
def test_the_queue_is_bounded_and_loses_nothing_uncounted(size: int, actions: list[bool]) -> None:
    queue = FrameQueue("latest", size)
    taken, stamp = [], 0
    for put in actions:
        if put:
            queue.put(make_frame(stamp))
            stamp += 1
        elif len(queue):
            taken.append(present(queue.take()).stamp)
        assert len(queue) <= size
        assert queue.received == len(taken) + queue.dropped + len(queue)
    assert taken == sorted(taken)


def test_impossible_queues_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="input.queue_policy 'newest' is unknown"):
        FrameQueue("newest", 1)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="input.queue_size is 0"):
        FrameQueue("latest", 0)
