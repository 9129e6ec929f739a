# SPDX-License-Identifier: Apache-2.0
"""Our messages, generated and compiled into the environment without colcon."""

from __future__ import annotations

import shutil
from pathlib import Path

from commands import Runner
from layout import BUILD, CHECKOUT, LOG, PYTHON, UNDERLAY, VENV, site_packages
from report import SetupError, note


def inputs() -> list[Path]:
    """Return the files that the compiled messages depend on."""
    return [
        CHECKOUT / "CMakeLists.txt",
        CHECKOUT / "package.xml",
        CHECKOUT / "msg",
        CHECKOUT / "srv",
        CHECKOUT / "xsvggt_ros" / "__init__.py",
        UNDERLAY / "tf2_msgs",
    ]


def install(runner: Runner) -> None:
    """Compile and install xsvggt_ros.msg, and tf2_msgs where ROS does not bring it."""
    if _lacks_tf2_msgs(runner):
        note("tf2_msgs: this ROS has none, so its one message that we need is compiled")
        _install_package(runner, UNDERLAY / "tf2_msgs")
    _install_package(runner, CHECKOUT)
    # pip would take this second set of metadata for an installation of its own.
    for leftover in site_packages().glob("xsvggt_ros-*.egg-info"):
        shutil.rmtree(leftover)
    _check(runner)


def _lacks_tf2_msgs(runner: Runner) -> bool:
    code = (
        "import importlib.util as u; spec = u.find_spec('tf2_msgs');"
        "print(spec.origin if spec else '')"
    )
    origin = runner.python(code).strip()
    return not origin or Path(origin).is_relative_to(VENV)


def _install_package(runner: Runner, source: Path) -> None:
    name = "xsvggt_ros" if source == CHECKOUT else source.name
    build = BUILD / name
    shutil.rmtree(build, ignore_errors=True)
    build.mkdir(parents=True)
    destination = site_packages()
    configure: list[str | Path] = [
        *("cmake", "-S", source, "-B", build),
        f"-DCMAKE_INSTALL_PREFIX={VENV}",
        f"-DPYTHON_INSTALL_DIR={destination.relative_to(VENV)}",
        f"-DPython3_EXECUTABLE={PYTHON}",
        "-DXSVGGT_INSTALL_PYTHON=OFF",
        "-DBUILD_TESTING=OFF",
        "-DCMAKE_BUILD_TYPE=Release",
    ]
    if not has_make():
        configure += ["-G", "Ninja"]
    runner.run(configure, f"configuring the messages of {name}")
    runner.run(["cmake", "--build", build, "--parallel"], f"compiling the messages of {name}")
    shutil.rmtree(destination / name, ignore_errors=True)
    runner.run(["cmake", "--install", build], f"installing the messages of {name}")
    shutil.rmtree(build)


def has_make() -> bool:
    """Say whether CMake can use make; ninja comes from PyPI where it cannot."""
    return shutil.which("make") is not None


def _check(runner: Runner) -> None:
    code = (
        "import rclpy, tf2_msgs.msg, xsvggt_ros.errors, xsvggt_ros.msg as m;"
        "import xsvggt_ros.srv as v;"
        "from rclpy.serialization import serialize_message as s; s(m.ReconstructionStatus());"
        "s(v.SaveMap.Request());"
        "s(tf2_msgs.msg.TFMessage()); print(xsvggt_ros.errors.__file__)"
    )
    where = Path(runner.python(code).strip().splitlines()[-1])
    if where != CHECKOUT / "xsvggt_ros" / "errors.py":
        problem = f"xsvggt_ros comes from {where.parent}, not from this checkout"
        raise SetupError(problem, f"unset PYTHONPATH, or remove that copy; log: {LOG}")
