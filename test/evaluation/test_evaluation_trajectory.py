# SPDX-License-Identifier: Apache-2.0
"""ATE and RPE are those of evo, and of cases done by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from xsvggt_ros.errors import ConfigurationError, EvaluationError
from xsvggt_ros.evaluation.sources.tum import associate
from xsvggt_ros.geometry.rigid import rotation_angles
from xsvggt_ros.metrics.trajectory import TrajectoryAlignment, path_extent, score_trajectory


def path(seed: int, count: int = 40, scale: float = 1.0, noise: float = 0.0) -> np.ndarray:
    """Draw a smooth path; ``noise`` shakes it by another seed."""
    rng = np.random.default_rng(seed)
    turns = np.cumsum(rng.normal(size=(count, 3)) * 0.2, axis=0)
    places = np.cumsum(rng.normal(size=(count, 3)) * 0.3, axis=0)
    shake = np.random.default_rng(seed + 1)
    poses = np.tile(np.eye(4), (count, 1, 1))
    jitter = Rotation.from_rotvec(shake.normal(size=(count, 3)) * noise)
    poses[:, :3, :3] = (Rotation.from_rotvec(turns) * jitter).as_matrix()
    poses[:, :3, 3] = scale * (places + shake.normal(size=(count, 3)) * noise)
    return poses


def moved(poses: np.ndarray, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    world = np.eye(4)
    world[:3, :3] = Rotation.random(random_state=seed).as_matrix()
    world[:3, 3] = rng.normal(size=3) * 5
    result: np.ndarray = world @ poses
    return result


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("alignment", ["none", "origin", "se3", "sim3"])
@pytest.mark.parametrize("delta", [1, 4])
def test_ate_and_rpe_equal_those_of_evo(
    seed: int, alignment: TrajectoryAlignment, delta: int
) -> None:
    metrics = pytest.importorskip("evo.core.metrics")
    from evo.core.trajectory import PoseTrajectory3D
    from evo.core.units import Unit

    truth, estimate = path(seed), moved(path(seed, scale=0.4, noise=0.05), seed)
    stamps = np.arange(len(truth), dtype=float)
    theirs = PoseTrajectory3D(poses_se3=list(truth), timestamps=stamps)
    ours = PoseTrajectory3D(poses_se3=list(estimate), timestamps=stamps)
    if alignment == "origin":
        ours.align_origin(theirs)
    elif alignment != "none":
        ours.align(theirs, correct_scale=alignment == "sim3")

    found = score_trajectory(estimate, truth, alignment, delta=delta)
    relation = metrics.PoseRelation
    expected = [
        (found.ate, metrics.APE(relation.translation_part)),
        (found.ate_rotation, metrics.APE(relation.rotation_angle_deg)),
    ]
    expected += [
        (ours_, metrics.RPE(which, delta=delta, delta_unit=Unit.frames, all_pairs=True))
        for ours_, which in (
            (found.rpe_translation, relation.translation_part),
            (found.rpe_rotation, relation.rotation_angle_deg),
        )
    ]
    for mine, metric in expected:
        metric.process_data((theirs, ours))
        statistics = metric.get_all_statistics()
        for name in ("rmse", "mean", "median", "std", "min", "max"):
            assert getattr(mine, name) == pytest.approx(statistics[name], abs=1e-6), name


@given(st.integers(0, 1000), st.floats(0.05, 20))
def test_sim3_recovers_the_scale_of_a_path_that_is_right_otherwise(seed: int, scale: float) -> None:
    found = score_trajectory(moved(path(seed, scale=scale), seed), path(seed), "sim3")
    assert found.scale == pytest.approx(1 / scale, rel=1e-9)
    assert found.ate.max < 1e-8
    assert found.rpe_translation.max < 1e-8
    assert found.rpe_rotation.max < 1e-5


def test_errors_done_by_hand() -> None:
    truth = np.tile(np.eye(4), (3, 1, 1))
    truth[:, 0, 3] = [0, 1, 2]
    estimate = truth.copy()
    estimate[2, 0, 3] = 2.5
    estimate[2, :3, :3] = Rotation.from_euler("z", 90, degrees=True).as_matrix()
    kinds: tuple[TrajectoryAlignment, ...] = ("origin", "se3", "sim3")
    found = {kind: score_trajectory(estimate, truth, kind) for kind in kinds}
    assert found["origin"].position_errors.tolist() == [0, 0, 0.5]
    assert found["origin"].ate.rmse == pytest.approx(np.sqrt(0.25 / 3))
    assert found["origin"].rpe_translation.mean == pytest.approx(0.25)
    assert found["origin"].step_rotation_errors == pytest.approx([0, 90])
    assert found["sim3"].scale == pytest.approx(np.dot([-1, 0, 1], [-7, -1, 8]) / 6 / (114 / 36))
    assert set(found["se3"].summary()) >= {"ate_se3", "rpe_rotation_deg", "scale_se3"}
    assert found["sim3"].metrics()["ate_sim3"] == found["sim3"].ate.rmse
    assert found["sim3"].metrics()["relative_ate_sim3"] == found["sim3"].ate.rmse / 2


@given(st.integers(0, 1000))
def test_no_metric_depends_on_the_world_of_the_poses(seed: int) -> None:
    truth, estimate = path(seed), path(seed, scale=0.5, noise=0.1)
    here = score_trajectory(estimate, truth, "sim3").metrics()
    there = score_trajectory(moved(estimate, seed + 1), moved(truth, seed + 2), "sim3").metrics()
    assert there == pytest.approx(here, rel=1e-6)


def test_the_extent_lies_along_the_first_camera_or_the_world() -> None:
    poses = np.tile(np.eye(4), (2, 1, 1))
    poses[:, :3, :3] = Rotation.from_euler("z", 45, degrees=True).as_matrix()
    poses[1, :2, 3] = [1, 1]
    assert path_extent(poses) == pytest.approx(np.sqrt(2))
    poses = np.concatenate([poses, poses[:1]])
    poses[2, :2, 3] = [1, 0]  # aside by half a diagonal, which widens only the camera's box
    assert path_extent(poses) == pytest.approx(np.sqrt(2 + 0.5))
    poses[:, :3, :3] = np.nan
    assert path_extent(poses) == pytest.approx(np.sqrt(2))


@given(st.floats(0, np.pi), st.integers(0, 1000))
def test_angles_are_exact_near_zero_and_near_half_a_turn(angle: float, seed: int) -> None:
    axis = np.random.default_rng(seed).normal(size=3)
    axis /= np.linalg.norm(axis)
    turn = Rotation.from_rotvec(angle * axis).as_matrix()
    assert rotation_angles(turn[None])[0] == pytest.approx(angle, abs=1e-7)


def test_tiny_angles_keep_their_digits() -> None:
    turn = Rotation.from_rotvec([1e-9, 0, 0]).as_matrix()
    assert rotation_angles(turn[None])[0] == pytest.approx(1e-9, rel=1e-6)


def test_stamps_are_matched_with_the_nearest_within_the_tolerance() -> None:
    stamps = np.array([0, 10, 21, 90])
    others = np.array([1, 11, 19, 50])
    mine, theirs = associate(stamps, others, tolerance=2)
    assert mine.tolist() == [0, 1, 2]
    assert theirs.tolist() == [0, 1, 2]
    assert associate(stamps, np.array([], np.int64), 5)[0].size == 0


@pytest.mark.parametrize(
    ("estimate", "delta", "message"),
    [
        (np.tile(np.eye(4), (1, 1, 1)), 1, "1 matched poses"),
        (np.tile(np.eye(4), (4, 1, 1)), 4, "delta of 4"),
        (np.full((4, 4, 4), np.nan), 1, "not finite"),
    ],
)
def test_too_little_to_judge_is_refused(
    estimate: NDArray[np.float64], delta: int, message: str
) -> None:
    truth = np.tile(np.eye(4), (len(estimate), 1, 1))
    with pytest.raises(EvaluationError, match=message):
        score_trajectory(estimate, truth, "sim3", delta=delta)


def test_an_unknown_alignment_is_refused() -> None:
    poses = path(0, 4)
    with pytest.raises(ConfigurationError, match="'affine' is unknown; choose one of none, origin"):
        score_trajectory(poses, poses, "affine")  # type: ignore[arg-type]
