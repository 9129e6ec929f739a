# SPDX-License-Identifier: Apache-2.0
"""Files: whole or not there at all, as are directories; and clouds and trajectories in them.

Clouds are PLY, as MeshLab, CloudCompare, Blender and Open3D read it, and PCD, as the Point Cloud
Library does. Trajectories are TUM, ``timestamp tx ty tz qx qy qz qw``, and KITTI, as evo reads
them.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from xsvggt_ros.errors import OutputError, PartlyWrittenError, XsvggtError
from xsvggt_ros.geometry.rigid import Matrix, pose_from, quaternion_from_matrix
from xsvggt_ros.geometry.text_tables import SECOND, Table, nanoseconds_of, read_table

logger = logging.getLogger(__name__)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file beside ``path`` for writing that takes its place once the block has ended.

    When the block raises, ``path`` stays as it was. Missing directories are made.

    Raises:
        OutputError: nothing can be written there.

    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as stream:
            yield stream
        partial.replace(path)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        with suppress(OSError):
            partial.unlink()


def write_each(writers: Mapping[Path, Callable[[], object]]) -> list[Path]:
    """Write several files, and go on where one fails; return their paths.

    Args:
        writers: what writes each path, the small files first: they still fit on a full disk.

    Raises:
        PartlyWrittenError: one or several could not be written; all others were.

    """
    written: list[Path] = []
    failures: list[str] = []
    for path, write in writers.items():
        try:
            write()
        except Exception as error:
            known = isinstance(error, XsvggtError)
            text = str(error) if known else f"'{path}': unexpected {type(error).__name__}: {error}"
            failures.append(text)
            if not known:
                logger.debug("unexpected failure while writing %s", path, exc_info=error)
        else:
            written.append(path)
    if failures:
        raise PartlyWrittenError(
            f"{len(failures)} of {len(writers)} files are missing: {'; '.join(failures)}", written
        )
    return written


def _unwritable(path: Path, error: OSError) -> OutputError:
    return OutputError(
        f"'{path}' cannot be written ({error.strerror or error}); choose another place, or free "
        "room and rights there"
    )


UNFINISHED = ".partial"
"""What a directory is called that is being filled, inside the one that it is for, or the end of its
name beside it. It can be removed."""


@contextmanager
def replacing_directory(path: Path) -> Iterator[Path]:
    """Yield a place to fill whose content is that of ``path`` once the block has ended.

    The place has the same name and is not made yet. When the block raises, ``path`` stays as it
    was. A directory that is there is filled, not exchanged: it may be where a disk is mounted, or
    where somebody stands.

    Raises:
        OutputError: nothing can be written there.

    """
    goal = path.absolute()
    there = goal.is_dir()
    shelter = goal / UNFINISHED if there else goal.with_name(f".{goal.name}{UNFINISHED}")
    try:
        shutil.rmtree(shelter, ignore_errors=True)
        shelter.mkdir(parents=True)
        yield shelter / goal.name
        if there:
            _exchange_content(goal, shelter)
        else:
            (shelter / goal.name).rename(goal)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        shutil.rmtree(shelter, ignore_errors=True)


def _exchange_content(goal: Path, shelter: Path) -> None:
    """Put what lies in the shelter's directory into ``goal``, in place of all else."""
    for each in goal.iterdir():
        if each != shelter:
            shutil.rmtree(each) if each.is_dir() and not each.is_symlink() else each.unlink()
    # What was written last lists the others, so it comes last.
    written = sorted((shelter / goal.name).iterdir(), key=lambda each: each.stat().st_mtime_ns)
    for each in written:
        each.rename(goal / each.name)


def require_writable(directory: Path) -> None:
    """Try whether files can be put into ``directory``, so that a long run does not end in vain.

    Nothing is left there; rights alone do not tell of /proc, of a read-only disk, or of a link.

    Raises:
        OutputError: it, or the directory that it would be made in, takes no files.

    """
    place = directory.absolute()
    nearest = next(each for each in (place, *place.parents) if os.path.lexists(each))
    try:
        if not nearest.is_dir():
            kind = "is a link to nothing" if nearest.is_symlink() else "is no directory"
            raise OutputError(
                f"cannot write into '{directory}': '{nearest}' {kind}; choose another place"
            )
        with TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise OutputError(
            f"cannot write into '{directory}': '{nearest}' takes no files ({error.strerror}); "
            "choose another place"
        ) from error


Points = NDArray[np.float32]
Colors = NDArray[np.uint8]
Confidences = NDArray[np.float32]

_POSITION = [("x", "<f4"), ("y", "<f4"), ("z", "<f4")]
_COLOR = [("red", "|u1"), ("green", "|u1"), ("blue", "|u1")]
_CONFIDENCE = ("confidence", "<f4")
_PLY_TYPES = {"<f4": "float", "|u1": "uchar"}


def cloud_writer(path: str | Path) -> Callable[..., None]:
    """Return what writes a file of this name; raise OutputError for an unknown ending."""
    ending = Path(path).suffix.lower()
    if ending not in _WRITERS:
        raise OutputError(
            f"'{path}' ends in '{ending}'; a cloud is written to {' or '.join(_WRITERS)}"
        )
    return _WRITERS[ending]


