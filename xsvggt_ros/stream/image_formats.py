# SPDX-License-Identifier: Apache-2.0
"""How the pixels of an image are coded: what a compressed format says, and how many bits are used.

image_transport writes ``<encoding>; <codec> compressed <target>``, with an empty target for one
channel, and ``<encoding>; compressedDepth <codec>`` for depth; most drivers write the codec alone.
No message says how many of its 16 bits a camera uses.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xsvggt_ros.errors import FrameError

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


logger = logging.getLogger(__name__)

FULL_SCALE = 65535
LEAST_USED = (FULL_SCALE + 1) // 8
"""A camera that has not reached an eighth of the range has fewer bits than its pixels."""

_DEPTHS = (8, 10, 12, 14, 16)
"""Bits that sensors have."""


_HOT_PIXELS = 5000
"""Pixels of which one may be brighter than the sensor can measure: a hot one, or none at all."""


def _brightest(pixels: NDArray[Any]) -> int:
    """Return the largest value, but for those of hot pixels."""
    values = pixels.ravel()
    odd = values.size // _HOT_PIXELS
    most = int(values.max(initial=0))
    # Counting is for images whose bits only a few pixels decide about.
    if not odd or int(np.count_nonzero(values > most // 4)) > odd:
        return most
    return int(np.partition(values, values.size - 1 - odd)[values.size - 1 - odd])


class BitsInUse:
    """Follows the largest value of a camera's 16-bit images through a session.

    A 10-bit camera whose values were taken for 16-bit ones would reach the network as four levels
    of grey.
    """

    def __init__(self) -> None:
        self._most = 0
        self._newest = 0
        self._said = 0

    def begin(self) -> None:
        """Take note that a session began with the newest image."""
        self._most = self._newest

    def full_scale(self, pixels: NDArray[Any]) -> int:
        """Return the value of white, by these uint16 pixels [h, w, ...] and all before them."""
        self._newest = _brightest(pixels)
        self._most = max(self._most, self._newest)
        bits = next(depth for depth in _DEPTHS if self._most < 1 << depth)
        if 0 < self._most < LEAST_USED and bits != self._said:
            self._said = bits
            logger.warning(
                "16-bit images reach no more than %d of %d so far: they are read as %d-bit "
                "ones; shift the driver's pixels up if that is wrong",
                self._most, FULL_SCALE, bits,
            )  # fmt: skip
        return (1 << bits) - 1
