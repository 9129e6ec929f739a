# SPDX-License-Identifier: Apache-2.0
"""True poses out of files of TUM, KITTI, EuRoC and what lies between them, and where they enter.

What is no pose is none, and is counted.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from xsvggt_ros.errors import SourceError
from xsvggt_ros.geometry.files import seconds_text, trajectory_of
from xsvggt_ros.geometry.rigid import Matrix, is_pose, is_position, pose_from
from xsvggt_ros.geometry.text_tables import (
    SECOND,
    Row,
    Table,
    nanoseconds_of,
    read_cells,
    require_numbers,
)

STAMPED = 8
"""Stamp, position, quaternion; of EuRoC, velocities and biases may follow."""

_FLAT = (12, 13, 16)
"""Columns of matrices in one line."""

_AXES = "xyz"
_SECONDS = ("sec", "secs", "seconds", "stamp_sec", "stamp_secs")
_REST = ("nsec", "nsecs", "nanosec", "nanosecs", "nanoseconds", "stamp_nsec", "stamp_nsecs",
         "stamp_nanosec")  # fmt: skip
"""Names of columns with whole seconds, and with the nanoseconds beyond them."""
_TIMES = ("timestamp", "header_stamp", "time", "t", "stamp", *_SECONDS, "ns", "nsec",
          "timestamp_ns", "timestamp_s", "time_s", "time_ns")  # fmt: skip
_PLACES = ("{}", "t{}", "p{}", "t_{}", "p_{}", "pos_{}", "position_{}", "pose_{}", "p_rs_r_{}",
           "translation_{}")  # fmt: skip
_TURNS = ("q{}", "q_{}", "q_rs_{}", "quat_{}", "quaternion_{}", "rot_{}", "rotation_{}",
          "orientation_{}")  # fmt: skip
"""Names of columns, with the axis; tools put the path of a message's field before them."""


_NO_TIME = ("", "nan", "-nan", "none", "null", "nat")

logger = logging.getLogger(__name__)


class TruthFile(NamedTuple):
    """Poses [4, 4] and their stamps in nanoseconds; without stamps there is one for each image.

    A pose may be none, see :mod:`~xsvggt_ros.evaluation.sources.truth_files`.
    """

    kind: str
    stamps: list[int] | None
    poses: list[Matrix]


def read_truth(path: Path) -> TruthFile:
    """Read a trajectory; the format is known by its columns and its header.

    A header that names all columns decides, in whatever order they stand and whatever words stand
    between them, as ``rostopic echo -p``, PlotJuggler and pandas write them; seconds and
    nanoseconds may have a column each. Without one, 8 columns are a stamp, a position and a
    quaternion: with w last as in TUM's files, with w first in a .csv, as EuRoC's are, which may
    have more columns. 4 are a stamp and a position, or the rows of 4x4 matrices; 7 a pose of each
    image in turn, as ICL-NUIM has them; 12 a matrix of 3x4 of each image, as KITTI has them, 13
    with its number or time before it, 16 a matrix of 4x4.

    Raises:
        SourceError: the file is missing, damaged or of another format.

    """
    table = read_cells(path)
    csv = path.suffix.lower() == ".csv"
    if named := _named_columns(table):
        require_numbers(named.table)
        return _stamped(named.table, "euroc" if csv and named.w_first else "tum", w_first=False)
    require_numbers(table)
    if table.columns == STAMPED or (csv and table.columns > STAMPED and table.columns not in _FLAT):
        _require_quaternions(table, 4 if csv else table.columns - 4)
        return _stamped(table, "euroc" if csv else "tum", w_first=csv)
    values = table.values()
    if _is_stacked(values):
        return TruthFile("kitti", None, [_whole(rows.ravel()[:12]) for rows in
                                         values.reshape(-1, 4, 4)])  # fmt: skip
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
    names = [re.sub(r"\W+", "_", name).strip("_") for name in table.names]
    if not table.rows or len(names) != table.columns:
        return None
    places = [_column(names, _PLACES, axis) for axis in _AXES]
    turns = [_column(names, _TURNS, axis) for axis in (*_AXES, "w")]
    time, seconds, rest = (_place(names, each) for each in (_TIMES, _SECONDS, _REST))
    if min(time, *places) < 0:
        return None
    chosen = [*places, *(turns if min(turns) >= 0 else ())]
    apart = seconds >= 0 and rest >= 0
    rows = [
        Row(row.line, (_whole_time(row, seconds, rest) if apart else row.words[time],
                       *(row.words[each] for each in chosen)))
        for row in table.rows
    ]  # fmt: skip
    return _Named(Table(table.path, table.header, rows), 0 <= turns[3] < turns[0])


