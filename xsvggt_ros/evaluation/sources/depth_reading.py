# SPDX-License-Identifier: Apache-2.0
"""Depth in files, as data sets keep it, brought to metres."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from xsvggt_ros.errors import FrameError

Depth = NDArray[np.float32]
ReadDepth = Callable[[Path], Depth]

SINTEL_TAG = 202021.25
"""Begins each .dpt and .cam file of Sintel; another number means another byte order."""


def steps(per_metre: float, invalid: tuple[int, ...] = (0,)) -> ReadDepth:
    """Return a reader of depth: 16-bit files count ``per_metre`` steps, floats are metres.

    PNG, PGM and TIFF are read, .npy with float or 16-bit numbers, and EXR and PFM where OpenCV
    does; ``invalid`` are steps that are no depth.

    Raises (the reader):
        FrameError: the file is missing, damaged or of another kind.

    """

    def read(path: Path) -> Depth:
        raw = _array(path) if path.suffix.lower() == ".npy" else _image(path)
        if raw.ndim == 3 and raw.dtype.kind == "f":
            raw = raw[..., 0]  # Renderers write depth into each of three channels.
        if raw.ndim != 2 or not (raw.dtype.kind == "f" or raw.dtype == np.uint16):
            raise FrameError(
                f"{path} holds {raw.dtype} {raw.shape}: depth has one channel, of 16-bit steps or "
                "of metres in floating point"
            )
        depth = raw.astype(np.float32)
        if raw.dtype == np.uint16:
            depth /= np.float32(per_metre)
            depth[np.isin(raw, invalid)] = np.nan
        depth[~(np.isfinite(depth) & (depth > 0))] = np.nan
        return depth

    return read


def _image(path: Path) -> NDArray[Any]:
    """Read an image file as it is; FrameError where OpenCV does not."""
    data = np.frombuffer(_bytes(path), np.uint8)
    try:
        raw = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if len(data) else None
    except cv2.error as error:
        raise FrameError(f"cannot read the depth {path}: {error.err}") from error
    if raw is None:
        exr = path.suffix.lower() == ".exr"
        remedy = "this OpenCV reads no EXR: convert it to .npy" if exr else "it is damaged"
        raise FrameError(f"cannot read the depth {path}: {remedy}")
    return np.asarray(raw)


def _array(path: Path) -> NDArray[Any]:
    """Read a .npy; FrameError where it is none."""
    try:
        return np.asarray(np.load(path, allow_pickle=False))
    except (OSError, ValueError, EOFError) as error:
        raise FrameError(f"cannot read the depth {path}: {error}") from error


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
