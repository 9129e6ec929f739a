# SPDX-License-Identifier: Apache-2.0
"""The launch file: what can be read of it anywhere, and the real thing where launch exists."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from xsvggt_ros.ros.domains import free_domain
from xsvggt_ros.ros.parameters import specifications

ROOT = Path(__file__).parents[1]
LAUNCH_FILE = ROOT / "launch/reconstruct.launch.py"
TREE = ast.parse(LAUNCH_FILE.read_text(encoding="utf-8"), feature_version=(3, 10))


def _strings(tree: ast.AST) -> list[str]:
    constants = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    return [value for value in constants if isinstance(value, str)]


def _arguments() -> list[tuple[str, str]]:
    """Return name and description of each argument."""
    table = next(
        node.value
        for node in TREE.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "ARGUMENTS"
    )
    assert isinstance(table, ast.Tuple)
    rows = [row for row in table.elts if isinstance(row, ast.Tuple)]
    return [(ast.literal_eval(row.elts[0]), ast.literal_eval(row.elts[2])) for row in rows]


def test_it_compiles() -> None:
    compile(TREE, str(LAUNCH_FILE), "exec")


def test_every_argument_is_described_and_used() -> None:
    used = set(re.findall(r"given\[['\"](\w+)['\"]\]", LAUNCH_FILE.read_text(encoding="utf-8")))
    assert {name for name, _ in _arguments()} == used
    assert all(text.endswith(".") for _, text in _arguments())


def test_the_parameters_that_it_sets_exist() -> None:
    keys = [key for node in ast.walk(TREE) if isinstance(node, ast.Dict) for key in node.keys]
    dotted = {text for key in keys if key for text in _strings(key) if "." in text}
    assert dotted == {"model.checkpoint", "model.device", "input.image_transport"}
    assert dotted <= {spec.name for spec in specifications()}


def test_the_files_that_it_names_exist() -> None:
    for name in ("default.yaml", "xsvggt.rviz"):
        assert name in _strings(TREE)
        assert yaml.safe_load((ROOT / "config" / name).read_text(encoding="utf-8"))


NEEDS_LAUNCH = "needs ROS 2's launch and the built package: source a workspace that holds it"


def test_it_starts_the_node_and_ends_with_it() -> None:
    pytest.importorskip("launch_ros", reason=NEEDS_LAUNCH)
    packages = pytest.importorskip("ament_index_python.packages", reason=NEEDS_LAUNCH)
    try:
        packages.get_package_share_directory("xsvggt_ros")
    except LookupError:
        pytest.skip(NEEDS_LAUNCH)
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from launch import LaunchService;"
            "from launch.actions import IncludeLaunchDescription as Include;"
            "from launch import LaunchDescription;"
            "from launch.launch_description_sources import PythonLaunchDescriptionSource as File;"
            "service = LaunchService();"
            "service.include_launch_description(LaunchDescription([Include(File(sys.argv[1]),"
            "launch_arguments=[('checkpoint', '/nowhere/weights.pth')])]));"
            "sys.exit(service.run())",
            str(LAUNCH_FILE),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
        env={**os.environ, "ROS_DOMAIN_ID": str(free_domain())},
    )
    assert "/nowhere/weights.pth" in done.stdout + done.stderr
