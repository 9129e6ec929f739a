# SPDX-License-Identifier: Apache-2.0
"""Neural RGB-D: D. Azinovic et al., "Neural RGB-D Surface Reconstruction", CVPR 2022.

``images/imgN.png``, ``depth/depthN.png`` (16 bit, mm) and ``poses.txt`` with four lines a frame,
camera-to-world in OpenGL's axes (y up, z backward); a lost pose says nan.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from xsvggt_ros.errors import SourceError
from xsvggt_ros.evaluation.sources.base import SourceOptions
from xsvggt_ros.evaluation.sources.files import (
    between,
    camera_of,
    choose,
    depth_file,
    directories,
    has,
    images,
    numbers,
    steps,
)
from xsvggt_ros.evaluation.sources.recorded import Layout, Record, RecordedSource
from xsvggt_ros.geometry.rigid import Matrix
from xsvggt_ros.stream.sources.base import stamp_at

RATE = 30.0
FOCAL = 554.2562584220408
"""Pixels, of every scene."""

SIZE = 640, 480
"""Of the images of every scene."""

NEAREST, FARTHEST = 1e-3, 10.0
"""Metres, as in the reference's loader."""

OPTICAL_TO_OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])


def matches(directory: Path) -> bool:
    """Tell whether a directory is a scene, or holds scenes."""
    return _is_scene(directory) or bool(_scenes(directory))


def open_directory(directory: Path, options: SourceOptions) -> RecordedSource:
    """Open a scene.

    Raises:
        SourceError: files are missing or damaged, or there are several scenes.

    """
    place = (
        directory
        if _is_scene(directory)
        else choose(directory, _scenes(directory), options.sequence)
    )
    colors = images(place / "images", "img*")
    poses = read_poses(place / "poses.txt")
    if len(poses) != len(colors):
        raise SourceError(
            f"{place} has {len(colors)} images and {len(poses)} poses; is the scene complete?"
        )
    known = FOCAL, FOCAL, SIZE[0] / 2, SIZE[1] / 2
    camera = options.intrinsics or known
    intrinsics = camera_of(camera, colors, None if options.intrinsics else SIZE)
    records = [
        Record(stamp_at(index, RATE), color, _depth_of(place, color), pose, intrinsics)
        for index, (color, pose) in enumerate(zip(colors, poses, strict=True))
    ]
    return RecordedSource(
        Layout(
            kind="neural_rgbd",
            path=place,
            name=place.name,
            records=records,
            read_depth=between(steps(options.depth_scale or 1000.0), NEAREST, FARTHEST),
            provenance={"intrinsics": list(camera), "poses": "poses.txt", "depth": "depth/"},
        ),
        options,
    )


def read_poses(path: Path) -> list[Matrix]:
    """Return the poses of a scene in optical axes; a lost one is NaN.

    Raises:
        SourceError: the file is missing or does not hold four lines of four numbers a pose.

    """
    table = numbers(path, 4)
    if len(table) % 4:
        raise SourceError(f"{path} has {len(table)} lines; each pose takes four")
    with np.errstate(invalid="ignore"):
        return [each @ OPTICAL_TO_OPENGL for each in table.reshape(-1, 4, 4)]


def _is_scene(directory: Path) -> bool:
    return has(directory, "images", "poses.txt")


def _scenes(directory: Path) -> dict[str, Path]:
    return {name: each for name, each in directories(directory).items() if _is_scene(each)}


def _depth_of(place: Path, color: Path) -> Path | None:
    return depth_file(place / "depth", f"depth{color.stem.removeprefix('img')}")
