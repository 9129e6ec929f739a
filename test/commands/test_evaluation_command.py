# SPDX-License-Identifier: Apache-2.0
"""`xsvggt evaluate`: options that arrive or are refused, exit codes, and sweeps."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from threading import Barrier, Event
from time import sleep
from typing import Any

import command_line
import pytest
import yaml
from recordings import MemorySource, tiny_request
from typer.core import TyperGroup
from typer.main import get_command
from typer.testing import Result

from xsvggt_ros import cli
from xsvggt_ros.cache.settings import CacheSettings
from xsvggt_ros.commands.options import CACHE
from xsvggt_ros.errors import ConfigurationError, SourceError, XsvggtError
from xsvggt_ros.evaluation import isolated, runner, sweep
from xsvggt_ros.evaluation.isolated import RunFailedError, evaluate_isolated
from xsvggt_ros.evaluation.request import EvaluationRequest, SourceOptions
from xsvggt_ros.evaluation.sources.base import EvaluationFrame
from xsvggt_ros.evaluation.sweep import (
    FULL,
    Axis,
    Row,
    parse_axes,
    points,
    read_sweep,
    run_sweep,
    sweep_page,
    sweep_summary,
)
from xsvggt_ros.stream.chain_settings import ChainSettings

TINY = ["--preset", "tiny", "--width", "28", "--device", "cpu"]
SOURCE = "synthetic:short_walk"


def run(*arguments: object) -> Result:
    return command_line.run("evaluate", *arguments)


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every path open eight frames in memory."""
    monkeypatch.setattr(runner, "open_source", lambda path, options: MemorySource(8))


def test_one_command_leaves_a_report(tmp_path: Path) -> None:
    result = run(SOURCE, "-o", tmp_path, "--max-frames", 3, "--budget", 60, *TINY)
    assert result.exit_code == 0, result.output
    latest = (tmp_path / "latest").resolve()
    assert latest.parent == tmp_path
    metrics = json.loads((latest / "metrics.json").read_text())
    assert metrics["frames"]["processed"] == 3
    assert metrics["source"]["frames"]["taken"] == 3
    assert "ATE, Sim(3)" in result.output
    assert (latest / "report.html").is_file()


def test_the_chain_and_the_refinement_are_those_of_the_node(
    memory: object | None, tmp_path: Path
) -> None:
    words = ["--chain-length", 0, "--chain-retry", 7, "--refinement", "auto"]
    result = run("x", "-o", tmp_path, *words, "--scale-source", "odometry", *TINY)
    assert result.exit_code == 0, result.output
    settings = yaml.safe_load((tmp_path / "latest" / "config.yaml").read_text())
    assert settings["chain"] == asdict(ChainSettings(length=0, retry=7))
    assert settings["refinement"] == "auto"
    metrics = json.loads((tmp_path / "latest" / "metrics.json").read_text())
    assert metrics["odometry"]["scale_source"] == "odometry"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--chain-overlap", 1], "chain.overlap is 1"),
        (["--refinement", "yes"], "pose.refinement is 'yes'; choose off, auto, on"),
        (["--scale-source", "wheels"], "choose one of auto, depth, odometry, none"),
    ],
)
def test_impossible_settings_of_odometry_are_refused(
    memory: object | None, tmp_path: Path, words: list[str | int] | list[str], told: str
) -> None:
    result = run("x", "-o", tmp_path, *words, *TINY)
    assert result.exit_code == 1
    assert told in " ".join(result.output.split())
    assert not list(tmp_path.iterdir())


def test_a_broken_limit_is_exit_code_3(memory: object | None, tmp_path: Path) -> None:
    kept = run("x", "-o", tmp_path, "--max", "ate_sim3=1e9", "--max", "bytes=1e12", *TINY)
    assert kept.exit_code == 0, kept.output
    broken = run("run", "x", "-o", tmp_path, "--max", "ate_sim3=1e9", "--min", "fps=1e9", *TINY)
    assert broken.exit_code == 3
    assert "BROKEN: engine, frames/s" in broken.output


