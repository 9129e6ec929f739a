# SPDX-License-Identifier: Apache-2.0
"""MPI Sintel.

D. Butler et al., "A naturalistic open source movie for optical flow evaluation", ECCV 2012:
``training/final/SCENE/frame_NNNN.png`` (or ``clean``), ``training/depth/SCENE/*.dpt`` and
``training/camdata_left/SCENE/*.cam`` (K and world-to-camera).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from xsvggt_ros.errors import SourceError
from xsvggt_ros.evaluation.sources.base import SourceOptions
from xsvggt_ros.evaluation.sources.files import (
    SINTEL_TAG,
    choose,
    directories,
    has,
    image_size,
    images,
    sintel_dpt,
)
from xsvggt_ros.evaluation.sources.recorded import Layout, Record, RecordedSource
from xsvggt_ros.geometry.cameras import Intrinsics
from xsvggt_ros.geometry.rigid import Matrix, invert
from xsvggt_ros.stream.sources.base import stamp_at

RATE = 24.0
SIZE = 1024, 436
"""Of the images that a .cam file is for."""

PASSES = ("final", "clean")


def matches(directory: Path) -> bool:
    """Tell whether a directory is a scene, a pass, ``training`` or the root."""
    return _is_scene(directory) or _pass_of(directory) is not None


def open_directory(directory: Path, options: SourceOptions) -> RecordedSource:
    """Open a scene; of the root or of ``training``, of the final pass.

    Raises:
        SourceError: files are missing or damaged, or there are several scenes.

    """
    place = directory if _is_scene(directory) else _choose(directory, options)
    training = place.parent.parent
    colors = images(place)
    size = image_size(colors)
    records = [_record(training, index, color, size) for index, color in enumerate(colors)]
    return RecordedSource(
        Layout(
            kind="sintel",
            path=place,
            name=place.name,
            records=records,
            read_depth=sintel_dpt,
            provenance={"pass": place.parent.name, "poses": "camdata_left/", "depth": "depth/"},
        ),
        options,
    )


def _is_scene(directory: Path) -> bool:
    return directory.parent.name in PASSES and any(directory.glob("frame_*.png"))


def _pass_of(directory: Path) -> Path | None:
    """Return the directory of the scenes of one pass."""
    for training in (directory, directory / "training", directory.parent):
        if has(training, "depth") and has(training, PASSES[0]):
            passes = [directory] if directory.name in PASSES else [training / PASSES[0]]
            return passes[0]
    return None


def _choose(directory: Path, options: SourceOptions) -> Path:
    scenes = _pass_of(directory)
    assert scenes is not None
    return choose(directory, directories(scenes), options.sequence)


def _record(training: Path, index: int, color: Path, size: tuple[int, int]) -> Record:
    scene = color.parent.name
    depth = training / "depth" / scene / f"{color.stem}.dpt"
    camera = training / "camdata_left" / scene / f"{color.stem}.cam"
    intrinsics, pose = read_cam(camera, size) if camera.exists() else (None, None)
    found = depth if depth.exists() else None
    return Record(stamp_at(index, RATE), color, found, pose, intrinsics)


def read_cam(path: Path, size: tuple[int, int]) -> tuple[Intrinsics, Matrix]:
    """Return intrinsics and camera-to-world pose of a .cam file for an image of a size.

    The file holds a tag, K [3, 3] and world-to-camera [3, 4], float64, little endian.

    Raises:
        SourceError: it is missing or damaged.

    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror}") from error
    if len(data) != 4 + 8 * 21 or np.frombuffer(data, "<f4", 1)[0] != np.float32(SINTEL_TAG):
        raise SourceError(f"{path} with its {len(data)} bytes is no camera of Sintel")
    k = np.frombuffer(data, "<f8", 9, 4).reshape(3, 3)
    extrinsics = np.eye(4)
    extrinsics[:3] = np.frombuffer(data, "<f8", 12, 4 + 72).reshape(3, 4)
    fx, fy, cx, cy = float(k[0, 0]), float(k[1, 1]), float(k[0, 2]), float(k[1, 2])
    return Intrinsics(fx, fy, cx, cy, *SIZE).at_size(*size), invert(extrinsics)
