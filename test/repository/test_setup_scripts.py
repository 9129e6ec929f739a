# SPDX-License-Identifier: Apache-2.0
"""The scripts that make and use the environment: what they say where something is missing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return the modules of scripts/environment; they are no part of the package."""
    directory = ROOT / "scripts" / "environment"
    monkeypatch.syspath_prepend(directory)
    names = ("machine", "packages", "ros", "runner")
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    modules = ModuleType("environment")
    for name in names:
        setattr(modules, name, __import__(name))
    spec = spec_from_file_location("setup_stages", directory / "__main__.py")
    assert spec is not None
    assert spec.loader is not None
    modules.stages = module_from_spec(spec)  # type: ignore[attr-defined]
    spec.loader.exec_module(modules.stages)
    return modules


def test_a_renamed_file_is_a_change_and_what_python_caches_is_none(
    environment: ModuleType, tmp_path: Path
) -> None:
    digests = [environment.runner.digest(tmp_path)]
    (tmp_path / "a.yaml").write_text("x", encoding="utf-8")
    digests.append(environment.runner.digest(tmp_path))
    (tmp_path / "a.yaml").rename(tmp_path / "b.yaml")
    digests.append(environment.runner.digest(tmp_path))
    assert len(set(digests)) == 3
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "b.pyc").write_bytes(b"x")
    assert environment.runner.digest(tmp_path) == digests[-1]


def test_whatever_cmake_copies_is_copied_again_where_it_changes(environment: ModuleType) -> None:
    """Else programs and launch files of an earlier checkout stay in .venv after git pull."""
    text = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    checkout = re.sub(r"if\(XSVGGT_INSTALL_PYTHON\).*?else\(\)", "", text, flags=re.DOTALL)
    named = [
        *re.findall(r"configure_file\((\S+)", checkout),
        *re.findall(r"foreach\(directory ([^)]*)\)", checkout)[0].split(),
        *re.findall(r'"((?:msg|srv)/\S+)"', checkout),
    ]
    assert len(named) == 5
    inputs = environment.ros.package_inputs()
    assert all(path.exists() for path in inputs)
    for name in named:
        assert any((ROOT / name).is_relative_to(path) for path in inputs), name


