# SPDX-License-Identifier: Apache-2.0
"""What is told of a result that does not fit those before it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from results import result_of

from xsvggt_ros.geometry.rigid import Matrix, apparent_motion
from xsvggt_ros.stream.quality import LEAST_BASELINE, SMALLEST_JUMP, QualityWatch

PERIOD = 100_000_000


def _turned(angle: float) -> Matrix:
    pose = np.eye(4)
    pose[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return pose


class _Stream:
    """A camera that turns evenly in front of a slope."""

    def __init__(self, step: float = 0.01) -> None:
        self.watch = QualityWatch()
        self.step = step
        self.index = 0

    def judge(self, *, turn: float | None = None, gap: int = 1, **fields: object) -> str:
        self.index += gap
        angle = self.step * self.index if turn is None else turn
        result = result_of(index=self.index - 1, stamp=PERIOD * self.index)
        changed = replace(result, camera_to_world=_turned(angle), **fields)  # type: ignore[arg-type]
        return " and ".join(self.watch.judge(changed))

    def run(self, frames: int = 2 * LEAST_BASELINE) -> None:
        assert [self.judge() for _ in range(frames)] == [""] * frames


def test_confidence_that_collapses_is_told_until_it_is_back() -> None:
    stream = _Stream()
    stream.run()
    low = np.full((32, 32), 1.1, np.float32)
    for _ in range(150):
        assert stream.judge(confidence=low) == "confidence collapsed to 1.10 from 3.00"
    assert stream.judge() == ""


def test_confidence_that_was_always_low_is_usual() -> None:
    stream = _Stream()
    low = np.full((32, 32), 1.1, np.float32)
    assert {stream.judge(confidence=low) for _ in range(30)} == {""}


def test_a_jump_is_told_once_and_a_fast_turn_is_none() -> None:
    stream = _Stream()
    stream.run()
    assert "the pose jumped by 1." in stream.judge(turn=stream.step * stream.index + 1.2)
    fast = _Stream(step=0.2)
    fast.run()
    assert fast.judge(turn=0.2 * fast.index + 1.2) == ""


def test_a_gap_in_the_stream_allows_for_more_motion() -> None:
    stream = _Stream(step=0.06)
    stream.run()
    assert stream.judge(gap=20) == ""


@pytest.mark.parametrize(("spread", "told"), [(0.0, True), (0.005, True), (0.05, False)])
def test_depth_without_relief_is_told(spread: float, told: bool) -> None:
    depth = np.linspace(2.0, 2.0 + 2 * spread, 32 * 32, dtype=np.float32).reshape(32, 32)
    assert ("depth is flat" in _Stream().judge(depth=depth)) == told


def test_depth_that_is_not_known_is_told() -> None:
    depth = np.full((32, 32), np.nan, np.float32)
    assert _Stream().judge(depth=depth) == "depth is known for only 0% of the picture"


def test_a_new_session_has_a_baseline_of_its_own() -> None:
    stream = _Stream()
    stream.run()
    stream.index = 0
    low = np.full((32, 32), 1.1, np.float32)
    assert stream.judge(turn=3.0, confidence=low) == ""


@given(st.floats(-3.0, 3.0), st.floats(0.1, 10.0))
def test_apparent_motion_is_turn_plus_way(angle: float, distance: float) -> None:
    after = _turned(angle)
    after[0, 3] = 2.0
    motion = apparent_motion(np.eye(4), after, distance)
    assert motion == pytest.approx(abs(angle) + 2.0 / distance, abs=1e-6)
    assert apparent_motion(after, after, distance) < SMALLEST_JUMP
