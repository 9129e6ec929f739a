# SPDX-License-Identifier: Apache-2.0
"""What a message advises can be done: options and parameters that it names exist."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.main import get_command

import xsvggt_ros
from xsvggt_ros.cli import app
from xsvggt_ros.ros.parameters import specifications

ROOT = Path(next(iter(xsvggt_ros.__path__)))
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
OF_OTHERS = {
    "--head": "ray", "--nproc-per-node": "torchrun", "--no-optional-locks": "git",
    "--porcelain": "git", "--plot": "evo_traj",
    "--ros-args": "ros2", "--remap": "ros2", "--bfloat16": "", "--bfloat": "",
    "--system-site-packages": "venv", "--sweep": "earlier", "--protocol": "earlier",
}  # fmt: skip
"""Options of other programs, which the package calls or names."""

OWN_PARSERS = ("synthetic", "protocols")
"""Rooms with programs that have parsers of their own."""


def texts() -> Iterator[tuple[str, Path]]:
    for path in sorted(ROOT.rglob("*.py")):
        if any(part in OWN_PARSERS for part in path.parts):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value, path


def options() -> set[str]:
    found, commands = {"--help"}, [get_command(app)]
    while commands:
        command = commands.pop()
        commands += getattr(command, "commands", {}).values()
        found.update(word for each in command.params for word in (*each.opts, *each.secondary_opts))
    return found


def test_options_that_are_named_exist() -> None:
    known = options() | OF_OTHERS.keys()
    unknown = {(word, path.name) for text, path in texts() for word in OPTION.findall(text)
               if word not in known}  # fmt: skip
    assert not unknown


def test_parameters_that_are_named_exist() -> None:
    known = {spec.name for spec in specifications()}
    groups = {name.partition(".")[0] for name in known}
    named = re.compile(rf"(?<![\w./~-])({'|'.join(sorted(groups))})\.([a-z_]+)(?![\w(.])")
    endings = (
        "py",
        "ply",
        "png",
        "yaml",
        "tum",
        "csv",
        "msg",
        "html",
        "json",
        "txt",
        "npy",
        "proj",
    )
    unknown = {
        (".".join(found), path.name) for text, path in texts() for found in named.findall(text)
        if ".".join(found) not in known and found[1] not in endings
    }  # fmt: skip
    assert not unknown


@pytest.mark.parametrize("word", ["--topic", "--truth", "--depth-scale", "--fixed-rate"])
def test_the_options_are_found_at_all(word: str) -> None:
    assert word in options()
    assert any(word in text for text, _ in texts())