def test_a_full_disk_is_refused_with_both_numbers(
    environment: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = SimpleNamespace(free=1_100_000_000)
    monkeypatch.setattr(environment.machine.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(environment.runner.SetupError, match=r"2\.5 GB needed.*1\.1 GB free"):
        environment.machine.check_disk(2.5)


@pytest.mark.parametrize(("system", "machine"), [("Linux", "aarch64"), ("Darwin", "arm64")])
def test_a_platform_without_wheels_is_told_to_source_ros(
    environment: ModuleType, monkeypatch: pytest.MonkeyPatch, system: str, machine: str
) -> None:
    monkeypatch.setattr(environment.machine.platform, "system", lambda: system)
    monkeypatch.setattr(environment.machine.platform, "machine", lambda: machine)
    with pytest.raises(environment.runner.SetupError, match=f"this is {system}") as refusal:
        environment.machine.check_platform()
    assert "source /opt/ros" in refusal.value.remedy


def test_missing_compiler_is_named_with_the_command_to_type(
    environment: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        environment.machine.shutil, "which", lambda name: name if name == "apt-get" else None
    )
    monkeypatch.setattr(environment.machine.os, "geteuid", lambda: 1000)
    lacking = environment.machine.missing_build_tools(Path(sys.executable))
    assert lacking[0] == "g++"
    with pytest.raises(environment.runner.SetupError, match=r"lacks g\+\+") as refusal:
        environment.machine.install_debian(lacking)
    assert "sudo apt-get install -y --no-install-recommends g++" in refusal.value.remedy


@pytest.mark.parametrize(
    ("output", "sentence"),
    [
        ("ERROR: Could not install: [Errno 28] No space left on device", "the disk is full"),
        ("NewConnectionError: Failed to establish\nERROR: No matching distribution found for pip",
         "cannot be reached"),
        ("ERROR: No matching distribution found for torch==2.13.0", "torch==2.13.0"),
        ("SSLError(SSLCertVerificationError('CERTIFICATE_VERIFY_FAILED'))", "certificate"),
        ("error: subprocess-exited-with-error\nhint: see above", "subprocess-exited-with-error"),
    ],
)  # fmt: skip
def test_failures_of_pip_become_one_sentence(
    environment: ModuleType, output: str, sentence: str
) -> None:
    error = environment.runner._pip_error(output)
    assert sentence in error.problem
    assert "\n" not in error.problem
    assert "setup.log" in error.remedy


def test_a_finished_stage_survives_an_interruption(
    environment: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(environment.stages, "RECORD", tmp_path / "setup.json")
    record = environment.stages.Record()
    record.put("torch", "1")
    record.put("messages", "2")
    record.forget("messages")
    again = environment.stages.Record()
    assert again.matches({"torch": "1"})
    assert not again.matches({"torch": "1", "messages": "2"})


def test_a_damaged_record_counts_as_none(
    environment: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(environment.stages, "RECORD", tmp_path / "setup.json")
    (tmp_path / "setup.json").write_text('{"torch": "1', encoding="utf-8")
    assert environment.stages.Record().get("torch") == ""


@pytest.mark.parametrize(
    ("answers", "reachable", "arguments"),
    [
        (["2.13.0+cpu"], False, ("torch==2.13.0+cpu",)),
        (["2.13.0", "2.13.0+cpu"], True, ("torch==2.13.0+cpu", "--extra-index-url")),
        (["2.13.0"], False, ("torch==2.13.0",)),
        (["2.13.0", "2.13.0"], True, ("torch==2.13.0",)),
    ],
)
def test_the_cpu_build_is_taken_where_one_is_found(
    environment: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    answers: list[str],
    reachable: bool,
    arguments: tuple[str, ...],
) -> None:
    left = iter(answers)
    monkeypatch.setattr(environment.packages, "_resolve", lambda *_: next(left))
    monkeypatch.setattr(environment.packages, "_reachable", lambda _: reachable)
    build = environment.packages.find_torch(None, "cpu")
    assert build.arguments[:2] == arguments
    assert ("NO CPU BUILD" in build.announcement) == (arguments == ("torch==2.13.0",))


def test_another_build_of_torch_goes_to_pip_word_by_word(environment: ModuleType) -> None:
    choice = "torch==2.13.0+cu126 --index-url https://example.org/whl"
    build = environment.packages.find_torch(None, choice)
    assert build.arguments == ("torch==2.13.0+cu126", "--index-url", "https://example.org/whl")


@pytest.mark.parametrize(
    ("library", "variable"),
    [("libfastrtps.so.2.14", "FASTRTPS_DEFAULT_PROFILES_FILE"),
     ("libfastdds.so.3.2", "FASTDDS_DEFAULT_PROFILES_FILE")],
)  # fmt: skip
def test_the_profile_goes_by_the_name_that_this_fast_dds_reads(
    environment: ModuleType, tmp_path: Path, library: str, variable: str
) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / library).touch()
    ros = environment.ros.Ros("some", Path(sys.executable), (3, 12), (tmp_path,))
    assert environment.ros.profile_variable(ros) == variable
    assert f"export {variable}=" in environment.ros._exports(ros)


def test_stand_ins_are_linked_where_ros_comes_from_pypi_and_never_beside_a_distribution(
    environment: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    packages, ros = environment.packages, environment.ros
    entry = tmp_path / "xsvggt_ros_stand_ins.pth"
    monkeypatch.setattr(packages, "site_packages", lambda: tmp_path)
    monkeypatch.setattr(packages, "_missing_modules", lambda _: [])
    packages.link_stand_ins(None, ros.Ros(ros.WHEELS, Path(sys.executable), (3, 12)))
    linked = Path(entry.read_text(encoding="utf-8").strip())
    assert {"tf2_ros", "tf2_py", "cv_bridge", "sensor_msgs_py", "tf_transformations"} == {
        path.name for path in linked.iterdir() if path.is_dir() and path.name != "__pycache__"
    }
    distribution = ros.Ros("jazzy", Path(sys.executable), (3, 12), (tmp_path,))
    packages.link_stand_ins(None, distribution)
    assert not entry.exists()
    monkeypatch.setattr(packages, "_missing_modules", lambda _: ["tf2_ros", "cv_bridge"])
    with pytest.raises(environment.runner.SetupError, match="jazzy lacks tf2_ros") as refusal:
        packages.link_stand_ins(None, distribution)
    assert refusal.value.remedy == ("sudo apt-get install ros-jazzy-tf2-ros-py ros-jazzy-cv-bridge")


@pytest.mark.parametrize("brings", [True, False])
def test_a_distribution_keeps_its_opencv_and_its_numpy(
    environment: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, brings: bool
) -> None:
    packages, ros = environment.packages, environment.ros
    asked: list[str] = []
    runner = SimpleNamespace(
        pip=lambda *words: asked.extend(map(str, words)),
        python=lambda _: "1.26.4\n",
        run=lambda *_: f"{brings}\n",
    )
    monkeypatch.setattr(packages, "VENV", tmp_path)
    packages.install(runner, ros.Ros("jazzy", Path(sys.executable), (3, 12)), "cpu")
    assert any(word.startswith("opencv") for word in asked) != brings
    assert not any(word.startswith("ros-") for word in asked)
    assert asked[asked.index("--constraint") + 1] == str(tmp_path / "constraints.txt")
    constraints = (tmp_path / "constraints.txt").read_text(encoding="utf-8").split()
    assert constraints == ["numpy==1.26.4", "opencv-python-headless<5"]


def test_unsuitable_python_is_refused(tmp_path: Path) -> None:
    old = tmp_path / "python3.8"
    old.write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
    old.chmod(0o755)
    variables = os.environ | {"PYTHON": str(old)}
    run = subprocess.run(
        [ROOT / "scripts" / "setup"], env=variables, capture_output=True, text=True, check=False
    )
    assert run.returncode == 1
    assert f'none of "{old}"' in run.stderr
    assert "PYTHON=/path/to/python3.12 scripts/setup" in run.stderr


@pytest.fixture
def stage(tmp_path: Path) -> Path:
    """Return a checkout in which every program that the scripts call only tells of its call."""
    for name in ("scripts/demo", "scripts/test", ".ci/run"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    _program(tmp_path / "scripts" / "setup", "true")
    _program(tmp_path / ".venv" / "bin" / "xsvggt", 'printf "%s\\n" "$@"')
    _program(tmp_path / ".venv" / "bin" / "python", 'echo "$@"; [[ $2 != "$BROKEN" ]]')
    path = f'export PATH="{tmp_path}/.venv/bin:$PATH" ROS_DISTRO=kilted\n'
    (tmp_path / ".venv" / "ros_env.sh").write_text(path, encoding="utf-8")
    return tmp_path


def _program(path: Path, line: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/bash\n{line}\n", encoding="utf-8")
    path.chmod(0o755)


def test_demo_passes_its_arguments_on(stage: Path) -> None:
    command = [str(stage / "scripts" / "demo"), "a bag", "--max-frames", "3"]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stdout.splitlines() == ["demo", "a bag", "--max-frames", "3"]


@pytest.mark.parametrize(
    ("words", "handed_on"),
    [
        ([], "-n auto -m not slow"),
        (["--all"], "-n auto --hypothesis-profile=thorough"),
        (["--all", "-x"], "-n auto --hypothesis-profile=thorough -x"),
        (["test/ros", "-k", "a or b"], "-n auto --hypothesis-profile=thorough test/ros -k a or b"),
    ],
)
def test_only_a_bare_call_leaves_slow_tests_out(
    stage: Path, words: list[str], handed_on: str
) -> None:
    run = subprocess.run(
        [stage / "scripts" / "test", *words], capture_output=True, text=True, check=True
    )
    assert run.stdout.splitlines()[-1] == f"-m pytest {handed_on}"


def test_every_check_runs_and_those_that_fail_are_named(stage: Path) -> None:
    run = subprocess.run(
        [stage / "scripts" / "test"],
        env={**os.environ, "BROKEN": "ruff"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1
    assert [line.split()[1] for line in run.stdout.splitlines() if line.startswith("-m")] == [
        "ruff", "ruff", "codespell_lib", "mypy", "pytest"
    ]  # fmt: skip
    assert run.stderr.splitlines()[-1] == "failed: ruff, ruff format"


@pytest.mark.parametrize(
    ("said", "status", "closing"),
    [
        ("=== 3 passed, 1 skipped in 2.10s ===", 0, "3 passed, 1 skipped in 2.10s"),
        ("== 1 failed, 2 passed in 75.31s (0:01:15) ==", 1,
         "1 failed, 2 passed in 75.31s (0:01:15)"),
        ("error: no room", 1, "no tests ran"),
    ],
)  # fmt: skip
def test_the_closing_line_of_pytest_comes_last(
    stage: Path, said: str, status: int, closing: str
) -> None:
    _program(
        stage / "scripts" / "test", f'echo "$@"; echo "{said}"; echo afterwards; exit {status}'
    )
    run = subprocess.run([stage / ".ci" / "run"], capture_output=True, text=True, check=False)
    assert run.returncode == status
    assert run.stdout.splitlines()[0] == "--all"
    assert run.stdout.splitlines()[-1] == closing
