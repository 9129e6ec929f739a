# SPDX-License-Identifier: Apache-2.0
"""Drives and films: KITTI with poses, KITTI with the depth of a laser, MPI Sintel."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from xsvggt_ros.errors import FrameError, SourceError
from xsvggt_ros.evaluation.request import SourceOptions
from xsvggt_ros.evaluation.sources.base import DatasetLoader, Layout, Record
from xsvggt_ros.evaluation.sources.files import (
    Depth,
    camera_of,
    depth_file,
    directories,
    focal_numbers,
    has,
    image_size,
    images,
    numbers,
    read_bytes,
    steps,
)
from xsvggt_ros.geometry.cameras import Intrinsics
from xsvggt_ros.geometry.rigid import Matrix, invert
from xsvggt_ros.geometry.text_tables import SECOND, nanoseconds_of, read_rows, read_table
from xsvggt_ros.stream.sources.base import stamp_at

RATE = 10.0
STEPS_PER_METRE = 256.0


class KittiDepth(DatasetLoader):
    """KITTI depth: J. Uhrig et al., "Sparsity Invariant CNNs", 3DV 2017.

    16 bit, 256 steps a metre, 0 unknown. ``depth_selection/val_selection_cropped`` has two layouts:
    the official one, with ``image/DRIVE_image_NNNNNNNNNN_image_02.png`` and ``groundtruth_depth/``,
    whose images stand alone; and MonST3R's, with whole drives in ``image_gathered/DRIVE/`` and
    ``groundtruth_depth_gathered/DRIVE/``, which video depth is measured on.
    """

    kind = "kitti_depth"

    _GATHERED = ("image_gathered", "groundtruth_depth_gathered")
    _ALONE = ("image", "groundtruth_depth")

    def is_sequence(self, directory: Path) -> bool:
        """Tell whether a directory is a gathered drive, or holds images that stand alone."""
        return self._is_drive(directory) or (
            has(directory, *self._ALONE) and not has(directory, *self._GATHERED)
        )

    def _is_drive(self, directory: Path) -> bool:
        return directory.parent.name == self._GATHERED[0] and directory.is_dir()

    def sequences(self, directory: Path) -> dict[str, Path]:
        """Return the gathered drives."""
        return directories(directory / self._GATHERED[0])

    def matches(self, directory: Path) -> bool:
        """Tell whether a directory has one of the two layouts, or is a gathered drive."""
        return self.is_sequence(directory) or has(directory, *self._GATHERED)

    def layout(self, directory: Path, options: SourceOptions) -> Layout:
        """Describe a gathered drive, or the images that stand alone."""
        drive = self._is_drive(directory)
        colors = images(directory if drive else directory / self._ALONE[0])
        records = self._drive(directory, colors) if drive else self._alone(directory, colors)
        if options.intrinsics:
            camera = Intrinsics(*options.intrinsics, *image_size(colors))
            records = [replace(each, intrinsics=camera) for each in records]
        return Layout(
            kind=self.kind,
            path=directory,
            name=directory.name if drive else "kitti_selection",
            records=records,
            read_depth=steps(options.depth_scale or STEPS_PER_METRE),
            provenance={"poses": "none", "depth": "laser, accumulated, sparse"},
        )

    def _drive(self, drive: Path, colors: list[Path]) -> list[Record]:
        directory = drive.parent.parent / self._GATHERED[1] / drive.name
        return [
            Record(stamp_at(index, RATE), color, depth_file(directory, color.stem))
            for index, color in enumerate(colors)
        ]

    def _alone(self, directory: Path, colors: list[Path]) -> list[Record]:
        size = image_size(colors)
        records = []
        for index, color in enumerate(colors):
            # The first "image" of the image's name says "groundtruth_depth" in the depth's.
            name = color.stem.replace("_image_", "_groundtruth_depth_", 1)
            path = directory / "intrinsics" / f"{color.stem}.txt"
            camera = Intrinsics(*focal_numbers(path), *size) if path.exists() else None
            depth = depth_file(directory / self._ALONE[1], name)
            records.append(Record(stamp_at(index, RATE), color, depth, None, camera))
        return records


class KittiOdometry(DatasetLoader):
    """KITTI odometry.

    A. Geiger, P. Lenz, R. Urtasun, "Are we ready for Autonomous Driving?", CVPR 2012:
    ``sequences/NN/image_2/*.png`` (left colour camera; else another one), ``times.txt``,
    ``calib.txt``, and ``poses/NN.txt`` with twelve numbers a line, the pose of camera 0 in the
    first camera 0's axes.
    """

    kind = "kitti_odometry"

    CAMERAS = ("image_2", "image_3", "image_0", "image_1")
    """In the order of preference; colour first."""

    def is_sequence(self, directory: Path) -> bool:
        """Tell whether a directory is a sequence."""
        return has(directory, "calib.txt", "times.txt") and any(
            (directory / each).is_dir() for each in self.CAMERAS
        )

    def sequences(self, directory: Path) -> dict[str, Path]:
        """Return the sequences of the data set's root."""
        parent = directory / "sequences"
        return super().sequences(parent if parent.is_dir() else directory)

    def layout(self, directory: Path, options: SourceOptions) -> Layout:
        """Describe a sequence."""
        camera = next(name for name in self.CAMERAS if (directory / name).is_dir())
        colors = images(directory / camera)
        # A stamp of 0 means "no time" to ROS; KITTI's first frame has it.
        stamps = [
            stamp + SECOND for stamp in nanoseconds_of(read_table(directory / "times.txt", (1,)))
        ]
        projection = _projection(directory / "calib.txt", f"P{camera[-1]}")
        poses = _kitti_poses(directory, projection)
        if len(stamps) != len(colors) or (poses and len(poses) != len(colors)):
            raise SourceError(
                f"{directory} has {len(colors)} images, {len(stamps)} times and {len(poses)} "
                "poses; is the sequence complete?"
            )
        fx, fy, cx, cy = options.intrinsics or _pinhole(projection)
        intrinsics = camera_of((fx, fy, cx, cy), colors)
        records = [
            Record(stamp, color, None, poses[index] if poses else None, intrinsics)
            for index, (stamp, color) in enumerate(zip(stamps, colors, strict=True))
        ]
        return Layout(
            kind=self.kind,
            path=directory,
            name=f"kitti_{directory.name}",
            records=records,
            read_depth=steps(STEPS_PER_METRE),
            provenance={
                "camera": camera,
                "intrinsics": [fx, fy, cx, cy],
                "poses": f"poses/{directory.name}.txt" if poses else "none",
                "depth": "none",
            },
        )


def _projection(path: Path, name: str) -> NDArray[np.float64]:
    """Return the projection [3, 4] of a camera, for points in camera 0's axes."""
    for row in read_rows(path):
        if row.words[0].rstrip(":") == name and len(row.words) == 13:
            try:
                found = np.array([float(word) for word in row.words[1:]]).reshape(3, 4)
                np.linalg.inv(found[:, :3])
            except (ValueError, np.linalg.LinAlgError) as error:
                raise SourceError(f"line {row.line} of {path}: {error}") from error
            return found
    raise SourceError(f"{path} has no line '{name}: ' with twelve numbers")


def _pinhole(projection: NDArray[np.float64]) -> tuple[float, float, float, float]:
    fx, fy = float(projection[0, 0]), float(projection[1, 1])
    return fx, fy, float(projection[0, 2]), float(projection[1, 2])


def _kitti_poses(directory: Path, projection: NDArray[np.float64]) -> list[Matrix]:
    """Return the poses of the camera whose images are taken; none for the test sequences."""
    for path in (
        directory.parent.parent / "poses" / f"{directory.name}.txt",
        directory / "poses.txt",
    ):
        if path.exists():
            offset = np.eye(4)
            offset[:3, 3] = -np.linalg.solve(projection[:, :3], projection[:, 3])
            table = numbers(path, 12).reshape(-1, 3, 4)
            bottom = np.tile([[[0.0, 0.0, 0.0, 1.0]]], (len(table), 1, 1))
            with np.errstate(invalid="ignore"):  # a lost pose stays one
                return list(np.concatenate([table, bottom], axis=1) @ offset)
    return []


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

    def layout(self, directory: Path, options: SourceOptions) -> Layout:
        """Describe a scene."""
        training = directory.parent.parent
        colors = images(directory)
        size = image_size(colors)
        return Layout(
            kind=self.kind,
            path=directory,
            name=directory.name,
            records=[self._record(training, *each, size) for each in enumerate(colors)],
            read_depth=sintel_dpt,
            provenance={"pass": directory.parent.name, "poses": "camdata_left/", "depth": "depth/"},
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
    depth: Depth = np.frombuffer(data, "<f4", width * height, 12).reshape(height, width).copy()
    return depth


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