def test_a_signal_leaves_a_partial_report(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Signalled(MemorySource):
        def __iter__(self) -> Iterator[EvaluationFrame]:
            for index, given in enumerate(super().__iter__()):
                if index == 3:
                    signal.raise_signal(signal.SIGINT)
                yield given

    monkeypatch.setattr(runner, "open_source", lambda path, options: Signalled(8))
    result = run("x", "-o", tmp_path, *TINY)
    assert result.exit_code == 130
    metrics = json.loads((tmp_path / "latest" / "metrics.json").read_text())
    assert (metrics["state"], metrics["frames"]["processed"]) == ("interrupted", 4)
    assert (tmp_path / "latest" / "report.html").read_text().rstrip().endswith("</html>")


def test_a_source_that_breaks_off_is_told_on_the_terminal(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(runner, "open_source", lambda path, options: MemorySource(8, breaks_at=4))
    result = run("x", "-o", tmp_path, *TINY)
    assert result.exit_code == 0
    assert "truncated: the file ends here" in result.output


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--speed", "2"], "--realtime"),
        (["--sweep", "budget=60"], "xsvggt evaluate sweep SOURCE"),
        (["--protocol=relpose"], "xsvggt evaluate protocol"),
        (["--max", "ate_sim3"], "--max ate_sim3 is not NAME=VALUE"),
        (["--min", "fps=many"], "--min fps=many is not NAME=VALUE"),
        (["--max", "ate=1"], "no quantity 'ate'; choose one of ate_sim3"),
        (["--key-bits", "3"], "choose one of 2, 4, 8, 16 (--key-bits sets cache.key_bits)"),
        (["--stride", "0"], "must be 1 or more"),
        (["--topic", "/camera"], "topic"),
        (["--realtime", "--speed", "0"], "above 0"),
        (["--farthest", "0"], "farthest"),
        (["--intrinsics", "1,2,3"], "is not FX,FY,CX,CY"),
    ],
)
def test_what_means_nothing_is_refused(tmp_path: Path, options: list[str], words: str) -> None:
    result = run(SOURCE, "-o", tmp_path, *options, *TINY)
    assert result.exit_code == 1
    assert words in " ".join(result.output.split())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["tokens=60"], "no setting 'tokens'"),
        (["budget=60", "--resume", "nowhere"], "nothing to go on with"),
        (["budget=60", "--speed", "2"], "--realtime"),
    ],
)
def test_what_a_sweep_cannot_take_is_refused(
    tmp_path: Path, options: list[str], words: str
) -> None:
    result = run("sweep", SOURCE, *options, "-o", tmp_path, *TINY)
    assert result.exit_code == 1
    assert words in " ".join(result.output.split())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "command",
    [
        ["evaluate", "run"],
        ["evaluate", "sweep"],
        ["evaluate", "protocol"],
        ["reconstruct"],
        ["demo"],
    ],
)
def test_every_setting_of_the_cache_is_an_option(command: list[str]) -> None:
    found = get_command(cli.app)
    for name in command:
        assert isinstance(found, TyperGroup)
        found = found.commands[name]
    known = {name for option in found.params for name in option.opts}
    assert {CACHE.spelling(each.name) for each in fields(CacheSettings)} <= known


def test_options_become_the_settings_of_their_groups(tmp_path: Path) -> None:
    options = (
        "--policy",
        "random",
        "--cache-seed",
        7,
        "--budget-tokens",
        70,
        "--anchor-bits",
        8,
        "--intrinsics",
        "1,2,3,4",
        "--max-frames",
        2,
        "--rpe-delta",
        1,
        "--farthest",
        9,
    )
    result = run(SOURCE, "-o", tmp_path, *options, *TINY)
    assert result.exit_code == 1  # a synthetic source has a camera of its own
    assert "intrinsics" in result.output
    result = run(SOURCE, "-o", tmp_path, *options[:-8], *options[-6:], *TINY)
    assert result.exit_code == 0, result.output
    held = yaml.safe_load((tmp_path / "latest" / "config.yaml").read_text())
    wanted = CacheSettings("random", budget_tokens=70, seed=7, anchor_bits=8)
    assert held["cache"] == asdict(wanted)
    assert (held["options"]["limit"], held["scoring"]["farthest"]) == (2, 9.0)
    assert held["network"]["preset"] == "tiny"


def test_a_result_directory_that_takes_no_files_is_found_out_before_the_run(tmp_path: Path) -> None:
    place = tmp_path / "file"
    place.write_text("")
    result = run(SOURCE, "-o", place, *TINY)
    assert result.exit_code == 1
    assert "is no directory" in " ".join(result.output.split())


