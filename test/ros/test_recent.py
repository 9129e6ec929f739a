# SPDX-License-Identifier: Apache-2.0
"""What waits for the image of its time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from xsvggt_ros.ros.scale_input import Recent
from xsvggt_ros.stream.stamps import SHORTEST_JUMP


@given(st.lists(st.integers(1, 60), min_size=1, max_size=40))
def test_bytes_are_bounded_and_the_newest_is_always_held(sizes: list[int]) -> None:
    recent: Recent[int] = Recent(50)
    for stamp, nbytes in enumerate(sizes):
        recent.add(stamp, nbytes, stamp)
        assert recent.nbytes <= 50 or len(recent) == 1
        assert recent.nbytes == sum(sizes[stamp + 1 - len(recent) : stamp + 1])
        assert recent.nearest(stamp, 0) == stamp


def test_the_nearest_within_the_tolerance_counts() -> None:
    recent: Recent[str] = Recent(100)
    assert recent.nearest(0, 10) is None
    recent.add(100, 1, "a")
    recent.add(130, 1, "b")
    assert [recent.nearest(stamp, 10) for stamp in (89, 90, 114, 125, 140, 141)] == [
        None, "a", None, "b", "b", None
    ]  # fmt: skip


def test_what_is_before_the_newest_result_goes() -> None:
    recent: Recent[int] = Recent(100)
    for stamp in range(5):
        recent.add(stamp, 2, stamp)
    recent.drop_before(3)
    assert (len(recent), recent.nbytes, recent.nearest(2, 0), recent.nearest(3, 0)) == (
        2,
        4,
        None,
        3,
    )


def test_a_clock_that_jumps_back_begins_again() -> None:
    recent: Recent[str] = Recent(100)
    recent.add(5 * SHORTEST_JUMP, 2, "old")
    recent.add(5 * SHORTEST_JUMP - 1, 2, "late")
    assert len(recent) == 2
    recent.add(7, 3, "new")
    assert (len(recent), recent.nbytes, recent.nearest(7, 0)) == (1, 3, "new")
