# SPDX-License-Identifier: Apache-2.0
"""benchmarks/accuracy.py: its table holds what its head says, and nothing of other runs."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from safetensors import safe_open
from safetensors.torch import save_file

from xsvggt_ros.cache.settings import DEFAULT_POLICY
from xsvggt_ros.errors import ConfigurationError
from xsvggt_ros.model.config import bundled_weights

SMALL = ("--sequences", "short_walk", "--budgets", "4", "--width", "28", "--height", "28")


@pytest.fixture
def accuracy(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    return importlib.import_module("accuracy")


@pytest.fixture
def start(
    accuracy: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., str]:
    """Run it into one directory; return the page."""

    def start(*options: str) -> str:
        monkeypatch.setattr(sys, "argv", ["accuracy.py", f"--output={tmp_path / 'out'}", *options])
        accuracy.main()
        return (tmp_path / "out" / "table.md").read_text(encoding="utf-8")

    return start


@pytest.fixture
def measured(accuracy: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replace measuring by numbers that count up; return what was measured."""
    names: list[str] = []

    def count(network: object, frames: object, config: Any, name: str, identity: str) -> Any:
        names.append(f"{name}: {config.name}")
        numbers = dict.fromkeys(accuracy.means.__globals__["METRICS"], float(len(names)))
        return accuracy.Cell(identity, config.name, name, **numbers)

    monkeypatch.setattr(accuracy, "measure", count)
    return names


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--sequences", "bogus", "short", "nope"], r"--sequences bogus, nope: .* very_long_walk"),
        (["--policies", "foo", "none"], r"--policies foo: unknown; .*xstreamvggt"),
        (["--budgets", "4", "0"], r"--budgets 0: must be at least 1"),
        (["--width", "100"], r"100x84 .* multiples of 14"),
        (["--room", "cellar"], r"'cellar' are unknown"),
    ],
)
def test_an_impossible_option_is_refused_before_anything_runs(
    start: Callable[..., str], measured: list[str], tmp_path: Path, options: list[str], message: str
) -> None:
    with pytest.raises(SystemExit, match=message):
        start(*options)
    assert not measured
    assert not (tmp_path / "out").exists()


def test_cells_are_run_once_for_the_same_weights_images_and_cache(
    start: Callable[..., str], measured: list[str], tmp_path: Path
) -> None:
    options = (*SMALL, "--policies", "none")
    start(*options)
    assert measured == [
        "short_walk: full cache",
        "short_walk: 2 frames: no history",
        "short_walk: published, 4 frames",
    ]
    start(*options)
    assert len(measured) == 3
    start(*options, "--height", "14")
    start(*options, "--room", "calm")
    assert len(measured) == 9
    start(*options, "--checkpoint", str(other_weights(tmp_path)))
    assert len(measured) == 12


