# SPDX-License-Identifier: Apache-2.0
"""Depth in files, as data sets keep it, brought to metres."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from xsvggt_ros.errors import FrameError

Depth = NDArray[np.float32]
ReadDepth = Callable[[Path], Depth]

SINTEL_TAG = 202021.25
"""Begins each .dpt and .cam file of Sintel; another number means another byte order."""


def steps(per_metre: float, invalid: tuple[int, ...] = (0,)) -> ReadDepth:
    """Return a reader of 16-bit pictures that count ``per_metre`` steps; ``invalid`` are no depth.

    Raises (the reader):
        FrameError: the file is missing, damaged or no 16-bit picture with one channel.

    """

    def read(path: Path) -> Depth:
        raw = cv2.imdecode(np.frombuffer(_bytes(path), np.uint8), cv2.IMREAD_UNCHANGED)
        if raw is None or raw.ndim != 2 or raw.dtype != np.uint16:
            raise FrameError(f"{path} is no 16-bit picture with one channel: it holds no depth")
        depth = raw.astype(np.float32) / np.float32(per_metre)
        depth[np.isin(raw, invalid)] = np.nan
        return depth

    return read


def sintel_dpt(path: Path) -> Depth:
    """Read a .dpt of Sintel: tag, width, height, then float32 rows, little endian.

    Raises:
        FrameError: it is missing or damaged.

    """
    data = _bytes(path)
    if len(data) < 12 or np.frombuffer(data, "<f4", 1)[0] != np.float32(SINTEL_TAG):
        raise FrameError(f"{path} does not begin with {SINTEL_TAG}: it is no depth of Sintel")
    width, height = (int(each) for each in np.frombuffer(data, "<i4", 2, 4))
    if min(width, height) < 1 or len(data) != 12 + 4 * width * height:
        raise FrameError(
            f"{path} announces {width}x{height} pixels and has {len(data)} bytes: it is damaged"
        )
    return np.frombuffer(data, "<f4", width * height, 12).reshape(height, width).copy()


def array(path: Path) -> Depth:
    """Read a .npy with metres.

    Raises:
        FrameError: it is missing, damaged or no array [H, W] of numbers.

    """
    try:
        depth = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise FrameError(f"cannot read the depth {path}: {error}") from error
    if depth.ndim != 2 or depth.dtype.kind != "f":
        raise FrameError(f"{path} holds {depth.dtype} {depth.shape}; metres [H, W] are needed")
    return np.asarray(np.where(depth > 0, depth, np.nan), np.float32)


def between(read: ReadDepth, nearest: float, farthest: float) -> ReadDepth:
    """Return a reader that knows no depth below ``nearest`` and above ``farthest`` metres."""

    def bounded(path: Path) -> Depth:
        depth = read(path)
        with np.errstate(invalid="ignore"):
            depth[(depth < nearest) | (depth > farthest)] = np.nan
        return depth

    return bounded


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise FrameError(f"cannot read the depth {path}: {error.strerror}") from error
