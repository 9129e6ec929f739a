# SPDX-License-Identifier: Apache-2.0
"""Coloured point clouds in PLY files, as MeshLab, CloudCompare, Blender and Open3D read them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from xsvggt_ros.geometry.files import replacing

VERTEX = np.dtype(
    [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("red", "u1"), ("green", "u1"), ("blue", "u1")]
)
PLY_TYPES = {"<f4": "float", "|u1": "uchar"}


def write_ply(path: str | Path, points: NDArray[np.float32], colors: NDArray[np.uint8]) -> None:
    """Write a cloud, binary little endian; the file appears whole or not at all.

    ``points`` are [n, 3] and finite, ``colors`` are [n, 3] RGB. Raises ValueError for other shapes.
    """
    if points.shape != colors.shape or points.shape[1:] != (3,):
        raise ValueError(
            f"points {points.shape} and colors {colors.shape} must both have the shape (n, 3)"
        )
    vertices = np.empty(len(points), VERTEX)
    for axis, name in enumerate(("x", "y", "z")):
        vertices[name] = points[:, axis]
    for channel, name in enumerate(("red", "green", "blue")):
        vertices[name] = colors[:, channel]
    with replacing(Path(path)) as stream:
        stream.write(_header(len(points)))
        stream.write(vertices.tobytes())


def _header(count: int) -> bytes:
    """Return everything that precedes the vertices."""
    properties = [f"property {PLY_TYPES[field[1]]} {field[0]}" for field in VERTEX.descr]
    lines = ["ply", "format binary_little_endian 1.0", f"element vertex {count}"]
    return "\n".join([*lines, *properties, "end_header", ""]).encode("ascii")
