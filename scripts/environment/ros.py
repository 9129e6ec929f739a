# SPDX-License-Identifier: Apache-2.0
"""Which ROS 2 the environment stands on, our messages compiled for it, and the file to source."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from machine import base_interpreter
from runner import (
    BUILD,
    CHECKOUT,
    LOG,
    PYTHON,
    SHELL_SETUP,
    UNDERLAY,
    VENV,
    Runner,
    SetupError,
    note,
    site_packages,
)

WHEELS = "wheels"

_WITHOUT_DISTRIBUTION = """\
if [ "${XSVGGT_ROS:-}" = wheels ]; then
  unset PYTHONPATH AMENT_PREFIX_PATH CMAKE_PREFIX_PATH COLCON_PREFIX_PATH LD_LIBRARY_PATH
fi"""

_WHEELS_VARIABLES = """\
# Spares every start of Python the wheels' restart, which reorders LD_LIBRARY_PATH.
export _ROS_WHEELS_BOOTSTRAP_COMPLETE=1
export ROS_DISTRO=kilted ROS_VERSION=2 ROS_PYTHON_VERSION=3
export RMW_IMPLEMENTATION=rmw_fastrtps_cpp
"""


@dataclass(frozen=True)
class Ros:
    """Where ROS comes from; ``name`` is a distribution's name or ``wheels``."""

    name: str
    python: Path
    version: tuple[int, ...]
    prefixes: tuple[Path, ...] = ()

    @property
    def from_wheels(self) -> bool:
        """Whether it comes from PyPI."""
        return self.name == WHEELS

    def describe(self) -> str:
        """Return it in words."""
        return "ROS 2 Kilted from PyPI" if self.from_wheels else f"ROS 2 {self.name}, as sourced"


def detect() -> Ros:
    """Find the ROS 2 of this shell."""
    prefixes = _sourced_prefixes()
    if not prefixes or os.environ.get("XSVGGT_ROS") == WHEELS:
        return Ros(WHEELS, base_interpreter(), sys.version_info[:2])
    python, version = _interpreter_of_distribution()
    return Ros(os.environ["ROS_DISTRO"], python, version, prefixes)


def _sourced_prefixes() -> tuple[Path, ...]:
    if not os.environ.get("ROS_DISTRO"):
        return ()
    listed = [Path(word) for word in os.environ.get("AMENT_PREFIX_PATH", "").split(":") if word]
    foreign = [path for path in listed if path != VENV]
    return tuple(foreign) if any((p / "share" / "rclpy").is_dir() for p in foreign) else ()


def _interpreter_of_distribution() -> tuple[Path, tuple[int, ...]]:
    tried = [base_interpreter(), Path("/usr/bin/python3")]
    code = "import rclpy, sys; print(*sys.version_info[:2])"
    for python in tried:
        found = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
        if found.returncode == 0:
            return python, tuple(map(int, found.stdout.split()))
    distribution = os.environ["ROS_DISTRO"]
    raise SetupError(
        f"ROS 2 {distribution} is sourced, but {' and '.join(map(str, tried))} cannot import rclpy",
        f"name the Python that {distribution} was built for (PYTHON=/usr/bin/python3"
        " scripts/setup), or take ROS from PyPI instead: XSVGGT_ROS=wheels scripts/setup",
    )


def repair_wheels(runner: Runner) -> None:
    """Point the wheels' CMake files at this machine's headers.

    They name the include directories of the machine that built them.
    """
    facts = "import numpy as n, sysconfig as s; print(s.get_path('include'), n.get_include())"
    python_include, numpy_include = runner.python(facts).split()
    for path in VENV.glob("share/*/cmake/*.cmake"):
        text = path.read_text(encoding="utf-8")
        fixed = re.sub(r"/opt/python/[^;\"]*?/numpy/_?core/include", numpy_include, text)
        fixed = re.sub(r"/[^;\"]*?/build-env[^;\"]*?/numpy/_?core/include", numpy_include, fixed)
        fixed = re.sub(r"/opt/python/cp[^;\"/]*/include/python3[^;\"/]*", python_include, fixed)
        if fixed != text:
            path.write_text(fixed, encoding="utf-8")


def write_shell_setup(ros: Ros) -> None:
    """Write the file that a shell sources, and what colcon's setup files chain to."""
    exports = _exports(ros)
    activation = f'# Source this file: it activates the environment.\n. "{VENV}/bin/activate"\n'
    SHELL_SETUP.write_text(activation + exports, encoding="utf-8")
    if ros.from_wheels:
        for shell in ("sh", "bash", "zsh"):
            (VENV / f"local_setup.{shell}").write_text(exports, encoding="utf-8")


def _exports(ros: Ros) -> str:
    variable = profile_variable(ros)
    profile = f"${{{variable}:-{CHECKOUT}/config/fastdds_shm.xml}}"
    lines = [
        _prepend("AMENT_PREFIX_PATH", VENV),
        _prepend("CMAKE_PREFIX_PATH", VENV),
        _prepend("LD_LIBRARY_PATH", *_library_directories(ros)),
        f'export {variable}="{profile}"',
    ]
    if ros.from_wheels:
        return "\n".join([_WITHOUT_DISTRIBUTION, *lines, _WHEELS_VARIABLES])
    return "\n".join([*lines, _prepend("PYTHONPATH", CHECKOUT), ""])


def profile_variable(ros: Ros) -> str:
    """Return the variable that names the profiles of the Fast DDS that is there.

    Fast DDS 2 (Humble, Jazzy) knows the old name alone, and 3 (Kilted, and the wheels) warns of it.
    """
    libraries = [path / "lib" for path in ros.prefixes]
    old = any(any(directory.glob("libfastrtps.so*")) for directory in libraries)
    return f"{'FASTRTPS' if old else 'FASTDDS'}_DEFAULT_PROFILES_FILE"


def _library_directories(ros: Ros) -> list[Path]:
    bundled = sorted(site_packages().glob("ros_*.libs")) if ros.from_wheels else []
    return [VENV / "lib", *bundled]


def _prepend(name: str, *paths: Path) -> str:
    return f'export {name}="{":".join(map(str, paths))}${{{name}:+:${name}}}"'


def package_inputs() -> list[Path]:
    """Return what the compiled messages, and all else that CMake installs, depend on."""
    return [
        CHECKOUT / "CMakeLists.txt",
        CHECKOUT / "package.xml",
        CHECKOUT / "msg",
        CHECKOUT / "srv",
        CHECKOUT / "xsvggt_ros" / "__init__.py",
        CHECKOUT / "scripts" / "program.py.in",
        CHECKOUT / "launch",
        CHECKOUT / "config",
        UNDERLAY / "tf2_msgs",
    ]


def install_messages(runner: Runner) -> None:
    """Compile and install xsvggt_ros.msg, and tf2_msgs where ROS does not bring it."""
    if _lacks_tf2_msgs(runner):
        note("tf2_msgs: this ROS has none, so its one message that we need is compiled")
        _install_package(runner, UNDERLAY / "tf2_msgs")
    _install_package(runner, CHECKOUT)
    # pip would take this second set of metadata for an installation of its own.
    for leftover in site_packages().glob("xsvggt_ros-*.egg-info"):
        shutil.rmtree(leftover)
    _check_messages(runner)


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


def _check_messages(runner: Runner) -> None:
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
