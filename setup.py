# SPDX-License-Identifier: Apache-2.0
"""Installation by pip, with or without ROS; colcon goes by CMakeLists.txt and ignores this file."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent


def version() -> str:
    """Return the version, which package.xml holds for colcon and pip alike."""
    return ElementTree.parse(ROOT / "package.xml").getroot().findtext("version", "").strip()


def requirements(name: str) -> list[str]:
    """Return the lines of a requirement file without its comments."""
    path = ROOT / "scripts" / "requirements" / f"{name}.txt"
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def shared(*directories: str) -> list[tuple[str, list[str]]]:
    """Return the data files, laid out as colcon lays them out."""
    share = Path("share", "xsvggt_ros")
    data = [(str(share), ["package.xml"])]
    for directory in directories:
        files = sorted((ROOT / directory).glob("*.*"))
        data.append((str(share / directory), [str(path.relative_to(ROOT)) for path in files]))
    return data


setup(
    name="xsvggt_ros",
    version=version(),
    description="Streaming 3D reconstruction with a compressed KV cache, for ROS 2 camera topics",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=["xsvggt_ros", "xsvggt_ros.*"]),
    package_data={
        "xsvggt_ros": ["py.typed", "weights/*"],
        "xsvggt_ros.evaluation.report": ["*.j2", "*.css"],
    },
    data_files=shared("config", "launch", "rviz"),
    install_requires=requirements("runtime"),
    extras_require={name: requirements(name) for name in ("test", "rerun", "int8", "cluster")},
    entry_points={"console_scripts": ["xsvggt = xsvggt_ros.cli:app"]},
    classifiers=[
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Image Processing",
    ],
)
