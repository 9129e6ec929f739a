# SPDX-License-Identifier: Apache-2.0
"""The parts of an evaluation that need no run: costs, limits, comparison, warnings, charts."""

from __future__ import annotations

import json
import logging
import re
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from command_line import run
from hypothesis import given
from hypothesis import strategies as st
from present import present
from recordings import truth
from results import result_with
from rich.console import Console

from xsvggt_ros.commands import terminal
from xsvggt_ros.errors import ConfigurationError, SourceError
from xsvggt_ros.evaluation.cloud import CorrespondenceSample
from xsvggt_ros.evaluation.evaluation import CostRecorder, Percentiles
from xsvggt_ros.evaluation.evaluator import depth_at_truth, truth_at_result
from xsvggt_ros.evaluation.metric_registry import (
    BY_NAME,
    QUANTITIES,
    Threshold,
    Verdict,
    check_limits,
)
from xsvggt_ros.evaluation.provenance import MOST, WarningLog, collecting_warnings
from xsvggt_ros.evaluation.report.charts import Dot, envelope, undominated
from xsvggt_ros.evaluation.report.figures import UNKNOWN, cloud_view, colored, level_axes
from xsvggt_ros.evaluation.results import Change, compare
from xsvggt_ros.stream.frame import ImageMapping, Timings

REPORT = Path(__file__).parents[2] / "xsvggt_ros" / "evaluation" / "report"


@given(st.lists(st.floats(0, 1e3), min_size=1, max_size=200))
def test_percentiles_are_ordered_and_within_the_values(seconds: list[float]) -> None:
    found = Percentiles.of(np.array(seconds))
    assert found is not None
    assert min(seconds) * 1e3 - 1e-6 <= found.p50 <= found.p95 <= found.p99 <= found.max
    assert found.max == pytest.approx(1e3 * max(seconds))
    assert found.p50 == pytest.approx(1e3 * np.median(seconds))


def result(network: float, nbytes: int) -> Any:
    cache = SimpleNamespace(
        nbytes=nbytes, scratch_nbytes=7, camera_nbytes=5, uncompressed_nbytes=10 * nbytes,
        tokens=3, budget_tokens=4, evicted=2, layer_tokens=(3, 3),
    )  # fmt: skip
    return SimpleNamespace(timings=Timings(0.001, 0.002, network, 0.003), cache=cache)


def test_the_first_frame_stands_apart() -> None:
    costs = CostRecorder(torch.device("cpu"), weights_bytes=11)
    for network, nbytes in ((9.0, 10), (0.1, 20), (0.2, 30), (0.3, 30)):
        costs.note(result(network, nbytes), session=1)
    cost = costs.cost()
    assert cost.first_frame == pytest.approx(9006)
    assert cost.latency is not None
    assert (cost.latency.p50, cost.latency.max) == pytest.approx((206, 306))
    assert cost.frames_per_second == pytest.approx(3 / 0.618)
    assert (cost.cache_peak_bytes, cost.cache_steady_bytes) == (30, 30)
    assert (cost.evicted_tokens, cost.weights_bytes, cost.scratch_bytes) == (8, 11, 7)
    assert cost.uncompressed_bytes == 300


def test_a_single_frame_has_no_later_latency() -> None:
    costs = CostRecorder(torch.device("cpu"), 0)
    costs.note(result(1.0, 10), session=1)
    cost = costs.cost()
    assert cost.latency is None
    assert cost.frames_per_second == pytest.approx(1 / 1.006)


def test_waiting_counts_as_latency_and_not_as_work() -> None:
    costs = CostRecorder(torch.device("cpu"), 0)
    for _ in range(3):
        costs.note(result(0.1, 10), session=1, waited=1.0)
    cost = costs.cost()
    assert cost.latency is not None
    assert cost.latency.p50 == pytest.approx(1106)
    assert cost.frames_per_second == pytest.approx(1 / 0.106)


def test_limits_hold_up_to_themselves() -> None:
    metrics = {
        "trajectory": {"sim3": {"ate_sim3": {"rmse": 0.5}}},
        "cost": {"cache_peak_bytes": 2**20},
    }
    limits = (
        Threshold("ate_sim3", "max", 0.5), Threshold("ate_sim3", "max", 0.499),
        Threshold("ate_sim3", "min", 0.5),
        Threshold("bytes", "max", 1000), Threshold("abs_rel_l1", "max", 1.0),
    )  # fmt: skip
    verdicts = check_limits(metrics, limits)
    assert [verdict.kept for verdict in verdicts] == [True, False, True, False, False]
    assert verdicts[3].words == "cache, peak is 1.00 MiB; at most 0.00 MiB is allowed"
    assert "was not measured" in verdicts[4].words


