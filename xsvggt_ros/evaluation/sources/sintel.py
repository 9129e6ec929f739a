# SPDX-License-Identifier: Apache-2.0
"""MPI Sintel.

D. Butler et al., "A naturalistic open source movie for optical flow evaluation", ECCV 2012:
``training/final/SCENE/frame_NNNN.png`` (or ``clean``), ``training/depth/SCENE/*.dpt`` and
``training/camdata_left/SCENE/*.cam`` (K and world-to-camera).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from xsvggt_ros.errors import FrameError, SourceError
from xsvggt_ros.evaluation.request import SourceOptions
from xsvggt_ros.evaluation.sources.files import (
    Depth,
    directories,
    has,
    image_size,
    images,
    read_bytes,
)
from xsvggt_ros.evaluation.sources.recorded import DatasetLoader, Layout, Record
from xsvggt_ros.geometry.cameras import Intrinsics
from xsvggt_ros.geometry.rigid import Matrix, invert
from xsvggt_ros.stream.sources.base import stamp_at

SINTEL_TAG = 202021.25
"""Begins each .dpt and .cam file of Sintel; another number means another byte order."""


class Sintel(DatasetLoader):
    """Scenes of MPI Sintel; of the root or of ``training``, those of the final pass."""

    kind = "sintel"

    RATE = 24.0
    SIZE = 1024, 436
    """Of the images that a .cam file is for."""

    PASSES = ("final", "clean")

    def is_sequence(self, directory: Path) -> bool:
        """Tell whether a directory is a scene of one pass."""
        return directory.parent.name in self.PASSES and any(directory.glob("frame_*.png"))

    def sequences(self, directory: Path) -> dict[str, Path]:
        """Return the scenes of a pass, of ``training``, or of the root."""
        for training in (directory, directory / "training", directory.parent):
            if has(training, "depth") and has(training, self.PASSES[0]):
                named = directory.name in self.PASSES
                return directories(directory if named else training / self.PASSES[0])
        return {}

    def layout(self, place: Path, options: SourceOptions) -> Layout:
        """Describe a scene."""
        training = place.parent.parent
        colors = images(place)
        size = image_size(colors)
        return Layout(
            kind=self.kind,
            path=place,
            name=place.name,
            records=[self._record(training, *each, size) for each in enumerate(colors)],
            read_depth=sintel_dpt,
            provenance={"pass": place.parent.name, "poses": "camdata_left/", "depth": "depth/"},
        )

    def _record(self, training: Path, index: int, color: Path, size: tuple[int, int]) -> Record:
        scene = color.parent.name
        depth = training / "depth" / scene / f"{color.stem}.dpt"
        camera = training / "camdata_left" / scene / f"{color.stem}.cam"
        intrinsics, pose = read_cam(camera, size) if camera.exists() else (None, None)
        found = depth if depth.exists() else None
        return Record(stamp_at(index, self.RATE), color, found, pose, intrinsics)


def sintel_dpt(path: Path) -> Depth:
    """Read a .dpt of Sintel: tag, width, height, then float32 rows, little endian.

    Raises:
        FrameError: it is missing or damaged.

    """
    data = read_bytes(path)
    if len(data) < 12 or np.frombuffer(data, "<f4", 1)[0] != np.float32(SINTEL_TAG):
        raise FrameError(f"{path} does not begin with {SINTEL_TAG}: it is no depth of Sintel")
    width, height = (int(each) for each in np.frombuffer(data, "<i4", 2, 4))
    if min(width, height) < 1 or len(data) != 12 + 4 * width * height:
        raise FrameError(
            f"{path} announces {width}x{height} pixels and has {len(data)} bytes: it is damaged"
        )
    return np.frombuffer(data, "<f4", width * height, 12).reshape(height, width).copy()


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
    return Intrinsics(fx, fy, cx, cy, *Sintel.SIZE).at_size(*size), invert(extrinsics)
