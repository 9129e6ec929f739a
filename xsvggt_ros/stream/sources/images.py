# SPDX-License-Identifier: Apache-2.0
"""Which files of a directory are a camera's images: the one lister that everything uses.

Depth maps, masks and the like beside images are left out, and so are formats that this OpenCV does
not read; what is left out is said in one sentence.
"""

from __future__ import annotations

import io
import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from xsvggt_ros.errors import SourceError
from xsvggt_ros.geometry.text_tables import UNITS, time_unit
from xsvggt_ros.stream.frame import SECOND, ImageArray

_TIME = re.compile(r"[^0-9]*?([0-9]+(?:\.[0-9]+)?)[^0-9]*")
_LATEST = 2**31 * SECOND
"""Nanoseconds, from which on the seconds of a stamp outgrow the 32 bits that ROS has for them."""

_FRACTION = re.compile(r"([0-9]+\.[0-9]{3,})")
"""Seconds with milliseconds; a version such as 1.2 is no time."""


def natural_order(path: Path) -> tuple[list[tuple[int, str]], str]:
    """Sort 2 before 10; equal numbers such as 1 and 01 in the order of their names."""
    parts = re.split(r"([0-9]+)", path.name.lower())
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts], path.name


def times_of(names: Sequence[str]) -> tuple[list[int], str] | None:
    """Return the times in nanoseconds that file names without suffix are, and their unit.

    Names that count frames are none, and neither are times that repeat.
    """
    fractions = [_FRACTION.fullmatch(name) for name in names]
    found = [_TIME.fullmatch(name) for name in names]
    if len(names) < 2 or not all(found):
        return None
    values = [Decimal(match[1]) for match in found if match]
    unit = "seconds" if all(fractions) else time_unit(values)
    if unit is None:
        return None
    stamps = [int(value * UNITS[unit]) for value in values]
    ordered = sorted(stamps)
    if ordered[-1] >= _LATEST or any(first == second for first, second in pairwise(ordered)):
        return None
    return stamps, unit


_TAG = 0x0112

_TIFF = (b"II*\0", b"MM\0*")

UPRIGHT = 1
_TURNS = {
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.transpose(1, 0, 2),
    6: lambda image: image.transpose(1, 0, 2)[:, ::-1],
    7: lambda image: image.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda image: image.transpose(1, 0, 2)[::-1],
}
"""What brings an image upright, by the value of EXIF."""


def orientation(data: bytes) -> int:
    """Return the orientation that an image file says, 1 to 8; 1 where it says none.

    OpenCV turns a TIFF upright whenever it reads one, so that nothing is left to be done.
    """
    if data.startswith(_TIFF):
        return UPRIGHT
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data)) as image:
                value = image.getexif().get(_TAG, UPRIGHT)
    except Exception:  # noqa: BLE001 - what is wrong with the file, its decoder says
        return UPRIGHT
    return value if value in _TURNS else UPRIGHT


def turned(image: ImageArray, value: int) -> ImageArray:
    """Return an image [h, w, 3] upright that was stored with an orientation."""
    return np.ascontiguousarray(_TURNS[value](image)) if value in _TURNS else image


IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".dib", ".webp", ".tif", ".tiff", ".ppm",
    ".pgm", ".pbm", ".pnm",
)  # fmt: skip
"""Formats that every OpenCV reads."""

RARE_SUFFIXES = (
    ".jp2", ".j2k", ".jpx", ".avif", ".heic", ".heif", ".hif", ".jxl", ".gif", ".exr", ".hdr",
    ".pfm", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".tga", ".psd",
)  # fmt: skip
"""Formats that some OpenCV read, or none."""

MANY = (".tif", ".tiff", ".webp", ".gif", ".png", ".avif")
"""Formats that can hold several images."""

COLOR_WORDS = frozenset(("color", "colour", "rgb", "image", "img", "frame", "left"))

OTHER_WORDS = {
    "depth maps": frozenset(("depth", "disparity", "disp", "range", "xyz", "pointmap")),
    "masks and labels": frozenset(
        ("mask", "masks", "seg", "segmentation", "semantic", "semantics", "label", "labels",
         "instance", "instances", "matte", "alpha", "valid")
    ),
    "other maps": frozenset(
        ("normal", "normals", "conf", "confidence", "flow", "albedo", "uncertainty", "intensity",
         "thumb", "thumbnail", "preview")
    ),
}  # fmt: skip
"""Words in names of files that are no images of the camera, where such images lie beside them."""

