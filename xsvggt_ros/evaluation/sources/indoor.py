# SPDX-License-Identifier: Apache-2.0
"""Scenes in rooms whose poses lie in text files: ScanNet, 7-Scenes, Neural RGB-D."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from xsvggt_ros.errors import SourceError
from xsvggt_ros.evaluation.request import SourceOptions
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
from xsvggt_ros.evaluation.sources.recorded import DatasetLoader, Layout, records_at
from xsvggt_ros.geometry.cameras import Intrinsics
from xsvggt_ros.geometry.rigid import Matrix
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

    def layout(self, place: Path, options: SourceOptions) -> Layout:
        """Describe a scene."""
        colors = images(place / "color")
        depths = depth_files(place / "depth", colors)
        poses = poses_of([place / "pose" / f"{each.stem}.txt" for each in colors])
        camera = self._intrinsics(place, [each for each in depths if each], colors, options)
        return Layout(
            kind=self.kind,
            path=place,
            name=place.name,
            records=records_at(RATE, colors, depths, poses, camera),
            read_depth=steps(options.depth_scale or STEPS_PER_METRE),
            provenance={"poses": "pose/", "depth": "depth/"},
        )

    @staticmethod
    def _intrinsics(
        place: Path, depths: list[Path], colors: list[Path], options: SourceOptions
    ) -> Intrinsics | None:
        """Return the depth's camera, or the image's where there is no depth."""
        seen = depths if depths and is_image(depths[0]) else colors
        if options.intrinsics is not None:
            return camera_of(options.intrinsics, seen)
        path = place / "intrinsic" / f"intrinsic_{'depth' if depths else 'color'}.txt"
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

    def layout(self, place: Path, options: SourceOptions) -> Layout:
        """Describe a sequence."""
        colors = images(place, self._COLOR)
        registered = depth_file(place, _beside(colors[0], "depth.proj").name) is not None
        part = "depth.proj" if registered else "depth"
        depths = [depth_file(place, _beside(each, part).name) for each in colors]
        pinhole = options.intrinsics or self.CAMERA
        camera = camera_of(pinhole, colors, None if options.intrinsics else SIZE)
        poses = poses_of([_beside(each, "pose.txt") for each in colors])
        read = steps(options.depth_scale or STEPS_PER_METRE, invalid=(0, 65535))
        return Layout(
            kind=self.kind,
            path=place,
            name=f"{place.parent.name}/{place.name}",
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

    def layout(self, place: Path, options: SourceOptions) -> Layout:
        """Describe a scene."""
        colors = images(place / "images", "img*")
        poses = self._poses(place / "poses.txt")
        if len(poses) != len(colors):
            raise SourceError(
                f"{place} has {len(colors)} images and {len(poses)} poses; is the scene complete?"
            )
        depths = [
            depth_file(place / "depth", f"depth{each.stem.removeprefix('img')}") for each in colors
        ]
        pinhole = options.intrinsics or (self.FOCAL, self.FOCAL, SIZE[0] / 2, SIZE[1] / 2)
        camera = camera_of(pinhole, colors, None if options.intrinsics else SIZE)
        read = steps(options.depth_scale or STEPS_PER_METRE)
        return Layout(
            kind=self.kind,
            path=place,
            name=place.name,
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
