# SPDX-License-Identifier: Apache-2.0
"""Coloured point clouds in files.

PLY, as MeshLab, CloudCompare, Blender and Open3D read it, and PCD, as the Point Cloud Library does.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from xsvggt_ros.errors import OutputError
from xsvggt_ros.geometry.files import replacing

Points = NDArray[np.float32]
Colors = NDArray[np.uint8]
Confidences = NDArray[np.float32]

_POSITION = [("x", "<f4"), ("y", "<f4"), ("z", "<f4")]
_COLOR = [("red", "|u1"), ("green", "|u1"), ("blue", "|u1")]
_CONFIDENCE = ("confidence", "<f4")
_PLY_TYPES = {"<f4": "float", "|u1": "uchar"}


def cloud_writer(path: str | Path) -> Callable[..., None]:
    """Return what writes a file of this name; raise OutputError for an unknown ending."""
    ending = Path(path).suffix.lower()
    if ending not in _WRITERS:
        raise OutputError(
            f"'{path}' ends in '{ending}'; a cloud is written to {' or '.join(_WRITERS)}"
        )
    return _WRITERS[ending]


def write_ply(
    path: str | Path, points: Points, colors: Colors, confidence: Confidences | None = None
) -> None:
    """Write a cloud, binary little endian; the file appears whole or not at all.

    Args:
        path: of the file.
        points: finite, [n, 3].
        colors: RGB, [n, 3].
        confidence: [n], or None.

    Raises:
        ValueError: other shapes.
        OutputError: it cannot be written.

    """
    _check(points, colors, confidence)
    fields = [*_POSITION, *_COLOR, *([] if confidence is None else [_CONFIDENCE])]
    rows = _rows(fields, points, confidence)
    for channel, (name, _) in enumerate(_COLOR):
        rows[name] = colors[:, channel]
    properties = [f"property {_PLY_TYPES[kind]} {name}" for name, kind in fields]
    lines = ["ply", "format binary_little_endian 1.0", f"element vertex {len(rows)}"]
    _write(path, [*lines, *properties, "end_header"], rows)


def write_pcd(
    path: str | Path, points: Points, colors: Colors, confidence: Confidences | None = None
) -> None:
    """Write a cloud as binary PCD 0.7; ``rgb`` is 0x00RRGGBB in the bits of a float32, as in PCL.

    Args:
        path: of the file.
        points: finite, [n, 3].
        colors: RGB, [n, 3].
        confidence: [n], or None.

    Raises:
        ValueError: other shapes.
        OutputError: it cannot be written.

    """
    _check(points, colors, confidence)
    fields = [*_POSITION, ("rgb", "<u4"), *([] if confidence is None else [_CONFIDENCE])]
    rows = _rows(fields, points, confidence)
    red, green, blue = colors.T.astype(np.uint32)
    rows["rgb"] = red << 16 | green << 8 | blue
    count = len(fields)
    header = [
        "# .PCD v0.7 - Point Cloud Data file format",
        "VERSION 0.7",
        f"FIELDS {' '.join(name for name, _ in fields)}",
        f"SIZE {' '.join('4' * count)}",
        f"TYPE {' '.join('F' * count)}",
        f"COUNT {' '.join('1' * count)}",
        f"WIDTH {len(rows)}",
        "HEIGHT 1",
        "VIEWPOINT 0 0 0 1 0 0 0",
        f"POINTS {len(rows)}",
        "DATA binary",
    ]
    _write(path, header, rows)


_WRITERS: dict[str, Callable[..., None]] = {".ply": write_ply, ".pcd": write_pcd}


def _check(points: Points, colors: Colors, confidence: Confidences | None) -> None:
    if points.shape != colors.shape or points.shape[1:] != (3,):
        raise ValueError(
            f"points {points.shape} and colors {colors.shape} must both have the shape (n, 3)"
        )
    if confidence is not None and confidence.shape != points.shape[:1]:
        raise ValueError(f"confidence {confidence.shape} must have the shape ({len(points)},)")


def _rows(
    fields: list[tuple[str, str]], points: Points, confidence: Confidences | None
) -> NDArray[np.void]:
    rows = np.empty(len(points), fields)
    for axis, (name, _) in enumerate(_POSITION):
        rows[name] = points[:, axis]
    if confidence is not None:
        rows["confidence"] = confidence
    return rows


def _write(path: str | Path, header: list[str], rows: NDArray[np.void]) -> None:
    with replacing(Path(path)) as stream:
        stream.write("\n".join([*header, ""]).encode("ascii"))
        stream.write(rows.tobytes())
