# SPDX-License-Identifier: Apache-2.0
"""TUM RGB-D and Bonn RGB-D Dynamic, which share their layout.

J. Sturm et al., "A Benchmark for the Evaluation of RGB-D SLAM Systems", IROS 2012: ``rgb.txt``,
``depth.txt`` and ``groundtruth.txt``, each line led by a stamp in seconds; 16-bit depth, 5000 steps
a metre, registered to the picture. E. Palazzolo et al., "ReFusion", IROS 2019, for Bonn.
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from xsvggt_ros.errors import SourceError
from xsvggt_ros.evaluation.sources.base import SourceOptions
from xsvggt_ros.evaluation.sources.depth_reading import steps
from xsvggt_ros.evaluation.sources.files import choose, folders, has, numbers, poses_of, rows
from xsvggt_ros.evaluation.sources.recorded import Layout, Record, RecordedSource
from xsvggt_ros.evaluation.sources.sizes import picture_size
from xsvggt_ros.evaluation.trajectory import associate
from xsvggt_ros.geometry.cameras import Intrinsics
from xsvggt_ros.geometry.trajectory_io import NANOSECONDS, read_tum

STEPS_PER_METRE = 5000.0

CAMERAS = {
    "freiburg1": (517.306408, 516.469215, 318.643040, 255.313989),
    "freiburg2": (520.908620, 521.007327, 325.141442, 249.701764),
    "freiburg3": (535.433105, 539.212524, 320.106653, 247.632132),
    "bonn": (542.822841, 542.576870, 315.593520, 237.756098),
}
"""fx, fy, cx, cy by a part of the folder's name, from the data sets' own pages."""

DEFAULT_CAMERA = (525.0, 525.0, 319.5, 239.5)
"""What TUM's tools take where nothing is known."""


_DISTORTED = "the lens distorts, and pictures are taken as they are"


def matches(folder: Path) -> bool:
    """Tell whether a folder, or each folder in it that counts, is one of these sequences."""
    return _is_sequence(folder) or bool(_sequences(folder))


def open_folder(folder: Path, options: SourceOptions) -> RecordedSource:
    """Open a sequence, or one of the sequences in a folder.

    Raises:
        SourceError: files are missing or damaged, or there are several sequences.

    """
    place = folder if _is_sequence(folder) else choose(folder, _sequences(folder), options.sequence)
    stamps, pictures = _listed(place / "rgb.txt", place)
    tolerance = round(options.tolerance * NANOSECONDS)
    depths = _depths(place, stamps, tolerance)
    poses = _poses(place, stamps, tolerance)
    camera, origin = _camera(place, options)
    intrinsics = Intrinsics(*camera, *picture_size(pictures[0]))
    records = [
        Record(int(stamp), picture, depths.get(index), poses.get(index), intrinsics)
        for index, (stamp, picture) in enumerate(zip(stamps, pictures, strict=True))
    ]
    kind = "bonn" if "bonn" in _called(place) else "tum"
    distorted = any(name in place.name for name in ("freiburg1", "freiburg2"))
    return RecordedSource(
        Layout(
            kind=kind,
            path=place,
            name=place.name,
            records=records,
            read_depth=steps(options.depth_scale or STEPS_PER_METRE),
            provenance={"intrinsics": list(camera), "intrinsics_from": origin,
                        "poses": "groundtruth.txt", "depth": "depth.txt",
                        "tolerance_s": options.tolerance},
            warnings=(_DISTORTED,) if distorted else (),
        ),
        options,
    )  # fmt: skip


def _is_sequence(folder: Path) -> bool:
    return has(folder, "rgb.txt", "groundtruth.txt") or has(folder, "rgb.txt", "depth.txt")


def _sequences(folder: Path) -> dict[str, Path]:
    return {name: each for name, each in folders(folder).items() if _is_sequence(each)}


def _called(place: Path) -> str:
    return f"{place.parent.name}/{place.name}".lower()


def _listed(path: Path, folder: Path) -> tuple[NDArray[np.int64], list[Path]]:
    """Return the stamps in rising order and the files of a list."""
    entries = sorted((_stamp(path, row), folder / row[1]) for row in rows(path) if len(row) > 1)
    if not entries:
        raise SourceError(f"{path} lists no file")
    stamps, files = zip(*entries, strict=True)
    return np.array(stamps, np.int64), list(files)


def _stamp(path: Path, row: list[str]) -> int:
    try:
        return int(Decimal(row[0]) * NANOSECONDS)
    except (InvalidOperation, ValueError):
        raise SourceError(f"'{row[0]}' in {path} is no time in seconds") from None


def _depths(place: Path, stamps: NDArray[np.int64], tolerance: int) -> dict[int, Path]:
    if not (place / "depth.txt").exists():
        return {}
    others, files = _listed(place / "depth.txt", place)
    matched = zip(*associate(stamps, others, tolerance), strict=True)
    return {int(mine): files[int(theirs)] for mine, theirs in matched}


def _poses(
    place: Path, stamps: NDArray[np.int64], tolerance: int
) -> dict[int, NDArray[np.float64]]:
    if not (place / "groundtruth.txt").exists():
        return {}
    trajectory = read_tum(place / "groundtruth.txt")
    order = np.argsort(trajectory.stamps, kind="stable")
    poses = poses_of(trajectory)
    matched = zip(*associate(stamps, trajectory.stamps[order], tolerance), strict=True)
    return {int(mine): poses[int(order[int(theirs)])] for mine, theirs in matched}


def _camera(place: Path, options: SourceOptions) -> tuple[tuple[float, float, float, float], str]:
    """Return fx, fy, cx, cy and where they come from."""
    if options.intrinsics is not None:
        return options.intrinsics, "option"
    if (place / "calibration.txt").exists():
        fx, fy, cx, cy = numbers(place / "calibration.txt")[0][:4].tolist()
        return (fx, fy, cx, cy), "calibration.txt"
    for part, camera in CAMERAS.items():
        if part in _called(place):
            return camera, f"published for {part}"
    return DEFAULT_CAMERA, "TUM's default"
