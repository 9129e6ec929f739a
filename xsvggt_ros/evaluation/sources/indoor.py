# SPDX-License-Identifier: Apache-2.0
"""Scenes in rooms: ScanNet, 7-Scenes, Neural RGB-D, ICL-NUIM, and directories that people make."""

from __future__ import annotations

import re
from decimal import Decimal, DecimalException
from pathlib import Path

import numpy as np

from xsvggt_ros.errors import SourceError
from xsvggt_ros.evaluation.request import SourceOptions
from xsvggt_ros.evaluation.sources.base import DatasetLoader, Layout, Record, records_at
from xsvggt_ros.evaluation.sources.files import (
    between,
    camera_of,
    depth_file,
    depth_files,
    directories,
    focal_numbers,
    has,
    images,
    numbers,
    poses_of,
    steps,
)
from xsvggt_ros.geometry.cameras import Intrinsics
from xsvggt_ros.geometry.files import read_tum
from xsvggt_ros.geometry.rigid import Matrix, pose_from
from xsvggt_ros.geometry.text_tables import SECOND, read_rows, read_table
from xsvggt_ros.stream.sources.images import is_image

RATE = 30.0

STEPS_PER_METRE = 1000.0

NEAREST, FARTHEST = 1e-3, 10.0
"""Metres, as in the reference's loaders of 7-Scenes and Neural RGB-D."""

SIZE = 640, 480
"""Of the images that the cameras below are for."""


class ScanNet(DatasetLoader):
    """ScanNet as its SensReader exports it, and whatever is kept in the same way.

    A. Dai et al., "ScanNet: Richly-annotated 3D Reconstructions of Indoor Scenes", CVPR 2017:
    ``color/N.jpg``, ``depth/N.png`` (16 bit, mm), ``pose/N.txt`` (camera-to-world, -inf where lost)
    and ``intrinsic/intrinsic_{color,depth}.txt``.
    """

    kind = "scannet"

    def is_sequence(self, directory: Path) -> bool:
        """Tell whether a directory has images and a directory of poses."""
        return has(directory, "color", "pose") and (directory / "pose").is_dir()

    def layout(self, directory: Path, options: SourceOptions) -> Layout:
        """Describe a scene."""
        colors = images(directory / "color")
        depths = depth_files(directory / "depth", colors)
        poses = poses_of([directory / "pose" / f"{each.stem}.txt" for each in colors])
        camera = self._intrinsics(directory, [each for each in depths if each], colors, options)
        return Layout(
            kind=self.kind,
            path=directory,
            name=directory.name,
            records=records_at(RATE, colors, depths, poses, camera),
            read_depth=steps(options.depth_scale or STEPS_PER_METRE),
            provenance={"poses": "pose/", "depth": "depth/"},
        )

    @staticmethod
    def _intrinsics(
        directory: Path, depths: list[Path], colors: list[Path], options: SourceOptions
    ) -> Intrinsics | None:
        """Return the depth's camera, or the image's where there is no depth."""
        seen = depths if depths and is_image(depths[0]) else colors
        if options.intrinsics is not None:
            return camera_of(options.intrinsics, seen)
        path = directory / "intrinsic" / f"intrinsic_{'depth' if depths else 'color'}.txt"
        return camera_of(focal_numbers(path), seen) if path.exists() else None


class SevenScenes(DatasetLoader):
    """7-Scenes: J. Shotton et al., "Scene Coordinate Regression Forests", CVPR 2013.

    ``seq-NN/frame-NNNNNN.color.png`` (of BundleFusion ``.jpg``), ``.depth.png`` (16 bit, mm, 65535
    unknown) and ``.pose.txt`` (camera-to-world). The depth camera stands beside the colour camera;
    ``.depth.proj.png``, which the community computes, is registered to the image and preferred
    where it is there.
    """

    kind = "seven_scenes"

    CAMERA = (525.0, 525.0, 320.0, 240.0)
    """fx, fy, cx, cy, as in the reference's loader."""

    _COLOR = "frame-*.color.*"
    _UNREGISTERED = (
        "depth is that of the depth camera (.depth.png), not registered to the image; compute "
        ".depth.proj.png for figures that can be compared"
    )

    def is_sequence(self, directory: Path) -> bool:
        """Tell whether a directory holds images of a sequence."""
        return any(map(is_image, directory.glob(self._COLOR)))

    def sequences(self, directory: Path) -> dict[str, Path]:
        """Return the sequences of a scene, those without images included."""
        return directories(directory, "seq-*")

    def matches(self, directory: Path) -> bool:
        """Tell whether a directory is a sequence or a scene."""
        return self.is_sequence(directory) or any(
            map(self.is_sequence, self.sequences(directory).values())
        )

    def layout(self, directory: Path, options: SourceOptions) -> Layout:
        """Describe a sequence."""
        colors = images(directory, self._COLOR)
        registered = depth_file(directory, _beside(colors[0], "depth.proj").name) is not None
        part = "depth.proj" if registered else "depth"
        depths = [depth_file(directory, _beside(each, part).name) for each in colors]
        pinhole = options.intrinsics or self.CAMERA
        camera = camera_of(pinhole, colors, None if options.intrinsics else SIZE)
        poses = poses_of([_beside(each, "pose.txt") for each in colors])
        read = steps(options.depth_scale or STEPS_PER_METRE, invalid=(0, 65535))
        return Layout(
            kind=self.kind,
            path=directory,
            name=f"{directory.parent.name}/{directory.name}",
            records=records_at(RATE, colors, depths, poses, camera),
            read_depth=between(read, NEAREST, FARTHEST),
            provenance={
                "intrinsics": list(pinhole),
                "poses": ".pose.txt",
                "depth": f".{part}.png",
            },
            warnings=() if registered else (self._UNREGISTERED,),
        )


