# SPDX-License-Identifier: Apache-2.0
"""Checks of the machine, and the Debian packages that it may lack."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

from runner import CHECKOUT, SetupError, note

SOURCE_REMEDY = (
    "install a ROS 2 distribution (https://docs.ros.org), source it (source"
    " /opt/ros/<distribution>/setup.bash) and run this again: it is used then"
)


def check_platform() -> None:
    """Refuse machines that no wheel of rclpy exists for."""
    here = f"{platform.system()} {platform.machine()}"
    if here != "Linux x86_64":
        problem = f"ROS 2 comes from PyPI only for Linux x86_64, and this is {here}"
        raise SetupError(problem, SOURCE_REMEDY)
    library, version = platform.libc_ver()
    if library != "glibc" or tuple(map(int, version.split(".")[:2])) < (2, 28):
        found = f"{library} {version}".strip() or "another C library"
        raise SetupError(f"the ROS 2 wheels need glibc 2.28, and this is {found}", SOURCE_REMEDY)


def check_interpreter(python: Path) -> str:
    """Return the version of an interpreter; refuse one that is not CPython 3.10 to 3.13."""
    code = "import platform as p; print(p.python_implementation(), p.python_version())"
    found = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    name, _, version = found.stdout.strip().partition(" ")
    if found.returncode or name != "CPython" or not (10 <= _minor(version) <= 13):
        problem = f"{python} is {name or 'not a Python'} {version}, not CPython 3.10 to 3.13"
        raise SetupError(problem, "name another one: PYTHON=python3.12 scripts/setup")
    return version


def _minor(version: str) -> int:
    major, minor, *_ = (*map(int, version.split(".")[:2]), 0)
    return minor if major == 3 else 0


def base_interpreter() -> Path:
    """Return the interpreter behind this one, outside of any virtual environment."""
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    behind = Path(sys.base_prefix, "bin", name)
    return behind if behind.exists() else Path(sys.executable)


def check_disk(need_gb: float) -> None:
    """Refuse to begin what the disk cannot hold."""
    free_gb = shutil.disk_usage(CHECKOUT).free / 1e9
    if free_gb < need_gb:
        problem = f"no room: about {need_gb:.1f} GB needed in {CHECKOUT}, {free_gb:.1f} GB free"
        raise SetupError(problem, "free some space, or move the checkout to a larger disk")


def missing_build_tools(python: Path) -> list[str]:
    """Return the Debian packages without which the messages cannot be compiled."""
    missing = []
    if not (_any("c++", "g++", "clang++") and _any("cc", "gcc", "clang")):
        missing.append("g++")
    version, header = _python_facts(python)
    if not Path(header).exists():
        missing.append(f"python{version}-dev")
    return missing


def missing_venv(python: Path) -> list[str]:
    """Return the Debian package without which an interpreter makes no environments."""
    found = subprocess.run(
        [python, "-c", "import venv, ensurepip"], capture_output=True, check=False
    )
    return [f"python{_python_facts(python)[0]}-venv"] if found.returncode else []


def _any(*names: str) -> bool:
    return any(shutil.which(name) for name in names)


def _python_facts(python: Path) -> tuple[str, str]:
    code = (
        "import sysconfig as s; print(s.get_python_version());"
        "print(s.get_path('include') + '/Python.h')"
    )
    output = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout
    version, header = output.splitlines()
    return version, header


def install_debian(packages: list[str]) -> None:
    """Install packages by apt-get where that needs no password; else say what to type."""
    command = ["apt-get", "install", "-y", "--no-install-recommends", *packages]
    remedy = f"install them: sudo {' '.join(command)}"
    problem = f"this machine lacks {', '.join(packages)}"
    if not shutil.which("apt-get"):
        other = "install a C++ compiler and the headers of Python with your package manager"
        raise SetupError(problem, other)
    prefix = _root_prefix()
    if prefix is None:
        raise SetupError(problem, remedy)
    note(f"this machine lacks {', '.join(packages)}: {' '.join([*prefix, *command])}")
    if _quiet([*prefix, *command]) and (
        _quiet([*prefix, "apt-get", "update"]) or _quiet([*prefix, *command])
    ):
        raise SetupError(f"apt-get could not install {', '.join(packages)}", remedy)


def _root_prefix() -> list[str] | None:
    if os.geteuid() == 0:
        return []
    if shutil.which("sudo") and _quiet(["sudo", "-n", "true"]) == 0:
        return ["sudo", "-n"]
    return None


def _quiet(command: list[str]) -> int:
    variables = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    return subprocess.run(command, env=variables, capture_output=True, check=False).returncode
