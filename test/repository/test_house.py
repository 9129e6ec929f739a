# SPDX-License-Identifier: Apache-2.0
"""The house: imports run downward only, and the core needs no ROS."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "xsvggt_ros"
ROOMS = {
    "model": set(),
    "cache": set(),
    "geometry": set(),
    "metrics": {"geometry"},
    "stream": {"model", "cache", "geometry", "metrics"},
    "synthetic": {"model", "geometry"},
    "training": {"model", "cache", "geometry", "metrics", "synthetic"},
    "evaluation": {"stream", "synthetic", "geometry", "metrics", "model", "cache"},
    "ros": {"stream", "geometry", "model", "cache"},
    "commands": {
        "ros", "evaluation", "synthetic", "training", "stream", "geometry", "model", "cache",
        "doctor",
    },
}  # fmt: skip
ROS_PACKAGES = {
    "rclpy", "sensor_msgs", "std_msgs", "geometry_msgs", "nav_msgs", "tf2_msgs", "std_srvs",
    "rosgraph_msgs", "builtin_interfaces", "rcl_interfaces", "ament_index_python",
    "diagnostic_msgs", "lifecycle_msgs", "tf2_ros", "tf2_py", "cv_bridge", "sensor_msgs_py",
    "tf_transformations",
}  # fmt: skip


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def modules(room: str) -> list[Path]:
    return sorted((PACKAGE / room).rglob("*.py"))


@pytest.mark.parametrize("room", ROOMS)
def test_imports_run_downward(room: str) -> None:
    allowed = ROOMS[room] | {
        room, "cuda", "declaration", "errors", "installation", "logs", "paths", "process",
    }  # fmt: skip
    for path in modules(room):
        for name in imported(path):
            if name.startswith("xsvggt_ros."):
                target = name.split(".")[1]
                assert target in allowed or (room == "ros" and target in ("msg", "srv")), (
                    f"{path}: {name}"
                )


@pytest.mark.parametrize("room", [room for room in ROOMS if room != "ros"])
def test_only_the_ros_room_knows_ros(room: str) -> None:
    for path in modules(room):
        roots = {name.split(".")[0] for name in imported(path)}
        assert not roots & ROS_PACKAGES, path


def test_no_imports_run_in_a_circle() -> None:
    """Not even those for types alone."""
    paths = {
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"):
        path for path in PACKAGE.rglob("*.py")
    }  # fmt: skip
    below = {
        module: {
            name if name in paths else name.rpartition(".")[0] for name in imported(path)
        } & (paths.keys() - {module, "xsvggt_ros"})
        for module, path in paths.items()
    }  # fmt: skip
    while leaves := {module for module, names in below.items() if not names}:
        below = {module: names - leaves for module, names in below.items() if module not in leaves}
    assert not below, f"these import each other, or what does: {below}"


def test_the_ros_room_holds_no_mathematics() -> None:
    for path in modules("ros"):
        roots = {name.split(".")[0] for name in imported(path)}
        assert not roots & {"torch", "scipy", "math", "cmath"}, path
        assert "linalg" not in path.read_text(), path


def test_metrics_need_numpy_alone() -> None:
    for path in modules("metrics"):
        roots = {name.split(".")[0] for name in imported(path)}
        assert roots <= {
            "__future__",
            "collections",
            "dataclasses",
            "numpy",
            "typing",
            "xsvggt_ros",
        }, path


def test_every_metric_has_one_definition_and_its_alignment_in_its_name() -> None:
    bare = re.compile(r"\babs_?rel\b(?! for )", re.IGNORECASE)
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text()
        room = path.relative_to(PACKAGE).parts[0]
        assert room == "geometry" or "arccos(" not in text, f"{path}: use rotation_angles"
        assert "scipy.spatial.transform" not in text, f"{path}: use geometry.rigid.interpolate"
        if room == "metrics":
            continue
        for node in ast.walk(ast.parse(text)):  # of fields, keys and functions, not of prose
            names = (
                [node.target.id] if isinstance(node, ast.AnnAssign)
                and isinstance(node.target, ast.Name) else
                [node.name] if isinstance(node, ast.FunctionDef) else
                [node.arg or ""] if isinstance(node, ast.keyword) else
                [node.value] if isinstance(node, ast.Constant) and isinstance(node.value, str)
                and "\n" not in node.value and " " not in node.value else []
            )  # fmt: skip
            assert not any(bare.fullmatch(name) for name in names if name != "AbsRel"), path


def test_nothing_is_imported_relatively() -> None:
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            assert not (isinstance(node, ast.ImportFrom) and node.level), path


def test_the_package_imports_and_reconstructs_without_ros() -> None:
    program = """
import sys
class NoRos:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"rclpy", "sensor_msgs", "std_msgs"}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, NoRos())
import numpy as np
from xsvggt_ros.model.checkpoint import load_network
from xsvggt_ros.stream.reconstructor import Reconstructor, ReconstructorSettings
engine = Reconstructor(load_network("", preset="tiny"), ReconstructorSettings(28))
print(engine.step(np.zeros((28, 28, 3), np.uint8)).depth.shape)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=PACKAGE.parent,
    )
    assert done.stdout.strip() == "(28, 28)"


def test_the_architecture_names_every_module_and_no_other() -> None:
    text = (PACKAGE.parent / "docs" / "architecture.md").read_text(encoding="utf-8")
    section = text.partition("\n## Where things are\n")[2].partition("\n## ")[0]
    named: set[str] = set()
    for room, words in re.findall(r"^\*\*(\w+)/\*\*(.*?)(?=^\*\*|\Z)", section, re.M | re.S):
        own, _, beside = words.partition("Beside the rooms:")
        named |= {f"{room}/{name}" for name in re.findall(r"`(\w+\.py)`", own)}
        named |= set(re.findall(r"`(\w+/\w+)/`", own))
        named |= set(re.findall(r"`(\w+\.py)`", beside))
    there = {
        "/".join(path.relative_to(PACKAGE).parts[:2])
        for path in PACKAGE.rglob("*.py")
        if path.name != "__init__.py"
    }
    assert named == there
