# SPDX-License-Identifier: Apache-2.0
"""ScanNet as its SensReader exports it, and whatever is kept in the same way.

A. Dai et al., "ScanNet: Richly-annotated 3D Reconstructions of Indoor Scenes", CVPR 2017:
``color/N.jpg``, ``depth/N.png`` (16 bit, mm), ``pose/N.txt`` (camera-to-world, -inf where lost) and
``intrinsic/intrinsic_{color,depth}.txt``.
"""

from __future__ import annotations

from pathlib import Path

from xsvggt_ros.evaluation.sources.base import SourceOptions
from xsvggt_ros.evaluation.sources.files import (
    camera_of,
    choose,
    depth_files,
    directories,
    focal_numbers,
    has,
    images,
    poses_of,
    steps,
)
from xsvggt_ros.evaluation.sources.recorded import Layout, Record, RecordedSource
from xsvggt_ros.geometry.cameras import Intrinsics
from xsvggt_ros.stream.sources.base import stamp_at
from xsvggt_ros.stream.sources.images import is_image

RATE = 30.0


def matches(directory: Path) -> bool:
    """Tell whether a directory is a scene, or holds scenes."""
    return _is_scene(directory) or bool(_scenes(directory))


def open_directory(directory: Path, options: SourceOptions) -> RecordedSource:
    """Open a scene.

    Raises:
        SourceError: files are missing or damaged, or there are several scenes.

    """
    place = (
        directory
        if _is_scene(directory)
        else choose(directory, _scenes(directory), options.sequence)
    )
    colors = images(place / "color")
    depths = depth_files(place / "depth", colors)
    poses = poses_of([place / "pose" / f"{each.stem}.txt" for each in colors])
    intrinsics = _intrinsics(place, [each for each in depths if each], colors, options)
    records = [
        Record(stamp_at(index, RATE), color, depth, pose, intrinsics)
        for index, (color, depth, pose) in enumerate(zip(colors, depths, poses, strict=True))
    ]
    return RecordedSource(
        Layout(
            kind="scannet",
            path=place,
            name=place.name,
            records=records,
            read_depth=steps(options.depth_scale or 1000.0),
            provenance={"poses": "pose/", "depth": "depth/"},
        ),
        options,
    )


def _is_scene(directory: Path) -> bool:
    return has(directory, "color", "pose") and (directory / "pose").is_dir()


def _scenes(directory: Path) -> dict[str, Path]:
    return {name: each for name, each in directories(directory).items() if _is_scene(each)}


def _intrinsics(
    place: Path, depths: list[Path], colors: list[Path], options: SourceOptions
) -> Intrinsics | None:
    """Return the depth's camera, or the image's where there is no depth."""
    seen = depths if depths and is_image(depths[0]) else colors
    if options.intrinsics is not None:
        return camera_of(options.intrinsics, seen)
    path = place / "intrinsic" / f"intrinsic_{'depth' if depths else 'color'}.txt"
    if not path.exists():
        return None
    return camera_of(focal_numbers(path), seen)
