# SPDX-License-Identifier: Apache-2.0
"""Trajectories in the formats of TUM, KITTI and EuRoC."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from xsvggt_ros.errors import SourceError
from xsvggt_ros.evaluation.sources.files import numbers, pose_of, poses_of, rows, text
from xsvggt_ros.geometry.rigid import Matrix
from xsvggt_ros.geometry.trajectory_io import read_tum

EUROC_COLUMNS = 8
"""Stamp (ns), position, quaternion with w first; velocities and biases may follow."""


class TruthFile(NamedTuple):
    """Poses [4, 4] and their stamps in nanoseconds; a KITTI file has no stamps."""

    kind: str
    stamps: list[int] | None
    poses: list[Matrix]


def read_truth(path: Path) -> TruthFile:
    """Read a trajectory; the format is known by its columns.

    Eight numbers a line are TUM's (seconds, position, quaternion with w last), twelve are KITTI's
    (a 3x4 matrix, one line a picture), a .csv is EuRoC's (nanoseconds, position, quaternion with w
    first, ...).

    Raises:
        SourceError: the file is missing, damaged or of another format.

    """
    if path.suffix.lower() == ".csv":
        return _euroc(path)
    table = rows(path)
    columns = {len(row) for row in table}
    if columns == {8}:
        trajectory = read_tum(path)
        return TruthFile("tum", trajectory.stamps.tolist(), poses_of(trajectory))
    if columns == {12}:
        return TruthFile("kitti", None, [_whole(row) for row in numbers(path, 12)])
    raise SourceError(
        f"{path} has lines of {', '.join(map(str, sorted(columns))) or 'no'} numbers: a trajectory "
        "of TUM has 8, of KITTI 12, and of EuRoC it is a .csv"
    )


def _whole(row: NDArray[np.float64]) -> Matrix:
    return np.vstack([row.reshape(3, 4), [0.0, 0.0, 0.0, 1.0]])


def _euroc(path: Path) -> TruthFile:
    lines = [line for line in text(path).splitlines() if line.strip() and line[0] != "#"]
    stamps, poses = [], []
    for line in lines:
        words = line.split(",")
        try:
            # Through int, since a double cannot hold nanoseconds since 1970.
            stamp, values = int(words[0]), np.array(words[1:EUROC_COLUMNS], np.float64)
        except ValueError as error:
            raise SourceError(f"{path} is no trajectory of EuRoC: {error}") from error
        if len(values) != EUROC_COLUMNS - 1:
            raise SourceError(f"{path} has a line of {len(words)} columns; EuRoC has 8 or more")
        stamps.append(stamp)
        poses.append(pose_of(values[:3], values[[4, 5, 6, 3]]))
    return TruthFile("euroc", stamps, poses)
