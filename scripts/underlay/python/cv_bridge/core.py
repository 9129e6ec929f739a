# SPDX-License-Identifier: Apache-2.0
"""Between OpenCV's arrays and image messages."""

from __future__ import annotations

import re
import sys
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

_DTYPES = {
    "8U": "uint8", "8S": "int8", "16U": "uint16", "16S": "int16",
    "32S": "int32", "32F": "float32", "64F": "float64",
}  # fmt: skip
_NAMES = {name: short for short, name in _DTYPES.items()}
_CHANNELS = {"mono": 1, "rgb": 3, "bgr": 3, "rgba": 4, "bgra": 4}
_BAYER = {"rggb": "BG", "bggr": "RG", "gbrg": "GR", "grbg": "GB"}
"""OpenCV names a mosaic by its second row and column."""
_GENERIC = re.compile(r"(8U|8S|16U|16S|32S|32F|64F)(?:C([1-9][0-9]*))?")
_COLOR = re.compile(r"(mono|rgba?|bgra?)(8|16)")
_MOSAIC = re.compile(r"bayer_(rggb|bggr|gbrg|grbg)(8|16)")
_YUV = {"yuv422": "UYVY", "yuv422_yuy2": "YUY2"}


class CvBridgeError(TypeError):
    """A conversion that is not possible."""


class CvBridge:
    """Converts; a message without padding, an array without gaps."""

    def encoding_to_dtype_with_channels(self, encoding: str) -> tuple[str, int]:
        """Return numpy's name of an encoding's numbers, and how many there are to a pixel."""
        if found := _COLOR.fullmatch(encoding):
            return f"uint{found[2]}", _CHANNELS[found[1]]
        if found := _MOSAIC.fullmatch(encoding):
            return f"uint{found[2]}", 1
        if encoding in _YUV:
            return "uint8", 2
        if found := _GENERIC.fullmatch(encoding):
            return _DTYPES[found[1]], int(found[2] or 1)
        raise CvBridgeError(f"Unrecognized image encoding [{encoding}]")

    def dtype_with_channels_to_cvtype2(self, dtype: np.dtype[Any], n_channels: int) -> str:
        """Return OpenCV's name of a type, such as 8UC3."""
        return f"{_NAMES[dtype.name]}C{n_channels}"

    def cv2_to_imgmsg(
        self, cvim: NDArray[Any], encoding: str = "passthrough", header: Header | None = None
    ) -> Image:
        """Return an array as a message; ``passthrough`` names the encoding by the array's type."""
        if not isinstance(cvim, np.ndarray | np.generic):
            raise TypeError("Your input type is not a numpy array")
        channels = 1 if cvim.ndim < 3 else cvim.shape[2]
        kind = self.dtype_with_channels_to_cvtype2(cvim.dtype, channels)
        if encoding == "passthrough":
            encoding = kind
        elif self.encoding_to_dtype_with_channels(encoding) != (cvim.dtype.name, channels):
            raise CvBridgeError(
                f"encoding specified as {encoding}, but image has incompatible type {kind}"
            )
        message = Image(height=cvim.shape[0], width=cvim.shape[1], encoding=encoding)
        if header is not None:
            message.header = header
        message.is_bigendian = int(cvim.dtype.byteorder == ">")
        message.data.frombytes(cvim.tobytes())
        message.step = len(message.data) // message.height
        return message

    def imgmsg_to_cv2(self, img_msg: Image, desired_encoding: str = "passthrough") -> NDArray[Any]:
        """Return the pixels of a message, converted to another encoding where one is desired."""
        name, channels = self.encoding_to_dtype_with_channels(img_msg.encoding)
        kind = np.dtype(name).newbyteorder(">" if img_msg.is_bigendian else "<")
        columns = img_msg.step // kind.itemsize // channels
        shape = (img_msg.height, columns, *([channels] if channels > 1 else []))
        pixels: NDArray[Any] = np.ndarray(shape, kind, buffer=img_msg.data)
        pixels = np.ascontiguousarray(pixels[:, : img_msg.width])
        if img_msg.is_bigendian == (sys.byteorder == "little"):
            pixels = pixels.astype(kind.newbyteorder("="))
        if desired_encoding == "passthrough":
            return pixels
        return _converted(self, pixels, img_msg.encoding, desired_encoding)

    def compressed_imgmsg_to_cv2(
        self, cmprs_img_msg: CompressedImage, desired_encoding: str = "passthrough"
    ) -> NDArray[Any]:
        """Return the pixels of a compressed message, as bgr8 where no encoding is desired."""
        data = np.frombuffer(cmprs_img_msg.data, np.uint8)
        pixels = np.asarray(cv2.imdecode(data, cv2.IMREAD_UNCHANGED))
        if desired_encoding == "passthrough":
            return pixels
        return _converted(self, pixels, "bgr8", desired_encoding)

    def cv2_to_compressed_imgmsg(
        self, cvim: NDArray[Any], dst_format: str = "jpg"
    ) -> CompressedImage:
        """Return an array as a compressed message."""
        if not isinstance(cvim, np.ndarray | np.generic):
            raise TypeError("Your input type is not a numpy array")
        message = CompressedImage(format=dst_format)
        message.data.frombytes(cv2.imencode(f".{dst_format}", cvim)[1].tobytes())
        return message


