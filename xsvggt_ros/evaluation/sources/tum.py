# SPDX-License-Identifier: Apache-2.0
"""TUM RGB-D and Bonn RGB-D Dynamic, which share their layout.

J. Sturm et al., "A Benchmark for the Evaluation of RGB-D SLAM Systems", IROS 2012: ``rgb.txt``,
``depth.txt`` and ``groundtruth.txt``, each line led by a stamp in seconds; 16-bit depth, 5000 steps
a metre, registered to the image. E. Palazzolo et al., "ReFusion", IROS 2019, for Bonn.

Bonn as MonST3R prepares it (J. Zhang et al., "MonST3R", ICLR 2025) is images 30 to 139 of a
sequence, depth paired by order: ``rgb_110/`` and ``depth_110/``. Where these are missing, the same
files are taken from ``rgb/`` and ``depth/``. Pairing by order is looser than by stamp, and is kept
because published figures rest on it.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from xsvggt_ros.errors import SourceError
from xsvggt_ros.evaluation.request import SourceOptions
from xsvggt_ros.evaluation.sources.base import (
    DatasetLoader,
    Layout,
    Record,
    RecordedSource,
    records_at,
)
from xsvggt_ros.evaluation.sources.files import (
    camera_of,
    focal_numbers,
    has,
    image_size,
    images,
    steps,
)
from xsvggt_ros.evaluation.sources.truth_files import read_truth, true_poses
from xsvggt_ros.geometry.cameras import Intrinsics
from xsvggt_ros.geometry.rigid import Matrix
from xsvggt_ros.geometry.text_tables import SECOND, Row, Table, nanoseconds_of, read_rows

STEPS_PER_METRE = 5000.0

CAMERAS = {
    "freiburg1": (517.306408, 516.469215, 318.643040, 255.313989),
    "freiburg2": (520.908620, 521.007327, 325.141442, 249.701764),
    "freiburg3": (535.433105, 539.212524, 320.106653, 247.632132),
    "bonn": (542.822841, 542.576870, 315.593520, 237.756098),
}
"""fx, fy, cx, cy by a part of the directory's name, from the data sets' own pages."""

DEFAULT_CAMERA = (525.0, 525.0, 319.5, 239.5)
"""What TUM's tools take where nothing is known."""

SIZE = 640, 480
"""Of the images that these numbers are for."""

_DISTORTED = "the lens distorts, and images are taken as they are"


class Tum(DatasetLoader):
    """Sequences of TUM RGB-D and of Bonn."""

    kind = "tum"

    def is_sequence(self, directory: Path) -> bool:
        """Tell whether a directory has a list of images, and one of poses or depth."""
        return has(directory, "rgb.txt") and any(
            has(directory, name) for name in ("groundtruth.txt", "depth.txt")
        )

    def layout(self, directory: Path, options: SourceOptions) -> Layout:
        """Describe a sequence."""
        stamps, colors = _listed(directory / "rgb.txt", directory)
        tolerance = round(options.tolerance * SECOND)
        depths = _depths(directory, stamps, tolerance)
        poses, truth = _poses(directory, stamps, tolerance)
        pinhole, origin, size = _camera(directory, options)
        camera = camera_of(pinhole, colors, size)
        distorted = any(name in directory.name for name in ("freiburg1", "freiburg2"))
        return Layout(
            kind="bonn" if "bonn" in _called(directory) else self.kind,
            path=directory,
            name=directory.name,
            records=[
                Record(int(stamp), color, depths.get(index), poses.get(index), camera)
                for index, (stamp, color) in enumerate(zip(stamps, colors, strict=True))
            ],
            read_depth=steps(options.depth_scale or STEPS_PER_METRE),
            provenance={
                "intrinsics": list(pinhole),
                "intrinsics_from": origin,
                "poses": "groundtruth.txt",
                "depth": "depth.txt",
                "tolerance_s": options.tolerance,
            },
            warnings=(*truth.remarks, *((_DISTORTED,) if distorted else ())),
            truth_stamps=truth.stamps,
        )


def _called(directory: Path) -> str:
    return f"{directory.parent.name}/{directory.name}".lower()


def _listed(path: Path, directory: Path) -> tuple[NDArray[np.int64], list[Path]]:
    """Return the stamps in rising order and the files of a list."""
    rows = [row for row in read_rows(path) if len(row.words) > 1]
    while rows and not rows[0].words[0].lstrip("-").replace(".", "", 1).isdecimal():
        header = rows.pop(0)  # without a mark
        if not rows:
            raise SourceError(
                f"line {header.line} of {path}: '{header.words[0]}' is no time, and no other line "
                "lists a file"
            )
    if not rows:
        raise SourceError(f"{path} lists no file")
    stamps = nanoseconds_of(Table(path, (), [Row(row.line, row.words[:1]) for row in rows]))
    files = [_named(directory, " ".join(row.words[1:])) for row in rows]
    pairs = sorted(zip(stamps, files, strict=True))
    return np.array([stamp for stamp, _ in pairs], np.int64), [file for _, file in pairs]


