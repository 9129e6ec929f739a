# SPDX-License-Identifier: Apache-2.0
"""Shared memory of processes that are gone."""

from __future__ import annotations

import fcntl
import subprocess
import sys
from pathlib import Path

import pytest

from xsvggt_ros import doctor
from xsvggt_ros.ros import shared_memory
from xsvggt_ros.ros.shared_memory import abandoned, remove_abandoned, remove_own

ABANDONED, IN_USE, YOUNG = (f"fastdds_{digit * 16}" for digit in "abc")


@pytest.fixture
def directory(tmp_path, monkeypatch):
    """One segment whose owner is gone, one in use by another process, one without a lock yet."""
    monkeypatch.setattr(shared_memory, "DIRECTORY", tmp_path)
    for name in (ABANDONED, f"{ABANDONED}_el", IN_USE, f"{IN_USE}_el", YOUNG):
        (tmp_path / name).write_bytes(bytes(0 if name.endswith("_el") else 1 << 20))
    for name in ("fastdds_port7410", "fastdds_port7410_el", "sem.other"):
        (tmp_path / name).touch()
    program = (
        "import fcntl, sys; file = open(sys.argv[1]); fcntl.flock(file, fcntl.LOCK_EX);"
        "print(flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, tmp_path / f"{IN_USE}_el"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as owner:
        assert owner.stdout
        owner.stdout.readline()
        yield tmp_path
        owner.communicate()


def names(directory: Path) -> set[str]:
    return {file.name for file in directory.iterdir()}


def test_only_what_nobody_owns_is_removed(directory):
    before = names(directory)
    assert abandoned() == [directory / ABANDONED]
    remove_abandoned()
    assert before - names(directory) == {ABANDONED, f"{ABANDONED}_el"}
    assert abandoned() == []


def test_a_process_gives_back_its_own_only(directory):
    before = names(directory)
    with (directory / f"{ABANDONED}_el").open() as own, (directory / f"{IN_USE}_el").open():
        fcntl.flock(own, fcntl.LOCK_EX)
        assert abandoned() == []
        remove_own()
    assert before - names(directory) == {ABANDONED, f"{ABANDONED}_el"}


def test_without_shared_memory_there_is_nothing_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(shared_memory, "DIRECTORY", tmp_path / "missing")
    assert abandoned() == []


def test_the_doctor_says_how_much_is_held_for_nobody(directory):
    finding = doctor._shared_memory()
    assert finding.state == "1 MiB belong to processes that are gone"
    assert "fastdds shm clean" in finding.remedy
    assert not finding.fault
    remove_abandoned()
    assert doctor._shared_memory().state == "all in use"