def _converted(bridge: CvBridge, pixels: NDArray[Any], source: str, target: str) -> NDArray[Any]:
    if source == target:
        return np.array(pixels)
    if not _is_color(source) or not _is_color(target):
        if _is_color(target):
            raise CvBridgeError(
                f"[{source}] is not a color format. but [{target}] is. The conversion does not "
                "make sense"
            )
        if (
            bridge.encoding_to_dtype_with_channels(source)[1]
            != (bridge.encoding_to_dtype_with_channels(target)[1])
        ):
            raise CvBridgeError(f"[{source}] and [{target}] do not have the same number of channel")
        return _with_depth(pixels, bridge.encoding_to_dtype_with_channels(target)[0])
    layout, wanted = _layout(source), _layout(target)
    if layout != wanted:
        code = getattr(cv2, _conversion(layout, wanted), None)
        if code is None:
            raise CvBridgeError(f"Unsupported conversion from [{source}] to [{target}]")
        pixels = np.asarray(cv2.cvtColor(pixels, code))
    return _with_depth(pixels, bridge.encoding_to_dtype_with_channels(target)[0])


def _is_color(encoding: str) -> bool:
    known = _COLOR.fullmatch(encoding) or _MOSAIC.fullmatch(encoding)
    return known is not None or encoding in _YUV


def _layout(encoding: str) -> str:
    """Return the name by which OpenCV's conversions call an encoding, less its bits."""
    if found := _COLOR.fullmatch(encoding):
        return "GRAY" if found[1] == "mono" else found[1].upper()
    if found := _MOSAIC.fullmatch(encoding):
        return f"Bayer{_BAYER[found[1]]}"
    return f"YUV_{_YUV[encoding]}"


def _conversion(layout: str, wanted: str) -> str:
    if layout.startswith("YUV_"):
        return f"COLOR_YUV2{wanted}_{layout.removeprefix('YUV_')}"
    return f"COLOR_{layout}2{wanted}"


def _with_depth(pixels: NDArray[Any], dtype: str) -> NDArray[Any]:
    """Return pixels as other numbers; between 8 and 16 bits they are scaled."""
    if pixels.dtype.name == dtype:
        return pixels
    scale = {("uint8", "uint16"): 65535 / 255, ("uint16", "uint8"): 255 / 65535}
    factor = scale.get((pixels.dtype.name, dtype), 1.0)
    wide = pixels.astype(np.float64) * factor
    if np.issubdtype(np.dtype(dtype), np.integer):
        limits = np.iinfo(dtype)
        wide = np.rint(wide).clip(limits.min, limits.max)
    return wide.astype(dtype)