_STRAYS = "images beside the series"
_ONE = {
    "depth maps": "depth map", "masks and labels": "mask or label", "other maps": "other map",
    _STRAYS: "image beside the series",
}  # fmt: skip
"""What is left out, where there is one of it."""

_CONVERT = "convert them to JPEG or PNG"
_NAMED = 3
_LEAST_SERIES = 3
"""Images with a number in their names that make a series."""
_EVEN_SHARE = 0.5
"""Of its even share of the images, from which on each series may be that of a camera."""


@dataclass(frozen=True)
class ImageList:
    """The images of a directory.

    Attributes:
        files: in the order in which they were taken, as their names tell.
        stamps: in nanoseconds, where the names are times; None where they count or are words.
        unit: of the names that are times; empty otherwise.
        remarks: what was left out; a sentence each.

    """

    files: list[Path]
    stamps: list[int] | None
    remarks: tuple[str, ...] = ()
    unit: str = ""


def is_image(path: Path) -> bool:
    """Tell by its name whether a file is an image of a format that is read everywhere.

    Files whose names begin with a dot are none: macOS writes ``._name`` beside each file.
    """
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def is_rare_image(path: Path) -> bool:
    """Tell whether a file is an image of a format that this OpenCV may not read."""
    return path.suffix.lower() in RARE_SUFFIXES and not path.name.startswith(".")


def is_read(path: Path) -> bool:
    """Tell whether OpenCV reads a file of a rare format."""
    try:
        return bool(cv2.haveImageReader(str(path)))
    except cv2.error:
        return False


def list_images(directory: Path) -> ImageList:
    """List the camera's images in a directory; the list is empty where there is none.

    Raises:
        SourceError: it cannot be listed.

    """
    files = [each for each in entries(directory) if not each.is_dir()]
    read = [each for each in files if is_image(each)]
    rare = [each for each in files if is_rare_image(each)]
    animated = [each for each in rare if each.suffix.lower() == ".gif"]
    tried = [each for each in rare if each not in animated]
    usable = {
        suffix for suffix in {each.suffix.lower() for each in tried}
        if is_read(next(each for each in tried if each.suffix.lower() == suffix))
    }  # fmt: skip
    read += [each for each in tried if each.suffix.lower() in usable]
    foreign = [each for each in rare if each.suffix.lower() not in usable]
    foreign = _not_read_otherwise(foreign, read)
    images, others = _without_others(sorted(read, key=natural_order))
    images, others[_STRAYS] = _without_strays(images)
    remarks = [*_left_out(directory, others, foreign), *_series(directory, images),
               *_several(images)]  # fmt: skip
    return _in_order(images, remarks)


def entries(directory: Path) -> list[Path]:
    """Return what a directory holds but for hidden entries.

    Raises:
        SourceError: it cannot be listed.

    """
    try:
        return [each for each in directory.iterdir() if not each.name.startswith(".")]
    except OSError as error:
        raise SourceError(
            f"Cannot list {directory}: {error.strerror}. Check its rights."
        ) from error


def _in_order(images: list[Path], remarks: Sequence[str]) -> ImageList:
    """Sort by time where the names are times."""
    times = times_of([each.stem for each in images])
    if times is None:
        return ImageList(images, None, tuple(remarks))
    stamps, unit = times
    pairs = sorted(zip(stamps, images, strict=True), key=lambda pair: pair[0])
    # A stamp of zero means "no time" to ROS.
    later = SECOND if pairs[0][0] <= 0 else 0
    files = [image for _, image in pairs]
    return ImageList(files, [stamp + later for stamp, _ in pairs], tuple(remarks), unit)


def _not_read_otherwise(foreign: list[Path], read: Sequence[Path]) -> list[Path]:
    """Return the files of which no copy is read, as cameras write RAW beside JPEG."""
    stems = {each.stem.lower() for each in read}
    return [each for each in foreign if each.stem.lower() not in stems]


