# SPDX-License-Identifier: Apache-2.0
"""Cloud errors are those of every pair compared, ICP and normals those of known surfaces."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.spatial import KDTree
from scipy.spatial.transform import Rotation

from xsvggt_ros.errors import EvaluationError
from xsvggt_ros.evaluation.cloud import estimate_normals, register, score_cloud
from xsvggt_ros.evaluation.protocols.mv_recon import thinned


def surface(seed: int, count: int = 600) -> np.ndarray:
    """Draw points of a wavy surface, which slides along itself in no direction."""
    x, y = np.random.default_rng(seed).uniform(-1, 1, (2, count))
    return np.stack([x, y, 0.4 * np.sin(3 * x) * np.cos(2 * y)], axis=1)


def test_distances_equal_those_of_all_pairs() -> None:
    predicted, truth = surface(0, 200) + 0.02, surface(1, 300)
    every = np.linalg.norm(predicted[:, None] - truth[None], axis=2)
    found = score_cloud(predicted, truth, icp_distance=None, distance=0.1)
    assert found.accuracy.mean == pytest.approx(every.min(axis=1).mean(), rel=1e-12)
    assert found.accuracy.median == pytest.approx(np.median(every.min(axis=1)), rel=1e-12)
    assert found.completeness.mean == pytest.approx(every.min(axis=0).mean(), rel=1e-12)
    precision, recall = (every.min(axis=1) < 0.1).mean(), (every.min(axis=0) < 0.1).mean()
    assert (found.precision, found.recall) == (precision, recall)
    assert found.f_score == pytest.approx(2 / (1 / precision + 1 / recall))
    assert (found.predicted, found.true) == (200, 300)


def test_distances_equal_a_tree_exactly() -> None:
    predicted, truth = surface(0), surface(1)
    found = score_cloud(predicted, truth, icp_distance=None)
    assert found.accuracy.mean == KDTree(truth).query(predicted)[0].mean()
    assert found.completeness.median == np.median(KDTree(predicted).query(truth)[0])


def test_a_cloud_against_itself_is_perfect() -> None:
    found = score_cloud(surface(0), surface(0))
    assert max(found.accuracy.mean, found.completeness.mean) < 1e-14
    assert found.normal_consistency.mean == pytest.approx(1)
    assert found.f_score == 1
    assert json.loads(json.dumps(found.summary()))["registration"]["fitness"] == 1


def test_normal_consistency_is_the_cosine_between_two_planes() -> None:
    rng = np.random.default_rng(0)
    flat = np.c_[rng.uniform(-1, 1, (400, 2)), np.zeros(400)]
    tilted = flat @ Rotation.from_euler("x", 30, degrees=True).as_matrix().T
    found = score_cloud(tilted, flat, icp_distance=None)
    assert found.normal_accuracy.mean == pytest.approx(np.cos(np.radians(30)))
    assert found.normal_completeness.median == pytest.approx(np.cos(np.radians(30)))
    assert found.normal_consistency.mean == pytest.approx(np.cos(np.radians(30)))


def test_icp_finds_a_small_motion_and_leaves_what_is_far_alone() -> None:
    points = surface(0)
    turn = Rotation.from_rotvec([0.02, -0.03, 0.01]).as_matrix()
    outlier = np.array([[5.0, 5.0, 5.0]])
    found = register(np.r_[points, outlier], points @ turn.T + [0.01, 0.02, -0.01], 0.1)
    np.testing.assert_allclose(found.target_from_source[:3, :3], turn, atol=1e-5)
    np.testing.assert_allclose(found.target_from_source[:3, 3], [0.01, 0.02, -0.01], atol=1e-5)
    assert found.fitness == pytest.approx(600 / 601)
    assert found.rmse < 1e-5
    assert found.iterations < 30


def test_icp_without_neighbours_moves_nothing() -> None:
    found = register(surface(0), surface(0) + 50, 0.1)
    np.testing.assert_array_equal(found.target_from_source, np.eye(4))
    assert (found.fitness, found.iterations) == (0, 0)


def test_normals_of_a_sphere_point_to_its_middle() -> None:
    points = np.random.default_rng(0).normal(size=(3000, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    cosines = np.abs((estimate_normals(points) * points).sum(axis=1))
    assert cosines.min() > 0.98
    assert cosines.mean() > 0.998


def test_normals_equal_a_decomposition_of_each_neighbourhood() -> None:
    points = surface(3, 80)
    found = estimate_normals(points, 10)
    for index in (0, 17, 79):
        nearest = points[np.argsort(np.linalg.norm(points - points[index], axis=1))[:10]]
        smallest = np.linalg.svd(nearest - nearest.mean(axis=0))[2][2]
        assert abs(smallest @ found[index]) == pytest.approx(1)


def test_a_thinned_cloud_is_bounded_and_fair() -> None:
    points = np.repeat(np.arange(50.0), 200)[:, None] * np.ones(3)
    few = thinned(points, 1000)
    assert 250 < len(few) <= 1000
    assert few.mean() == pytest.approx(24.5, abs=3)
    assert thinned(points, len(points)) is points


def test_names_end_in_the_alignment() -> None:
    given = score_cloud(surface(0), surface(1), icp_distance=None).summary()
    assert set(given) >= {"accuracy_given", "f_score_given"}
    registered = score_cloud(surface(0), surface(1)).summary()
    assert set(registered) >= {"accuracy_icp", "completeness_icp", "normal_consistency_icp"}
    assert "accuracy" not in registered


def test_clouds_of_too_few_points_are_refused() -> None:
    with pytest.raises(EvaluationError, match="predicted cloud has 2 points"):
        score_cloud(np.zeros((2, 3)), surface(0))
    with pytest.raises(EvaluationError, match="true cloud has 4 points"):
        score_cloud(surface(0), np.full((4, 3), np.nan))
