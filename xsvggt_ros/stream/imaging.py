# SPDX-License-Identifier: Apache-2.0
"""Bytes of cameras and files into RGB images, and back; first of all, how their pixels are coded.

image_transport writes ``<encoding>; <codec> compressed <target>``, with an empty target for one
channel, and ``<encoding>; compressedDepth <codec>`` for depth; most drivers write the codec alone.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, Union

import cv2
import numpy as np
from numpy.typing import NDArray

from xsvggt_ros.errors import FrameError
from xsvggt_ros.stream.frame import FULL_SCALE, BitsInUse, EncodedImage, ImageArray

DEPTH_ENCODINGS = frozenset({"16UC1", "16SC1", "32SC1", "32FC1", "64FC1"})
"""Lengths rather than light (REP-118)."""

IMAGE_ENCODINGS = frozenset(
    {
        *(f"{order}{bits}" for order in ("rgb", "bgr", "rgba", "bgra", "mono") for bits in (8, 16)),
        *(
            f"bayer_{pattern}{bits}"
            for pattern in ("rggb", "bggr", "gbrg", "grbg")
            for bits in (8, 16)
        ),
        *(f"{kind}C{count}" for kind in ("8U", "8S", "16U", "16S", "32S", "32F", "64F")
          for count in range(1, 5)),
        "yuv422", "uyvy", "yuv422_yuy2", "yuyv", "nv12", "nv21", "nv24",
    }
)  # fmt: skip
"""All names of sensor_msgs/image_encodings.hpp, and nv12."""

VIDEO_CODECS = ("h264", "h265", "hevc", "av1", "vp8", "vp9", "mpeg4", "theora")
"""Whose frames depend on each other."""

_BY_LOWER_CASE = {name.lower(): name for name in IMAGE_ENCODINGS}
_CODECS = frozenset({"jpeg", "jpg", "png", "tiff", "webp"})
_DEPTH_TRANSPORT = "compresseddepth"


@dataclass(frozen=True, slots=True)
class CompressedFormat:
    """What a ``format`` says; each part is empty where it says nothing.

    Attributes:
        encoding: of the image before compression, as sensor_msgs/image_encodings names it.
        codec: in lower case, such as ``jpeg``.
        target: the encoding that was given to the codec.

    """

    encoding: str = ""
    codec: str = ""
    target: str = ""

    @property
    def is_depth(self) -> bool:
        """Whether the pixels are lengths."""
        return self.codec == _DEPTH_TRANSPORT or self.encoding in DEPTH_ENCODINGS

    @property
    def is_bayer(self) -> bool:
        """Whether the pixels are a mosaic, unless the codec was given something else."""
        return self.encoding.startswith("bayer_")

    @property
    def is_video(self) -> bool:
        """Whether a frame cannot be decoded by itself."""
        return self.codec in VIDEO_CODECS

    @property
    def is_swapped(self) -> bool:
        """Whether the codec was given red where it expects blue, as old publishers did."""
        return self.target.startswith("rgb")


def parse_format(text: str) -> CompressedFormat:
    """Take a ``format`` apart; one that is none of the known forms is taken for a codec."""
    head, semicolon, rest = (part.strip() for part in text.partition(";"))
    if semicolon and head.lower() in _CODECS:
        return CompressedFormat("", *_codec_and_target(f"{head} {rest}"))
    if semicolon:
        return CompressedFormat(_encoding(head), *_codec_and_target(rest))
    if head.lower() in _BY_LOWER_CASE:
        return CompressedFormat(_encoding(head))
    return CompressedFormat("", *_codec_and_target(head))


def require_image(said: CompressedFormat, text: str) -> None:
    """Raise FrameError where a ``format`` names depth or an encoding that is not known."""
    if said.is_depth:
        raise FrameError(
            f"The format '{text}' is that of a depth map, not of a camera's image: remap image to "
            "the color camera; measured depth belongs on the topic `depth`, uncompressed."
        )
    if said.encoding and said.encoding not in IMAGE_ENCODINGS:
        raise FrameError(
            f"The format '{text}' names the image encoding '{said.encoding}', which is not known: "
            "publish one of sensor_msgs/image_encodings, such as rgb8, or leave only the codec, "
            "such as jpeg."
        )


def _encoding(name: str) -> str:
    return _BY_LOWER_CASE.get(name.lower(), name)


def _codec_and_target(text: str) -> tuple[str, str]:
    codec, _, rest = text.lower().partition(" ")
    return codec, rest.strip().removeprefix("compressed").strip()


Octets: TypeAlias = Union[bytes, bytearray, memoryview, "array[int]", NDArray[np.uint8]]
"""What messages and files hold their bytes in."""

MAX_PIXELS = 1 << 28
"""More than any camera has; a header that says more is broken."""

_JPEG_MAGIC = b"\xff\xd8\xff"
_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_JPEG_START_OF_SCAN = b"\xda"
_JPEG_START_OF_FRAME = {bytes([code]) for code in range(0xC0, 0xD0)} - {b"\xc4", b"\xc8", b"\xcc"}
_JPEG_END_OF_IMAGE = b"\xff\xd9"
_JPEG_MARKER = re.compile(rb"\xff+([^\x00\xff])")


def encoded_format(data: Octets) -> Literal["jpeg", "png"] | None:
    """Name the format of a compressed image by its first bytes."""
    head = _view(data)[:8].tobytes()
    if head.startswith(_JPEG_MAGIC):
        return "jpeg"
    return "png" if head == _PNG_MAGIC else None


def decode_encoded(
    data: Octets, said_format: str = "", *, bits: BitsInUse | None = None
) -> ImageArray:
    """Decode a compressed image (JPEG, PNG, or what else OpenCV reads).

    ``said_format`` is the ``format`` of a message: a Bayer mosaic is demosaiced, and channels that
    the publisher swapped are swapped back. Transparent pixels are laid on white, as the
    reference's loader does; of a message that names its encoding, alpha is dropped, because cameras
    fill it with padding. Sixteen bits are scaled to eight by ``bits``, or by their full range. An
    EXIF orientation is left alone: it would turn the camera's intrinsics.

    Raises:
        FrameError: the data are empty, truncated, no image, announce a huge one, or are said to
            be depth or of an unknown encoding.

    """
    said = parse_format(said_format)
    require_image(said, said_format)
    raw = _view(data).tobytes()
    if not raw:
        raise FrameError("The compressed image is empty (0 bytes): check what publishes it.")
    _refuse_truncated(raw)
    _refuse_huge(raw)
    try:
        decoded = cv2.imdecode(np.frombuffer(raw, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise FrameError(f"OpenCV cannot decode {_describe(raw)}: {error.err}.") from error
    if decoded is None:
        raise _undecodable(raw, said)
    return _rgb_from_decoded(decoded, said, bits)


def _undecodable(raw: bytes, said: CompressedFormat) -> FrameError:
    if said.is_video:
        return FrameError(
            f"The format names the video codec '{said.codec}', whose frames cannot be decoded one "
            "by one: have the driver publish JPEG, or republish the decoded images as raw."
        )
    return FrameError(
        f"{_describe(raw)} are no image that OpenCV can decode: send intact JPEG or PNG."
    )


def encode_png(image: ImageArray) -> EncodedImage:
    """Compress an image [h, w, 3] without loss."""
    _, data = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    return EncodedImage(data.tobytes(), "png")


def _view(data: Octets) -> NDArray[np.uint8]:
    return np.frombuffer(data, np.uint8)


def _describe(raw: bytes) -> str:
    return f"{len(raw)} bytes that begin with {raw[:8].hex(' ')}"


def _refuse_truncated(raw: bytes) -> None:
    """Refuse what several versions of OpenCV would fill up with grey."""
    kind = encoded_format(raw)
    if kind == "jpeg" and not _jpeg_is_complete(raw):
        raise FrameError(
            f"The JPEG image is truncated: {len(raw)} bytes without an end-of-image marker. "
            "Look for lost packets or a full disk."
        )
    if kind == "png" and not _png_is_complete(raw):
        raise FrameError(
            f"The PNG image is truncated: {len(raw)} bytes without the closing IEND chunk. "
            "Look for lost packets or a full disk."
        )


def _refuse_huge(raw: bytes) -> None:
    """Refuse what its header announces as too large, before memory is taken for it."""
    kind = encoded_format(raw)
    width, height = (0, 0) if kind is None else {"jpeg": _jpeg_size, "png": _png_size}[kind](raw)
    if width * height > MAX_PIXELS:
        raise FrameError(
            f"The compressed image is {width} x {height}, at most {MAX_PIXELS} pixels are read: "
            "check what publishes it."
        )


def _jpeg_segments(raw: bytes) -> Iterator[tuple[bytes, int]]:
    """Yield marker and position of the length of each segment up to the first scan."""
    position = 2
    while marker := _JPEG_MARKER.search(raw, position):
        position = marker.end()
        yield marker[1], position
        if marker[1] == _JPEG_START_OF_SCAN:
            return
        position += int.from_bytes(raw[position : position + 2], "big")


def _jpeg_is_complete(raw: bytes) -> bool:
    """Look for the end behind the headers, where an embedded thumbnail may have one of its own.

    The data of a scan never look like a marker, because zeros are stuffed into them.
    """
    return any(
        marker == _JPEG_START_OF_SCAN and raw.find(_JPEG_END_OF_IMAGE, position) >= 0
        for marker, position in _jpeg_segments(raw)
    )


def _jpeg_size(raw: bytes) -> tuple[int, int]:
    for marker, position in _jpeg_segments(raw):
        if marker in _JPEG_START_OF_FRAME:
            height, width = raw[position + 3 : position + 5], raw[position + 5 : position + 7]
            return int.from_bytes(width, "big"), int.from_bytes(height, "big")
    return 0, 0


def _png_size(raw: bytes) -> tuple[int, int]:
    return int.from_bytes(raw[16:20], "big"), int.from_bytes(raw[20:24], "big")


def _png_is_complete(raw: bytes) -> bool:
    position = len(_PNG_MAGIC)
    while position + 12 <= len(raw):
        length = int.from_bytes(raw[position : position + 4], "big")
        if raw[position + 4 : position + 8] == b"IEND":
            return True
        position += 12 + length
    return False


def _rgb_from_decoded(
    decoded: NDArray[Any], said: CompressedFormat, bits: BitsInUse | None
) -> ImageArray:
    pixels = _to_8_bits(decoded, bits)
    if said.is_bayer and (mosaic := _mosaic(pixels)) is not None:
        layout = _LAYOUTS[said.encoding]
        _check_size(mosaic.shape[1], mosaic.shape[0], said.encoding, layout)
        return layout.convert(mosaic)
    if pixels.ndim == 2:
        return _convert(pixels, cv2.COLOR_GRAY2RGB)
    if pixels.shape[2] == 4 and not said.encoding:
        return _on_white(_convert(pixels, cv2.COLOR_BGRA2RGBA))
    if said.is_swapped:
        return np.ascontiguousarray(pixels[..., :3])
    return _convert(pixels[..., :3], cv2.COLOR_BGR2RGB)


def _mosaic(pixels: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
    """Return the one channel of a mosaic; None where the publisher has made colors of it."""
    if pixels.ndim == 2:
        return pixels
    # Some encoders have no format of one channel, and write the same into all three.
    first = np.ascontiguousarray(pixels[..., 0])
    return first if (pixels[..., 1:3] == first[..., None]).all() else None


def _convert(pixels: NDArray[np.uint8], code: int) -> ImageArray:
    if pixels.shape[:2] == (1, 1):  # which OpenCV 4.5, of Ubuntu 22.04, refuses
        return _convert(np.repeat(pixels, 2, axis=0), code)[:1]
    return np.asarray(cv2.cvtColor(pixels, code), np.uint8)


def _to_8_bits(pixels: NDArray[Any], bits: BitsInUse | None = None) -> NDArray[np.uint8]:
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype != np.uint16:
        raise FrameError(
            f"The image has {pixels.dtype} pixels, a camera's have 8 or 16 unsigned bits: "
            "convert it (a depth map is no camera image)."
        )
    aligned = np.require(pixels, requirements=("C", "A"))  # OpenCV misreads rows at odd addresses
    white = FULL_SCALE if bits is None else bits.full_scale(aligned)
    return np.asarray(cv2.convertScaleAbs(aligned, alpha=255 / white), np.uint8)


def _on_white(rgba: NDArray[np.uint8]) -> ImageArray:
    """Composite on white in rounded integers: (c * a + 255 * (255 - a)) / 255."""
    color = rgba[..., :3].astype(np.uint32)
    alpha = rgba[..., 3:].astype(np.uint32)
    return ((color * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


@dataclass(frozen=True, slots=True)
class _Layout:
    """How one ROS encoding lays out its pixels.

    ``convert`` takes uint8 [rows, width] or [rows, width, channels] and returns a new image.
    ``even`` and ``smallest`` limit the size. ``rows_per_two`` counts the rows of memory for two of
    the image: planar YUV holds its chroma below the luma.
    """

    channels: int
    convert: Callable[[NDArray[np.uint8]], ImageArray]
    bits: Literal[8, 16] = 8
    even: Literal["", "width", "width and height"] = ""
    smallest: int = 1
    rows_per_two: int = 2

    @property
    def pixel_bytes(self) -> int:
        return self.channels * self.bits // 8

    def rows(self, height: int) -> int:
        """Count the rows of memory."""
        return height * self.rows_per_two // 2


def _by(code: int) -> Callable[[NDArray[np.uint8]], ImageArray]:
    return lambda pixels: _convert(pixels, code)


def _copied(pixels: NDArray[np.uint8]) -> ImageArray:
    return np.array(pixels, order="C")


def _from_nv24(rows: NDArray[np.uint8]) -> ImageArray:
    """Convert 4:4:4 as the 4:2:0 of twice the size, whose chroma is the same."""
    height, width = len(rows) // 3, rows.shape[1]
    luma = rows[:height].repeat(2, axis=0).repeat(2, axis=1)
    chroma = rows[height:].reshape(height, 2 * width)
    doubled = _convert(np.vstack([luma, chroma]), cv2.COLOR_YUV2RGB_NV12)
    return np.ascontiguousarray(doubled[::2, ::2])


def _with_16_bits(layouts: dict[str, _Layout]) -> dict[str, _Layout]:
    """Add to every ``name8`` the same layout as ``name16``."""
    deep = {f"{name[:-1]}16": replace(each, bits=16) for name, each in layouts.items()}
    return {**layouts, **deep}


# OpenCV names a Bayer pattern by the pixels from (1, 1) on, ROS by those from (0, 0) on; and
# OpenCV leaves a mosaic of less than 3 x 3 black.
_BAYER = {
    "bayer_rggb8": _Layout(1, _by(cv2.COLOR_BayerBG2RGB), smallest=3),
    "bayer_bggr8": _Layout(1, _by(cv2.COLOR_BayerRG2RGB), smallest=3),
    "bayer_gbrg8": _Layout(1, _by(cv2.COLOR_BayerGR2RGB), smallest=3),
    "bayer_grbg8": _Layout(1, _by(cv2.COLOR_BayerGB2RGB), smallest=3),
}
_COLORS = {
    "rgb8": _Layout(3, _copied),
    "bgr8": _Layout(3, _by(cv2.COLOR_BGR2RGB)),
    "rgba8": _Layout(4, _by(cv2.COLOR_RGBA2RGB)),
    "bgra8": _Layout(4, _by(cv2.COLOR_BGRA2RGB)),
    "mono8": _Layout(1, _by(cv2.COLOR_GRAY2RGB)),
}
_LAYOUTS = {
    **_with_16_bits({**_COLORS, **_BAYER}),
    "8UC1": _COLORS["mono8"],
    "8UC3": _COLORS["bgr8"],
    "8UC4": _COLORS["bgra8"],
    "16UC3": replace(_COLORS["bgr8"], bits=16),
    "16UC4": replace(_COLORS["bgra8"], bits=16),
    "uyvy": _Layout(2, _by(cv2.COLOR_YUV2RGB_UYVY), even="width"),
    "yuv422": _Layout(2, _by(cv2.COLOR_YUV2RGB_UYVY), even="width"),
    "yuyv": _Layout(2, _by(cv2.COLOR_YUV2RGB_YUY2), even="width"),
    "yuv422_yuy2": _Layout(2, _by(cv2.COLOR_YUV2RGB_YUY2), even="width"),
    "nv12": _Layout(1, _by(cv2.COLOR_YUV2RGB_NV12), even="width and height", rows_per_two=3),
    "nv21": _Layout(1, _by(cv2.COLOR_YUV2RGB_NV21), even="width and height", rows_per_two=3),
    "nv24": _Layout(1, _from_nv24, rows_per_two=6),
}

RAW_ENCODINGS = tuple(_LAYOUTS)
"""Names of the encodings of a ``sensor_msgs/Image`` that :func:`decode_raw` reads."""


def decode_raw(
    data: Octets,
    *,
    width: int,
    height: int,
    encoding: str,
    step: int,
    is_bigendian: bool,
    bits: BitsInUse | None = None,
) -> ImageArray:
    """Decode the pixels of a ``sensor_msgs/Image`` into a new RGB image, uint8 [height, width, 3].

    ``step`` is the length of a row in bytes, padding included. Alpha is dropped, because
    cameras fill it with padding; sixteen bits are scaled to eight by ``bits``, or by their full
    range.

    Raises:
        FrameError: the encoding is unknown or depth, or size, step and data contradict each other.

    """
    layout = _find_layout(encoding)
    _check_size(width, height, encoding, layout)
    _check_step(width, encoding, step, layout)
    rows = layout.rows(height)
    octets = _view(data)
    _check_length(octets.size, rows, step)
    byte_order = ">" if is_bigendian else "<"
    pixels = _pixels(
        octets, (rows, width, layout.channels), step, f"{byte_order}u{layout.bits // 8}"
    )
    return layout.convert(_to_8_bits(pixels, bits))


def _find_layout(encoding: str) -> _Layout:
    known = next((name for name in _LAYOUTS if name.lower() == encoding.strip("\0 ").lower()), "")
    if not known:
        depth = " A depth map is no camera's image." if encoding in DEPTH_ENCODINGS else ""
        raise FrameError(
            f"The image encoding '{encoding}' is not supported: publish one of "
            f"{', '.join(RAW_ENCODINGS)}.{depth}"
        )
    return _LAYOUTS[known]


def _check_size(width: int, height: int, encoding: str, layout: _Layout) -> None:
    size, least = f"The image is {width} x {height}", layout.smallest
    if min(width, height) < least:
        raise FrameError(f"{size}, {encoding} needs at least {least} x {least}: check the camera.")
    if width * height > MAX_PIXELS:
        raise FrameError(f"{size}, at most {MAX_PIXELS} pixels are read: check the message.")
    sides = {"": (), "width": (width,), "width and height": (width, height)}[layout.even]
    if any(side % 2 for side in sides):
        raise FrameError(f"{size}, {encoding} needs an even {layout.even}: crop or convert it.")


def _check_step(width: int, encoding: str, step: int, layout: _Layout) -> None:
    least = width * layout.pixel_bytes
    if step < least:
        raise FrameError(
            f"step is {step} bytes, a row of {width} pixels of {encoding} needs {least}: "
            "the message's step, width or encoding is wrong."
        )


def _check_length(held: int, rows: int, step: int) -> None:
    if held < rows * step:
        raise FrameError(
            f"data holds {held} bytes, {rows} rows of {step} need {rows * step}: "
            "the message is truncated, or its step or height is wrong."
        )


def _pixels(
    octets: NDArray[np.uint8], shape: tuple[int, int, int], step: int, dtype: str
) -> NDArray[Any]:
    """View the pixels without padding and without a lone channel, in the machine's byte order."""
    size = np.dtype(dtype).itemsize
    strides = (step, size * shape[2], size)
    pixels: NDArray[Any] = np.ndarray(shape, dtype, buffer=octets.data, strides=strides)
    native = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    return native[..., 0] if shape[2] == 1 else native
