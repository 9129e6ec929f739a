# SPDX-License-Identifier: Apache-2.0
"""Counting messages that never came."""

from __future__ import annotations

from collections.abc import Iterable
from operator import itemgetter

from hypothesis import given
from hypothesis import strategies as st

from xsvggt_ros.ros.image_input import LossCounter
from xsvggt_ros.stream.worker import FrameQueue


def _count(messages: Iterable[tuple[object, int | None]], publishers: int = 1) -> int:
    losses = LossCounter(lambda: publishers)
    infos = ({"publisher_gid": gid, "publication_sequence_number": n} for gid, n in messages)
    return sum(map(losses.before, infos))


@given(st.sets(st.tuples(st.sampled_from("ab"), st.integers(1, 50))))
def test_gaps_are_counted_for_each_publisher_on_its_own(received: set[tuple[str, int]]) -> None:
    expected = 0
    for publisher in "ab":
        numbers = [number for gid, number in received if gid == publisher]
        expected += max(numbers) - min(numbers) + 1 - len(numbers) if numbers else 0
    assert _count(sorted(received, key=itemgetter(1)), publishers=2) == expected


def test_a_publisher_that_starts_again_has_lost_nothing() -> None:
    assert _count([("a", 7), ("a", 1), ("a", 2)]) == 0


def test_unnamed_publishers_are_told_apart_by_their_number() -> None:
    assert _count([(None, 1), (None, 5)], publishers=1) == 3
    assert _count([(None, 1), (None, 5)], publishers=2) == 0


def test_messages_without_a_number_tell_nothing() -> None:
    assert _count([("a", None), ("a", None)]) == 0
    assert LossCounter(lambda: 1).before({}) == 0


def test_a_queue_counts_what_was_lost_as_received_and_dropped() -> None:
    queue = FrameQueue("all", 1)
    queue.note_lost(3)
    assert (queue.received, queue.dropped, len(queue)) == (3, 3, 0)
