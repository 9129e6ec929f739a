# SPDX-License-Identifier: Apache-2.0
"""Trajectories as files: TUM, ``timestamp tx ty tz qx qy qz qw``, and KITTI, as evo reads them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from xsvggt_ros.errors import SourceError
from xsvggt_ros.geometry.files import replacing
from xsvggt_ros.geometry.rigid import quaternion_from_matrix

NANOSECONDS = 1_000_000_000


@dataclass(frozen=True)
class Trajectory:
    """Poses over time.

    ``stamps`` are int64 [n] in nanoseconds, ``positions`` float64 [n, 3], ``quaternions``
    float64 [n, 4] as x, y, z, w.
    """

    stamps: NDArray[np.int64]
    positions: NDArray[np.float64]
    quaternions: NDArray[np.float64]

    @classmethod
    def from_poses(cls, stamps: Sequence[int], poses: Sequence[NDArray[np.float64]]) -> Trajectory:
        """Build a trajectory of [4, 4] matrices."""
        return cls(
            np.array(stamps, np.int64),
            np.array([pose[:3, 3] for pose in poses], np.float64).reshape(-1, 3),
            np.array([quaternion_from_matrix(p[:3, :3]) for p in poses], np.float64).reshape(-1, 4),
        )

    def __len__(self) -> int:
        """Return the number of poses."""
        return len(self.stamps)


def write_tum(path: str | Path, trajectory: Trajectory) -> None:
    """Write a trajectory with 9 decimals, so that stamps equal the input's to the nanosecond."""
    with replacing(Path(path)) as stream:
        stream.write(b"# timestamp tx ty tz qx qy qz qw\n")
        for stamp, position, quaternion in zip(
            trajectory.stamps.tolist(), trajectory.positions, trajectory.quaternions, strict=True
        ):
            numbers = " ".join(f"{value:.9f}" for value in (*position, *quaternion))
            stream.write(f"{seconds_text(stamp)} {numbers}\n".encode("ascii"))


def write_kitti(path: str | Path, poses: Sequence[NDArray[np.float64]]) -> None:
    """Write camera-to-world matrices [4, 4] as KITTI odometry has them: rows of 12, no stamps."""
    with replacing(Path(path)) as stream:
        for pose in poses:
            numbers = " ".join(f"{value:.9e}" for value in pose[:3].ravel())
            stream.write(f"{numbers}\n".encode("ascii"))


def seconds_text(stamp: int) -> str:
    """Return nanoseconds as seconds with nine decimals, exactly."""
    whole, rest = divmod(abs(stamp), NANOSECONDS)
    return f"{'-' if stamp < 0 else ''}{whole}.{rest:09d}"


def read_tum(path: str | Path) -> Trajectory:
    """Read a trajectory; lines that begin with # are remarks.

    Raises SourceError where the file is missing or a line does not hold eight numbers.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"cannot read the trajectory {path}: {error}") from error
    rows = [
        _row(path, number, line)
        for number, line in enumerate(lines, start=1)
        if line.strip() and not line.lstrip().startswith("#")
    ]
    values = np.array([row[1] for row in rows], np.float64).reshape(-1, 7)
    return Trajectory(np.array([row[0] for row in rows], np.int64), values[:, :3], values[:, 3:])


def _row(path: str | Path, number: int, line: str) -> tuple[int, list[float]]:
    """Return the stamp in nanoseconds and the seven numbers of a line."""
    try:
        seconds, *values = (Decimal(word) for word in line.split())
        if len(values) != 7 or not all(word.is_finite() for word in (seconds, *values)):
            raise InvalidOperation
    except (InvalidOperation, ValueError):
        raise SourceError(
            f"line {number} of {path} is not 'timestamp tx ty tz qx qy qz qw': {line.strip()!r}"
        ) from None
    return int(seconds * NANOSECONDS), [float(value) for value in values]
