# SPDX-License-Identifier: Apache-2.0
"""A recording runs at the pace at which it was taken, whatever its stamps say."""

from __future__ import annotations

from time import monotonic

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from recordings import MemorySource, tiny_request

from xsvggt_ros.evaluation import runner
from xsvggt_ros.evaluation.request import LiveOptions
from xsvggt_ros.stream.frame import Frame, ImageArray
from xsvggt_ros.stream.sources.base import CUT_TO, LONGEST_GAP, Gap, gap_between

SECOND = 1_000_000_000
TENTH = SECOND // 10


def _image() -> ImageArray:
    return np.zeros((28, 28, 3), np.uint8)


def _gap(stamps: tuple[int, int], recorded: tuple[int, int] | None = None) -> Gap:
    first, second = (
        Frame(stamp, "eye", _image, recorded=recorded and recorded[index])
        for index, stamp in enumerate(stamps)
    )
    return gap_between(first, second, 10.0)


@pytest.mark.parametrize(
    ("stamps", "recorded", "expected"),
    [
        ((SECOND, SECOND + TENTH), None, Gap(TENTH)),
        ((SECOND, SECOND + TENTH), (5, 5 + 3 * SECOND), Gap(TENTH)),  # a slow simulation
        ((0, 1_700_000_000 * SECOND), None, Gap(SECOND, 1_700_000_000 * SECOND)),
        ((0, 1_700_000_000 * SECOND), (5, 5 + TENTH), Gap(TENTH)),
        ((SECOND, 6 * SECOND), (5, 5 + TENTH), Gap(TENTH)),  # one wrong stamp
        ((SECOND, 6 * SECOND), (5, 5 + 5 * SECOND), Gap(5 * SECOND)),  # a camera that paused
        ((SECOND, 6 * SECOND), (5, 5), Gap(5 * SECOND)),  # a bag without times of its own
        ((6 * SECOND, SECOND), (5, 5 + TENTH), Gap(TENTH)),
        ((6 * SECOND, SECOND), None, Gap(0)),
        ((SECOND, SECOND), (5, 4), Gap(0)),
        ((SECOND, 3600 * SECOND), (SECOND, 3600 * SECOND), Gap(SECOND, 3599 * SECOND)),
    ],
)
def test_the_distance_of_two_images(
    stamps: tuple[int, int], recorded: tuple[int, int] | None, expected: Gap
) -> None:
    assert _gap(stamps, recorded) == expected


@given(st.tuples(*[st.integers(-(2**63), 2**63)] * 2), st.tuples(*[st.integers(0, 2**63)] * 2))
def test_no_distance_is_longer_than_the_longest(
    stamps: tuple[int, int], recorded: tuple[int, int]
) -> None:
    for each in (_gap(stamps), _gap(stamps, recorded)):
        assert 0 <= each.nanoseconds <= LONGEST_GAP * SECOND
        assert each.pause == 0 or each.nanoseconds == CUT_TO * SECOND


@pytest.mark.parametrize("odd", [0, 2**31 * SECOND, 2 * SECOND])
def test_a_live_run_waits_for_no_wrong_stamp(monkeypatch: pytest.MonkeyPatch, odd: int) -> None:
    stamps = [SECOND + index * TENTH for index in range(12)]
    stamps[5] = odd
    monkeypatch.setattr(runner, "open_source", lambda *_: MemorySource(12, stamps=stamps))
    began = monotonic()
    run = runner.evaluate(tiny_request(live=LiveOptions(speed=100.0, queue_policy="all")))
    assert (run.counts.taken, run.counts.refused, run.counts.sessions) == (12, 1, 1)
    assert monotonic() - began < 300  # of the stamps, 68 years or 8 months
    assert any("was refused: its stamp" in each for each in run.warnings)


def test_a_live_run_cuts_a_pause_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    stamps = [1 + index * TENTH + (1_700_000_000 * SECOND if index > 5 else 0) for index in
              range(12)]  # fmt: skip
    monkeypatch.setattr(runner, "open_source", lambda *_: MemorySource(12, stamps=stamps))
    run = runner.evaluate(tiny_request(live=LiveOptions(speed=100.0, queue_policy="all")))
    assert run.counts.taken == 12
    assert any("the recording pauses for 1.7e+09 s after frame 6: cut to 1 s" in each
               for each in run.warnings)  # fmt: skip


@pytest.mark.parametrize("odd", [0, SECOND + 5 * SECOND, 1])
def test_an_evaluation_refuses_a_wrong_stamp_and_keeps_its_session(
    monkeypatch: pytest.MonkeyPatch, odd: int
) -> None:
    stamps = [10 * SECOND + index * TENTH for index in range(10)]
    stamps[4] = odd
    monkeypatch.setattr(runner, "open_source", lambda *_: MemorySource(10, stamps=stamps))
    run = runner.evaluate(tiny_request())
    assert (run.counts.scored, run.counts.refused, run.counts.sessions) == (9, 1, 1)


def test_an_evaluation_of_a_recording_that_breaks_off_judges_all_that_came(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stamps = [10 * SECOND + index * TENTH for index in range(6)]
    stamps[5] += 100 * SECOND  # waits for a next one, which does not come
    source = MemorySource(9, stamps=[*stamps, 1, 2, 3], breaks_at=6)
    monkeypatch.setattr(runner, "open_source", lambda *_: source)
    run = runner.evaluate(tiny_request())
    assert (run.state, run.counts.taken, run.counts.scored) == ("truncated", 6, 6)
