# SPDX-License-Identifier: Apache-2.0
"""KITTI odometry.

A. Geiger, P. Lenz, R. Urtasun, "Are we ready for Autonomous Driving?", CVPR 2012:
``sequences/NN/image_2/*.png`` (left colour camera; else another one), ``times.txt``, ``calib.txt``,
and ``poses/NN.txt`` with twelve numbers a line, the pose of camera 0 in the first camera 0's axes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from xsvggt_ros.errors import SourceError
from xsvggt_ros.evaluation.sources.base import SourceOptions
from xsvggt_ros.evaluation.sources.files import (
    camera_of,
    choose,
    directories,
    has,
    images,
    numbers,
    steps,
)
from xsvggt_ros.evaluation.sources.recorded import Layout, Record, RecordedSource
from xsvggt_ros.geometry.rigid import Matrix
from xsvggt_ros.geometry.text_tables import nanoseconds_of, read_rows, read_table
from xsvggt_ros.geometry.trajectory_io import NANOSECONDS

CAMERAS = ("image_2", "image_3", "image_0", "image_1")
"""In the order of preference; colour first."""


def matches(directory: Path) -> bool:
    """Tell whether a directory is a sequence, or the data set's root."""
    return _is_sequence(directory) or bool(_sequences(directory))


def open_directory(directory: Path, options: SourceOptions) -> RecordedSource:
    """Open a sequence.

    Raises:
        SourceError: files are missing or damaged, or there are several sequences.

    """
    place = (
        directory
        if _is_sequence(directory)
        else choose(directory, _sequences(directory), options.sequence)
    )
    camera = next(name for name in CAMERAS if (place / name).is_dir())
    colors = images(place / camera)
    stamps = nanoseconds_of(read_table(place / "times.txt", (1,)))
    projection = _projection(place / "calib.txt", f"P{camera[-1]}")
    # A stamp of 0 means "no time" to ROS; KITTI's first frame has it.
    stamps = [stamp + NANOSECONDS for stamp in stamps]
    poses = _poses(place, projection)
    if len(stamps) != len(colors) or (poses and len(poses) != len(colors)):
        raise SourceError(
            f"{place} has {len(colors)} images, {len(stamps)} times and {len(poses)} poses; is "
            "the sequence complete?"
        )
    fx, fy, cx, cy = options.intrinsics or _pinhole(projection)
    intrinsics = camera_of((fx, fy, cx, cy), colors)
    records = [
        Record(stamp, color, None, poses[index] if poses else None, intrinsics)
        for index, (stamp, color) in enumerate(zip(stamps, colors, strict=True))
    ]
    return RecordedSource(
        Layout(
            kind="kitti_odometry",
            path=place,
            name=f"kitti_{place.name}",
            records=records,
            read_depth=steps(256.0),
            provenance={"camera": camera, "intrinsics": [fx, fy, cx, cy],
                        "poses": f"poses/{place.name}.txt" if poses else "none", "depth": "none"},
        ),
        options,
    )  # fmt: skip


def _is_sequence(directory: Path) -> bool:
    return has(directory, "calib.txt", "times.txt") and any(
        (directory / c).is_dir() for c in CAMERAS
    )


def _sequences(directory: Path) -> dict[str, Path]:
    parent = directory / "sequences" if (directory / "sequences").is_dir() else directory
    return {name: each for name, each in directories(parent).items() if _is_sequence(each)}


def _projection(path: Path, name: str) -> NDArray[np.float64]:
    """Return the projection [3, 4] of a camera, for points in camera 0's axes."""
    for row in read_rows(path):
        if row.words[0].rstrip(":") == name and len(row.words) == 13:
            try:
                found = np.array([float(word) for word in row.words[1:]]).reshape(3, 4)
                np.linalg.inv(found[:, :3])
            except (ValueError, np.linalg.LinAlgError) as error:
                raise SourceError(f"line {row.line} of {path}: {error}") from error
            return found
    raise SourceError(f"{path} has no line '{name}: ' with twelve numbers")


def _pinhole(projection: NDArray[np.float64]) -> tuple[float, float, float, float]:
    fx, fy = float(projection[0, 0]), float(projection[1, 1])
    return fx, fy, float(projection[0, 2]), float(projection[1, 2])


def _poses(place: Path, projection: NDArray[np.float64]) -> list[Matrix]:
    """Return the poses of the camera whose images are taken; none for the test sequences."""
    for path in (place.parent.parent / "poses" / f"{place.name}.txt", place / "poses.txt"):
        if path.exists():
            offset = np.eye(4)
            offset[:3, 3] = -np.linalg.solve(projection[:, :3], projection[:, 3])
            table = numbers(path, 12).reshape(-1, 3, 4)
            bottom = np.tile([[[0.0, 0.0, 0.0, 1.0]]], (len(table), 1, 1))
            with np.errstate(invalid="ignore"):  # a lost pose stays one
                return list(np.concatenate([table, bottom], axis=1) @ offset)
    return []
