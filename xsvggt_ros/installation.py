# SPDX-License-Identifier: Apache-2.0
"""What is installed: the version of this copy, what is missing, and how to install it.

The version is written down in package.xml and nowhere else.

The node needs PyTorch, numpy, OpenCV, PyYAML, safetensors, huggingface_hub and ROS alone. What the
commands need beyond that are the extras of the package.
"""

from __future__ import annotations

import os
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

from xsvggt_ros.errors import EnvironmentMissingError

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

OF_THE_NODE = {
    "numpy": "numpy",
    "cv2": "opencv-python-headless",
    "yaml": "PyYAML",
    "torch": "torch",
    "safetensors": "safetensors",
    "huggingface_hub": "huggingface_hub",
}
"""Modules that the node imports, and what PyPI calls them."""

_COMMAND_LINE = {"typer": "typer", "rich": "rich", "matplotlib": "matplotlib"}
_BAGS = {"rosbags": "rosbags", "lz4": "lz4", "backports": "backports.zstd"}
OF_EXTRA: dict[str, dict[str, str]] = {
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
"""The same of the commands, by extra."""

BESIDE_ROS = ("torch", "safetensors", "huggingface_hub")
"""What the node needs and no distribution of Ubuntu or ROS brings: the one line for pip."""

_SAME_NUMPY = "\"numpy==$(python3 -c 'import numpy; print(numpy.__version__)')\""
"""The messages of a distribution were compiled for its own numpy."""

_ROS_PACKAGES = {
    "rclpy": "rclpy",
    "tf2_msgs": "tf2-msgs",
    "tf2_ros": "tf2-ros-py",
    "tf2_py": "tf2-py",
    "cv_bridge": "cv-bridge",
    "sensor_msgs_py": "sensor-msgs-py",
    "tf_transformations": "tf-transformations",
    "transforms3d": "tf-transformations",
}
_PACKAGE = Path(__file__).parent


def beside_ros_command() -> str:
    """Return the commands that install what the node needs and ROS does not bring, one a line.

    They use a virtual environment that sees ROS, because Ubuntu lets pip install nowhere else.
    """
    return (
        "python3 -m venv --system-site-packages ~/xsvggt && . ~/xsvggt/bin/activate\n"
        f"pip install {' '.join(BESIDE_ROS)} {_SAME_NUMPY}"
    )


def installation_of(extra: str) -> str:
    """Return the command that installs an extra here.

    pip knows the extras of a package that it has installed itself. A colcon workspace and a
    checkout have the list of packages as a file.
    """
    beside_ros = f" {_SAME_NUMPY}" if os.environ.get("ROS_DISTRO") else ""
    try:
        metadata.distribution("xsvggt_ros")
    except metadata.PackageNotFoundError:
        for directory in (_PACKAGE, _PACKAGE.parent / "scripts"):
            listed = directory / "requirements" / f"{extra}.txt"
            if listed.is_file():
                return f"{sys.executable} -m pip install -r {listed}{beside_ros}"
    return f"pip install 'xsvggt_ros[{extra}]'{beside_ros}"


def missing_extra(error: ModuleNotFoundError, command: str) -> str | None:
    """Return a sentence that says what a command lacks; None where no extra brings the module.

    Args:
        error: of an import.
        command: such as ``evaluate``.

    """
    module = (error.name or "").partition(".")[0]
    extra = EXTRA_OF_COMMAND.get(command, DEMO)
    if module not in OF_EXTRA[extra]:
        extra = next((each for each in EXTRAS if module in OF_EXTRA[each]), "")
    if not extra:
        return None
    return (
        f"{command or 'xsvggt'} needs the package {OF_EXTRA[extra][module]}, which is not "
        f"installed: {installation_of(extra)}"
    )


def pip_remedy(module: str) -> str:
    """Return how to get a module that the node needs from PyPI."""
    name = OF_THE_NODE.get(module, module)
    if not os.environ.get("ROS_DISTRO"):
        return f"pip install {name}"
    return f"pip install {name}, in a virtual environment beside ROS (docs/installing.md)"


def ros_package_remedy(module: str) -> str:
    """Return how to get a Python package of ROS."""
    distribution = os.environ.get("ROS_DISTRO")
    if distribution is None or module not in _ROS_PACKAGES:
        return "run scripts/setup, or source the set-up file of a ROS 2 distribution"
    return f"sudo apt-get install ros-{distribution}-{_ROS_PACKAGES[module]}"


@contextmanager
def explained_missing(program: str) -> Iterator[None]:
    """End a program with what to install, where a package that it imports is missing.

    Args:
        program: its name, such as ``replay_node``.

    """
    try:
        yield
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if module in _ROS_PACKAGES:
            sys.exit(f"error: {module} is missing\nremedy: {ros_package_remedy(module)}")
        if text := missing_extra(error, program):
            sys.exit(f"error: {text}")
        if module not in OF_THE_NODE:
            raise
        sys.exit(
            f"error: the Python package {OF_THE_NODE[module]} is missing for {sys.executable}\n"
            "remedy: install what rosdep cannot, and use the workspace in that environment:\n"
            + beside_ros_command()
        )


_NAME = "xsvggt_ros"


def version() -> str:
    """Return the version of this very copy: a checkout, a colcon workspace or a pip package."""
    manifest = _manifest(Path(__file__).absolute())
    if manifest is not None:
        return _version_in(manifest)
    try:
        return metadata.version(_NAME)
    except metadata.PackageNotFoundError as error:
        problem = f"no package.xml and no metadata of {_NAME} near {__file__}"
        raise EnvironmentMissingError(f"{problem}: install it again with pip or colcon") from error


def _manifest(module: Path) -> Path | None:
    """Return package.xml of the checkout, or of the prefix that this module is installed into."""
    checkout = module.parents[1] / "package.xml"
    installed = (directory / "share" / _NAME / "package.xml" for directory in module.parents)
    found = (path for path in (checkout, *installed) if path.is_file())
    return next(found, None)


def _version_in(manifest: Path) -> str:
    return (ElementTree.parse(manifest).getroot().findtext("version") or "").strip()
