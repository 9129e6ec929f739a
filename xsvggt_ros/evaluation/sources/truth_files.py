# SPDX-License-Identifier: Apache-2.0
"""Trajectories in files: those of TUM, KITTI and EuRoC, and what lies between them."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from xsvggt_ros.errors import SourceError
from xsvggt_ros.geometry.rigid import Matrix, pose_from
from xsvggt_ros.geometry.text_tables import Table, nanoseconds_of, read_table
from xsvggt_ros.geometry.trajectory_io import trajectory_of

STAMPED = 8
"""Stamp, position, quaternion; of EuRoC, velocities and biases may follow."""

_W_NAMES = ("qw", "q_w", "q_rs_w", "w", "rotation_w", "orientation_w", "rot_w", "quat_w")
_X_NAMES = ("qx", "q_x", "q_rs_x", "rotation_x", "orientation_x", "rot_x", "quat_x")


class TruthFile(NamedTuple):
    """Poses [4, 4] and their stamps in nanoseconds; without stamps there is one for each picture.

    A pose may be none, see :mod:`~xsvggt_ros.evaluation.sources.truth_poses`.
    """

    kind: str
    stamps: list[int] | None
    poses: list[Matrix]


def read_truth(path: Path) -> TruthFile:
    """Read a trajectory; the format is known by its columns and its header.

    8 columns are a stamp, a position and a quaternion: with w last as in TUM's files, with w first
    where the header says so or the file is a .csv, as EuRoC's are, which may have more columns.
    4 are a stamp and a position; 7 a pose of each picture in turn, as ICL-NUIM has them; 12 a
    matrix of 3x4 of each picture, as KITTI has them, 13 with its number or time before it, 16 a
    matrix of 4x4.

    Raises:
        SourceError: the file is missing, damaged or of another format.

    """
    table = read_table(path)
    euroc = path.suffix.lower() == ".csv" and table.columns >= STAMPED
    if table.columns == STAMPED or (euroc and table.columns not in (12, 13, 16)):
        w_first = _w_first(table, euroc)
        trajectory = trajectory_of(
            table, "nanoseconds" if euroc and w_first else "seconds", w_first=w_first
        )
        kind = "euroc" if euroc and w_first else "tum"
        return TruthFile(kind, trajectory.stamps.tolist(), trajectory.poses())
    values = table.values()
    if table.columns == 4:
        poses = [pose_from(row[1:], np.zeros(4)) for row in values]
        return TruthFile("positions", nanoseconds_of(table), poses)
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


def _w_first(table: Table, euroc: bool) -> bool:
    """Tell by the names of columns where w stands; without them, by the kind of file."""
    names = [name.split("[")[0].strip() for name in table.header]
    w = next((names.index(name) for name in _W_NAMES if name in names), None)
    x = next((names.index(name) for name in _X_NAMES if name in names), None)
    return euroc if w is None or x is None else w < x


def _numbered(table: Table, values: NDArray[np.float64]) -> TruthFile:
    """Return poses that are led by a time, or by the number of the picture."""
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
