# SPDX-License-Identifier: Apache-2.0
"""What to install where a Python package is missing, as after `rosdep install` alone."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

PYPI_NAMES = {
    "numpy": "numpy",
    "cv2": "opencv-python-headless",
    "scipy": "scipy",
    "PIL": "pillow",
    "yaml": "PyYAML",
    "jinja2": "jinja2",
    "markupsafe": "markupsafe",
    "matplotlib": "matplotlib",
    "typer": "typer",
    "rich": "rich",
    "torch": "torch",
    "rosbags": "rosbags",
    "lz4": "lz4",
    "safetensors": "safetensors",
    "huggingface_hub": "huggingface_hub",
}
"""Modules that are imported, and what PyPI calls them."""

BESIDE_ROS = (
    "torch", "rosbags", "lz4", "safetensors", "huggingface_hub", "typer>=0.12", "rich>=13",
)  # fmt: skip
"""What no distribution of Ubuntu or ROS brings, or brings too old: the one line for pip."""

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


def beside_ros_command() -> str:
    """Return the commands that install what ROS does not bring, one a line.

    Into a virtual environment that sees ROS, because Ubuntu lets pip install nowhere else. numpy
    stays the one that the messages of the distribution were compiled for.
    """
    packages = " ".join(f'"{name}"' if ">" in name else name for name in BESIDE_ROS)
    return (
        "python3 -m venv --system-site-packages ~/xsvggt && . ~/xsvggt/bin/activate\n"
        f"pip install {packages} "
        "\"numpy==$(python3 -c 'import numpy; print(numpy.__version__)')\""
    )


def pip_remedy(module: str) -> str:
    """Return how to get a module from PyPI."""
    name = PYPI_NAMES.get(module, module)
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
def explained_missing() -> Iterator[None]:
    """End the program with what to install, where a package that it imports is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if module in _ROS_PACKAGES:
            sys.exit(f"error: {module} is missing\nremedy: {ros_package_remedy(module)}")
        if module not in PYPI_NAMES:
            raise
        sys.exit(
            f"error: the Python package {PYPI_NAMES[module]} is missing for {sys.executable}\n"
            "remedy: install what rosdep cannot, and use the workspace in that environment:\n"
            + beside_ros_command()
        )
