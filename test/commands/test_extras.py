# SPDX-License-Identifier: Apache-2.0
"""The node needs a handful of packages; a command that lacks its extra says which to install."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from xsvggt_ros import installation
from xsvggt_ros.installation import (
    EXTRA_OF_COMMAND,
    EXTRAS,
    OF_EXTRA,
    installation_of,
    missing_extra,
)

ROOT = Path(__file__).parents[2]
REQUIREMENTS = ROOT / "scripts" / "requirements"
OF_THE_COMMANDS = sorted({module for own in OF_EXTRA.values() for module in own} | {"click"})

BLOCKER = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked}:
            raise ModuleNotFoundError(f"No module named '{{name}}'", name=name)

sys.meta_path.insert(0, Blocked())
"""


def without(directory: Path, *modules: str) -> dict[str, str]:
    """Return an environment in whose Pythons some modules cannot be imported."""
    directory.mkdir(exist_ok=True)
    (directory / "sitecustomize.py").write_text(BLOCKER.format(blocked=set(modules)))
    return {"PYTHONPATH": os.pathsep.join([str(directory), *filter(None, sys.path)])}


def xsvggt(environment: dict[str, str], *words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "xsvggt_ros", *map(str, words)],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def listed(name: str) -> set[str]:
    text = (REQUIREMENTS / f"{name}.txt").read_text(encoding="utf-8")
    return set(re.findall(r"^([A-Za-z0-9_.-]+?)(?=[<>=;])", text, re.MULTILINE))


@pytest.mark.parametrize("extra", EXTRAS)
def test_an_extra_lists_what_its_commands_import(extra: str) -> None:
    assert listed(extra) == set(OF_EXTRA[extra].values())
    assert not listed(extra) & listed("runtime")


def test_a_package_has_the_same_range_in_every_extra() -> None:
    ranges: dict[str, set[str]] = {}
    for extra in EXTRAS:
        for line in (REQUIREMENTS / f"{extra}.txt").read_text().splitlines():
            if not line.startswith("#"):
                ranges.setdefault(re.split("[<>=;]", line)[0], set()).add(line)
    assert all(len(found) == 1 for found in ranges.values()), ranges


def test_every_command_has_an_extra() -> None:
    from typer.core import TyperGroup
    from typer.main import get_command

    from xsvggt_ros import cli

    program = get_command(cli.app)
    assert isinstance(program, TyperGroup)
    assert set(program.commands) == set(EXTRA_OF_COMMAND)


def test_the_node_runs_without_the_packages_of_the_commands(tmp_path: Path) -> None:
    pytest.importorskip("rclpy", reason="needs ROS 2: run scripts/test")
    pytest.importorskip("xsvggt_ros.msg", reason="needs this package's messages: run scripts/test")
    from node_process import TINY, NodeProcess, Peer, image_message

    environment = without(tmp_path / "site", *OF_THE_COMMANDS)
    with NodeProcess(TINY, env=environment) as node, Peer(node.domain) as peer:
        publisher = peer.publisher()
        publisher.publish(image_message(1_000_000_000))
        for topic in ("points", "depth/image", "odometry", "status"):
            peer.with_stamp(topic, 1_000_000_000)
        assert node.interrupt() == 0
    assert "Traceback" not in node.output


@pytest.mark.parametrize(
    ("blocked", "words", "says"),
    [
        ("typer", ("evaluate", "x"), "evaluate needs the package typer"),
        ("rich", (), "xsvggt needs the package rich"),
        ("scipy", ("evaluate", "synthetic:short_walk"), "evaluate needs the package scipy"),
        pytest.param(
            *("jinja2", ("evaluate", "synthetic:short_walk"), "evaluate needs the package jinja2"),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            *("matplotlib", ("reconstruct", "sample/room"), "needs the package matplotlib"),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            *("rosbags", ("synthesize",), "synthesize needs the package rosbags"),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_command_without_its_extra_says_which(
    tmp_path: Path, blocked: str, words: tuple[str, ...], says: str
) -> None:
    output = ["-o", tmp_path / "out"] if words else []
    done = xsvggt(without(tmp_path / "site", blocked), *words, *output)
    assert done.returncode == 1
    text = " ".join(done.stderr.split())
    assert says in text
    extra = EXTRA_OF_COMMAND[words[0]] if words else "demo"
    assert text.endswith(installation_of(extra))
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_the_remedy_suits_pip_and_a_workspace(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("ROS_DISTRO", raising=False)
    monkeypatch.setattr(metadata, "distribution", lambda name: name)
    assert installation_of("eval") == "pip install 'xsvggt_ros[eval]'"
    with monkeypatch.context() as beside_ros:
        beside_ros.setenv("ROS_DISTRO", "jazzy")
        assert "numpy==" in installation_of("eval")  # the one that the messages were compiled for

    def unknown(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", unknown)
    checkout = installation_of("eval")
    assert checkout == f"{sys.executable} -m pip install -r {REQUIREMENTS / 'eval.txt'}"
    installed = tmp_path / "xsvggt_ros"
    (installed / "requirements").mkdir(parents=True)
    (installed / "requirements" / "train.txt").write_text("")
    monkeypatch.setattr(installation, "_PACKAGE", installed)
    assert installation_of("train").endswith(f"-r {installed}/requirements/train.txt")


def test_a_module_that_no_extra_brings_is_no_extras_matter() -> None:
    assert missing_extra(ModuleNotFoundError("x", name="torch"), "evaluate") is None


def test_the_module_is_the_program() -> None:
    done = xsvggt({}, "--version")
    assert done.stdout.startswith("xsvggt ")
    same = subprocess.run(
        [sys.executable, "-m", "xsvggt_ros.cli", "--version"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert same.stdout == done.stdout
