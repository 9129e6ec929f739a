# SPDX-License-Identifier: Apache-2.0
"""An evaluation from source to results: what is scored, what is written, and what cuts it short."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
import yaml
from recordings import SECOND, MemorySource, image, tiny_request

from xsvggt_ros.cache.settings import CacheSettings
from xsvggt_ros.errors import SourceError
from xsvggt_ros.evaluation import runner
from xsvggt_ros.evaluation.evaluation import Evaluation
from xsvggt_ros.evaluation.metric_registry import Threshold
from xsvggt_ros.evaluation.report.tables import tables
from xsvggt_ros.evaluation.request import LiveOptions
from xsvggt_ros.evaluation.results import link_latest, new_directory, write_evaluation
from xsvggt_ros.geometry.files import read_tum
from xsvggt_ros.model.checkpoint import load_network
from xsvggt_ros.stream.chain_settings import ChainSettings
from xsvggt_ros.stream.reconstructor import Reconstructor, ReconstructorSettings


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> Callable[..., MemorySource]:
    """Return a function that makes a source the one that every path opens."""

    def install(*arguments: Any, **options: Any) -> MemorySource:
        made = MemorySource(*arguments, **options)
        monkeypatch.setattr(runner, "open_source", lambda path, chosen: made)
        return made

    return install


@pytest.fixture(scope="module")
def evaluated() -> Iterator[Evaluation]:
    """Return eight frames, evaluated."""
    patch = pytest.MonkeyPatch()
    patch.setattr(runner, "open_source", lambda path, chosen: MemorySource(8))
    with patch.context():
        yield runner.evaluate(tiny_request(cache=CacheSettings(budget_tokens=40)))
    patch.undo()


@pytest.fixture(scope="module")
def directory(evaluated: Evaluation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("results") / "run"
    limits = (Threshold("ate_sim3", "max", 1e9), Threshold("fps", "min", 1e9))
    write_evaluation(evaluated, place, limits)
    return place


def test_every_frame_goes_through_the_engine_in_order(evaluated: Evaluation) -> None:
    network = load_network("", preset="tiny", device="cpu")
    engine = Reconstructor(network, ReconstructorSettings(28, CacheSettings(budget_tokens=40)))
    poses = [engine.step(image(index)).camera_to_world for index in range(8)]
    np.testing.assert_array_equal(evaluated.session.estimated, poses)
    assert evaluated.state == "complete"
    counts = evaluated.counts
    assert (counts.taken, counts.processed, counts.dropped, counts.scored) == (8, 8, 0, 8)


def test_it_judges_trajectory_and_depth(evaluated: Evaluation) -> None:
    assert set(evaluated.scores.trajectory) == {"origin", "se3", "se3_online", "sim3"}
    assert set(evaluated.scores.odometry.drift) == {"se3_online", "sim3"}
    assert evaluated.scores.odometry.unknown_steps == 7  # of a network that knows nothing
    assert set(evaluated.scores.depth) == {"raw", "median", "l1", "l1_shift"}
    assert evaluated.scores.depth["raw"].seen == 8 * (32 * 42 - 1)
    assert sorted(evaluated.scores.frame_depth) == list(range(8))
    cloud = evaluated.scores.cloud
    assert cloud is not None
    assert 1000 < cloud.predicted == cloud.true <= 2000
    assert cloud.distance == 0.05
    unknown = "the covariances of all 7 steps are unknown: implausible results"
    assert evaluated.scores.missing == tuple(
        f"steps, alignment {kind}: {unknown}" for kind in ("sim3", "se3_online")
    )


def test_joins_of_the_chained_engine_are_counted_and_told(
    source: Callable[..., MemorySource], tmp_path: Path
) -> None:
    source(40)
    chain = ChainSettings(length=10, overlap=2, min_confidence=0.0, retry=5)
    evaluation = runner.evaluate(tiny_request(chain=chain))
    odometry = evaluation.scores.odometry
    assert odometry.joins
    assert all("frames old" in each.reason for each in odometry.joins)
    assert odometry.joined == evaluation.session.recording.joins
    made = {table.title: table for table in tables(evaluation)}
    assert len(made["Joins"].rows) == len(odometry.joins)
    write_evaluation(evaluation, tmp_path / "run")
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())["odometry"]
    assert metrics["joined"] + metrics["joins_refused"] == len(metrics["joins"])
    settings = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert settings["chain"]["length"] == 10

    source(40)
    alone = runner.evaluate(tiny_request(chain=ChainSettings(length=0)))
    assert alone.scores.odometry.joins == ()
    assert "Joins" not in {table.title for table in tables(alone)}


def test_every_table_has_a_place_on_the_page() -> None:
    report = resources.files("xsvggt_ros.evaluation.report")
    page = (report / "report.html.j2").read_text(encoding="utf-8")
    titles = re.findall(r'Table\(\s*"([^"]+)"', (report / "tables.py").read_text(encoding="utf-8"))
    assert len(titles) > 8
    assert [each for each in titles if f'"{each}"' not in page] == []


def test_the_cache_is_metered(evaluated: Evaluation) -> None:
    cost = evaluated.cost
    assert cost.tokens <= 40
    assert cost.evicted_tokens == evaluated.costs.series("evicted").sum() > 0
    assert cost.cache_peak_bytes >= cost.cache_steady_bytes > 0
    assert cost.uncompressed_bytes == evaluated.costs.series("uncompressed_bytes").max()
    assert cost.device_peak_bytes is None
    assert cost.process_peak_bytes >= cost.process_steady_bytes > cost.weights_bytes > 0


def test_warnings_of_source_and_run_are_kept(evaluated: Evaluation) -> None:
    assert "this source is made up" in evaluated.warnings
    assert any("weights are random" in each for each in evaluated.warnings)


def test_trajectories_are_written_exactly(evaluated: Evaluation, directory: Path) -> None:
    text = (directory / "trajectory.tum").read_text()
    numbers = text.splitlines()[3].split()
    assert [len(each.partition(".")[2]) for each in numbers] == [9] * 8
    tum = read_tum(directory / "trajectory.tum")
    assert tum.stamps.tolist() == [SECOND + index * SECOND // 10 for index in range(8)]
    kitti = np.loadtxt(directory / "trajectory.kitti").reshape(-1, 3, 4)
    np.testing.assert_allclose(kitti, np.array(evaluated.session.estimated)[:, :3], atol=1e-8)
    aligned = read_tum(directory / "trajectory_aligned.tum")
    true = read_tum(directory / "truth.tum")
    off = np.linalg.norm(aligned.positions - true.positions, axis=1)
    expected = evaluated.scores.trajectory["sim3"].ate.rmse
    assert np.sqrt((off**2).mean()) == pytest.approx(expected, abs=1e-6)


def test_metrics_hold_numbers_limits_versions_and_hashes(
    evaluated: Evaluation, directory: Path
) -> None:
    metrics = json.loads((directory / "metrics.json").read_text())
    assert metrics["trajectory"]["sim3"]["ate_sim3"]["rmse"] == pytest.approx(
        evaluated.scores.trajectory["sim3"].ate.rmse
    )
    assert [each["kept"] for each in metrics["limits"]] == [True, False]
    assert re.fullmatch("[0-9a-f]{64}", metrics["provenance"]["weights"]["sha256"])
    assert metrics["provenance"]["software"]["torch"]
    settings = yaml.safe_load((directory / "config.yaml").read_text())
    assert settings["cache"]["budget_tokens"] == 40
    assert settings["options"]["stride"] == 1


def test_frames_are_a_table(directory: Path) -> None:
    lines = (directory / "frames.csv").read_text().splitlines()
    assert lines[0].startswith("frame,latency,waited,decode,")
    assert len(lines) == 9


class Outside(HTMLParser):
    """Collects what a page would load, and its headings."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.headings: list[str] = []
        self._tag = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._tag = tag
        given = dict(attrs)
        found = [given.get(name) or "" for name in ("src", "href", "xlink:href")]
        self.loads += [each for each in found if each and not each.startswith(("#", "data:"))]
        if tag in ("script", "link", "iframe"):
            self.loads.append(tag)

    def handle_data(self, data: str) -> None:
        if self._tag == "h2" and data.strip():
            self.headings.append(data.strip())


