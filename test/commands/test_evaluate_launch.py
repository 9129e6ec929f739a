# SPDX-License-Identifier: Apache-2.0
"""evaluate.launch.py: its arguments become options of `xsvggt evaluate`."""

from __future__ import annotations

import ast
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from typer.main import get_command

from xsvggt_ros import cli

LAUNCH_FILE = Path(__file__).parents[2] / "launch/evaluate.launch.py"


class Listening:
    """Stands for everything that launch offers; keeps what it was made from."""

    def __init__(self, *_: object, **made_from: Any) -> None:
        self.made_from = made_from


class Stub(ModuleType):
    def __getattr__(self, name: str) -> Any:
        return (lambda package: "/ws/install/xsvggt_ros") if name.startswith("get_") else Listening


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """What the launch file runs, on a launch that only listens."""
    modules = ("launch", "launch.actions", "launch.substitutions", "ament_index_python.packages")
    for name in (*modules, "launch.events.process"):
        monkeypatch.setitem(sys.modules, name, Stub(name))
    space = runpy.run_path(str(LAUNCH_FILE))

    class Configuration:
        def __init__(self, name: str) -> None:
            self.name = name

        def perform(self, context: dict[str, str]) -> str:
            return context[self.name]

    space["_evaluation"].__globals__["LaunchConfiguration"] = Configuration

    def make(**given: str) -> dict[str, Any]:
        context = {name: default for name, default, _ in space["ARGUMENTS"]} | given
        (process,) = space["_evaluation"](context)
        made_from: dict[str, Any] = process.made_from
        return made_from

    return make


@pytest.mark.parametrize(("code", "stopped", "fails"), [(0, False, False), (1, False, True),
                                                        (130, True, False)])  # fmt: skip
def test_a_failed_evaluation_fails_the_launch(
    command: Callable[..., dict[str, Any]], code: int, stopped: bool, fails: bool
) -> None:
    on_exit = command(bag="a.mcap")["on_exit"]
    event, context = SimpleNamespace(returncode=code), SimpleNamespace(is_shutdown=stopped)
    if fails:
        with pytest.raises(RuntimeError, match="failed with exit code 1"):
            on_exit(event, context)
    else:
        assert isinstance(on_exit(event, context), Listening)


def test_arguments_become_options(command: Callable[..., dict[str, Any]]) -> None:
    assert command(bag="a.mcap")["cmd"] == [
        "/ws/install/xsvggt_ros/lib/xsvggt_ros/xsvggt", "evaluate", "run", "a.mcap",
        "--device", "auto", "--output", "results",
    ]  # fmt: skip
    given = command(
        bag="b", truth="/odom", depth_topic="/d", sweep="budget=1,2 bits=4", realtime="True",
        options="--budget 512 --references none",
    )["cmd"]  # fmt: skip
    assert given[2:] == [
        "sweep", "b", "budget=1,2", "bits=4", "--truth", "/odom", "--depth-topic", "/d",
        "--device", "auto", "--output", "results", "--realtime", "--budget", "512",
        "--references", "none",
    ]  # fmt: skip


def test_every_option_exists(command: Callable[..., dict[str, Any]]) -> None:
    for sweep, subcommand in (("", "run"), ("s", "sweep")):
        found: Any = get_command(cli.app)
        parameters = found.commands["evaluate"].commands[subcommand].params
        known = {each for option in parameters for each in option.opts}
        given = command(bag="b", truth="t", topic="c", depth_topic="d", checkpoint="w", sweep=sweep,
                        realtime="true")["cmd"]  # fmt: skip
        assert given[2] == subcommand
        assert {word for word in given[3:] if word.startswith("--")} <= known


def test_other_words_than_true_and_false_are_refused(
    command: Callable[..., dict[str, Any]],
) -> None:
    with pytest.raises(ValueError, match="neither true nor false"):
        command(bag="b", realtime="yes")


def test_it_compiles() -> None:
    ast.parse(LAUNCH_FILE.read_text(encoding="utf-8"), feature_version=(3, 10))
