# SPDX-License-Identifier: Apache-2.0
"""Drift, NEES, coverage, jumps, joins and the scale known at the time, on paths known exactly."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from unittest.mock import Mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from results import result_with

from xsvggt_ros.errors import ConfigurationError, EvaluationError
from xsvggt_ros.evaluation import odometry
from xsvggt_ros.evaluation.evaluator import Scores, SessionEvaluator
from xsvggt_ros.evaluation.request import ScoringOptions
from xsvggt_ros.evaluation.sources.base import FrameTruth
from xsvggt_ros.geometry.pose_covariance import USUAL_PERSISTENCE, Persistence
from xsvggt_ros.geometry.rigid import Matrix, exp_se3, invert
from xsvggt_ros.metrics.odometry import score_drift, score_steps, segment_lengths
from xsvggt_ros.metrics.trajectory import inverses
from xsvggt_ros.stream.frame import CameraMotion, GaugeChange

Array = NDArray[np.float64]


def walk(count: int, seed: int = 0, step: float = 0.1) -> Array:
    """Return a winding path of equal steps, [count, 4, 4]."""
    random = np.random.default_rng(seed)
    poses = [np.eye(4)]
    for turn in 0.05 * random.normal(size=(count - 1, 3)):
        poses.append(poses[-1] @ exp_se3(np.array([0.0, 0.0, step, *turn])))
    return np.array(poses)


def straight(count: int, step: float, turn: float = 0.0) -> Array:
    """Return a path ahead that turns by so many radians a step about the way that it goes."""
    return np.array(
        [exp_se3(np.array([0, 0, step * index, 0, 0, turn * index])) for index in range(count)]
    )


def of_steps(steps: Array) -> Array:
    """Return the path of some steps."""
    poses = [np.eye(4)]
    for each in steps:
        poses.append(poses[-1] @ each)
    return np.array(poses)


# -- drift


def test_a_path_too_long_by_three_percent_drifts_by_three_centimetres_a_metre() -> None:
    score = score_drift(straight(101, 0.103), straight(101, 0.1), "none")
    assert score.lengths == (1, 2, 3, 4, 5, 6, 7, 8)
    for each in score.translation:
        assert each.mean == pytest.approx(0.03, abs=1e-9)
        assert each.max == pytest.approx(0.03, abs=1e-9)
    assert score.metrics() == pytest.approx(
        {"drift_translation_none": 0.03, "drift_rotation_deg_per_m": 0.0}, abs=1e-9
    )


def test_a_path_that_turns_too_much_drifts_by_so_many_degrees_a_metre() -> None:
    score = score_drift(straight(101, 0.1, np.radians(0.05)), straight(101, 0.1), "none")
    assert score.all_rotation.mean == pytest.approx(0.5, abs=1e-9)
    assert score.all_rotation.std == pytest.approx(0.0, abs=1e-9)
    assert score.all_translation.max < 1e-9


def test_every_pose_begins_a_segment_of_every_length_that_fits() -> None:
    score = score_drift(straight(31, 0.1), straight(31, 0.1), "none", lengths=(1.0, 2.0, 5.0))
    assert score.lengths == (1.0, 2.0)
    assert [each.count for each in score.translation] == [21, 11]
    assert score.of_length(5.0) is None


@pytest.mark.parametrize(
    ("metres", "lengths"),
    [
        (900.0, (100, 200, 300, 400, 500, 600, 700, 800)),
        (394.0, (100, 200, 300)),
        (199.0, (10, 20, 30, 40, 50, 60, 70, 80)),
        (2.5, (1, 2)),
        (0.05, (0.01, 0.02, 0.03, 0.04, 0.05)),
    ],
)
def test_segments_are_those_of_kitti_or_as_many_times_shorter_as_the_path_asks_for(
    metres: float, lengths: tuple[float, ...]
) -> None:
    assert segment_lengths(metres) == pytest.approx(lengths)


@given(st.integers(0, 50), st.floats(0.05, 20))
def test_drift_after_sim3_does_not_depend_on_unit_and_world(seed: int, scale: float) -> None:
    truth, world = walk(40, seed), walk(2, seed + 1)[1]
    estimate = of_steps(inverses(truth[:-1]) @ truth[1:] @ exp_se3(np.full(6, 0.003)))
    moved = world @ estimate
    moved[:, :3, 3] *= scale
    found, expected = score_drift(moved, truth, "sim3"), score_drift(estimate, truth, "sim3")
    assert found.metrics() == pytest.approx(expected.metrics(), rel=1e-6)


def test_a_path_without_length_or_rotations_has_no_drift() -> None:
    estimate = straight(10, 0.1)
    with pytest.raises(EvaluationError, match="0.0 mm long"):
        score_drift(estimate, straight(10, 0.0), "none")
    with pytest.raises(EvaluationError, match=r"no segment of \(5.0,\) m fits"):
        score_drift(estimate, estimate, "none", lengths=(5.0,))
    places = estimate.copy()
    places[:, :3, :3] = np.nan
    with pytest.raises(EvaluationError, match="no orientation"):
        score_drift(estimate, places, "none")


# -- steps


def noisy_steps(covariance: Array, count: int = 4000, seed: int = 0) -> tuple[Array, Array]:
    """Return steps that are off by errors of a covariance [6, 6], and the true ones."""
    random = np.random.default_rng(seed)
    errors = random.multivariate_normal(np.zeros(6), covariance, count)
    true = np.array([exp_se3(0.1 * each) for each in random.normal(size=(count, 6))])
    return true @ np.array([exp_se3(each) for each in errors]), true


COVARIANCE = np.diag([1e-4, 4e-4, 1e-4, 1e-6, 1e-6, 4e-6]) + 2e-6 * np.ones((6, 6)) * 0.1


@pytest.mark.parametrize("factor", [0.25, 1.0, 4.0])
def test_nees_is_the_factor_by_which_variances_are_too_small(factor: float) -> None:
    steps, true = noisy_steps(COVARIANCE)
    told = np.tile(COVARIANCE / factor, (len(steps), 1, 1))
    score = score_steps(steps, true, told, "none")
    assert score.nees.mean() == pytest.approx(factor, rel=0.04)
    assert score.nees_translation == pytest.approx(factor, rel=0.06)
    assert score.nees_rotation == pytest.approx(factor, rel=0.06)
    expected = {0.25: 1.0, 1.0: 0.95, 4.0: 0.21}[factor]  # of chi2 with 6 components
    assert score.coverage == pytest.approx(expected, abs=0.015)


def test_nees_of_one_error_by_hand() -> None:
    steps, true = np.array([exp_se3(np.array([0.03, 0, 0, 0, 0, 0.2]))]), np.eye(4)[None]
    told = np.diag([0.01**2] * 3 + [0.1**2] * 3)[None]
    score = score_steps(steps, true, told, "none")
    near = score.metrics()
    assert near["step_nees_none"] == pytest.approx((9 + 4) / 6, rel=1e-9)
    assert near["step_nees_translation_none"] == pytest.approx(3.0, rel=1e-9)
    assert near["step_nees_rotation"] == pytest.approx(4 / 3, rel=1e-9)
    assert near["step_error_max_sigmas_none"] == pytest.approx(3.0, rel=1e-9)
    assert near["step_error_max_deg"] == pytest.approx(np.degrees(0.2))
    assert score.coverage == 0.0


@given(st.floats(0.01, 100.0))
def test_steps_and_covariances_of_another_unit_are_the_same(scale: float) -> None:
    steps, true = noisy_steps(COVARIANCE, 20)
    told = np.tile(COVARIANCE, (20, 1, 1))
    other = steps.copy()
    other[:, :3, 3] /= scale
    unit = np.array([1 / scale] * 3 + [1.0] * 3)
    found = score_steps(other, true, told * np.outer(unit, unit), "none", scale=scale)
    assert found.metrics() == pytest.approx(score_steps(steps, true, told, "none").metrics())


def test_a_step_without_a_covariance_is_refused() -> None:
    steps, true = noisy_steps(COVARIANCE, 2)
    with pytest.raises(EvaluationError, match="not positive definite"):
        score_steps(steps, true, np.zeros((2, 6, 6)), "none")
    with pytest.raises(EvaluationError, match="at least 1"):
        score_steps(steps[:0], true[:0], np.zeros((0, 6, 6)), "none")


# -- a session


UNIT = 0.5
"""Of the made-up engine, in metres."""
TOLD = np.diag([0.02**2] * 3 + [0.01**2] * 3)
"""Covariance of its steps, in its unit."""


def evaluated(
    truth: Array,
    world: Array,
    odom: Array,
    *,
    source: str = "auto",
    depth: bool = True,
    changes: dict[int, GaugeChange] | None = None,
    lost: frozenset[int] = frozenset(),
    units: Array | None = None,
    persistence: Persistence = USUAL_PERSISTENCE,
) -> Scores:
    """Score paths in metres as an engine would have given them in its unit.

    Args:
        truth: true path, [n, 4, 4].
        world: estimated path in the world, metres.
        odom: the same in `odom`.
        source: of the scale.
        depth: whether there is true depth.
        changes: by frame, joins that are told with it.
        lost: frames that are implausible.
        units: metres per unit that depth shows, by frame; else the engine's.
        persistence: of the errors of steps.

    """
    session = SessionEvaluator(ScoringOptions(cloud_points=0, scale_source=source))
    shown = np.full(len(truth), UNIT) if units is None else units
    for index, (true, pose, smooth) in enumerate(zip(truth, world, odom, strict=True)):
        step = invert(odom[index - 1]) @ smooth if index else np.eye(4)
        result = replace(
            result_with(np.full((30, 40), 2.0 / shown[index], np.float32), index=index),
            stamp=index * 10**8,
            camera_to_world=in_units(pose),
            motion=CameraMotion(
                in_units(smooth),
                TOLD,
                TOLD,
                in_units(step),
                TOLD * bool(index),
                0.1,
                persistence=persistence,
            ),
            gauge_change=(changes or {}).get(index),
        )
        known = np.full((30, 40), 2.0, np.float32) if depth else None
        session.add(result, FrameTruth(true, known), lost=index in lost)
    return session.scores()


def in_units(pose: Matrix) -> Matrix:
    scaled: Matrix = pose.copy()
    scaled[:3, 3] /= UNIT
    return scaled


def test_an_exact_session_has_no_error_in_any_alignment() -> None:
    truth = walk(60)
    scores = evaluated(truth, truth, truth)
    odometry = scores.odometry
    for kind in ("sim3", "se3_online"):
        assert scores.trajectory[kind].ate.max < 1e-9
        assert odometry.drift[kind].all_translation.max < 1e-9
        assert odometry.odom_drift[kind].all_translation.max < 1e-9
        assert odometry.steps[kind].nees.max() < 1e-12
        assert odometry.steps[kind].coverage == 1.0
        assert odometry.map_poses[kind].nees.max() < 1e-12
        assert odometry.map_poses[kind].coverage == 1.0
    assert odometry.steps["sim3"].scale == pytest.approx(UNIT)
    assert odometry.scale_source == "depth"
    assert odometry.scales == pytest.approx((UNIT, UNIT, UNIT))
    assert odometry.frames_without_scale == 0
    assert odometry.joins == ()
    assert scores.missing == ("cloud: not asked for",)


def test_a_jump_of_odom_is_found_with_its_size_and_frame() -> None:
    truth = walk(60)
    odom = truth.copy()
    jump = exp_se3(np.array([0.07, 0, 0, 0, 0, 0]))
    odom[40:] = odom[39] @ jump @ invert(odom[39]) @ odom[40:]
    odometry = evaluated(truth, truth, odom).odometry
    score = odometry.steps["se3_online"]
    assert score.translation.max == pytest.approx(0.07, abs=1e-6)
    assert odometry.step_frames["se3_online"][score.sigmas.argmax()] == 40
    assert score.sigmas.max() == pytest.approx(0.07 / (UNIT * 0.02), rel=0.1)
    assert score.coverage == pytest.approx(58 / 59)
    assert odometry.drift["se3_online"].all_translation.max < 1e-9


def test_joins_are_counted_with_what_they_did_to_map_and_odom() -> None:
    truth = walk(60)
    world = truth.copy()
    moved = exp_se3(np.array([0, 0.04, 0, np.radians(0.5), 0, 0]))
    world[30:] = truth[29] @ moved @ invert(truth[29]) @ truth[30:]
    changes = {
        10: GaugeChange("asked for", "points lie 20 % apart", 1.5, 0.2, 0),
        30: GaugeChange("300 frames old", "", 0.8, 0.02, 1),
    }
    odometry = evaluated(truth, world, truth, changes=changes).odometry
    assert odometry.joined == 1
    refused, joined = odometry.joins
    assert (refused.frame, refused.objection) == (10, "points lie 20 % apart")
    assert refused.jump < 1e-9
    assert joined.frame == 30
    assert joined.reason == "300 frames old"
    assert joined.scale == 0.8
    assert joined.jump == pytest.approx(0.0400 / UNIT, abs=2e-3)
    assert joined.jump_deg == pytest.approx(0.5, abs=1e-6)
    assert odometry.steps["se3_online"].translation.max < 1e-9
    summary = odometry.summary()
    assert (summary["joined"], summary["joins_refused"]) == (1, 1)


def test_the_scale_known_at_the_time_is_not_the_one_fitted_afterwards() -> None:
    truth = straight(101, 0.1)
    units = np.full(101, UNIT)
    units[:50] *= 1.1  # a tenth too much, until the median of the newest estimates has changed
    scores = evaluated(truth, truth, truth, units=units)
    assert scores.trajectory["sim3"].ate.max < 1e-9
    assert scores.trajectory["se3_online"].ate.max > 0.1
    assert scores.odometry.scales == pytest.approx((UNIT, 1.1 * UNIT, UNIT))
    longest = scores.odometry.drift["se3_online"]
    assert longest.all_translation.max == pytest.approx(0.1, abs=1e-6)
    assert longest.all_translation.min == pytest.approx(0.0, abs=1e-6)


def test_without_depth_the_true_path_tells_the_scale_once_it_is_long_enough() -> None:
    truth = straight(60, 0.1)
    scores = evaluated(truth, truth, truth, depth=False)
    assert scores.odometry.scale_source == "odometry"
    assert scores.odometry.frames_without_scale == 5  # half a metre is the shortest chord
    assert scores.odometry.scales == pytest.approx((UNIT, UNIT, UNIT))
    assert scores.trajectory["se3_online"].ate.count == 55
    assert scores.trajectory["se3_online"].ate.max < 1e-9
    assert len(scores.odometry.steps["se3_online"].nees) == 55
    assert len(scores.odometry.steps["sim3"].nees) == 59


def test_without_a_scale_only_what_is_fitted_afterwards_is_scored() -> None:
    truth = walk(30)
    scores = evaluated(truth, truth, truth, source="none")
    assert set(scores.trajectory) == {"origin", "se3", "sim3"}
    assert set(scores.odometry.steps) == set(scores.odometry.drift) == {"sim3"}
    assert any("scale_source is 'none'" in each for each in scores.missing)
    with pytest.raises(ConfigurationError, match="auto, depth, odometry, none"):
        ScoringOptions(scale_source="wheels")


def shared(steps: int) -> float:
    """Return how many times the variance of independent errors so many steps are taken to have."""
    apart = np.abs(np.subtract.outer(np.arange(steps), np.arange(steps)))
    share, correlation = USUAL_PERSISTENCE.share, USUAL_PERSISTENCE.correlation
    return float(1.0 - share + share * (correlation**apart).sum() / steps)


def test_poses_over_many_frames_are_scored_by_the_covariances_of_their_steps() -> None:
    """A way that is too long by as much at each step is wrong by ever more sigma."""
    truth = straight(121, 0.1)
    random = np.random.default_rng(0)
    odom = [np.eye(4)]
    for before, after in pairwise(truth):
        sigma = np.array([UNIT * 0.02] * 3 + [0.01] * 3)
        odom.append(odom[-1] @ invert(before) @ after @ exp_se3(sigma * random.standard_normal(6)))
    scores = evaluated(truth, truth, np.array(odom)).odometry
    white = {score.frames: score for score in scores.poses["se3_online"]}
    assert set(white) == {10, 50}  # the path is too short for 200
    assert len(white[10].nees) == 111
    assert len(white[50].nees) == 15
    assert white[10].nees.mean() == pytest.approx(1.0 / shared(10), rel=0.4)
    assert white[10].coverage == 1.0
    # Errors that do not last are told apart from those that do.
    independent = evaluated(truth, truth, np.array(odom), persistence=Persistence(0.0, 0.9))
    (found, _) = independent.odometry.poses["se3_online"]
    assert found.nees.mean() == pytest.approx(white[10].nees.mean() * shared(10), rel=0.05)
    summary = scores.summary()["poses"]["se3_online"]
    assert summary["pose_nees_10_se3_online"] == pytest.approx(white[10].nees.mean())
    long = truth.copy()
    long[:, :3, 3] *= 1.2
    biased = {s.frames: s for s in evaluated(truth, truth, long).odometry.poses["se3_online"]}
    one = 0.02 / (UNIT * 0.02)
    assert biased[10].nees.mean() == pytest.approx(10 * one**2 / 6 / shared(10), rel=0.05)
    assert biased[50].nees.mean() == pytest.approx(50 * one**2 / 6 / shared(50), rel=0.2)
    # Steps on both sides of one that is unknown are no way.
    lost = evaluated(truth, truth, truth, lost=frozenset({60})).odometry.poses["sim3"]
    assert [len(score.nees) for score in lost] == [50 + 51, 2 + 3]


def test_a_session_without_frames_has_reasons_and_no_scores() -> None:
    missing: list[str] = []
    scores = odometry.OdometryEvaluator("auto").scores(missing)
    assert not any((scores.steps, scores.poses, scores.map_poses, scores.drift))
    assert {each.partition(",")[0] for each in missing} == {"drift", "steps"}


def test_poses_in_the_map_are_scored_by_their_own_covariances() -> None:
    """Each is wrong by itself, by as much as is said, and lost ones do not count."""
    truth, random = walk(200), np.random.default_rng(0)
    sigma = np.array([UNIT * 0.02] * 3 + [0.01] * 3)
    world = [truth[0], *(each @ exp_se3(sigma * random.standard_normal(6)) for each in truth[1:])]
    scores = evaluated(truth, np.array(world), truth, lost=frozenset({7, 8})).odometry
    for kind in ("sim3", "se3_online"):
        found = scores.map_poses[kind]
        assert len(found.nees) == 197
        assert found.nees.mean() == pytest.approx(1.0, abs=0.12)
        assert found.nees_translation == pytest.approx(1.0, abs=0.15)
        assert found.nees_rotation == pytest.approx(1.0, abs=0.15)
        assert 0.9 <= found.coverage <= 0.99
    # What the scale may be off by is part of what is published, and so is what it was then.
    doubtful = UNIT * (1 + 0.05 * random.standard_normal(200))
    online = evaluated(truth, truth, truth, units=doubtful).odometry.map_poses["se3_online"]
    assert online.nees.mean() < 1.0
    summary = scores.summary()["map_poses"]["sim3"]
    assert summary["map_pose_nees_sim3"] == pytest.approx(scores.map_poses["sim3"].nees.mean())
    assert set(summary) == {
        "map_pose_nees_sim3", "map_pose_nees_translation_sim3", "map_pose_nees_rotation",
        "map_pose_coverage_sim3",
    }  # fmt: skip


def test_steps_whose_sums_cannot_be_scored_keep_what_the_report_tells_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fault = Mock(side_effect=EvaluationError("a covariance is not positive definite"))
    monkeypatch.setattr(odometry, "score_poses", fault)
    truth = walk(30)
    scores = evaluated(truth, truth, truth)
    assert not scores.odometry.poses
    assert set(scores.odometry.steps) == set(scores.odometry.step_frames) != set()
    assert any("not positive definite" in reason for reason in scores.missing)


def test_steps_that_are_published_as_unknown_are_counted_and_left_out() -> None:
    truth = walk(30)
    odometry = evaluated(truth, truth, truth, lost=frozenset({0, 7, 8})).odometry
    assert odometry.unknown_steps == 2
    assert len(odometry.steps["sim3"].nees) == 27


def test_frames_without_a_true_pose_make_no_step() -> None:
    truth = walk(30)
    truth[12] = np.nan  # is no pose, and no position
    scores = evaluated(np.array(truth), walk(30), walk(30))
    assert len(scores.odometry.steps["sim3"].nees) == 27
    assert scores.odometry.steps["sim3"].translation.max < 1e-9