def test_axes_are_read() -> None:
    assert parse_axes(["budget=512,1024 bits=2,4", "policy=random"]) == [
        Axis("budget", (512, 1024)), Axis("bits", (2, 4)), Axis("policy", ("random",)),
    ]  # fmt: skip
    for text, words in (
        ("budget", "no axis"), ("budget=", "no axis"), ("budget=many", "not of type int"),
        ("budget=1 budget=2", "twice"),
    ):  # fmt: skip
        with pytest.raises(ConfigurationError, match=words):
            parse_axes([text])


def test_points_are_all_combinations_beside_the_references() -> None:
    axes = parse_axes(["budget=512,1024 bits=2,4"])
    chosen = points(axes, CacheSettings(), ("full cache", "published"))
    assert [point.label for point in chosen] == [
        "full cache", "published budget=512", "published budget=1024",
        "budget=512 bits=2", "budget=512 bits=4", "budget=1024 bits=2", "budget=1024 bits=4",
    ]  # fmt: skip
    assert chosen[0].cache.policy == "none"
    assert chosen[1].cache.published
    assert (chosen[3].cache.key_bits, chosen[3].cache.value_bits) == (2, 2)
    with pytest.raises(ConfigurationError, match="no reference"):
        points(axes, CacheSettings(), ("best",))
    with pytest.raises(ConfigurationError, match="key_bits 3"):
        points(parse_axes(["bits=3"]), CacheSettings(), ())


def metrics_of(request: EvaluationRequest) -> dict[str, Any]:
    budget = request.cache.budget_tokens
    return {
        "state": "complete", "reason": "", "frames": {"refused": 0, "sessions": 1, "scored": 8},
        "trajectory": {"sim3": {"ate_sim3": {"rmse": 1 / budget}}},
        "depth": {}, "cost": {"cache_peak_bytes": 1000 * budget, "latency": {"p50": budget}},
        "provenance": {"weights": {"sha256": "same"}},
    }  # fmt: skip


def sweep_of(
    directory: Path,
    texts: Sequence[str] = ("budget=100,200",),
    *,
    references: Sequence[str] = (),
    stop: Event | None = None,
    evaluate: Callable[[EvaluationRequest], dict[str, Any]] | None = None,
    jobs: int = 1,
) -> Any:
    ran: list[int] = []

    def pretend(
        request: EvaluationRequest,
        place: object,
        stop_event: object,
        progress: object,
        threads: object,
    ) -> dict[str, Any]:
        ran.append(request.cache.budget_tokens)
        return (evaluate or metrics_of)(request)

    patch = pytest.MonkeyPatch()
    with patch.context() as context:
        context.setattr(sweep, "evaluate_isolated", pretend)
        table = run_sweep(
            tiny_request(),
            points(parse_axes(texts), CacheSettings(), references),
            directory,
            stop=stop or Event(),
            progress=lambda number, point: lambda *_: None,
            jobs=jobs,
        )
    return table, ran


def test_a_failed_run_is_a_row_and_is_tried_again(tmp_path: Path) -> None:
    def evaluate(request: EvaluationRequest) -> dict[str, Any]:
        if request.cache.budget_tokens == 100:
            raise XsvggtError("memory ran out")
        return metrics_of(request)

    table, _ = sweep_of(tmp_path, evaluate=evaluate)
    assert [(row.state, row.note) for row in table.rows] == [
        ("failed", "memory ran out"), ("complete", ""),
    ]  # fmt: skip
    assert "1 runs failed: budget=100" in sweep_summary(table)
    assert "memory ran out" in (tmp_path / "report.html").read_text()
    again, ran = sweep_of(tmp_path)
    assert ran == [100]
    assert [row.state for row in again.rows] == ["complete", "complete"]
    assert read_sweep(tmp_path) == again


def test_a_sweep_goes_on_and_takes_more_values(tmp_path: Path) -> None:
    stop = Event()

    def evaluate(request: EvaluationRequest) -> dict[str, Any]:
        stop.set()
        return metrics_of(request)

    table, ran = sweep_of(tmp_path, stop=stop, evaluate=evaluate)
    assert (ran, table.interrupted) == ([100], True)
    assert any("--resume" in each for each in table.warnings)
    table, ran = sweep_of(tmp_path, ("budget=100,200,300",))
    assert ran == [200, 300]
    assert [row.values["ate_sim3"] for row in table.rows] == [1 / 100, 1 / 200, 1 / 300]


