# SPDX-License-Identifier: Apache-2.0
"""One log line per problem."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from xsvggt_ros.ros.log_bridge import LogThrottle


class _Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_same_problem_is_told_once_per_interval_with_what_was_held_back() -> None:
    clock = _Clock()
    repetition = LogThrottle(5.0, clock)
    assert repetition.admit("image 1.5 refused: step is 3") == "image 1.5 refused: step is 3"
    assert repetition.admit("image 1.6 refused: step is 4") is None
    assert repetition.admit("image 1.7 refused: step is 4") is None
    clock.now = 5.0
    told = repetition.admit("image 9.0 refused: step is 4")
    assert told == "image 9.0 refused: step is 4 (2 more like this)"
    assert repetition.admit("image 1.6 refused: step is 4") is None
    clock.now = 10.0
    told = repetition.admit("image 2.0 refused: step is 4")
    assert told == "image 2.0 refused: step is 4 (1 more like this)"


@given(st.binary(min_size=1, max_size=8), st.binary(min_size=1, max_size=8))
def test_texts_that_differ_in_bytes_are_one_problem(first: bytes, second: bytes) -> None:
    repetition = LogThrottle(5.0, _Clock())
    texts = [f"{len(b)} bytes that begin with {b.hex(' ')} are no image" for b in (first, second)]
    assert [repetition.admit(text) for text in texts] == [texts[0], None]


def test_another_problem_is_told_at_once() -> None:
    repetition = LogThrottle(5.0, _Clock())
    assert repetition.admit("too small") == "too small"
    assert repetition.admit("too large") == "too large"
    assert repetition.admit("too small") is None


def test_what_is_remembered_is_bounded() -> None:
    repetition = LogThrottle(5.0, _Clock())
    names = ["".join(chr(97 + (i // 26**k) % 26) for k in range(3)) for i in range(1000)]
    assert all(repetition.admit(name) == name for name in names)
    assert len(repetition._kinds) <= 256
