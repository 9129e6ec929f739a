# SPDX-License-Identifier: Apache-2.0
"""Reading the small text files and directories that data sets are made of."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from xsvggt_ros.errors import SourceError
from xsvggt_ros.geometry.rigid import Matrix
from xsvggt_ros.geometry.text_tables import read_table
from xsvggt_ros.stream.sources.images import is_image, list_images
from xsvggt_ros.stream.sources.names import natural_order

logger = logging.getLogger(__name__)

DEPTH_SUFFIXES = (".png", ".pgm", ".tif", ".tiff", ".npy", ".exr", ".pfm", ".PNG", ".TIF", ".TIFF")
"""Of files with depth, the likeliest first."""


def images(directory: Path, pattern: str = "*") -> list[Path]:
    """List the images of a directory that fit a pattern, 2 before 10.

    Without a pattern, what lies beside the camera's images is left out, see
    :func:`~xsvggt_ros.stream.sources.images.list_images`.

    Raises:
        SourceError: there are none.

    """
    if pattern == "*" and directory.is_dir():
        listed = list_images(directory)
        for remark in listed.remarks:
            logger.warning("%s", remark)
        found = listed.files
    else:
        found = sorted((p for p in directory.glob(pattern) if is_image(p)), key=natural_order)
    if not found:
        raise SourceError(f"{directory} holds no image '{pattern}'; is the data set complete?")
    return found


def numbers(path: Path, columns: int | None = None) -> NDArray[np.float64]:
    """Return a table of numbers, float64 [rows, columns].

    Raises:
        SourceError: it is missing, or not such a table.

    """
    return read_table(path, None if columns is None else (columns,)).values()


def matrix(path: Path) -> Matrix:
    """Return a pose [4, 4] out of a file of its own; 3x4, or all in one line, will do.

    It may be none: data sets write lost poses as NaN or infinity.

    Raises:
        SourceError: it is missing, or no such matrix.

    """
    table = numbers(path)
    if table.size not in (12, 16):
        raise SourceError(
            f"{path} holds {table.shape[0]} rows of {table.shape[1] if table.size else 0} numbers; "
            "a 4x4 matrix is needed"
        )
    whole = np.eye(4)
    whole[: table.size // 4] = table.reshape(-1, 4)
    return whole


def focal_numbers(path: Path) -> tuple[float, float, float, float]:
    """Return fx, fy, cx, cy of a file that holds them, or a matrix of 3x3, 3x4 or 4x4.

    Raises:
        SourceError: it is missing or holds something else.

    """
    values = numbers(path)
    if values.shape in ((3, 3), (3, 4), (4, 4)) or values.size in (9, 12, 16):
        k = values.reshape(3 if values.size < 16 else 4, -1)
        return float(k[0, 0]), float(k[1, 1]), float(k[0, 2]), float(k[1, 2])
    if values.size < 4 or len(values) > 2:
        raise SourceError(
            f"{path} holds {values.size} numbers; fx fy cx cy or a 3x3 matrix is needed"
        )
    fx, fy, cx, cy = values.ravel()[:4].tolist()
    return fx, fy, cx, cy


def depth_file(directory: Path, stem: str) -> Path | None:
    """Return the depth of a name without suffix, in whatever format that can be read."""
    paths = (directory / f"{stem}{suffix}" for suffix in DEPTH_SUFFIXES)
    return next((path for path in paths if path.exists()), None)


def has(directory: Path, *names: str) -> bool:
    """Tell whether a directory holds files or directories of all these names."""
    return all((directory / name).exists() for name in names)


def choose(place: Path, found: Mapping[str, Path], wanted: str | None) -> Path:
    """Return the wanted sequence, or the only one.

    Raises:
        SourceError: it is not there, or there are several; the message lists them.

    """
    if wanted is not None and wanted in found:
        return found[wanted]
    names = ", ".join(sorted(found)) or "none"
    if wanted is not None:
        raise SourceError(f"{place} has no sequence '{wanted}'; it has {names}")
    if len(found) != 1:
        raise SourceError(
            f"{place} holds {len(found)} sequences: name one (--sequence), or give its directory; "
            f"they are {names}"
        )
    return next(iter(found.values()))


def directories(parent: Path, pattern: str = "*") -> dict[str, Path]:
    """Return the directories in a directory by name."""
    found = (each for each in parent.glob(pattern) if each.is_dir())
    return by_name(each for each in found if not each.name.startswith("."))


def by_name(paths: Iterable[Path]) -> dict[str, Path]:
    """Return paths by their names."""
    return {each.name: each for each in sorted(paths)}