def test_what_is_not_a_number_breaks_a_limit() -> None:
    assert not Verdict(Threshold("ate_sim3", "max", 1.0), float("nan")).kept
    with pytest.raises(ConfigurationError, match="finite"):
        Threshold("ate_sim3", "max", float("nan"))
    with pytest.raises(ConfigurationError, match="choose one of"):
        Threshold("speed", "max", 1.0)


def test_a_perfect_estimate_corresponds_to_the_truth_point_by_point() -> None:
    known = truth(3)
    mapping = ImageMapping(42, 32, 42, 32, resized_height=32, crop_top=0)
    seen = result_with(
        present(known.depth),
        mapping=mapping,
        intrinsics=known.intrinsics,
        camera_to_world=known.camera_to_world,
    )
    sample = CorrespondenceSample(limit=500)
    for _ in range(3):
        sample.add(seen, present(known.depth), known)
    points = sample.points()
    assert 100 < len(points) <= 500
    np.testing.assert_allclose(points.estimated, points.true, atol=1e-6)


def test_every_quantity_of_the_catalogue_is_written(tmp_path: Path) -> None:
    assert len(BY_NAME) == len(QUANTITIES)
    assert all(quantity.value({}) is None for quantity in QUANTITIES)


def results(
    directory: Path,
    *,
    ate: float = 0.1,
    name: str = "bag",
    nbytes: int = 100,
    budget: int = 8,
    threads: int = 2,
    **more: Any,
) -> Path:
    directory.mkdir()
    metrics = {
        "name": name, "state": "complete", "reason": "", "live": None, "frames": {"scored": 5},
        "trajectory": {"sim3": {"ate_sim3": {"rmse": ate}, "scale_sim3": 2.0}},
        "cost": {"cache_peak_bytes": nbytes, "frames_per_second": 3.0},
        "provenance": {"data": {"sha256_of_edges": name}, "machine": {"threads": threads}},
        **more,
    }  # fmt: skip
    (directory / "metrics.json").write_text(json.dumps(metrics))
    (directory / "config.yaml").write_text(f"cache:\n  budget_tokens: {budget}\n")
    return directory


def test_results_of_another_version_are_told_as_such(tmp_path: Path) -> None:
    older = results(tmp_path / "older", schema=1)
    with pytest.raises(SourceError, match="has schema 1 and this version reads 2; evaluate again"):
        compare(older, results(tmp_path / "now", schema=2))


def test_two_runs_are_compared(tmp_path: Path) -> None:
    one = results(tmp_path / "a")
    two = results(tmp_path / "b", ate=0.2, nbytes=50, budget=4, threads=8)
    comparison = compare(one, two)
    changes = {change.quantity.name: change for change in comparison.changes}
    assert (changes["ate_sim3"].verdict, changes["bytes"].verdict) == ("worse", "better")
    assert (changes["fps"].verdict, changes["scale_sim3"].verdict) == ("same", "")
    assert changes["ate_sim3"].relative == pytest.approx(1.0)
    assert comparison.settings == {"cache.budget_tokens": (8, 4)}
    assert len(comparison.caveats) == 1
    assert "machines differ" in comparison.caveats[0]
    assert [change.quantity.name for change in comparison.broken(0.5)] == ["ate_sim3"]
    assert comparison.broken(1.01) == []
    with pytest.raises(ConfigurationError, match="no quantity speed"):
        comparison.broken(0.1, ("speed",))


def test_runs_of_other_data_never_mix(tmp_path: Path) -> None:
    one, two = results(tmp_path / "a"), results(tmp_path / "b", name="another")
    assert "sources differ" in compare(one, two).caveats[0]


def test_what_is_no_longer_measured_is_worse() -> None:
    assert Change(BY_NAME["ate_sim3"], 0.1, None).worse == float("inf")
    assert Change(BY_NAME["delta_1_l1"], 0.5, 0.4).worse == pytest.approx(0.2)


def test_a_directory_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="holds no metrics.json"):
        compare(tmp_path, tmp_path)


def test_the_command_compares_and_sets_the_exit_code(tmp_path: Path) -> None:
    one, two = results(tmp_path / "a"), results(tmp_path / "b", ate=0.2)
    result = run("compare", one, two)
    assert result.exit_code == 0, result.output
    assert "+100.0 % worse" in result.output
    result = run("compare", one, two, "--max-worse", 5)
    assert result.exit_code == 3
    result = run("compare", one, two, "--quantities", "ate_sim3")
    assert result.exit_code == 1
    assert "--max-worse" in result.output


def test_warnings_that_differ_in_numbers_count_as_one() -> None:
    with collecting_warnings() as log:
        logger = logging.getLogger("xsvggt_ros.stream.pipeline")
        for index in range(3):
            logger.warning("frame %d is odd", index)
        logger.info("nothing")
    logger.warning("too late")
    assert log.lines() == ["frame 0 is odd (3 times in all)"]


