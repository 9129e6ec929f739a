# SPDX-License-Identifier: Apache-2.0
"""The extras of the package: what its commands need beyond the node, and how to install it.

The node needs PyTorch, numpy, OpenCV, PyYAML, safetensors, huggingface_hub and ROS alone.
"""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

EVAL, DEMO, TRAIN = "eval", "demo", "train"
EXTRAS = (EVAL, DEMO, TRAIN)
EXTRA_OF_COMMAND = {
    "evaluate": EVAL,
    "compare": EVAL,
    "demo": DEMO,
    "reconstruct": DEMO,
    "replay": DEMO,
    "doctor": DEMO,
    "synthesize": TRAIN,
    "train": TRAIN,
    "convert": TRAIN,
    "average": TRAIN,
}

_COMMAND_LINE = {"typer": "typer", "rich": "rich", "matplotlib": "matplotlib"}
_BAGS = {"rosbags": "rosbags", "lz4": "lz4", "backports": "backports.zstd"}
MODULES: dict[str, dict[str, str]] = {
    EVAL: {
        **_COMMAND_LINE,
        **_BAGS,
        "PIL": "pillow",
        "scipy": "scipy",
        "jinja2": "jinja2",
        "markupsafe": "markupsafe",
    },
    DEMO: {**_COMMAND_LINE, **_BAGS, "PIL": "pillow"},
    TRAIN: {**_COMMAND_LINE, **_BAGS},
}
"""Modules that are imported, with the package that brings them, by extra."""

_PACKAGE = Path(__file__).parent


def installation_of(extra: str) -> str:
    """Return the command that installs an extra here.

    pip knows the extras of a package that it has installed itself. A colcon workspace and a
    checkout have the list of packages as a file.
    """
    try:
        metadata.distribution("xsvggt_ros")
    except metadata.PackageNotFoundError:
        for directory in (_PACKAGE, _PACKAGE.parent / "scripts"):
            listed = directory / "requirements" / f"{extra}.txt"
            if listed.is_file():
                return f"{sys.executable} -m pip install -r {listed}"
    return f"pip install 'xsvggt_ros[{extra}]'"


def missing_extra(error: ModuleNotFoundError, command: str) -> str | None:
    """Return a sentence that says what a command lacks; None where no extra brings the module.

    Args:
        error: of an import.
        command: such as ``evaluate``.

    """
    module = (error.name or "").partition(".")[0]
    extra = EXTRA_OF_COMMAND.get(command, DEMO)
    if module not in MODULES[extra]:
        extra = next((each for each in EXTRAS if module in MODULES[each]), "")
    if not extra:
        return None
    return (
        f"{command or 'xsvggt'} needs the package {MODULES[extra][module]}, which is not "
        f"installed: {installation_of(extra)}"
    )