def _beside(color: Path, suffix: str) -> Path:
    """Return the file of 7-Scenes that lies beside an image."""
    return color.with_name(f"{color.name.partition('.')[0]}.{suffix}")


class NeuralRgbd(DatasetLoader):
    """Neural RGB-D: D. Azinovic et al., "Neural RGB-D Surface Reconstruction", CVPR 2022.

    ``images/imgN.png``, ``depth/depthN.png`` (16 bit, mm) and ``poses.txt`` with four lines a
    frame, camera-to-world in OpenGL's axes (y up, z backward); a lost pose says nan.
    """

    kind = "neural_rgbd"

    FOCAL = 554.2562584220408
    """Pixels, of every scene."""

    OPTICAL_TO_OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])

    def is_sequence(self, directory: Path) -> bool:
        """Tell whether a directory is a scene."""
        return has(directory, "images", "poses.txt")

    def layout(self, directory: Path, options: SourceOptions) -> Layout:
        """Describe a scene."""
        colors = images(directory / "images", "img*")
        poses = self._poses(directory / "poses.txt")
        if len(poses) != len(colors):
            raise SourceError(
                f"{directory} has {len(colors)} images and {len(poses)} poses; is the scene "
                "complete?"
            )
        depths = [
            depth_file(directory / "depth", f"depth{each.stem.removeprefix('img')}")
            for each in colors
        ]
        pinhole = options.intrinsics or (self.FOCAL, self.FOCAL, SIZE[0] / 2, SIZE[1] / 2)
        camera = camera_of(pinhole, colors, None if options.intrinsics else SIZE)
        read = steps(options.depth_scale or STEPS_PER_METRE)
        return Layout(
            kind=self.kind,
            path=directory,
            name=directory.name,
            records=records_at(RATE, colors, depths, poses, camera),
            read_depth=between(read, NEAREST, FARTHEST),
            provenance={"intrinsics": list(pinhole), "poses": "poses.txt", "depth": "depth/"},
        )

    def _poses(self, path: Path) -> list[Matrix]:
        """Return the poses of a scene in optical axes; a lost one is NaN."""
        table = numbers(path, 4)
        if len(table) % 4:
            raise SourceError(f"{path} has {len(table)} lines; each pose takes four")
        with np.errstate(invalid="ignore"):
            return [each @ self.OPTICAL_TO_OPENGL for each in table.reshape(-1, 4, 4)]


ICL_NUIM = (481.20, -480.00, 319.50, 239.50)
"""fx, fy, cx, cy of images of SIZE; y points up."""

MIRROR = np.diag([1.0, -1.0, 1.0, 1.0])
"""Turns y over. ICL-NUIM's axes (x right, y up, z forward) are left-handed, so that its world is
mirrored with its cameras, which changes no distance and no angle."""

_COLORS = ("rgb", "color")
_FRAME_NUMBERS = "*.gt.freiburg"