def test_warnings_are_bounded() -> None:
    log = WarningLog()
    for index in range(MOST + 5):
        log.note(f"kind {'x' * index}")
    assert len(log.lines()) == MOST + 1
    assert log.lines()[-1].startswith("5 more")


@given(st.lists(st.tuples(st.floats(0, 9), st.floats(0, 9)), max_size=30))
def test_nothing_beats_what_is_undominated(places: list[tuple[float, float]]) -> None:
    dots = [Dot("", x, y, "") for x, y in places]
    best = undominated(dots)
    for dot in dots:
        assert any(other.x <= dot.x and other.y <= dot.y for other in best)
    for dot in best:
        assert not any(o.x <= dot.x and o.y <= dot.y and (o.x, o.y) != (dot.x, dot.y) for o in dots)


def test_a_long_curve_keeps_its_peaks() -> None:
    y = np.zeros(100_000)
    y[31_415] = 5.0
    x, drawn = envelope(np.arange(100_000.0), y)
    assert len(x) <= 1500
    assert drawn.max() == 5.0
    assert x[drawn.argmax()] == 31_415
    assert (np.diff(x) > 0).all()


def test_paths_are_seen_from_above_however_the_world_is_turned() -> None:
    poses = np.tile(np.eye(4), (50, 1, 1))  # optical axes: the world's y points down
    poses[:, 0, 3] = np.linspace(0, 4, 50)
    poses[:, 1, 3] = -0.5
    axes = level_axes(poses)
    np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-9)
    np.testing.assert_allclose(axes[2], [0, -1, 0], atol=1e-9)
    np.testing.assert_allclose(np.abs(axes[0]), [1, 0, 0], atol=1e-6)


def test_unknown_depth_is_grey() -> None:
    image = colored(np.array([[1.0, np.nan]]), 0, 2)
    assert tuple(image[0, 1]) == UNKNOWN
    assert tuple(image[0, 0]) != UNKNOWN


def test_nearer_points_hide_others() -> None:
    points = np.array([[0, 0, 0], [0, 0, 1], [1, 1, 0]], np.float32)
    colors = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)
    up = np.array([0.0, 0.0, 1.0])
    view = cloud_view(points, colors, np.zeros((0, 3)), (0, 1), up, (60, 60))
    shown = {tuple(each) for each in view.image.reshape(-1, 3).tolist()}
    assert (0, 255, 0) in shown
    assert (0, 0, 255) in shown
    assert (255, 0, 0) not in shown


def test_depth_and_truth_meet_where_rows_were_cut_off() -> None:
    mapping = ImageMapping(20, 40, 10, 10, resized_height=20, crop_top=5)
    depth = np.arange(100, dtype=np.float32).reshape(10, 10)
    seen = result_with(depth, mapping=mapping)
    truth = np.zeros((40, 20), np.float32)
    at_truth = depth_at_truth(seen, truth)
    assert np.isnan(at_truth[:10]).all()
    assert np.isnan(at_truth[30:]).all()
    assert np.isfinite(at_truth[10:30]).all()
    rows = np.tile(np.arange(40, dtype=np.float32)[:, None], (1, 20))
    np.testing.assert_array_equal(truth_at_result(rows, seen)[:, 0], np.arange(11, 31, 2))


@pytest.mark.parametrize("width", [60, 80, 200])
def test_no_table_is_cut_in_a_terminal(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    output = StringIO()
    console = Console(file=output, width=width, force_terminal=True, color_system=None)
    monkeypatch.setattr(terminal, "console", console)
    heads = ("sequence", *(f"{name}, m" for name in ("AbsRel", "RMSE", "log RMSE", "δ<1.25", "δ")))
    numbers = [f"{number}.12345" for number in range(10, 15)]
    names = ("rgbd_bonn_person_tracking2", "2011_09_26_drive_0002_sync_02")
    rows = [(name, *numbers) for name in names]
    terminal.print_table(heads, rows, words=1, title="video_depth")
    lines = output.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    assert "…" not in text
    assert all(cell in text for row in rows for cell in row)
    assert all(word in text for head in heads[1:] for word in head.split())


@pytest.mark.parametrize("template", ["report", "sweep", "protocol"])
def test_tables_of_a_page_stack_on_a_phone(template: str) -> None:
    """On a narrow screen a row is a block of lines, each with its head, so nothing scrolls."""
    text = (REPORT / f"{template}.html.j2").read_text()
    assert re.findall(r"<td(?! data-head=)", text) == []
    narrow = (REPORT / "style.css").read_text().partition("@media (max-width: 720px)")[2]
    assert "td { display: flex" in narrow
    assert "attr(data-head)" in narrow
