# SPDX-License-Identifier: Apache-2.0
"""Directories of images and depth: what people make themselves, and what the package exports."""

from __future__ import annotations

import re
from decimal import Decimal, DecimalException
from pathlib import Path

import numpy as np

from xsvggt_ros.errors import SourceError
from xsvggt_ros.evaluation.request import SourceOptions
from xsvggt_ros.evaluation.sources.files import (
    camera_of,
    depth_file,
    depth_files,
    focal_numbers,
    has,
    images,
    numbers,
    steps,
)
from xsvggt_ros.evaluation.sources.recorded import DatasetLoader, Layout, Record, records_at
from xsvggt_ros.geometry.cameras import Intrinsics
from xsvggt_ros.geometry.rigid import Matrix, pose_from
from xsvggt_ros.geometry.text_tables import read_rows, read_table
from xsvggt_ros.geometry.trajectory_io import NANOSECONDS, read_tum

ICL_NUIM = (481.20, -480.00, 319.50, 239.50)
"""fx, fy, cx, cy of images of SIZE; y points up."""

SIZE = 640, 480

MIRROR = np.diag([1.0, -1.0, 1.0, 1.0])
"""Turns y over. ICL-NUIM's axes (x right, y up, z forward) are left-handed, so that its world is
mirrored with its cameras, which changes no distance and no angle."""

_COLORS = ("rgb", "color")
_FRAME_NUMBERS = "*.gt.freiburg"


class Rgbd(DatasetLoader):
    """ICL-NUIM, and directories that people make themselves.

    A. Handa et al., "A Benchmark for RGB-D Visual Odometry, 3D Reconstruction and SLAM", ICRA 2014.
    ``rgb/`` or ``color/`` with ``depth/`` of the same names (16 bit, 5000 steps a metre), and poses
    in ``pose.txt`` (tx ty tz qx qy qz qw a line), or in a file of TUM's format whose stamps count
    frames (ICL-NUIM's ``*.gt.freiburg``) or are times.
    """

    kind = "rgbd"
    several = False

    RATE = 30.0
    STEPS_PER_METRE = 5000.0

    def is_sequence(self, directory: Path) -> bool:
        """Tell whether a directory has images, depth and a file with poses."""
        return (
            any((directory / name).is_dir() for name in _COLORS)
            and (directory / "depth").is_dir()
            and ((directory / "pose.txt").exists() or bool(_numbered(directory)))
        )

    def layout(self, place: Path, options: SourceOptions) -> Layout:
        """Describe a directory."""
        colors = images(next(place / name for name in _COLORS if (place / name).is_dir()))
        depths = depth_files(place / "depth", colors)
        poses, origin = _poses(place, colors)
        pinhole, known, size = _camera(place, options)
        if pinhole is not None and pinhole[1] < 0:
            with np.errstate(invalid="ignore"):  # a lost pose stays one
                poses = [None if pose is None else MIRROR @ pose @ MIRROR for pose in poses]
        camera = pinhole and camera_of(pinhole, colors, size)
        return Layout(
            kind=self.kind,
            path=place,
            name=place.name,
            records=records_at(self.RATE, colors, depths, poses, camera),
            read_depth=steps(options.depth_scale or self.STEPS_PER_METRE),
            provenance={
                "intrinsics": pinhole and list(pinhole),
                "intrinsics_from": known,
                "poses": origin,
                "depth": "depth/",
            },
        )


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


class Exported(DatasetLoader):
    """Directories that ``xsvggt synthesize --format directory`` wrote."""

    kind = "directory"
    several = False

    STEPS_PER_METRE = 1000.0

    def is_sequence(self, directory: Path) -> bool:
        """Tell whether a directory is such an export."""
        return has(directory, "cameras.csv", "trajectory.tum")

    def layout(self, place: Path, options: SourceOptions) -> Layout:
        """Describe an export."""
        options.refuse(str(place), "intrinsics", "depth_scale")
        trajectory = read_tum(place / "trajectory.tum")
        known = dict(zip(trajectory.stamps.tolist(), trajectory.poses(), strict=True))
        path = place / "cameras.csv"
        return Layout(
            kind=self.kind,
            path=place,
            name=place.name,
            records=[_record(path, row.words, known) for row in read_rows(path)[1:]],
            read_depth=steps(self.STEPS_PER_METRE),
            provenance={"intrinsics_from": path.name, "poses": "trajectory.tum", "depth": "depth/"},
        )


def _record(path: Path, row: tuple[str, ...], poses: dict[int, Matrix]) -> Record:
    """Read a line: file, timestamp, fx, fy, cx, cy, width, height."""
    try:
        name, seconds, *camera, width, height = row
        fx, fy, cx, cy = map(float, camera)
        stamp = int(Decimal(seconds) * NANOSECONDS)
        intrinsics = Intrinsics(fx, fy, cx, cy, int(width), int(height))
    except (DecimalException, OverflowError, ValueError) as error:
        raise SourceError(f"{path} has the damaged line {','.join(row)}") from error
    image = path.parent / name
    depth = depth_file(path.parent / "depth", image.stem)
    return Record(stamp, image, depth, poses.get(stamp), intrinsics)
