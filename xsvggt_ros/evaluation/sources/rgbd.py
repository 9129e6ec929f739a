# SPDX-License-Identifier: Apache-2.0
"""Directories of images and depth: ICL-NUIM, and those that people make themselves.

A. Handa et al., "A Benchmark for RGB-D Visual Odometry, 3D Reconstruction and SLAM", ICRA 2014.
``rgb/`` or ``color/`` with ``depth/`` of the same names (16 bit, 5000 steps a metre), and poses in
``pose.txt`` (tx ty tz qx qy qz qw a line), or in a file of TUM's format whose stamps count frames
(ICL-NUIM's ``*.gt.freiburg``) or are times.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from xsvggt_ros.errors import SourceError
from xsvggt_ros.evaluation.sources.base import SourceOptions
from xsvggt_ros.evaluation.sources.files import (
    camera_of,
    depth_files,
    focal_numbers,
    images,
    numbers,
    steps,
)
from xsvggt_ros.evaluation.sources.recorded import Layout, Record, RecordedSource
from xsvggt_ros.geometry.cameras import Intrinsics
from xsvggt_ros.geometry.rigid import Matrix, pose_from
from xsvggt_ros.geometry.text_tables import read_table
from xsvggt_ros.stream.sources.base import stamp_at

RATE = 30.0
STEPS_PER_METRE = 5000.0
ICL_NUIM = (481.20, -480.00, 319.50, 239.50)
"""fx, fy, cx, cy of images of SIZE; y points up."""

SIZE = 640, 480

MIRROR = np.diag([1.0, -1.0, 1.0, 1.0])
"""Turns y over. ICL-NUIM's axes (x right, y up, z forward) are left-handed, so that its world is
mirrored with its cameras, which changes no distance and no angle."""

_COLORS = ("rgb", "color")
_FRAME_NUMBERS = "*.gt.freiburg"


def matches(directory: Path) -> bool:
    """Tell whether a directory has images, depth and a file with poses."""
    return (
        any((directory / name).is_dir() for name in _COLORS)
        and (directory / "depth").is_dir()
        and ((directory / "pose.txt").exists() or bool(_numbered(directory)))
    )


def open_directory(directory: Path, options: SourceOptions) -> RecordedSource:
    """Open a directory.

    Raises:
        SourceError: files are missing or damaged, or the numbers of images and poses differ.

    """
    options.refuse(str(directory), "sequence")
    colors = images(next(directory / name for name in _COLORS if (directory / name).is_dir()))
    depths = depth_files(directory / "depth", colors)
    poses, origin = _poses(directory, colors)
    camera, known, size = _camera(directory, options)
    if camera is not None and camera[1] < 0:
        with np.errstate(invalid="ignore"):  # a lost pose stays one
            poses = [None if pose is None else MIRROR @ pose @ MIRROR for pose in poses]
    intrinsics: Intrinsics | None = camera and camera_of(camera, colors, size)
    records = [
        Record(stamp_at(index, RATE), color, depth, pose, intrinsics)
        for index, (color, depth, pose) in enumerate(zip(colors, depths, poses, strict=True))
    ]  # fmt: skip
    return RecordedSource(
        Layout(
            kind="rgbd",
            path=directory,
            name=directory.name,
            records=records,
            read_depth=steps(options.depth_scale or STEPS_PER_METRE),
            provenance={"intrinsics": camera and list(camera), "intrinsics_from": known,
                        "poses": origin, "depth": "depth/"},
        ),
        options,
    )  # fmt: skip


def _camera(
    directory: Path, options: SourceOptions
) -> tuple[tuple[float, float, float, float] | None, str, tuple[int, int] | None]:
    """Return fx, fy, cx, cy, where they come from, and the size that they are for, if known."""
    if options.intrinsics is not None:
        return options.intrinsics, "option", None
    for name in ("intrinsics.txt", "calibration.txt"):
        if (directory / name).exists():
            return focal_numbers(directory / name), name, None
    if _numbered(directory):
        return ICL_NUIM, "ICL-NUIM", SIZE
    return None, "nowhere", None


def _numbered(directory: Path) -> list[Path]:
    """Return the files whose poses are led by the numbers of images."""
    return sorted(p for p in directory.glob(_FRAME_NUMBERS) if not p.name.startswith("."))


def _poses(directory: Path, colors: list[Path]) -> tuple[list[Matrix | None], str]:
    numbered = _numbered(directory)
    if numbered:
        table = read_table(numbered[0], (8,)).values()
        known = {float(row[0]): pose_from(row[1:4], row[4:]) for row in table}
        return [known.get(_number(each)) for each in colors], numbered[0].name
    table = numbers(directory / "pose.txt", 7)
    if len(table) != len(colors):
        raise SourceError(
            f"{directory} has {len(colors)} images and {len(table)} lines in pose.txt; one each "
            "is needed"
        )
    return [pose_from(row[:3], row[3:]) for row in table], "pose.txt"


def _number(image: Path) -> float:
    """Return the number that an image's name ends in."""
    match = re.search(r"([0-9]+)$", image.stem)
    if match is None:
        raise SourceError(f"{image} has no number in its name, by which its pose would be found")
    return float(match[1])
