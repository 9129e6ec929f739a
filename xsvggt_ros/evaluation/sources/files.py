# SPDX-License-Identifier: Apache-2.0
"""Reading the small text files and folders that data sets are made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from xsvggt_ros.errors import SourceError
from xsvggt_ros.geometry.rigid import Matrix, matrix_from_quaternion
from xsvggt_ros.geometry.trajectory_io import Trajectory
from xsvggt_ros.stream.sources.images import is_image
from xsvggt_ros.stream.sources.names import natural_order


def pictures(folder: Path, pattern: str = "*") -> list[Path]:
    """List the pictures of a folder that fit a pattern, 2 before 10.

    Raises:
        SourceError: there are none.

    """
    found = sorted((p for p in folder.glob(pattern) if is_image(p)), key=natural_order)
    if not found:
        raise SourceError(f"{folder} holds no picture '{pattern}'; is the data set complete?")
    return found


def text(path: Path) -> str:
    """Return what a text file holds, or raise SourceError."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"cannot read {path}: {error}") from error


def rows(path: Path) -> list[list[str]]:
    """Return the words of each line that is neither empty nor a remark (#)."""
    lines = (line.strip() for line in text(path).splitlines())
    return [line.replace(",", " ").split() for line in lines if line and not line.startswith("#")]


def numbers(path: Path, columns: int | None = None) -> NDArray[np.float64]:
    """Return a table of numbers, float64 [rows, columns].

    Raises:
        SourceError: it is missing, or not such a table.

    """
    try:
        table = np.array([[float(word) for word in row] for row in rows(path)], np.float64)
    except ValueError as error:
        raise SourceError(f"{path} is no table of numbers: {error}") from error
    if table.ndim != 2 or (columns is not None and table.shape[1] != columns):
        raise SourceError(
            f"{path} has the shape {table.shape}; {columns or 'equal'} columns needed"
        )
    return table


def matrix(path: Path) -> Matrix | None:
    """Return a pose [4, 4] out of a file of its own; None where it is not finite (lost)."""
    table = numbers(path, 4)
    if table.shape != (4, 4):
        raise SourceError(f"{path} has the shape {table.shape}; a 4x4 matrix is needed")
    return finite(table)


def finite(pose: Matrix) -> Matrix | None:
    """Return the pose, or None where it is not finite: data sets write lost poses so."""
    return pose if np.isfinite(pose).all() else None


def pose_of(position: NDArray[np.float64], quaternion: NDArray[np.float64]) -> Matrix:
    """Return the pose [4, 4] of a position [3] and a quaternion x, y, z, w."""
    pose = np.eye(4)
    pose[:3, :3] = matrix_from_quaternion(quaternion)
    pose[:3, 3] = position
    return pose


def poses_of(trajectory: Trajectory) -> list[Matrix]:
    """Return the poses of a trajectory."""
    pairs = zip(trajectory.positions, trajectory.quaternions, strict=True)
    return [pose_of(position, quaternion) for position, quaternion in pairs]


def has(folder: Path, *names: str) -> bool:
    """Tell whether a folder holds files or folders of all these names."""
    return all((folder / name).exists() for name in names)


def choose(place: Path, found: Mapping[str, Path], wanted: str | None) -> Path:
    """Return the wanted sequence, or the only one.

    Raises:
        SourceError: it is not there, or there are several; the message lists them.

    """
    if wanted is not None and wanted in found:
        return found[wanted]
    names = ", ".join(sorted(found)) or "none"
    if wanted is not None:
        raise SourceError(f"{place} has no sequence '{wanted}'; it has {names}")
    if len(found) != 1:
        raise SourceError(
            f"{place} holds {len(found)} sequences: name one (--sequence), or give its folder; "
            f"they are {names}"
        )
    return next(iter(found.values()))


def folders(parent: Path, pattern: str = "*") -> dict[str, Path]:
    """Return the folders in a folder by name."""
    return by_name(each for each in parent.glob(pattern) if each.is_dir())


def by_name(paths: Iterable[Path]) -> dict[str, Path]:
    """Return paths by their names."""
    return {each.name: each for each in sorted(paths)}