def write_ply(
    path: str | Path, points: Points, colors: Colors, confidence: Confidences | None = None
) -> None:
    """Write a cloud, binary little endian; the file appears whole or not at all.

    Args:
        path: of the file.
        points: finite, [n, 3].
        colors: RGB, [n, 3].
        confidence: [n], or None.

    Raises:
        ValueError: other shapes.
        OutputError: it cannot be written.

    """
    _check(points, colors, confidence)
    fields = [*_POSITION, *_COLOR, *([] if confidence is None else [_CONFIDENCE])]
    rows = _rows(fields, points, confidence)
    for channel, (name, _) in enumerate(_COLOR):
        rows[name] = colors[:, channel]
    properties = [f"property {_PLY_TYPES[kind]} {name}" for name, kind in fields]
    lines = ["ply", "format binary_little_endian 1.0", f"element vertex {len(rows)}"]
    _write(path, [*lines, *properties, "end_header"], rows)


def write_pcd(
    path: str | Path, points: Points, colors: Colors, confidence: Confidences | None = None
) -> None:
    """Write a cloud as binary PCD 0.7; ``rgb`` is 0x00RRGGBB in the bits of a float32, as in PCL.

    Args and errors as for :func:`write_ply`.
    """
    _check(points, colors, confidence)
    fields = [*_POSITION, ("rgb", "<u4"), *([] if confidence is None else [_CONFIDENCE])]
    rows = _rows(fields, points, confidence)
    red, green, blue = colors.T.astype(np.uint32)
    rows["rgb"] = red << 16 | green << 8 | blue
    count = len(fields)
    header = [
        "# .PCD v0.7 - Point Cloud Data file format",
        "VERSION 0.7",
        f"FIELDS {' '.join(name for name, _ in fields)}",
        f"SIZE {' '.join('4' * count)}",
        f"TYPE {' '.join('F' * count)}",
        f"COUNT {' '.join('1' * count)}",
        f"WIDTH {len(rows)}",
        "HEIGHT 1",
        "VIEWPOINT 0 0 0 1 0 0 0",
        f"POINTS {len(rows)}",
        "DATA binary",
    ]
    _write(path, header, rows)


_WRITERS: dict[str, Callable[..., None]] = {".ply": write_ply, ".pcd": write_pcd}


def _check(points: Points, colors: Colors, confidence: Confidences | None) -> None:
    if points.shape != colors.shape or points.shape[1:] != (3,):
        raise ValueError(
            f"points {points.shape} and colors {colors.shape} must both have the shape (n, 3)"
        )
    if confidence is not None and confidence.shape != points.shape[:1]:
        raise ValueError(f"confidence {confidence.shape} must have the shape ({len(points)},)")


def _rows(
    fields: list[tuple[str, str]], points: Points, confidence: Confidences | None
) -> NDArray[np.void]:
    rows = np.empty(len(points), fields)
    for axis, (name, _) in enumerate(_POSITION):
        rows[name] = points[:, axis]
    if confidence is not None:
        rows["confidence"] = confidence
    return rows


def _write(path: str | Path, header: list[str], rows: NDArray[np.void]) -> None:
    with replacing(Path(path)) as stream:
        stream.write("\n".join([*header, ""]).encode("ascii"))
        stream.write(rows.tobytes())


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
        """Build a trajectory of [4, 4] matrices; a rotation of NaN becomes a quaternion of zero."""
        return cls(
            np.array(stamps, np.int64),
            np.array([pose[:3, 3] for pose in poses], np.float64).reshape(-1, 3),
            np.array([_quaternion(p[:3, :3]) for p in poses], np.float64).reshape(-1, 4),
        )

    def poses(self) -> list[Matrix]:
        """Return the poses, [4, 4]; the rotation is NaN where the quaternion is zero."""
        pairs = zip(self.positions, self.quaternions, strict=True)
        return [pose_from(position, quaternion) for position, quaternion in pairs]

    def __len__(self) -> int:
        """Return the number of poses."""
        return len(self.stamps)


def _quaternion(rotation: Matrix) -> NDArray[np.float64]:
    """Return the quaternion of a rotation; zero, as TUM's tools do, where it is not known."""
    return quaternion_from_matrix(rotation) if np.isfinite(rotation).all() else np.zeros(4)


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
    whole, rest = divmod(abs(stamp), SECOND)
    return f"{'-' if stamp < 0 else ''}{whole}.{rest:09d}"


def read_tum(path: str | Path) -> Trajectory:
    """Read a trajectory, as :mod:`~xsvggt_ros.geometry.text_tables` reads files.

    A row whose numbers are not finite, or whose quaternion is zero, is kept as it is.

    Raises:
        SourceError: the file is missing, or a line does not hold eight numbers.

    """
    return trajectory_of(read_table(Path(path), (8,)))


def trajectory_of(table: Table, usual: str = "seconds", *, w_first: bool = False) -> Trajectory:
    """Return the trajectory of a table with time, position and quaternion in its first columns.

    Args:
        table: with eight columns or more.
        usual: unit of its times where they do not tell.
        w_first: whether the quaternion is w, x, y, z.

    Raises:
        SourceError: a time is none.

    """
    values = table.values() if table.rows else np.zeros((0, 8))
    order = [5, 6, 7, 4] if w_first else [4, 5, 6, 7]
    stamps = np.array(nanoseconds_of(table, usual), np.int64)
    return Trajectory(stamps, values[:, 1:4], values[:, order])