def test_jobs_run_side_by_side_and_the_table_keeps_its_order(tmp_path: Path) -> None:
    both = Barrier(2, timeout=30)

    def evaluate(request: EvaluationRequest) -> dict[str, Any]:
        both.wait()  # never passed by one run alone
        sleep(0.2 if request.cache.budget_tokens == 100 else 0.0)
        return metrics_of(request)

    table, ran = sweep_of(tmp_path, evaluate=evaluate, jobs=2)
    assert sorted(ran) == [100, 200]
    assert [row.label for row in table.rows] == ["budget=100", "budget=200"]
    assert not table.interrupted
    again, ran = sweep_of(tmp_path, jobs=2)
    assert ran == []
    assert again.rows == table.rows


def test_a_failure_beside_others_is_a_row(tmp_path: Path) -> None:
    def evaluate(request: EvaluationRequest) -> dict[str, Any]:
        if request.cache.budget_tokens == 100:
            raise XsvggtError("memory ran out")
        return metrics_of(request)

    table, _ = sweep_of(tmp_path, ("budget=100,200,300",), evaluate=evaluate, jobs=3)
    assert [row.state for row in table.rows] == ["failed", "complete", "complete"]


def test_no_jobs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="--jobs 0"):
        sweep_of(tmp_path, jobs=0)


def test_a_sweep_of_something_else_is_refused(tmp_path: Path) -> None:
    sweep_of(tmp_path)
    with pytest.raises(ConfigurationError, match="other options"):
        run_sweep(
            replace(tiny_request(), options=SourceOptions(stride=2)),
            points(parse_axes(["budget=100"]), CacheSettings(), ()),
            tmp_path,
            stop=Event(),
            progress=lambda number, point: lambda *_: None,
        )
    with pytest.raises(SourceError, match="cannot be read as a sweep"):
        read_sweep(tmp_path / "nowhere")


def test_the_page_draws_errors_against_bytes_and_latency(tmp_path: Path) -> None:
    table, _ = sweep_of(tmp_path, references=(FULL,))
    page = sweep_page(table)
    assert page.count("<svg") == 2
    assert "ATE, Sim(3) against cache, MiB" in page
    assert "ATE, Sim(3) against latency p50, ms" in page
    lines = (tmp_path / "sweep.csv").read_text().splitlines()
    assert len(lines) == 4
    assert lines[2].startswith("budget=100,complete,,0.01,")


def test_weights_that_changed_within_a_sweep_are_told() -> None:
    row = Row("a", "g", "complete", "", "runs/a", {}, {}, "one")
    table = sweep.Sweep("x", "f", (row, replace(row, label="b", weights="two")))
    assert "weights changed" in table.warnings[0]


def test_a_process_of_its_own_evaluates_and_tells(tmp_path: Path) -> None:
    request = replace(
        tiny_request(cache=CacheSettings(budget_tokens=60)),
        source=SOURCE, options=SourceOptions(limit=2),
    )  # fmt: skip
    told: list[str] = []
    metrics = evaluate_isolated(request, tmp_path, Event(), lambda *what: told.append(what[2]))
    assert metrics["frames"]["processed"] == 2
    assert json.loads((tmp_path / "metrics.json").read_text())["frames"]["processed"] == 2
    assert told[0] == "opening"


def test_what_goes_wrong_in_a_process_is_its_message(tmp_path: Path) -> None:
    request = replace(tiny_request(), source="synthetic:nowhere")
    with pytest.raises(RunFailedError, match="nowhere"):
        evaluate_isolated(request, tmp_path, Event(), lambda *_: None)


def killed(
    connection: object, request: EvaluationRequest, directory: object, threads: object
) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_process_is_told_from_a_failed_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(isolated, "_run", killed)
    with pytest.raises(RunFailedError, match="memory ran out"):
        evaluate_isolated(tiny_request(), tmp_path, Event(), lambda *_: None)


@pytest.mark.slow
def test_a_sweep_runs_from_the_command_line(tmp_path: Path) -> None:
    options = ["budget=60", "--references", "none", "--max-frames", 2]
    result = run("sweep", SOURCE, *options, "-o", tmp_path, *TINY)
    assert result.exit_code == 0, result.output
    directory = (tmp_path / "latest").resolve()
    table = read_sweep(directory)
    assert [row.label for row in table.rows] == ["budget=60"]
    assert table.rows[0].cache == asdict(CacheSettings(budget_tokens=60))
    assert (directory / table.rows[0].directory / "report.html").is_file()
    again = run("sweep", SOURCE, *options, "-o", tmp_path, "--resume", directory, *TINY)
    assert again.exit_code == 0, again.output
    assert Path(tmp_path / "latest").resolve() == directory
    assert read_sweep(directory) == table
