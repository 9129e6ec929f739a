# SPDX-License-Identifier: Apache-2.0
"""Sweeps on a cluster: a local Ray of two workers, and what is said where there is none."""

from __future__ import annotations

import builtins
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from xsvggt_ros.cache.settings import CacheSettings
from xsvggt_ros.errors import ConfigurationError
from xsvggt_ros.evaluation.isolated import LOCAL, Cluster, RunFailedError
from xsvggt_ros.evaluation.request import (
    EvaluationRequest,
    NetworkOptions,
    ScoringOptions,
    SourceOptions,
)
from xsvggt_ros.evaluation.sweep import parse_axes, points, run_sweep


def request_of(source: str = "synthetic:landmarks_100_lap50#0") -> EvaluationRequest:
    return EvaluationRequest(
        source,
        SourceOptions(limit=3),
        NetworkOptions(preset="tiny", width=56, device="cpu"),
        CacheSettings(budget_tokens=60),
        ScoringOptions(cloud_points=0),
    )


def test_without_ray_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any, **options: Any) -> Any:
        if name == "ray":
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigurationError, match=r"pip install 'xsvggt_ros\[cluster\]'"):
        Cluster(LOCAL, "cpu")


@pytest.fixture(scope="module")
def two_workers() -> Iterator[Cluster]:
    ray = pytest.importorskip(
        "ray", reason="needs Ray: pip install '.[cluster]', then scripts/test -k cluster"
    )
    ray.init(num_cpus=2, include_dashboard=False, logging_level=40, log_to_driver=False)
    context = ray.get_runtime_context().gcs_address
    cluster = Cluster(context, "cpu")
    yield cluster
    cluster.close()


def test_a_cluster_runs_a_sweep_and_brings_its_files(two_workers: Cluster, tmp_path: Path) -> None:
    assert two_workers.slots == 2
    table = run_sweep(
        request_of(),
        points(parse_axes(["budget=60,80"]), request_of().cache, ()),
        tmp_path,
        stop=Event(),
        progress=lambda number, point: lambda *_: None,
        jobs=two_workers.slots,
        run=two_workers.evaluate,
    )
    assert [row.state for row in table.rows] == ["complete", "complete"]
    assert [row.label for row in table.rows] == ["budget=60", "budget=80"]
    assert all(row.values["bytes"] > 0 for row in table.rows)
    assert (tmp_path / "runs" / "budget=60" / "report.html").stat().st_size > 1000
    assert (tmp_path / "runs" / "budget=80" / "metrics.json").is_file()


def test_what_fails_there_is_told_here(two_workers: Cluster, tmp_path: Path) -> None:
    lost = replace(request_of(), source="synthetic:nowhere")
    with pytest.raises(RunFailedError, match="nowhere"):
        two_workers.evaluate(lost, tmp_path, Event(), lambda *_: None)


def test_a_stop_reaches_the_cluster(two_workers: Cluster, tmp_path: Path) -> None:
    stop = Event()
    stop.set()
    with pytest.raises(KeyboardInterrupt):
        two_workers.evaluate(request_of(), tmp_path, stop, lambda *_: None)


def test_gpus_that_the_cluster_does_not_have_are_named(two_workers: Cluster) -> None:
    with pytest.raises(ConfigurationError, match="offers a GPU"):
        Cluster(LOCAL, "cuda")
