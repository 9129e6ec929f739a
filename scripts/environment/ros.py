# SPDX-License-Identifier: Apache-2.0
"""Which ROS 2 the environment stands on: a sourced distribution, or wheels from PyPI."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from commands import Runner
from layout import CHECKOUT, SHELL_SETUP, VENV, site_packages
from machine import base_interpreter
from report import SetupError

WHEELS = "wheels"


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


def _library_directories(ros: Ros) -> list[Path]:
    bundled = sorted(site_packages().glob("ros_*.libs")) if ros.from_wheels else []
    return [VENV / "lib", *bundled]


def _prepend(name: str, *paths: Path) -> str:
    return f'export {name}="{":".join(map(str, paths))}${{{name}:+:${name}}}"'
