# SPDX-License-Identifier: Apache-2.0
"""Whether covariances promise what poses keep, and what fusing makes of several poses."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from motions import rigid
from numpy.typing import NDArray
from pose_benchmark import pose_benchmark as bench
from pose_benchmark import pose_views as pv
from selection import first_is_quick

from xsvggt_ros.geometry.pose_covariance import (
    GATE,
    LEAST_FACTOR_SAMPLES,
    AccumulatedError,
    ErrorSpectrum,
    Persistence,
    PoseEstimate,
    VarianceFactors,
    compose_covariance,
    fuse,
    in_other_child,
    in_parent_axes,
    innovation,
)
from xsvggt_ros.geometry.registration import points_by_patch, register_depths
from xsvggt_ros.geometry.rigid import Matrix, exp_se3, invert, log_se3

Array = NDArray[np.float64]

RUNS = 30
NEES = (0.7, 1.5)
COVERAGE = (0.9, 0.98)
ERRORS = pv.Errors(2.0, 0.002)


def is_honest(spread: bench.Spread) -> bool:
    return NEES[0] <= spread.nees <= NEES[1] and COVERAGE[0] <= spread.coverage <= COVERAGE[1]


@pytest.mark.parametrize("cell", first_is_quick([1, 4]))
def test_fused_poses_are_better_than_both_and_steps_are_honest(cell: int) -> None:
    found = bench.run_cell(bench.CELLS[cell], RUNS, frames=6)
    assert max(found.ratios) <= 1.05
    assert is_honest(found.steps), (found.steps.nees, found.steps.coverage)


def test_a_bias_and_a_frozen_camera_are_noticed() -> None:
    _, factors = bench.learn_factors(ERRORS)
    honest, biased, frozen = bench.Spread(), bench.Spread(), bench.Spread()
    bias = np.array([0.04, 0.0, 0.0, 0.0, np.radians(0.5), 0.0])
    for seed in range(6):
        for view in bench.views(seed, ERRORS, 10):
            estimate = bench.with_factors(view.registered, factors)
            honest.note(view.truth, estimate.pose, estimate.information)
        for view in bench.views(seed, ERRORS, 10, bias=bias):
            estimate = bench.with_factors(view.registered, factors)
            biased.note(view.truth, estimate.pose, estimate.information)
        stuck: Matrix | None = None
        for view in bench.views(seed, ERRORS, 10):
            estimate = bench.with_factors(view.registered, factors)
            stuck = estimate.pose if stuck is None else stuck
            frozen.note(view.truth, stuck, estimate.information)
    assert is_honest(honest), (honest.nees, honest.coverage)
    assert not is_honest(biased)
    assert not is_honest(frozen)


@pytest.mark.parametrize("unit", [0.1, 10.0])
def test_the_unit_of_length_is_of_no_consequence(unit: float) -> None:
    metres = bench.views(3, ERRORS, 4)
    for one, other in zip(metres, bench.views(3, ERRORS, 4, unit=unit), strict=True):
        units = np.array([unit] * 3 + [1.0] * 3)
        scaled = other.registered.information * np.outer(units, units)
        np.testing.assert_allclose(scaled, one.registered.information, rtol=1e-4, atol=1.0)
        both = []
        for view, by in ((one, 1.0), (other, unit)):
            head = bench.HEAD_COVARIANCE * np.outer(*[np.array([by] * 3 + [1.0] * 3)] * 2)
            fused = fuse(PoseEstimate(view.head, np.linalg.inv(head)), view.registered)
            both.append(bench.in_unit(fused.pose, 1 / by))
        np.testing.assert_allclose(both[0], both[1], atol=1e-6)


def test_what_is_held_does_not_make_the_rest_precise() -> None:
    # Two depth maps of which only the way is estimated, from a rotation that is 0.5 degrees off.
    camera, spectrum = pv.camera(4), ErrorSpectrum()
    truth = np.eye(4)
    truth[:3, :3] = exp_se3(np.array([0, 0, 0, 0.45, 0.7, 0.0]))[:3, :3]
    truth[:3, 3] = [1.0, 0.6, 2.0]
    random = np.random.default_rng(0)
    shares = []
    for _ in range(20):
        first, after = (
            (pv.room_depth(truth, camera) * (1 + 0.01 * pv.noise(random, 1.0, 4))).astype(
                np.float32
            )
            for _ in range(2)
        )
        seen = points_by_patch(first, np.ones_like(first), camera, 4)
        turn = np.radians(0.5) * random.standard_normal(3) / np.sqrt(3)
        start = exp_se3(np.concatenate([np.zeros(3), turn]))
        found = register_depths(seen, after, camera, start)
        assert found is not None
        estimate = spectrum.estimate(found)
        turned = np.zeros((6, 6))
        turned[3:, 3:] = np.eye(3) / (np.radians(0.5) ** 2 / 3)
        whole = fuse(PoseEstimate(start, turned + 1e-6 * np.eye(6)), estimate)
        error = log_se3(whole.pose)
        shares.append(
            error[:3] @ np.linalg.inv(np.linalg.inv(whole.information)[:3, :3]) @ error[:3]
        )
    assert 0.4 <= np.mean(shares) / 3 <= 2.0


def test_a_partial_estimate_says_nothing_of_the_rest() -> None:
    camera = pv.camera(4)
    wall = np.full((camera.height, camera.width), 2.0, np.float32)
    random = np.random.default_rng(0)
    wall *= (1 + 0.002 * random.standard_normal(wall.shape)).astype(np.float32)
    seen = points_by_patch(wall, np.ones_like(wall), camera, 4)
    found = register_depths(seen, np.full_like(wall, 2.0), camera, np.eye(4))
    assert found is not None
    estimate = ErrorSpectrum().estimate(found)
    assert np.isfinite(estimate.information).all()
    ahead, aside = (np.eye(6)[axis] for axis in (2, 0))
    assert ahead @ estimate.information @ ahead > 1e4
    assert aside @ estimate.information @ aside < 1e-6 * (ahead @ estimate.information @ ahead)


def test_information_adds_up() -> None:
    one = PoseEstimate(np.eye(4), np.diag([4.0, 1, 1, 1, 1, 1]))
    other = PoseEstimate(exp_se3(np.array([1.0, 0, 0, 0, 0, 0])), np.diag([12.0, 0, 0, 0, 0, 0]))
    both = fuse(one, other)
    np.testing.assert_allclose(both.pose[:3, 3], [0.75, 0, 0], atol=1e-12)
    np.testing.assert_allclose(both.information, np.diag([16.0, 1, 1, 1, 1, 1]))
    assert innovation(one, other) == pytest.approx(1 / (1 / 4 + 1 / 12))
    np.testing.assert_array_equal(fuse(one).pose, one.pose)


def test_of_contradicting_estimates_less_is_promised() -> None:
    one = PoseEstimate(np.eye(4), 1e4 * np.eye(6))
    other = PoseEstimate(exp_se3(np.array([1.0, 0, 0, 0, 0, 0])), 1e4 * np.eye(6))
    both = fuse(one, other)
    assert innovation(one, other) == pytest.approx(5000)
    np.testing.assert_allclose(both.pose[:3, 3], [0.5, 0, 0], atol=1e-12)
    np.testing.assert_allclose(both.information, 2e4 * GATE / 5000 * np.eye(6))


@given(rigid(), rigid(), st.integers(0, 2**31))
def test_covariances_follow_what_they_speak_of(pose: Matrix, step: Matrix, seed: int) -> None:
    random = np.random.default_rng(seed)
    first, second = 1e-6 * random.standard_normal((2, 6))
    covariance = np.outer(first, first)
    moved = pose @ exp_se3(first) @ step @ exp_se3(second)
    error = log_se3(invert(pose @ step) @ moved)
    whole = compose_covariance(covariance, step, np.zeros((6, 6)))
    np.testing.assert_allclose(whole, np.outer(error - second, error - second), atol=1e-15)
    other = log_se3(invert(pose @ step) @ pose @ exp_se3(first) @ step)
    np.testing.assert_allclose(in_other_child(covariance, step), np.outer(other, other), atol=1e-15)
    outside = (pose @ exp_se3(first))[:3, 3] - pose[:3, 3]
    np.testing.assert_allclose(
        in_parent_axes(covariance, pose)[:3, :3], np.outer(outside, outside), atol=1e-15
    )


def random_covariance(random: np.random.Generator, units: float = 1.0) -> Array:
    """Return a covariance [6, 6] of a step whose lengths are in other units."""
    root = random.standard_normal((6, 6)) * np.exp(random.normal(-4.0, 2.0, 6))
    unit = np.array([units] * 3 + [1.0] * 3)
    return np.asarray(unit[:, None] * (root @ root.T) * unit, np.float64)


def in_units(pose: Matrix, units: float) -> Matrix:
    scaled: Matrix = pose.copy()
    scaled[:3, 3] *= units
    return scaled


@pytest.mark.parametrize(
    ("frames", "share", "correlation"),
    [
        (10, 0.4, 0.9),
        (50, 0.4, 0.9),
        (200, 0.4, 0.9),
        (50, 0.4, 0.0),
        (50, 0.9, 0.95),
        (50, 0.0, 0.9),
    ],
)
def test_poses_whose_steps_share_errors_are_as_wrong_as_is_said(
    frames: int, share: float, correlation: float
) -> None:
    """NEES of sums of steps that are partly wrong in the same way, one after the other."""
    persistence = Persistence(share, correlation)
    random, squares, independent = np.random.default_rng(0), [], []
    step = exp_se3(np.array([0.02, 0.0, 0.1, 0.0, 0.03, 0.0]))
    root = 1e-4 * np.tril(np.eye(6) + 0.3 * random.standard_normal((6, 6)))
    error, alone = AccumulatedError(), np.zeros((6, 6))
    for _ in range(frames):
        error.step(step, root @ root.T, persistence)
        alone = compose_covariance(alone, step, root @ root.T)
    for _ in range(300):
        pose, lasting = np.eye(4), random.standard_normal(6)
        for _ in range(frames):
            white = np.sqrt(1.0 - share) * random.standard_normal(6)
            pose = pose @ step @ exp_se3(root @ (white + np.sqrt(share) * lasting))
            fresh = np.sqrt(1.0 - correlation**2) * random.standard_normal(6)
            lasting = correlation * lasting + fresh
        wrong = log_se3(invert(np.linalg.matrix_power(step, frames)) @ pose)
        squares.append(wrong @ np.linalg.solve(error.covariance, wrong) / 6)
        independent.append(wrong @ np.linalg.solve(alone, wrong) / 6)
    assert np.mean(squares) == pytest.approx(1.0, abs=0.12)
    if share * correlation:
        assert np.mean(independent) > 1.8
    else:
        np.testing.assert_allclose(error.covariance, alone, rtol=1e-12, atol=1e-15)


@given(st.integers(0, 2**31), st.sampled_from([1e-3, 10.0, 1e4]))
def test_covariances_of_poses_are_possible_and_alike_in_all_units(seed: int, units: float) -> None:
    found = []
    for unit in (1.0, units):
        random, error = np.random.default_rng(seed), AccumulatedError()
        for number in range(30):
            step = exp_se3(random.normal(0, 0.3, 6))
            covariance = random_covariance(random)
            if number % 7 == 0:
                covariance = np.outer(covariance[0], covariance[0])  # all but singular
            scale = np.array([unit] * 3 + [1.0] * 3)
            error.step(in_units(step, unit), covariance * np.outer(scale, scale))
            np.testing.assert_array_equal(error.covariance, error.covariance.T)
            sizes = np.sqrt(np.diag(error.covariance))
            values = np.linalg.eigvalsh(error.covariance / np.outer(sizes, sizes))
            assert values[0] > -1e-9
        np.linalg.cholesky(error.covariance)
        found.append(error.covariance / np.outer(scale, scale))
    one, other = found
    np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-9 * np.abs(one).max())


@pytest.mark.parametrize(("share", "correlation"), [(1.0, 1.0), (0.4, 0.9)])
def test_what_lasts_adds_up_like_a_bias(share: float, correlation: float) -> None:
    step, error = exp_se3(np.array([0.0, 0.0, 0.1, 0.0, 0.0, 0.0])), AccumulatedError()
    for count in range(1, 20):
        of_step = np.diag([1e-4, 1e-4, 1e-4, 0.0, 0.0, 0.0])
        error.step(step, of_step, Persistence(share, correlation))
        apart = np.abs(np.subtract.outer(np.arange(count), np.arange(count)))
        expected = (1.0 - share) * count + share * (correlation**apart).sum()
        np.testing.assert_allclose(np.diag(error.covariance)[:3], 1e-4 * expected)


def test_factors_are_found_and_are_one_until_then() -> None:
    random, factors = np.random.default_rng(0), VarianceFactors()
    covariance = np.diag([0.01**2] * 3 + [0.002**2] * 3)
    for index in range(2000):
        if index < LEAST_FACTOR_SAMPLES:
            assert factors.factors == (1.0, 1.0)
        way, turn = 0.02 * random.standard_normal(3), 0.001 * random.standard_normal(3)
        error = np.concatenate([way, turn])
        factors.note(error, covariance)
    assert factors.factors == pytest.approx((4.0, 0.25), rel=0.25)
    np.testing.assert_allclose(
        np.sqrt(np.diag(factors.applied(covariance))), [0.02] * 3 + [0.001] * 3, rtol=0.15
    )
