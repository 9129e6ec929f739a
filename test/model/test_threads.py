# SPDX-License-Identifier: Apache-2.0
"""How many threads compute, how they wait, and that programs and their children agree on it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from xsvggt_ros import process
from xsvggt_ros.doctor import examine
from xsvggt_ros.model.checkpoint import load_network
from xsvggt_ros.model.config import PRESETS


@pytest.fixture(autouse=True)
def restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    count = torch.get_num_threads()
    for name in (process.THREAD_COUNT, process.THREAD_WAITING, "GOMP_SPINCOUNT", "KMP_BLOCKTIME"):
        monkeypatch.delenv(name, raising=False)
    yield
    torch.set_num_threads(count)


@pytest.mark.parametrize(
    ("preset", "cores", "expected"),
    [("tiny", 8, 1), ("demo", 8, 1), ("small", 8, 2), ("streamvggt", 8, 8), ("streamvggt", 64, 10),
     ("streamvggt", 2, 2), ("small", 1, 1)],
)  # fmt: skip
def test_a_small_network_gets_few_threads_and_a_large_one_all_cores(
    preset: str, cores: int, expected: int
) -> None:
    assert process.suitable_threads(PRESETS[preset].embed_dim, cores) == expected


def test_a_containers_quota_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cores = len(os.sched_getaffinity(0))
    for text, expected in (
        ("max 100000", cores), ("100000 100000", 1), ("50000 100000", 1), ("9900000 100000", cores),
        ("", cores),
    ):  # fmt: skip
        (tmp_path / "cpu.max").write_text(text)
        monkeypatch.setattr(process, "_QUOTA", tmp_path / "cpu.max")
        assert process.available_cores() == expected, text
    monkeypatch.setattr(process, "_QUOTA", tmp_path / "missing")
    assert process.available_cores() == cores


def test_loading_a_network_sets_threads_unless_somebody_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.set_num_threads(2)
    load_network("", preset="tiny", device="cpu")
    assert torch.get_num_threads() == 1
    monkeypatch.setenv(process.THREAD_COUNT, "2,1")
    load_network("", preset="tiny", device="cpu")
    assert torch.get_num_threads() == 2


def test_asking_for_threads_counts_at_once_and_for_children(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(process, "_given_threads", None)
    process.ask_for_threads(3)
    assert os.environ[process.THREAD_COUNT] == "3"
    assert torch.get_num_threads() == 3
    process.ask_for_threads(0)
    assert process.THREAD_COUNT not in os.environ
    monkeypatch.setattr(process, "_given_threads", "5")
    process.ask_for_threads(0)
    assert process.asked_threads() == 5


@pytest.mark.parametrize("name", [process.THREAD_WAITING, "GOMP_SPINCOUNT", "KMP_BLOCKTIME"])
def test_what_the_environment_says_about_waiting_stays(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "7")
    process.wait_passively()
    assert os.environ.get(process.THREAD_WAITING) == (
        "7" if name == process.THREAD_WAITING else None
    )


def test_waiting_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    assert process.waiting_in_words() == "idle ones spin"
    process.wait_passively()
    assert process.waiting_in_words() == "idle ones sleep"
    monkeypatch.setenv("GOMP_SPINCOUNT", "9")
    assert process.waiting_in_words() == "idle ones as GOMP_SPINCOUNT=9 says"


def test_doctor_tells_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    def state() -> str:
        (finding,) = (each for each in examine(ros=False) if each.subject == "threads")
        return finding.state

    monkeypatch.setattr("xsvggt_ros.doctor.available_cores", lambda: 4)
    process.wait_passively()
    assert state() == (
        "4 cores: 1 for a network like demo, 4 for a network like streamvggt; idle ones sleep"
    )
    monkeypatch.setenv(process.THREAD_COUNT, "3")
    assert state() == "3 of 4 cores, as OMP_NUM_THREADS says; idle ones sleep"


PROGRAM = """
import os, sys
{begin}
assert "torch" not in sys.modules
print(os.environ.get("OMP_WAIT_POLICY"), os.environ.get("OMP_NUM_THREADS"))
"""
COMMAND = """
from typer.testing import CliRunner
from xsvggt_ros import cli
result = CliRunner().invoke(cli.app, ["reconstruct", "/nowhere", "--threads", "3"])
assert result.exit_code == 1, result.output
sys.modules.pop("torch", None)
"""
NODE = """
from xsvggt_ros.ros import node
node.run = lambda args: 0
node.main()
"""


@pytest.mark.parametrize(("begin", "said"), [(COMMAND, "PASSIVE 3"), (NODE, "PASSIVE None")])
def test_programs_wait_passively_from_their_beginning(begin: str, said: str) -> None:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(begin=begin)],
        env=clean, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.strip() == said, done.stderr
