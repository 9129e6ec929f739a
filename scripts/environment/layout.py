# SPDX-License-Identifier: Apache-2.0
"""Where things are in a checkout and in its environment."""

from __future__ import annotations

import hashlib
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parent.parent
CHECKOUT = SCRIPTS.parent
REQUIREMENTS = SCRIPTS / "requirements"
UNDERLAY = SCRIPTS / "underlay"
STAND_INS = UNDERLAY / "python"
VENV = CHECKOUT / ".venv"
PYTHON = VENV / "bin" / "python"
LOG = VENV / "setup.log"
RECORD = VENV / "setup.json"
SHELL_SETUP = VENV / "ros_env.sh"
BUILD = VENV / "build"


def site_packages() -> Path:
    """Return the directory that the environment's modules are installed into."""
    return next(VENV.glob("lib/python3.*/site-packages"))


def requirements(name: str) -> list[str]:
    """Return the lines of one requirement file without its comments."""
    lines = (REQUIREMENTS / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def digest(*parts: str | Path) -> str:
    """Return a hash over texts, files and whole directories."""
    sha = hashlib.sha256()
    for part in parts:
        for content in _contents(part):
            sha.update(content + b"\0")
    return sha.hexdigest()[:16]


def _contents(part: str | Path) -> list[bytes]:
    if isinstance(part, str):
        return [part.encode()]
    if part.is_dir():
        return [path.read_bytes() for path in sorted(part.rglob("*")) if path.is_file()]
    return [part.read_bytes()]
