# SPDX-License-Identifier: Apache-2.0
"""Depth errors and alignments are those of formulas written out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog, minimize_scalar

from xsvggt_ros.errors import ConfigurationError, EvaluationError
from xsvggt_ros.evaluation.evaluator import at_size_of
from xsvggt_ros.metrics.depth import (
    DepthPairs,
    align_depth,
    depth_errors,
)

seeds = st.integers(0, 2**32 - 1)


def maps(seed: int, count: int = 200) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.uniform(0.5, 8, count)
    return truth * np.exp(rng.normal(size=count) * 0.2) * 0.3, truth


@given(seeds)
def test_errors_equal_loops_over_pixels(seed: int) -> None:
    predicted, truth = maps(seed, 50)
    n = len(truth)
    found = depth_errors(predicted, truth)
    pairs = list(zip(predicted.tolist(), truth.tolist(), strict=True))
    assert found.abs_rel == pytest.approx(sum(abs(p - g) / g for p, g in pairs) / n, abs=1e-9)
    assert found.sq_rel == pytest.approx(sum((p - g) ** 2 / g for p, g in pairs) / n, abs=1e-9)
    assert found.depth_rmse == pytest.approx(
        (sum((p - g) ** 2 for p, g in pairs) / n) ** 0.5, abs=1e-9
    )
    log = sum((np.log(p) - np.log(g)) ** 2 for p, g in pairs) / n
    assert found.depth_log_rmse == pytest.approx(log**0.5, abs=1e-9)
    for k, delta in enumerate((found.delta_1, found.delta_2, found.delta_3), start=1):
        assert delta == sum(max(p / g, g / p) < 1.25**k for p, g in pairs) / n
    assert found.pixels == n


@given(seeds, st.floats(0.01, 100))
def test_a_scaled_truth_has_no_error_after_each_alignment(seed: int, scale: float) -> None:
    _, truth = maps(seed)
    for kind in ("median", "l1", "l1_shift"):
        found = align_depth(truth / scale, truth, kind)
        assert depth_errors(found.align(truth / scale), truth).abs_rel < 1e-6
        assert found.scale == pytest.approx(scale, rel=1e-5)


def test_median_scaling_is_the_ratio_of_the_medians() -> None:
    found = align_depth(np.array([1.0, 2.0, 9.0]), np.array([2.0, 3.0, 4.0]), "median")
    assert found.scale == 1.5


def test_the_scale_is_that_of_the_reference_step_by_step() -> None:
    p, g = maps(5)
    scale = g.mean() / p.mean()
    for _ in range(10):
        weights = 1 / (np.abs(scale * p - g) + 1e-8)
        scale = (weights * p * g).sum() / (weights * p**2).sum()
    assert align_depth(p, g, "l1").scale == pytest.approx(scale, rel=1e-12)
    best = minimize_scalar(lambda s: np.abs(s * p - g).mean(), bounds=(0.1, 10), method="bounded")
    assert np.abs(scale * p - g).mean() == pytest.approx(best.fun, rel=1e-3)


@pytest.mark.parametrize("seed", range(4))
def test_scale_and_shift_are_the_optimum_of_a_linear_program(seed: int) -> None:
    rng = np.random.default_rng(seed)
    _, truth = maps(seed)
    predicted = (truth - 0.7) / 2 + rng.laplace(size=truth.size) * 0.05
    n = len(truth)
    rows = np.column_stack([predicted, np.ones(n)])
    above = np.block([[rows, -np.eye(n)], [-rows, -np.eye(n)]])
    cost = np.r_[0, 0, np.ones(n)]
    limits = [(None, None)] * 2 + [(0, None)] * n
    best = linprog(cost, above, np.r_[truth, -truth], bounds=limits)
    found = align_depth(predicted, truth, "l1_shift")
    loss = np.abs(found.align(predicted) - truth).sum()
    assert loss == pytest.approx(best.fun, rel=1e-4)
    assert found.shift == pytest.approx(best.x[1], abs=0.05)


def test_a_prediction_that_is_the_same_everywhere_gets_a_scale_only() -> None:
    found = align_depth(np.full(5, 2.0), np.arange(1.0, 6), "l1_shift")
    assert (found.scale, found.shift) == (1.5, 0.0)


def test_a_negative_prediction_is_no_hit() -> None:
    found = depth_errors(np.array([-1.0]), np.array([1.0]))
    assert (found.delta_1, found.delta_3) == (0, 0)
    assert found.depth_log_rmse == pytest.approx(np.log(1e5))
    assert found.abs_rel == 2


def test_pixels_are_left_out_where_either_depth_is_unknown() -> None:
    pairs = DepthPairs(farthest=70.0)
    truth = np.array([[1, 2, np.nan, 0, 70, 4]], np.float32)
    predicted = np.array([[1, np.nan, 3, 3, 3, 8]], np.float32)
    pairs.add(7, predicted, truth)
    found = pairs.score("raw")
    assert (found.seen, found.missing, found.errors.pixels) == (2, 1, 2)
    assert found.errors.abs_rel == 0.5
    assert pairs.frame_errors(found.alignment)[7].abs_rel == 0.5


def test_what_is_aligned_beyond_the_clip_is_set_to_it() -> None:
    pairs = DepthPairs(clip=10.0)
    pairs.add(0, np.array([[50.0]], np.float32), np.array([[10.0]], np.float32))
    assert pairs.score("raw").errors.depth_rmse == 0


def test_a_sequence_is_aligned_at_once_and_not_frame_by_frame() -> None:
    pairs = DepthPairs()
    pairs.add(0, np.full((2, 2), 1, np.float32), np.full((2, 2), 2, np.float32))
    pairs.add(1, np.full((1, 1), 1, np.float32), np.full((1, 1), 4, np.float32))
    score = pairs.score("median")
    assert score.alignment.scale == 2
    assert score.errors.abs_rel == pytest.approx(0.5 / 5)
    frames = pairs.frame_errors(score.alignment)
    assert [frames[i].abs_rel for i in (0, 1)] == [0, 0.5]
    assert score.summary()["pixels"] == 5


def test_memory_is_bounded_and_the_sample_fair() -> None:
    pairs, every = DepthPairs(capacity=2000), DepthPairs(capacity=None)
    rng = np.random.default_rng(1)
    for index in range(40):
        truth = rng.uniform(1, 5, (10, 50)).astype(np.float32)
        predicted = (truth * (1 + 0.1 * rng.normal(size=truth.shape))).astype(np.float32)
        pairs.add(index, predicted, truth)
        every.add(index, predicted, truth)
    thin, whole = pairs.score("raw"), every.score("raw")
    assert whole.errors.pixels == thin.seen == 20_000
    assert 500 < thin.errors.pixels <= 2000
    assert thin.errors.abs_rel == pytest.approx(whole.errors.abs_rel, rel=0.1)
    assert len(pairs.frame_errors(thin.alignment)) == 40


def test_depth_is_brought_to_the_size_of_the_truth() -> None:
    ramp = np.tile(np.arange(8, dtype=np.float32), (6, 1)) + 1
    assert at_size_of(ramp, np.zeros((12, 16), np.float32)).shape == (12, 16)
    assert at_size_of(ramp, ramp) is ramp


def test_nothing_to_judge_is_an_error() -> None:
    with pytest.raises(EvaluationError, match="no pixel has both"):
        DepthPairs().score("median")
    with pytest.raises(EvaluationError, match="must be positive"):
        align_depth(np.array([-1.0]), np.array([1.0]), "median")
    with pytest.raises(EvaluationError, match="resize one first"):
        DepthPairs().add(0, np.ones((2, 2), np.float32), np.ones((3, 2), np.float32))
    with pytest.raises(ConfigurationError, match="'log' is unknown"):
        align_depth(np.ones(2), np.ones(2), "log")  # type: ignore[arg-type]
