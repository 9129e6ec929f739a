# SPDX-License-Identifier: Apache-2.0
"""Directories that ``xsvggt synthesize --format directory`` wrote."""

from __future__ import annotations

from decimal import Decimal, DecimalException
from pathlib import Path

from xsvggt_ros.errors import SourceError
from xsvggt_ros.evaluation.sources.base import SourceOptions
from xsvggt_ros.evaluation.sources.files import depth_file, has, steps
from xsvggt_ros.evaluation.sources.recorded import Layout, Record, RecordedSource
from xsvggt_ros.geometry.cameras import Intrinsics
from xsvggt_ros.geometry.rigid import Matrix
from xsvggt_ros.geometry.text_tables import read_rows
from xsvggt_ros.geometry.trajectory_io import NANOSECONDS, read_tum

STEPS_PER_METRE = 1000.0


def matches(directory: Path) -> bool:
    """Tell whether a directory is such an export."""
    return has(directory, "cameras.csv", "trajectory.tum")


def open_directory(directory: Path, options: SourceOptions) -> RecordedSource:
    """Open an export.

    Raises:
        SourceError: files are missing or damaged.

    """
    options.refuse(str(directory), "sequence", "intrinsics", "depth_scale")
    trajectory = read_tum(directory / "trajectory.tum")
    known = dict(zip(trajectory.stamps.tolist(), trajectory.poses(), strict=True))
    path = directory / "cameras.csv"
    records = [_record(path, row.words, known) for row in read_rows(path)[1:]]
    return RecordedSource(
        Layout(
            kind="directory",
            path=directory,
            name=directory.name,
            records=records,
            read_depth=steps(options.depth_scale or STEPS_PER_METRE),
            provenance={"intrinsics_from": path.name, "poses": "trajectory.tum", "depth": "depth/"},
        ),
        options,
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
