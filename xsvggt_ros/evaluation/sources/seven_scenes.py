# SPDX-License-Identifier: Apache-2.0
"""7-Scenes: J. Shotton et al., "Scene Coordinate Regression Forests", CVPR 2013.

``seq-NN/frame-NNNNNN.color.png`` (of BundleFusion ``.jpg``), ``.depth.png`` (16 bit, mm, 65535
unknown) and ``.pose.txt`` (camera-to-world). The depth camera stands beside the colour camera;
``.depth.proj.png``, which the community computes, is registered to the image and preferred where it
is there.
"""

from __future__ import annotations

from pathlib import Path

from xsvggt_ros.evaluation.sources.base import SourceOptions
from xsvggt_ros.evaluation.sources.files import (
    between,
    camera_of,
    choose,
    depth_file,
    directories,
    images,
    poses_of,
    steps,
)
from xsvggt_ros.evaluation.sources.recorded import Layout, Record, RecordedSource
from xsvggt_ros.stream.sources.base import stamp_at
from xsvggt_ros.stream.sources.images import is_image

RATE = 30.0
CAMERA = (525.0, 525.0, 320.0, 240.0)
"""Of images of SIZE, as in the reference's loader."""

SIZE = 640, 480

NEAREST, FARTHEST = 1e-3, 10.0
"""Metres, as in the reference's loader."""

_COLOR = "frame-*.color.*"
_UNREGISTERED = (
    "depth is that of the depth camera (.depth.png), not registered to the image; compute "
    ".depth.proj.png for figures that can be compared"
)


def matches(directory: Path) -> bool:
    """Tell whether a directory is a sequence or a scene of 7-Scenes."""
    return _holds_images(directory) or any(
        map(_holds_images, directories(directory, "seq-*").values())
    )


def open_directory(directory: Path, options: SourceOptions) -> RecordedSource:
    """Open a sequence, or one of a scene.

    Raises:
        SourceError: files are missing or damaged, or there are several sequences.

    """
    single = _holds_images(directory)
    place = (
        directory
        if single
        else choose(directory, directories(directory, "seq-*"), options.sequence)
    )
    colors = images(place, _COLOR)
    registered = _depth_of(colors[0], "depth.proj") is not None
    camera = options.intrinsics or CAMERA
    intrinsics = camera_of(camera, colors, None if options.intrinsics else SIZE)
    poses = poses_of([_beside(each, "pose.txt") for each in colors])
    part = "depth.proj" if registered else "depth"
    records = [
        Record(stamp_at(index, RATE), color, _depth_of(color, part), pose, intrinsics)
        for index, (color, pose) in enumerate(zip(colors, poses, strict=True))
    ]
    read = steps(options.depth_scale or 1000.0, invalid=(0, 65535))
    return RecordedSource(
        Layout(
            kind="seven_scenes",
            path=place,
            name=f"{place.parent.name}/{place.name}",
            records=records,
            read_depth=between(read, NEAREST, FARTHEST),
            provenance={"intrinsics": list(camera), "poses": ".pose.txt",
                        "depth": ".depth.proj.png" if registered else ".depth.png"},
            warnings=() if registered else (_UNREGISTERED,),
        ),
        options,
    )  # fmt: skip


def _holds_images(directory: Path) -> bool:
    return any(map(is_image, directory.glob(_COLOR)))


def _depth_of(color: Path, part: str) -> Path | None:
    return depth_file(color.parent, _beside(color, part).name)


def _beside(color: Path, suffix: str) -> Path:
    return color.with_name(f"{color.name.partition('.')[0]}.{suffix}")
