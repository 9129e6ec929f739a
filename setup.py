# SPDX-License-Identifier: Apache-2.0
"""Installation by pip, with or without ROS; colcon goes by CMakeLists.txt and ignores this file."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent
COMMANDS = ("eval", "demo", "train")
"""Extras of the command line; the node needs none."""
# Version, maintainer and addresses are those of package.xml, for colcon and pip alike.
MANIFEST = ElementTree.parse(ROOT / "package.xml").getroot()
URLS = {element.get("type", ""): element.text or "" for element in MANIFEST.findall("url")}


def long_description() -> str:
    """Return the README; its links and images point into the repository, since PyPI has neither."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    raw = URLS["repository"].replace("github.com", "raw.githubusercontent.com")
    text = re.sub(r"(!\[[^\]]*\]\()(?!https?:)", rf"\1{raw}/main/", text)
    return re.sub(r"(?<!!)(\[[^\]]*\]\()(?!https?:|#)", rf"\1{URLS['repository']}/blob/main/", text)


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
    version=MANIFEST.findtext("version", ""),
    description="Streaming 3D reconstruction with a compressed KV cache, for ROS 2 camera topics",
    long_description=long_description(),
    long_description_content_type="text/markdown",
    url=URLS["repository"],
    project_urls={
        "Documentation": f"{URLS['repository']}/tree/main/docs",
        "Source": URLS["repository"],
        "Issues": URLS["bugtracker"],
        "Changelog": f"{URLS['repository']}/blob/main/CHANGELOG.rst",
    },
    maintainer=MANIFEST.findtext("maintainer", ""),
    maintainer_email=MANIFEST.find("maintainer").attrib["email"],
    license="Apache-2.0",
    keywords=["ROS 2", "3D reconstruction", "visual odometry", "transformer", "KV cache"],
    python_requires=">=3.10",
    packages=find_packages(include=["xsvggt_ros", "xsvggt_ros.*"]),
    package_data={
        "xsvggt_ros": ["py.typed", "weights/*"],
        "xsvggt_ros.evaluation.report": ["*.j2", "*.css"],
    },
    data_files=shared("config", "launch", "rviz"),
    install_requires=requirements("runtime"),
    extras_require={
        **{
            name: requirements(name)
            for name in (*COMMANDS, "test", "rerun", "int8", "flash", "cluster")
        },
        "all": sorted({line for name in COMMANDS for line in requirements(name)}),
    },
    entry_points={"console_scripts": ["xsvggt = xsvggt_ros.__main__:main"]},
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Processing",
    ],
)