def _named(directory: Path, name: str) -> Path:
    """Return a file of a list, which Windows writes with backslashes."""
    return directory / (name if "/" in name else name.replace("\\", "/"))


def _depths(directory: Path, stamps: NDArray[np.int64], tolerance: int) -> dict[int, Path]:
    if not (directory / "depth.txt").exists():
        return {}
    others, files = _listed(directory / "depth.txt", directory)
    matched = zip(*associate(stamps, others, tolerance), strict=True)
    return {int(mine): files[int(theirs)] for mine, theirs in matched}


class _Truth(NamedTuple):
    """Times of the true poses, first and last, and what to say of them."""

    stamps: tuple[int, int] | None
    remarks: tuple[str, ...]


def _poses(
    directory: Path, stamps: NDArray[np.int64], tolerance: int
) -> tuple[dict[int, Matrix | None], _Truth]:
    path = directory / "groundtruth.txt"
    if not path.exists():
        return {}, _Truth(None, ())
    found = read_truth(path)
    if found.stamps is None:
        raise SourceError(f"{path} has no times, so that its poses belong to no image")
    poses, remarks = true_poses(found.poses, path.name)
    known = sorted(
        (stamp, index) for index, stamp in enumerate(found.stamps) if poses[index] is not None
    )
    if not known:
        return {}, _Truth(None, tuple(remarks))
    times = np.array([stamp for stamp, _ in known], np.int64)
    matched = zip(*associate(stamps, times, tolerance), strict=True)
    by_image = {int(mine): poses[known[int(theirs)][1]] for mine, theirs in matched}
    return by_image, _Truth((int(times[0]), int(times[-1])), tuple(remarks))


def _camera(
    directory: Path, options: SourceOptions
) -> tuple[tuple[float, float, float, float], str, tuple[int, int] | None]:
    """Return fx, fy, cx, cy, where they come from, and the size that they are for, if known."""
    if options.intrinsics is not None:
        return options.intrinsics, "option", None
    if (directory / "calibration.txt").exists():
        return focal_numbers(directory / "calibration.txt"), "calibration.txt", None
    for part, camera in CAMERAS.items():
        if part in _called(directory):
            return camera, f"published for {part}", SIZE
    return DEFAULT_CAMERA, "TUM's default", SIZE


RATE = 30.0
FIRST, LAST = 30, 140


def open_prepared(directory: Path) -> RecordedSource:
    """Open a sequence.

    Raises:
        SourceError: files are missing.

    """
    if has(directory, "rgb_110", "depth_110"):
        colors, depths = images(directory / "rgb_110"), images(directory / "depth_110")
    else:
        colors = images(directory / "rgb")[FIRST:LAST]
        depths = images(directory / "depth")[FIRST:LAST]
    if not colors or len(colors) > len(depths):
        raise SourceError(
            f"{directory} has {len(colors)} images from number {FIRST} on and {len(depths)} "
            "depths; is the sequence complete?"
        )
    camera = Intrinsics(*CAMERAS["bonn"], *image_size(colors))
    records = records_at(RATE, colors, depths[: len(colors)], [None] * len(colors), camera)
    provenance = {"poses": "none", "depth": "paired by order"}
    layout = Layout("bonn", directory, directory.name, records, steps(STEPS_PER_METRE), provenance)
    return RecordedSource(layout, SourceOptions())


def associate(
    stamps: NDArray[np.int64], others: NDArray[np.int64], tolerance: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Match each stamp with the nearest other one.

    Args:
        stamps: int64 [n], nanoseconds, ascending.
        others: int64 [m], likewise.
        tolerance: nanoseconds between the stamps of a pair, at most.

    Returns:
        Indices into ``stamps`` and ``others`` of the pairs no further than ``tolerance`` apart.

    """
    if not len(stamps) or not len(others):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    after = np.searchsorted(others, stamps).clip(0, len(others) - 1)
    before = (after - 1).clip(0)
    nearer_before = np.abs(stamps - others[before]) <= np.abs(others[after] - stamps)
    nearest = np.where(nearer_before, before, after).astype(np.int64)
    matched = np.flatnonzero(np.abs(others[nearest] - stamps) <= tolerance).astype(np.int64)
    return matched, nearest[matched]