class Rgbd(DatasetLoader):
    """ICL-NUIM, and directories that people make themselves.

    A. Handa et al., "A Benchmark for RGB-D Visual Odometry, 3D Reconstruction and SLAM", ICRA 2014.
    ``rgb/`` or ``color/`` with ``depth/`` of the same names (16 bit, 5000 steps a metre), and poses
    in ``pose.txt`` (tx ty tz qx qy qz qw a line), or in a file of TUM's format whose stamps count
    frames (ICL-NUIM's ``*.gt.freiburg``) or are times.
    """

    kind = "rgbd"
    several = False

    RATE = 30.0
    STEPS_PER_METRE = 5000.0

    def is_sequence(self, directory: Path) -> bool:
        """Tell whether a directory has images, depth and a file with poses."""
        return (
            any((directory / name).is_dir() for name in _COLORS)
            and (directory / "depth").is_dir()
            and ((directory / "pose.txt").exists() or bool(_numbered(directory)))
        )

    def layout(self, directory: Path, options: SourceOptions) -> Layout:
        """Describe a directory."""
        colors = images(next(directory / name for name in _COLORS if (directory / name).is_dir()))
        depths = depth_files(directory / "depth", colors)
        poses, origin = _rgbd_poses(directory, colors)
        pinhole, known, size = _rgbd_camera(directory, options)
        if pinhole is not None and pinhole[1] < 0:
            with np.errstate(invalid="ignore"):  # a lost pose stays one
                poses = [None if pose is None else MIRROR @ pose @ MIRROR for pose in poses]
        camera = pinhole and camera_of(pinhole, colors, size)
        return Layout(
            kind=self.kind,
            path=directory,
            name=directory.name,
            records=records_at(self.RATE, colors, depths, poses, camera),
            read_depth=steps(options.depth_scale or self.STEPS_PER_METRE),
            provenance={
                "intrinsics": pinhole and list(pinhole),
                "intrinsics_from": known,
                "poses": origin,
                "depth": "depth/",
            },
        )


def _rgbd_camera(
    directory: Path, options: SourceOptions
) -> tuple[tuple[float, float, float, float] | None, str, tuple[int, int] | None]:
    """Return fx, fy, cx, cy, where they come from, and the size that they are for, if known."""
    if options.intrinsics is not None:
        return options.intrinsics, "option", None
    for name in ("intrinsics.txt", "calibration.txt"):
        if (directory / name).exists():
            return focal_numbers(directory / name), name, None
    if _numbered(directory):
        return ICL_NUIM, "ICL-NUIM", SIZE
    return None, "nowhere", None


def _numbered(directory: Path) -> list[Path]:
    """Return the files whose poses are led by the numbers of images."""
    return sorted(p for p in directory.glob(_FRAME_NUMBERS) if not p.name.startswith("."))


def _rgbd_poses(directory: Path, colors: list[Path]) -> tuple[list[Matrix | None], str]:
    numbered = _numbered(directory)
    if numbered:
        table = read_table(numbered[0], (8,)).values()
        known = {float(row[0]): pose_from(row[1:4], row[4:]) for row in table}
        return [known.get(_number(each)) for each in colors], numbered[0].name
    table = numbers(directory / "pose.txt", 7)
    if len(table) != len(colors):
        raise SourceError(
            f"{directory} has {len(colors)} images and {len(table)} lines in pose.txt; one each "
            "is needed"
        )
    return [pose_from(row[:3], row[3:]) for row in table], "pose.txt"


def _number(image: Path) -> float:
    """Return the number that an image's name ends in."""
    match = re.search(r"([0-9]+)$", image.stem)
    if match is None:
        raise SourceError(f"{image} has no number in its name, by which its pose would be found")
    return float(match[1])


class Exported(DatasetLoader):
    """Directories that ``xsvggt synthesize --format directory`` wrote."""

    kind = "directory"
    several = False

    STEPS_PER_METRE = 1000.0

    def is_sequence(self, directory: Path) -> bool:
        """Tell whether a directory is such an export."""
        return has(directory, "cameras.csv", "trajectory.tum")

    def layout(self, directory: Path, options: SourceOptions) -> Layout:
        """Describe an export."""
        options.refuse(str(directory), "intrinsics", "depth_scale")
        trajectory = read_tum(directory / "trajectory.tum")
        known = dict(zip(trajectory.stamps.tolist(), trajectory.poses(), strict=True))
        path = directory / "cameras.csv"
        return Layout(
            kind=self.kind,
            path=directory,
            name=directory.name,
            records=[_record(path, row.words, known) for row in read_rows(path)[1:]],
            read_depth=steps(self.STEPS_PER_METRE),
            provenance={"intrinsics_from": path.name, "poses": "trajectory.tum", "depth": "depth/"},
        )


def _record(path: Path, row: tuple[str, ...], poses: dict[int, Matrix]) -> Record:
    """Read a line: file, timestamp, fx, fy, cx, cy, width, height."""
    try:
        name, seconds, *camera, width, height = row
        fx, fy, cx, cy = map(float, camera)
        stamp = int(Decimal(seconds) * SECOND)
        intrinsics = Intrinsics(fx, fy, cx, cy, int(width), int(height))
    except (DecimalException, OverflowError, ValueError) as error:
        raise SourceError(f"{path} has the damaged line {','.join(row)}") from error
    image = path.parent / name
    depth = depth_file(path.parent / "depth", image.stem)
    return Record(stamp, image, depth, poses.get(stamp), intrinsics)
