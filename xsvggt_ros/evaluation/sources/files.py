# SPDX-License-Identifier: Apache-2.0
"""What the files of data sets hold: images, depth, cameras, poses and lists."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from xsvggt_ros.errors import FrameError, SourceError
from xsvggt_ros.geometry.cameras import Intrinsics
from xsvggt_ros.geometry.rigid import Matrix
from xsvggt_ros.geometry.text_tables import read_table
from xsvggt_ros.stream.sources.images import is_image, list_images, moment_of, natural_order

logger = logging.getLogger(__name__)

DEPTH_SUFFIXES = (".png", ".pgm", ".tif", ".tiff", ".npy", ".exr", ".pfm", ".PNG", ".TIF", ".TIFF")
"""Of files with depth, the likeliest first."""

_MOST_TRIED = 100
"""Images that are looked at for the size of all."""


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


def poses_of(files: Sequence[Path]) -> list[Matrix | None]:
    """Return the pose [4, 4] in each of some files; None where the file is missing or damaged.

    How many are damaged is said.
    """
    found: list[Matrix | None] = []
    damaged: list[SourceError] = []
    for path in files:
        try:
            found.append(matrix(path) if path.exists() else None)
        except SourceError as error:
            found.append(None)
            damaged.append(error)
    if damaged:
        logger.warning(
            "%d of %d files with poses are damaged and left out: %s",
            len(damaged), len(files), damaged[0],
        )  # fmt: skip
    return found


def depth_files(directory: Path, images: Sequence[Path]) -> list[Path | None]:
    """Return the depth of each image: of the same name, or of the same numbers in another one."""
    named = [depth_file(directory, each.stem) for each in images]
    if any(named) or not directory.is_dir():
        return named
    numbered: dict[tuple[str, ...], Path] = {}
    for each in sorted(directory.iterdir(), key=natural_order, reverse=True):
        if each.suffix in DEPTH_SUFFIXES and not each.name.startswith("."):
            numbered[moment_of(each)] = each
    return [numbered.get(moment_of(each)) for each in images]


def depth_file(directory: Path, stem: str) -> Path | None:
    """Return the depth of a name without suffix, in whatever format that can be read."""
    paths = (directory / f"{stem}{suffix}" for suffix in DEPTH_SUFFIXES)
    return next((path for path in paths if path.exists()), None)


def has(directory: Path, *names: str) -> bool:
    """Tell whether a directory holds files or directories of all these names."""
    return all((directory / name).exists() for name in names)


def choose(directory: Path, found: Mapping[str, Path], wanted: str | None) -> Path:
    """Return the wanted sequence, or the only one.

    Raises:
        SourceError: it is not there, or there are several; the message lists them.

    """
    if wanted is not None and wanted in found:
        return found[wanted]
    names = ", ".join(sorted(found)) or "none"
    if wanted is not None:
        raise SourceError(f"{directory} has no sequence '{wanted}'; it has {names}")
    if len(found) != 1:
        raise SourceError(
            f"{directory} holds {len(found)} sequences: name one (--sequence), or give its "
            f"directory; they are {names}"
        )
    return next(iter(found.values()))


def directories(parent: Path, pattern: str = "*") -> dict[str, Path]:
    """Return the directories in a directory by name."""
    found = (each for each in parent.glob(pattern) if each.is_dir())
    return by_name(each for each in found if not each.name.startswith("."))


def by_name(paths: Iterable[Path]) -> dict[str, Path]:
    """Return paths by their names."""
    return {each.name: each for each in sorted(paths)}


def image_size(images: Sequence[Path]) -> tuple[int, int]:
    """Return width and height in pixels of the first of some images that can be read.

    Raises:
        SourceError: none can be, as far as is tried.

    """
    for path in images[:_MOST_TRIED]:
        with suppress(cv2.error):
            image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED) if path.is_file() else None
            if image is not None:
                return image.shape[1], image.shape[0]
    raise SourceError(
        f"cannot read the image {images[0]}, nor those after it; is the data set complete?"
    )


def camera_of(
    camera: tuple[float, float, float, float],
    images: Sequence[Path],
    size: tuple[int, int] | None = None,
) -> Intrinsics:
    """Return the camera of images as they lie on disk.

    Args:
        camera: fx, fy, cx, cy; fy may be negative (y up), and counts without its sign.
        images: the images.
        size: width and height that the numbers are for; None = that of the images.

    Raises:
        SourceError: no image can be read, or the numbers are those of no camera.

    """
    fx, fy, cx, cy = camera
    if not np.isfinite(camera).all() or fx <= 0 or fy == 0:
        raise SourceError(
            f"the camera of {images[0].parent} cannot be fx {fx:g}, fy {fy:g}, cx {cx:g}, cy "
            f"{cy:g}: correct its file, or give fx,fy,cx,cy (--intrinsics)"
        )
    actual = image_size(images)
    known = Intrinsics(fx, abs(fy), cx, cy, *(size or actual))
    width, height = actual
    if size is not None and size != actual:
        logger.warning(
            "images are %dx%d, and the camera's numbers are for %dx%d: they are scaled%s",
            width, height, *size,
            "" if known.has_shape_of(*actual) else ", though the images have another shape: if "
            "they were cut, clouds are wrong; give fx,fy,cx,cy (--intrinsics)",
        )  # fmt: skip
        return known.at_size(*actual)
    if not known.is_plausible:
        logger.warning(
            "the principal point (%g, %g) is far from the middle of images of %dx%d: are these "
            "the camera's numbers for another size? Give those for this size (--intrinsics)",
            cx, cy, width, height,
        )  # fmt: skip
    return known


Depth = NDArray[np.float32]
ReadDepth = Callable[[Path], Depth]


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
    data = np.frombuffer(read_bytes(path), np.uint8)
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


def between(read: ReadDepth, nearest: float, farthest: float) -> ReadDepth:
    """Return a reader that knows no depth below ``nearest`` and above ``farthest`` metres."""

    def bounded(path: Path) -> Depth:
        depth = read(path)
        with np.errstate(invalid="ignore"):
            depth[(depth < nearest) | (depth > farthest)] = np.nan
        return depth

    return bounded


def read_bytes(path: Path) -> bytes:
    """Return what a file with depth holds; raise FrameError where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise FrameError(f"cannot read the depth {path}: {error.strerror}") from error