def test_the_report_is_whole_and_loads_nothing(directory: Path) -> None:
    text = (directory / "report.html").read_text()
    page = Outside()
    page.feed(text)
    assert page.loads == []
    assert page.headings == [
        "Trajectory", "Odometry", "Error over time", "Depth", "Cloud", "Latency",
        "Memory and cache", "Not measured", "What exactly was run",
    ]  # fmt: skip
    assert text.rstrip().endswith("</html>")
    assert text.count("<svg") == 4
    assert "1 of 2 limits broken" in text
    assert "this source is made up" in text
    assert "@import" not in text
    assert "url(http" not in text


def test_the_summary_has_the_tables(directory: Path) -> None:
    text = (directory / "summary.md").read_text()
    for title in (
        "## Trajectory",
        "## Depth",
        "## Cloud",
        "## Latency, ms",
        "## Memory, MiB",
        "## Warnings",
    ):
        assert title in text
    assert "**broken**: engine, frames/s" in text


def test_names_are_escaped_in_the_report(evaluated: Evaluation, tmp_path: Path) -> None:
    write_evaluation(replace(evaluated, name="<b>&"), tmp_path)
    assert "<h1>&lt;b&gt;&amp;</h1>" in (tmp_path / "report.html").read_text()


def test_a_source_that_breaks_off_is_judged_as_far_as_it_goes(
    source: Callable[..., MemorySource], tmp_path: Path
) -> None:
    source(9, breaks_at=5)
    evaluation = runner.evaluate(tiny_request())
    assert (evaluation.state, evaluation.reason) == ("truncated", "the file ends here")
    assert evaluation.counts.scored == 5
    assert evaluation.scores.trajectory["sim3"].ate.count == 5
    write_evaluation(evaluation, tmp_path)
    assert "the file ends here" in (tmp_path / "report.html").read_text()