def _whole_time(row: Row, seconds: int, rest: int) -> str:
    """Return the seconds of a row with all their decimals."""
    whole, beyond = row.words[seconds], row.words[rest]
    if whole.lstrip("-").isdecimal() and beyond.isdecimal():
        return seconds_text(int(whole) * SECOND + int(beyond))
    return f"{whole}.{beyond}"  # none, as its line is told to be


def _column(names: list[str], patterns: tuple[str, ...], axis: str) -> int:
    """Return where the column of an axis stands, -1 where it is not named."""
    return _place(names, tuple(pattern.format(axis) for pattern in patterns))


def _place(names: list[str], known: tuple[str, ...]) -> int:
    """Return where the first of some known names stands, else one that ends as it does; else -1."""
    exact = next((names.index(name) for name in known if name in names), -1)
    if exact >= 0:
        return exact
    ends = tuple(f"_{name}" for name in known if "_" in name)
    return next((place for place, name in enumerate(names) if name.endswith(ends)), -1)


def _require_quaternions(table: Table, first: int) -> None:
    """Raise SourceError where columns that should hold quaternions mostly hold something else.

    Their length is the same in every row, or zero where a pose is lost; where more columns than
    usual leave open which they are, it is 1.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.linalg.norm(table.values()[:, first : first + 4], axis=1)
    lengths = lengths[np.isfinite(lengths) & (lengths > 0)]
    even = len(lengths) < 2 or np.ptp(np.quantile(lengths, (0.1, 0.9))) < 0.05 * np.median(lengths)
    sure = table.columns == STAMPED or not len(lengths) or abs(np.median(lengths) - 1) < 0.05
    if even and sure:
        return
    raise SourceError(
        f"{table.path} has {table.columns} columns, and its columns {first + 1} to {first + 4} "
        "hold no quaternions: name the columns in a first line, such as 'timestamp x y z qx qy qz "
        "qw'"
    )


def _is_stacked(values: NDArray[np.float64]) -> bool:
    """Tell whether rows of four numbers are those of matrices, one below the other."""
    if values.shape[1] != 4 or not len(values) or len(values) % 4:
        return False
    last = values[3::4]
    known = np.isfinite(last).all(axis=1)
    return bool(known.any() and (last[known] == (0.0, 0.0, 0.0, 1.0)).all())


def _stamped(table: Table, kind: str, *, w_first: bool) -> TruthFile:
    """Return poses that are led by their times; without quaternions, positions."""
    table = _with_times(table)
    usual = "nanoseconds" if kind == "euroc" or "[ns]" in table.header else "seconds"
    if table.columns < STAMPED:
        poses = [pose_from(row[1:4], np.zeros(4)) for row in table.values()]
        return TruthFile("positions", nanoseconds_of(table, usual), poses)
    trajectory = trajectory_of(table, usual, w_first=w_first)
    return TruthFile(kind, trajectory.stamps.tolist(), trajectory.poses())


def _with_times(table: Table) -> Table:
    """Leave out rows without a time, if others have one, and say so."""
    rows = [row for row in table.rows if row.words[0].lower() not in _NO_TIME]
    if not rows or len(rows) == len(table.rows):
        return table
    logger.warning(
        "%s: %d of %d poses have no time and are left out",
        table.path, len(table.rows) - len(rows), len(table.rows),
    )  # fmt: skip
    return Table(table.path, table.header, rows)


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


POSITIONS_ONLY = (
    "the truth has positions only (no quaternions, or zeros): orientation, RPE and clouds are not "
    "judged"
)


def true_poses(given: Sequence[Matrix | None], of: str) -> tuple[list[Matrix | None], list[str]]:
    """Return poses [4, 4] with None for what is none, and what to say of it.

    A pose is finite and rigid. Where no pose at all has a rotation, the truth is one of positions,
    and rotations stay NaN.

    Args:
        given: of each frame or stamp; None where there is none.
        of: where they come from, for the sentence.

    """
    there = [each for each in given if each is not None]
    if there and not any(map(is_pose, there)) and any(map(is_position, there)):
        kept = [each if each is not None and is_position(each) else None for each in given]
        remarks = [POSITIONS_ONLY]
    else:
        kept = [each if each is not None and is_pose(each) else None for each in given]
        remarks = []
    lost = len(there) - sum(each is not None for each in kept)
    if lost:
        remarks.append(
            f"{lost} of {len(there)} poses of {of} are none (not finite, or no rotation): they are "
            "left out"
        )
    return kept, remarks
