# SPDX-License-Identifier: Apache-2.0
"""KITTI depth: J. Uhrig et al., "Sparsity Invariant CNNs", 3DV 2017.

16 bit, 256 steps a metre, 0 unknown. ``depth_selection/val_selection_cropped`` has two layouts: the
official one, with ``image/DRIVE_image_NNNNNNNNNN_image_02.png`` and ``groundtruth_depth/``, whose
images stand alone; and MonST3R's, with whole drives in ``image_gathered/DRIVE/`` and
``groundtruth_depth_gathered/DRIVE/``, which video depth is measured on.
"""

from __future__ import annotations

from pathlib import Path

from xsvggt_ros.evaluation.sources.base import SourceOptions
from xsvggt_ros.evaluation.sources.files import (
    choose,
    depth_file,
    directories,
    focal_numbers,
    has,
    image_size,
    images,
    steps,
)
from xsvggt_ros.evaluation.sources.recorded import Layout, Record, RecordedSource
from xsvggt_ros.geometry.cameras import Intrinsics
from xsvggt_ros.stream.sources.base import stamp_at

RATE = 10.0
STEPS_PER_METRE = 256.0

_GATHERED = ("image_gathered", "groundtruth_depth_gathered")
_ALONE = ("image", "groundtruth_depth")


def matches(directory: Path) -> bool:
    """Tell whether a directory has one of the two layouts, or is a gathered drive."""
    return any(has(directory, *names) for names in (_GATHERED, _ALONE)) or _is_drive(directory)


def open_directory(directory: Path, options: SourceOptions) -> RecordedSource:
    """Open a gathered drive, or the images that stand alone.

    Raises:
        SourceError: files are missing, or there are several drives.

    """
    if _is_drive(directory):
        return _gathered(directory, options)
    if has(directory, *_GATHERED):
        drives = directories(directory / _GATHERED[0])
        return _gathered(choose(directory, drives, options.sequence), options)
    return _alone(directory, options)


def _is_drive(directory: Path) -> bool:
    return directory.parent.name == _GATHERED[0] and directory.is_dir()


def _gathered(drive: Path, options: SourceOptions) -> RecordedSource:
    colors = images(drive)
    place = drive.parent.parent / _GATHERED[1] / drive.name
    depths = [depth_file(place, each.stem) for each in colors]
    return _source(drive, drive.name, colors, depths, [None] * len(colors), options)


def _alone(directory: Path, options: SourceOptions) -> RecordedSource:
    colors = images(directory / _ALONE[0])
    depths = [depth_file(directory / _ALONE[1], _name_of_depth(each)) for each in colors]
    size = image_size(colors)
    cameras = [_intrinsics(directory / "intrinsics" / f"{each.stem}.txt", size) for each in colors]
    return _source(directory, "kitti_selection", colors, depths, cameras, options)


def _name_of_depth(color: Path) -> str:
    """Return the depth's name: the first "image" of the image's says "groundtruth_depth"."""
    return color.stem.replace("_image_", "_groundtruth_depth_", 1)


def _intrinsics(path: Path, size: tuple[int, int]) -> Intrinsics | None:
    if not path.exists():
        return None
    return Intrinsics(*focal_numbers(path), *size)


def _source(
    place: Path,
    name: str,
    colors: list[Path],
    depths: list[Path | None],
    cameras: list[Intrinsics | None],
    options: SourceOptions,
) -> RecordedSource:
    given = options.intrinsics and Intrinsics(*options.intrinsics, *image_size(colors))
    records = [
        Record(stamp_at(index, RATE), color, depth, None, given or own)
        for index, (color, depth, own) in enumerate(zip(colors, depths, cameras, strict=True))
    ]
    return RecordedSource(
        Layout(
            kind="kitti_depth",
            path=place,
            name=name,
            records=records,
            read_depth=steps(options.depth_scale or STEPS_PER_METRE),
            provenance={"poses": "none", "depth": "laser, accumulated, sparse"},
        ),
        options,
    )