def test_a_source_that_breaks_off_at_once_is_an_error(source: Callable[..., MemorySource]) -> None:
    source(9, breaks_at=0)
    with pytest.raises(SourceError, match="the file ends here"):
        runner.evaluate(tiny_request())


def test_a_stop_leaves_a_valid_partial_result(
    source: Callable[..., MemorySource], tmp_path: Path
) -> None:
    source(9)
    stop = Event()
    evaluation = runner.evaluate(
        tiny_request(), stop=stop, progress=lambda done, *_: stop.set() if done == 4 else None
    )
    assert evaluation.state == "interrupted"
    assert evaluation.counts.processed == 4
    write_evaluation(evaluation, tmp_path)
    assert json.loads((tmp_path / "metrics.json").read_text())["frames"]["processed"] == 4


def test_a_stop_before_the_first_frame_leaves_nothing(source: Callable[..., MemorySource]) -> None:
    source(9, bad=range(9))
    stop = Event()
    stop.set()
    with pytest.raises(KeyboardInterrupt):
        runner.evaluate(tiny_request(), stop=stop)


def test_refused_frames_are_counted_and_told(source: Callable[..., MemorySource]) -> None:
    source(6, bad=(2, 4))
    evaluation = runner.evaluate(tiny_request())
    assert (evaluation.counts.refused, evaluation.counts.processed) == (2, 4)
    told = [each for each in evaluation.warnings if "damaged" in each]
    assert len(told) == 1
    assert told[0].endswith("(2 times in all)")


def test_the_longest_session_is_judged(source: Callable[..., MemorySource]) -> None:
    stamps = [(10 + index) * SECOND for index in range(3)] + [
        index * SECOND for index in range(1, 5)
    ]
    source(7, stamps=stamps)
    evaluation = runner.evaluate(tiny_request())
    assert (evaluation.counts.sessions, evaluation.counts.scored) == (2, 4)
    assert evaluation.scores.trajectory["sim3"].ate.count == 4
    assert any("2 sessions" in each for each in evaluation.warnings)


def test_without_truth_the_report_says_what_is_missing(
    source: Callable[..., MemorySource], tmp_path: Path
) -> None:
    source(4, with_truth=False)
    evaluation = write_evaluation(
        runner.evaluate(tiny_request()), tmp_path, (Threshold("ate_sim3", "max", 1.0),)
    )
    assert len(evaluation.scores.missing) == 3
    assert [verdict.kept for verdict in evaluation.verdicts] == [False]
    assert "was not measured" in (tmp_path / "report.html").read_text()


def test_a_live_run_counts_what_it_drops(source: Callable[..., MemorySource]) -> None:
    source(30)
    evaluation = runner.evaluate(tiny_request(live=LiveOptions(speed=1e6)))
    counts = evaluation.counts
    assert counts.taken == 30 == counts.processed + counts.dropped + counts.refused
    assert evaluation.live is not None
    assert evaluation.live.dropped_share == pytest.approx(counts.dropped / 30)
    assert counts.dropped > 0
    assert len(evaluation.session.posed) == counts.scored == counts.processed > 0
    live = next(table for table in tables(evaluation) if table.title == "Live")
    assert live.rows[0][4] == f"{counts.dropped} of 30"


def test_a_live_run_of_a_source_that_breaks_off_is_judged(
    source: Callable[..., MemorySource],
) -> None:
    source(30, breaks_at=6)
    evaluation = runner.evaluate(tiny_request(live=LiveOptions(speed=1e6, queue_policy="all")))
    assert evaluation.state == "truncated"
    assert evaluation.counts.processed == 6
    assert evaluation.live is not None


def test_each_run_has_a_directory_and_latest_is_the_newest(tmp_path: Path) -> None:
    now = datetime(2026, 1, 2, 3, 4, 5)
    first = new_directory(tmp_path, "/data/my bag.mcap", now)
    second = new_directory(tmp_path, "/data/my bag.mcap", now)
    assert first.name == "my-bag.mcap_2026-01-02_03-04-05"
    assert second.name == "my-bag.mcap_2026-01-02_03-04-05_2"
    for each in (first, second):
        assert link_latest(each) == tmp_path / "latest"
        assert (tmp_path / "latest").resolve() == each.resolve()


def test_a_directory_called_latest_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "latest").mkdir()
    assert link_latest(new_directory(tmp_path, "bag", datetime(2026, 1, 1))) is None
    assert not (tmp_path / "latest").is_symlink()
