# SPDX-License-Identifier: Apache-2.0
"""What the ``format`` of a compressed image says of its pixels.

image_transport writes ``<encoding>; <codec> compressed <target>``, with an empty target for one
channel, and ``<encoding>; compressedDepth <codec>`` for depth; most drivers write the codec alone.
"""

from __future__ import annotations

from dataclasses import dataclass

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
