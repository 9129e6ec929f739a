# SPDX-License-Identifier: Apache-2.0
"""Trajectories in files: those of TUM, KITTI and EuRoC, and what lies between them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from xsvggt_ros.errors import SourceError
from xsvggt_ros.geometry.rigid import Matrix, pose_from
from xsvggt_ros.geometry.text_tables import Row, Table, nanoseconds_of, read_table
from xsvggt_ros.geometry.trajectory_io import trajectory_of

STAMPED = 8
"""Stamp, position, quaternion; of EuRoC, velocities and biases may follow."""

_FLAT = (12, 13, 16)
"""Columns of matrices in one line."""

_AXES = "xyz"
_TIMES = ("timestamp", "time", "t", "stamp", "sec", "secs", "seconds", "ns", "nsec", "timestamp_ns",
          "timestamp_s", "time_s", "time_ns")  # fmt: skip
_PLACES = ("{}", "t{}", "p{}", "t_{}", "p_{}", "pos_{}", "position_{}", "position.{}", "pose_{}",
           "p_rs_r_{}", "translation_{}")  # fmt: skip
_TURNS = ("q{}", "q_{}", "q_rs_{}", "quat_{}", "quaternion_{}", "rot_{}", "rotation_{}",
          "orientation_{}", "orientation.{}")  # fmt: skip
"""Names of columns, with the axis."""


class TruthFile(NamedTuple):
    """Poses [4, 4] and their stamps in nanoseconds; without stamps there is one for each image.

    A pose may be none, see :mod:`~xsvggt_ros.evaluation.sources.truth_poses`.
    """

    kind: str
    stamps: list[int] | None
    poses: list[Matrix]


def read_truth(path: Path) -> TruthFile:
    """Read a trajectory; the format is known by its columns and its header.

    A header that names all columns decides, in whatever order they stand. Without one, 8 columns
    are a stamp, a position and a quaternion: with w last as in TUM's files, with w first in a .csv,
    as EuRoC's are, which may have more columns.
    4 are a stamp and a position; 7 a pose of each image in turn, as ICL-NUIM has them; 12 a
    matrix of 3x4 of each image, as KITTI has them, 13 with its number or time before it, 16 a
    matrix of 4x4.

    Raises:
        SourceError: the file is missing, damaged or of another format.

    """
    table = read_table(path)
    csv = path.suffix.lower() == ".csv"
    if named := _named_columns(table):
        return _stamped(named.table, "euroc" if csv and named.w_first else "tum", w_first=False)
    if table.columns == STAMPED or (csv and table.columns > STAMPED and table.columns not in _FLAT):
        return _stamped(table, "euroc" if csv else "tum", w_first=csv)
    values = table.values()
    if table.columns == 4:
        return _stamped(table, "tum", w_first=False)
    if table.columns == 7:
        return TruthFile("poses", None, [pose_from(row[:3], row[3:]) for row in values])
    if table.columns in (12, 16):
        return TruthFile("kitti", None, [_whole(row[:12]) for row in values])
    if table.columns == 13:
        return _numbered(table, values)
    raise SourceError(
        f"{path} has {table.columns or 'no'} columns of numbers: a trajectory of TUM has 8, of "
        "KITTI 12, and of EuRoC it is a .csv with 8 or more"
    )


class _Named(NamedTuple):
    """Time, position and, if there is one, quaternion with w last; and whether it stood first."""

    table: Table
    w_first: bool


def _named_columns(table: Table) -> _Named | None:
    """Return the columns that the header names; None where it does not name all that there are."""
    names = re.sub(r"\[[^]]*\]|\([^)]*\)", "", " ".join(table.header)).split()  # without units
    if len(names) != table.columns:
        return None
    time = next((names.index(name) for name in _TIMES if name in names), -1)
    places = [_column(names, _PLACES, axis) for axis in _AXES]
    turns = [_column(names, _TURNS, axis) for axis in (*_AXES, "w")]
    if min(time, *places) < 0:
        return None
    chosen = [time, *places, *(turns if min(turns) >= 0 else ())]
    rows = [Row(row.line, tuple(row.words[each] for each in chosen)) for row in table.rows]
    return _Named(Table(table.path, table.header, rows), 0 <= turns[3] < turns[0])


def _column(names: list[str], patterns: tuple[str, ...], axis: str) -> int:
    """Return where the column of an axis stands, -1 where it is not named."""
    known = (pattern.format(axis) for pattern in patterns)
    return next((names.index(name) for name in known if name in names), -1)


def _stamped(table: Table, kind: str, *, w_first: bool) -> TruthFile:
    """Return poses that are led by their times; without quaternions, positions."""
    usual = "nanoseconds" if kind == "euroc" or "[ns]" in table.header else "seconds"
    if table.columns < STAMPED:
        poses = [pose_from(row[1:4], np.zeros(4)) for row in table.values()]
        return TruthFile("positions", nanoseconds_of(table, usual), poses)
    trajectory = trajectory_of(table, usual, w_first=w_first)
    return TruthFile(kind, trajectory.stamps.tolist(), trajectory.poses())


def _numbered(table: Table, values: NDArray[np.float64]) -> TruthFile:
    """Return poses that are led by a time, or by the number of the image."""
    poses = [_whole(row[1:]) for row in values]
    numbers = values[:, 0]
    counted = bool(np.all(numbers == np.round(numbers)) and np.all(numbers >= 0))
    if not counted or numbers.max() > 10 * len(numbers) + 1_000_000:
        return TruthFile("kitti", nanoseconds_of(table), poses)
    by_number = {int(number): pose for number, pose in zip(numbers, poses, strict=True)}
    lost = np.full((4, 4), np.nan)
    return TruthFile("kitti", None, [by_number.get(n, lost) for n in range(max(by_number) + 1)])


def _whole(row: NDArray[np.float64]) -> Matrix:
    return np.vstack([row.reshape(3, 4), [0.0, 0.0, 0.0, 1.0]])
