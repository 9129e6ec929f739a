# SPDX-License-Identifier: Apache-2.0
"""Shared memory of processes that are gone."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from xsvggt_ros import doctor
from xsvggt_ros.ros import processes
from xsvggt_ros.ros.processes import abandoned, remove_abandoned, remove_own

ABANDONED, IN_USE, YOUNG = (f"fastdds_{digit * 16}" for digit in "abc")
OLD = f"fastrtps_{'d' * 16}"
"""As Fast DDS 2 of Humble and Jazzy names a segment."""


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """One segment whose owner is gone, one in use by another process, one without a lock yet."""
    monkeypatch.setattr(processes, "DIRECTORY", tmp_path)
    for name in (ABANDONED, f"{ABANDONED}_el", IN_USE, f"{IN_USE}_el", YOUNG):
        (tmp_path / name).write_bytes(bytes(0 if name.endswith("_el") else 1 << 20))
    for lock in tmp_path.glob("*_el"):
        os.utime(lock, (0, 0))
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


def test_only_what_nobody_owns_is_removed(directory: Path) -> None:
    before = names(directory)
    assert abandoned() == [directory / ABANDONED]
    remove_abandoned()
    assert before - names(directory) == {ABANDONED, f"{ABANDONED}_el"}
    assert abandoned() == []


def test_a_lock_that_is_being_made_is_left_alone(directory: Path) -> None:
    young = directory / f"fastdds_{'d' * 16}"
    for file in (young, directory / f"{young.name}_el"):
        file.touch()
    remove_abandoned()
    assert young.exists()
    os.utime(directory / f"{young.name}_el", (0, 0))
    remove_abandoned()
    assert not young.exists()


def test_a_process_gives_back_its_own_only(directory: Path) -> None:
    before = names(directory)
    with (directory / f"{ABANDONED}_el").open() as own, (directory / f"{IN_USE}_el").open():
        fcntl.flock(own, fcntl.LOCK_EX)
        assert abandoned() == []
        remove_own()
    assert before - names(directory) == {ABANDONED, f"{ABANDONED}_el"}


def test_segments_of_fast_dds_2_are_known_by_their_name(directory: Path) -> None:
    for name in (OLD, f"{OLD}_el", "fastrtps_port7410", "fastrtps_port7410_el"):
        (directory / name).touch()
    os.utime(directory / f"{OLD}_el", (0, 0))
    assert sorted(abandoned()) == [directory / ABANDONED, directory / OLD]
    remove_abandoned()
    assert {"fastrtps_port7410", "fastrtps_port7410_el"} <= names(directory)
    assert not {OLD, f"{OLD}_el"} & names(directory)


@pytest.fixture
def middleware(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return what stages a distribution with a library of Fast DDS, and no profile."""
    for name in ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE",
                 "RMW_IMPLEMENTATION", "LD_LIBRARY_PATH", "ROS_DISTRO"):  # fmt: skip
        monkeypatch.delenv(name, raising=False)

    def stage(library: str) -> None:
        (tmp_path / "prefix/lib").mkdir(parents=True)
        (tmp_path / "prefix/lib" / library).touch()
        monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path / "prefix"))

    return stage


@pytest.mark.parametrize(
    ("library", "variable"),
    [
        ("libfastrtps.so.2.14.4", "FASTRTPS_DEFAULT_PROFILES_FILE"),
        ("libfastdds.so.3.2", "FASTDDS_DEFAULT_PROFILES_FILE"),
    ],
)
def test_the_doctor_names_the_variable_of_the_version_that_is_there(
    middleware: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    library: str,
    variable: str,
) -> None:
    middleware(library)
    finding = doctor._transport()
    assert finding.state == "not set"
    assert finding.remedy.startswith(f"set {variable} to config/fastdds_shm.xml")
    monkeypatch.setenv(variable, str(tmp_path / "missing.xml"))
    assert "does not exist" in doctor._transport().state
    (tmp_path / "missing.xml").touch()
    assert doctor._transport().remedy == ""


def test_a_variable_that_means_nothing_is_told(
    middleware: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    middleware("libfastrtps.so.2.14.4")
    (tmp_path / "profile.xml").touch()
    monkeypatch.setenv("FASTDDS_DEFAULT_PROFILES_FILE", str(tmp_path / "profile.xml"))
    finding = doctor._transport()
    assert "FASTDDS_DEFAULT_PROFILES_FILE means nothing to this version" in finding.state
    assert "set FASTRTPS_DEFAULT_PROFILES_FILE" in finding.remedy


@pytest.mark.parametrize("distribution", ["humble", "jazzy", "kilted", ""])
def test_without_a_library_in_sight_the_distribution_decides(
    middleware: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, distribution: str
) -> None:
    middleware("libother.so")
    monkeypatch.setenv("ROS_DISTRO", distribution)
    old = distribution in ("humble", "jazzy")
    assert doctor.profile_variable().startswith("FASTRTPS" if old else "FASTDDS")


def test_without_shared_memory_there_is_nothing_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "DIRECTORY", tmp_path / "missing")
    assert abandoned() == []


def test_the_doctor_says_how_much_is_held_for_nobody(directory: Path) -> None:
    finding = doctor._shared_memory()
    assert finding.state == "1 MiB belong to processes that are gone"
    assert "fastdds shm clean" in finding.remedy
    assert not finding.fault
    remove_abandoned()
    assert doctor._shared_memory().state == "all in use"
