# SPDX-License-Identifier: Apache-2.0
"""Two gauges of one stream, joined by the frames that both have."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from pose_benchmark import pose_views as pv

from xsvggt_ros.geometry.joining import OverlapFrame, join
from xsvggt_ros.geometry.rigid import Similarity, log_so3, rotation_angle

ERRORS = pv.Errors(4.0, 0.0, turn=0.5, way=0.01)
EXACT = pv.Errors(0.0, 0.0, turn=0.0, way=0.0)
DEPTH_ERROR, WRONG = 0.02, 0.1


def errors_of(found: Similarity, truth: Similarity) -> tuple[float, float]:
    """Return the error of the logarithm of the scale, and of the rotation in degrees."""
    turn = np.eye(4)
    turn[:3, :3] = truth.rotation.T @ found.rotation
    return float(np.log(found.scale / truth.scale)), float(np.degrees(rotation_angle(turn)))


def rms(values: list[float]) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


@pytest.mark.parametrize("frames", [2, 4, 9])
def test_exact_frames_give_the_exact_join(frames: int) -> None:
    truth, overlap = pv.two_gauges(np.random.default_rng(frames), frames, EXACT, 0.0, 0.0)
    found = join(overlap)
    assert found.objection == ""
    assert found.frames == frames
    assert found.earlier_from_later.scale == pytest.approx(truth.scale, rel=1e-6)
    np.testing.assert_allclose(found.earlier_from_later.rotation, truth.rotation, atol=1e-6)
    np.testing.assert_allclose(found.earlier_from_later.translation, truth.translation, atol=1e-5)
    assert found.distance < 1e-5
    assert np.all(np.diag(found.covariance) < 1e-9)


def test_four_frames_reach_the_study() -> None:
    scales, turns, refused = [], [], 0
    for seed in range(60):
        truth, overlap = pv.two_gauges(np.random.default_rng(seed), 4, ERRORS, DEPTH_ERROR, WRONG)
        found = join(overlap)
        if found.objection:
            refused += 1
            continue
        scale, turn = errors_of(found.earlier_from_later, truth)
        scales.append(scale)
        turns.append(turn)
    assert rms(scales) <= 0.006
    assert rms(turns) <= 0.4
    assert refused <= 3  # where two of four poses mean nothing


@pytest.mark.slow
def test_ten_joins_are_hardly_worse_than_ten_independent_errors() -> None:
    ones: list[tuple[float, float]] = []
    chains: list[tuple[float, float]] = []
    for seed in range(12):
        random = np.random.default_rng(seed)
        whole = true_whole = Similarity()
        joins = 0
        while joins < 10:
            truth, overlap = pv.two_gauges(random, 4, ERRORS, DEPTH_ERROR, WRONG)
            found = join(overlap)
            if found.objection:
                continue
            joins += 1
            ones.append(errors_of(found.earlier_from_later, truth))
            whole, true_whole = whole @ found.earlier_from_later, true_whole @ truth
        chains.append(errors_of(whole, true_whole))
    for part in (0, 1):
        one, ten = (rms([each[part] for each in errors]) for errors in (ones, chains))
        assert ten <= 1.2 * np.sqrt(10) * one


@pytest.mark.parametrize("unit", [0.1, 10.0])
def test_units_are_of_no_consequence(unit: float) -> None:
    _, overlap = pv.two_gauges(np.random.default_rng(5), 4, ERRORS, DEPTH_ERROR, WRONG)
    scaled = []
    for frame in overlap:
        earlier = frame.earlier.copy()
        earlier[:3, 3] *= unit
        scaled.append(replace(frame, earlier=earlier, earlier_depth=unit * frame.earlier_depth))
    one, other = join(overlap), join(scaled)
    before, after = one.earlier_from_later, other.earlier_from_later
    assert after.scale == pytest.approx(unit * before.scale)
    np.testing.assert_allclose(after.rotation, before.rotation, atol=1e-12)
    np.testing.assert_allclose(after.translation, unit * before.translation, rtol=1e-9)
    assert other.distance == pytest.approx(one.distance)
    units = np.array([unit] * 3 + [1.0] * 4)
    np.testing.assert_allclose(other.covariance, one.covariance * np.outer(units, units))


def test_a_gauge_that_shows_something_else_is_refused() -> None:
    _, overlap = pv.two_gauges(np.random.default_rng(6), 4, ERRORS, DEPTH_ERROR, 0.0)
    random = np.random.default_rng(7)
    other = [
        replace(frame, later_depth=random.permutation(frame.later_depth) ** 2) for frame in overlap
    ]
    found = join(other)
    assert "of their depth apart" in found.objection


def test_too_few_frames_are_refused() -> None:
    _, overlap = pv.two_gauges(np.random.default_rng(8), 3, ERRORS, DEPTH_ERROR, 0.0)
    assert "only 1 of 1 frames" in join(overlap[:1]).objection
    lost = np.full((4, 4), np.nan)
    blank = OverlapFrame(np.eye(4), np.eye(4), np.empty((0, 2)), np.empty(0), np.empty(0))
    found = join([replace(overlap[0], later=lost), blank, overlap[1]])
    assert "only 1 of 3 frames" in found.objection


@pytest.mark.parametrize("frames", [4, 8])
def test_joins_are_as_wrong_as_is_said(frames: int) -> None:
    squares = []
    for seed in range(100):
        truth, overlap = pv.two_gauges(np.random.default_rng(seed), frames, ERRORS, DEPTH_ERROR, 0)
        found = join(overlap)
        assert not found.objection
        middle = np.median([each.later[:3, 3] for each in overlap], axis=0)[None]
        guess = found.earlier_from_later
        turn = log_so3(guess.rotation @ truth.rotation.T)
        offset = (guess.points(middle) - truth.points(middle))[0]
        scale = np.log(guess.scale / truth.scale)
        variances = np.diag(found.covariance)
        squares.append(np.concatenate([offset, turn, [scale]]) ** 2 / variances)
    way, angle = (np.mean([each[part] for each in squares]) for part in (np.s_[:3], np.s_[3:6]))
    assert 0.7 <= way <= 1.5
    assert 0.7 <= angle <= 1.5
    # Of so few frames, depth tells badly how far its scale scatters.
    assert 0.5 <= np.mean([each[6] for each in squares]) <= 2.5
    assert np.mean([each[6] <= 3.84 for each in squares]) >= 0.88
