# SPDX-License-Identifier: Apache-2.0
"""Folders that ``xsvggt synthesize --format folder`` wrote."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from pathlib import Path

from xsvggt_ros.errors import SourceError
from xsvggt_ros.evaluation.sources.base import SourceOptions
from xsvggt_ros.evaluation.sources.depth_reading import array
from xsvggt_ros.evaluation.sources.files import has, poses_of, rows
from xsvggt_ros.evaluation.sources.recorded import Layout, Record, RecordedSource
from xsvggt_ros.geometry.cameras import Intrinsics
from xsvggt_ros.geometry.rigid import Matrix
from xsvggt_ros.geometry.trajectory_io import NANOSECONDS, read_tum


def matches(folder: Path) -> bool:
    """Tell whether a folder is such an export."""
    return has(folder, "cameras.csv", "trajectory.tum")


def open_folder(folder: Path, options: SourceOptions) -> RecordedSource:
    """Open an export.

    Raises:
        SourceError: files are missing or damaged.

    """
    options.refuse(str(folder), "sequence", "intrinsics", "depth_scale")
    trajectory = read_tum(folder / "trajectory.tum")
    known = dict(zip(trajectory.stamps.tolist(), poses_of(trajectory), strict=True))
    path = folder / "cameras.csv"
    records = [_record(path, row, known) for row in rows(path)[1:]]
    return RecordedSource(
        Layout(
            kind="folder",
            path=folder,
            name=folder.name,
            records=records,
            read_depth=array,
            provenance={"intrinsics_from": path.name, "poses": "trajectory.tum", "depth": "depth/"},
        ),
        options,
    )


def _record(path: Path, row: list[str], poses: dict[int, Matrix]) -> Record:
    """Read a line: file, timestamp, fx, fy, cx, cy, width, height."""
    try:
        name, seconds, *camera, width, height = row
        fx, fy, cx, cy = map(float, camera)
        stamp = int(Decimal(seconds) * NANOSECONDS)
        intrinsics = Intrinsics(fx, fy, cx, cy, int(width), int(height))
    except (InvalidOperation, ValueError) as error:
        raise SourceError(f"{path} has the damaged line {','.join(row)}") from error
    picture = path.parent / name
    depth = path.parent / "depth" / f"{picture.stem}.npy"
    found = depth if depth.exists() else None
    return Record(stamp, picture, found, poses.get(stamp), intrinsics)