def other_weights(directory: Path) -> Path:
    path = directory / "other.safetensors"
    with safe_open(bundled_weights(), framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        tensors["aggregator.camera_token"] += 1
        save_file(tensors, path, file.metadata())
    return path


def test_means_are_over_what_was_asked_for(start: Callable[..., str], measured: list[str]) -> None:
    caches = ("--policies", "none", "--budgets", "4", "--width", "28", "--height", "28")
    start("--sequences", "short", *caches)
    assert len(measured) == 12
    page = start("--sequences", "short_walk", *caches)
    assert len(measured) == 12
    assert "| full cache | 4.0000 |" in page
    assert "means over short_walk\n" in page
    page = start("--sequences", "short_walk", "--without-full", *caches)
    assert "full cache" not in page.lower()


def test_relative_columns(start: Callable[..., str], measured: list[str]) -> None:
    page = start(*SMALL, "--policies", "random", "none", "random")
    assert len(measured) == 7
    full, published = page.split("= 1 |")[1:]
    assert "| random, 4 frames, 4 bits | 4.000 |" in full
    assert "| published, 4 frames | 3.000 |" in full
    assert "| random, 4 frames, 4 bits | 1.333 |" in published


def test_the_default_policy_is_measured_at_every_width(accuracy: ModuleType) -> None:
    configs = accuracy.configurations(accuracy.POLICY_ORDER, [8])
    default = DEFAULT_POLICY
    widths = [c.bits for c in configs if c.policy == default and not c.published]
    assert sorted(widths) == [2, 4, 8, 16]
    assert sum(config.name == "full cache" for config in configs) == 1
    assert len({config.name for config in configs}) == len(configs)


def test_other_settings_of_the_first_policy_are_measured_beside_it(accuracy: ModuleType) -> None:
    configs = accuracy.configurations(["random"], [8], changes=["anchor_bits=8", "adaptive=both"])
    fine, adaptive = configs[-2:]
    assert fine.name == "random, 8 frames, 4 bits, anchor_bits 8"
    assert fine.settings(10).anchor_bits == 8
    assert adaptive.settings(10).adaptive == "both"
    assert adaptive.settings(10).anchor_bits == 0
    for wrong in ("anchor=8", "anchor_bits=fine", "budget_tokens=7"):
        with pytest.raises(ConfigurationError, match=f"'{wrong}' is no setting and value"):
            accuracy.configurations(["random"], [8], changes=[wrong])


def test_a_real_run(start: Callable[..., str], tmp_path: Path) -> None:
    page = start(*SMALL, "--policies", "none")
    row = next(line for line in page.splitlines() if line.startswith("| full cache"))
    values = [float(cell) for cell in row.split("|")[2:-1]]
    assert len(values) == 11
    assert all(value > 0 for value in values)
    assert (tmp_path / "out" / "figure.png").stat().st_size > 10_000


def test_streams_of_a_suite_have_intervals_and_the_need_of_memory(
    start: Callable[..., str], measured: list[str]
) -> None:
    page = start("--sequences", "landmarks_100_lap50", "--streams", "3", "--policies", "none",
                 "--budgets", "4", "--width", "28", "--height", "28")  # fmt: skip
    assert measured[:2] == [
        "landmarks_100_lap50#0: full cache",
        "landmarks_100_lap50#0: 2 frames: no history",
    ]
    assert len(measured) == 9
    assert "means over landmarks_100_lap50, 3 streams\n" in page
    # Full caches are 1, 4 and 7, no histories one more each: a ratio of 15 to 12.
    assert "| full cache | 4.000 [1.000, 7.000] |" in page
    assert "| 1.000 [1.000, 1.000] | 1.000 [1.000, 1.000] | 1.000 [1.000, 1.000] |" in page
    assert "path without history over path with everything: 1.25 [1.14, 2.00]: no yardstick" in page
    row = next(line for line in page.splitlines() if line.startswith("| 2 frames") and "[" in line)
    assert row.startswith("| 2 frames: no history | 5.000 [2.000, 8.000] |")
    assert row.endswith("| 1.000 [1.000, 1.000] | 1.250 [1.143, 2.000] |")


def test_paths_are_compared_with_the_full_cache_and_the_first_one(
    start: Callable[..., str], measured: list[str]
) -> None:
    page = start("--sequences", "landmarks_100_lap50", "--streams", "2", "--policies", "random",
                 "sliding_window", "--budgets", "4", "--width", "28", "--height", "28")  # fmt: skip
    # The caches of a stream have 1, 2, 3 and so on; those of the next one go on after the last.
    number = {name.partition(": ")[2]: place for place, name in enumerate(measured[:8], start=1)}
    lines = page[page.index("| 95 % intervals") :].splitlines()
    assert lines[0].endswith(
        "| ATE Sim(3): over full cache | ATE Sim(3) %: minus random, 4 frames, 4 bits |"
    )
    rows = {line.split(" | ")[0].removeprefix("| "): line.split(" | ")[1:] for line in lines[2:10]}
    assert list(rows) == sorted(number, key=lambda name: number[name])
    window = rows["sliding_window, 4 frames, 4 bits"]
    behind = number["sliding_window, 4 frames, 4 bits"]
    first = number["random, 4 frames, 4 bits"]
    assert window[1].startswith(f"{behind + 4:.3f} [")
    assert window[4].startswith(f"{behind - 1:.3f} [")
    assert window[6].startswith(f"{(behind + 4) / 5:.3f} [")
    assert window[7].startswith(f"{behind - first:.3f} [")
    assert rows["random, 4 frames, 4 bits"][7] == "- |"
    assert rows["full cache"][3:7] == ["-"] * 4


@pytest.mark.slow
def test_jobs_measure_what_one_job_measures(start: Callable[..., str], tmp_path: Path) -> None:
    options = ("--sequences", "landmarks_100_lap50", "--streams", "2", "--policies", "none",
               "--budgets", "4", "--width", "14", "--height", "14", "--without-full")  # fmt: skip
    alone = start(*options)
    (tmp_path / "out" / "cells.csv").unlink()
    together = start(*options, "--jobs", "2")
    accuracies = [
        [
            line.split("|")[2:9]
            for line in page.splitlines()
            if line.startswith(("| 2 fr", "| publ"))
        ]
        for page in (alone, together)
    ]
    assert accuracies[0] == accuracies[1]