def _without_strays(images: list[Path]) -> tuple[list[Path], list[Path]]:
    """Return the images of a numbered series, and those without a number that are not of it.

    An overview or a cover would be the first or the last image of a stream.
    """
    numbered = [each for each in images if any(map(str.isdecimal, _words(each)))]
    if len(numbered) < _LEAST_SERIES or 2 * len(numbered) < len(images):
        return images, []
    words = {tuple(word for word in _words(each) if not word.isdecimal()) for each in numbered}
    # The first of "image.png, image(1).png" has no number, either.
    strays = [each for each in images if each not in numbered and tuple(_words(each)) not in words]
    return [each for each in images if each not in strays], strays


def _words(path: Path) -> list[str]:
    return [word for word in re.split(r"[^a-z0-9]+|(?<=[a-z])(?=[0-9])|(?<=[0-9])(?=[a-z])",
                                      path.stem.lower()) if word]  # fmt: skip


def _kind(path: Path) -> str:
    """Return what a file is by the words of its name; empty for an image of the camera."""
    words = set(_words(path))
    return next((kind for kind, names in OTHER_WORDS.items() if words & names), "")


def moment_of(path: Path) -> tuple[str, ...]:
    """Return what files of the same moment share in their names."""
    words = _words(path)
    numbers = tuple(word.lstrip("0") or "0" for word in words if word.isdecimal())
    every = COLOR_WORDS.union(*OTHER_WORDS.values(), ("proj",))
    return numbers or tuple(word for word in words if word not in every)


def _without_others(files: Sequence[Path]) -> tuple[list[Path], dict[str, list[Path]]]:
    """Return the camera's images, and by kind what belongs to one of them and is none itself."""
    images = [each for each in files if not _kind(each)]
    keys = {moment_of(each) for each in images}
    names = {each.name for each in images}
    others: dict[str, list[Path]] = defaultdict(list)
    kept = []
    for each in files:
        kind, key = _kind(each), moment_of(each)
        # Renderers number what belongs to an image once more: r_0.png, r_0_depth_0001.png.
        if kind and any(key[:length] in keys for length in range(1, len(key) + 1)):
            others[kind].append(each)
        elif not kind and each.stem in names:  # COLMAP calls the mask of a.jpg a.jpg.png.
            others["masks and labels"].append(each)
        else:
            kept.append(each)
    return kept, others


def _left_out(
    directory: Path, others: dict[str, list[Path]], foreign: Sequence[Path]
) -> Iterable[str]:
    """Yield the sentence about what is left out, if anything is."""
    parts = [
        f"{len(files)} {_ONE[kind] if len(files) == 1 else kind} ({_some(files)})"
        for kind, files in others.items()
        if files
    ]
    suffixes = Counter(each.suffix.lower() for each in foreign)
    for suffix, count in suffixes.items():
        if suffix == ".gif":
            parts.append(f"{count} .gif (give one by itself, as a video)")
        else:
            parts.append(f"{count} {suffix}, which this OpenCV does not read ({_CONVERT})")
    if parts:
        yield f"{directory}: left out: {'; '.join(parts)}."


def _series(directory: Path, images: Sequence[Path]) -> Iterable[str]:
    """Yield a sentence where the images of several cameras seem to lie together."""
    by_name: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    for each in images:
        by_name[re.sub(r"[0-9]+", "#", each.stem.lower())].add(moment_of(each))
    several = {name: keys for name, keys in by_name.items() if len(keys) > 1}
    if len(several) > 1:
        shared = set.intersection(*several.values())
        fewest = min(map(len, several.values()))
        if 2 * len(shared) >= fewest or len(several) * fewest >= _EVEN_SHARE * len(images):
            named = ", ".join(sorted(several)[:_NAMED])
            yield (
                f"{directory} seems to hold {len(several)} series of images ({named}): they are "
                "read as one, in the order of their names; put each into a directory of its own."
            )


def _several(images: Sequence[Path]) -> Iterable[str]:
    """Yield a sentence where files hold more than one image."""
    files = [each for each in images if each.suffix.lower() in MANY and images_in(each) > 1]
    if files:
        yield (
            f"{len(files)} files hold several images, of which the first is taken "
            f"({_some(files)}); split them to use all."
        )


def images_in(path: Path) -> int:
    """Return how many images a file holds; 1 where nobody can tell."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                return int(getattr(image, "n_frames", 1))
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError):
        return 1


def _some(files: Sequence[Path]) -> str:
    more = ", ..." if len(files) > 1 else ""
    return f"{files[0].name}{more}"
