# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import struct
import zlib
from array import array
from typing import Any

import cv2
import numpy as np
import pytest
from bags import encode, images
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from xsvggt_ros.errors import FrameError
from xsvggt_ros.stream.imaging import (
    RAW_ENCODINGS,
    decode_encoded,
    decode_raw,
    encode_png,
    encoded_format,
)

CHANNELS = {
    "rgb8": (0, 1, 2),
    "bgr8": (2, 1, 0),
    "rgba8": (0, 1, 2),
    "bgra8": (2, 1, 0),
    "8UC3": (2, 1, 0),
    "mono8": (0, 0, 0),
    "8UC1": (0, 0, 0),
}
"""Where R, G and B lie within a pixel."""


def _pixel_channels(encoding: str) -> int:
    if encoding in ("mono8", "8UC1", "mono16"):
        return 1
    return 4 if encoding[3] == "a" else 3


def _padded(rows: NDArray[np.uint8], padding: int) -> NDArray[np.uint8]:
    """Append rubbish to each row."""
    filler = np.full((len(rows), padding), 0xA5, np.uint8)
    return np.hstack([rows.reshape(len(rows), -1), filler])


def _decode(
    pixels: NDArray[np.generic], encoding: str, *, padding: int = 0, is_bigendian: bool = False
) -> NDArray[np.uint8]:
    height, width = pixels.shape[:2]
    rows = _padded(np.ascontiguousarray(pixels).reshape(height, -1).view(np.uint8), padding)
    return decode_raw(
        rows.tobytes(),
        width=width,
        height=height,
        encoding=encoding,
        step=rows.shape[1],
        is_bigendian=is_bigendian,
    )


sizes = st.tuples(st.integers(1, 17), st.integers(1, 17))
paddings = st.integers(0, 9)
seeds = st.integers(0, 2**32 - 1)


@given(st.sampled_from(sorted(CHANNELS)), sizes, paddings, seeds)
@settings(deadline=None)
def test_raw_8_bit_round_trip(
    encoding: str, size: tuple[int, int], padding: int, seed: int
) -> None:
    shape = (*size, _pixel_channels(encoding))
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    image = _decode(pixels, encoding, padding=padding)
    np.testing.assert_array_equal(image, pixels[..., CHANNELS[encoding]])
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous


@given(
    st.sampled_from(["rgb16", "bgr16", "rgba16", "bgra16", "mono16"]),
    sizes,
    paddings,
    st.booleans(),
    seeds,
)
@settings(deadline=None)
def test_raw_16_bit_round_trip(
    encoding: str, size: tuple[int, int], padding: int, is_bigendian: bool, seed: int
) -> None:
    shape = (*size, _pixel_channels(encoding))
    values = np.random.default_rng(seed).integers(0, 65536, shape)
    pixels = values.astype(">u2" if is_bigendian else "<u2")
    image = _decode(pixels, encoding, padding=padding, is_bigendian=is_bigendian)
    expected = np.rint(values / 257)[..., CHANNELS[f"{encoding[:-2]}8"]]
    np.testing.assert_array_equal(image, expected)


def test_16_bits_are_rounded_for_every_value() -> None:
    values = np.arange(65536, dtype="<u2").reshape(256, 256)
    image = _decode(values, "mono16")
    np.testing.assert_array_equal(image[..., 0], np.rint(values / 257.0))


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
@pytest.mark.parametrize("color", [(200, 40, 90), (255, 0, 0), (0, 0, 255)])
def test_bayer_gives_back_the_color(pattern: str, depth: int, color: tuple[int, ...]) -> None:
    mosaic = np.zeros((8, 10), "<u2" if depth == 16 else np.uint8)
    for place, letter in enumerate(pattern):
        value = color["rgb".index(letter)]
        mosaic[place // 2 :: 2, place % 2 :: 2] = value * (257 if depth == 16 else 1)
    image = _decode(mosaic, f"bayer_{pattern}{depth}", padding=3 if depth == 8 else 2)
    assert (image == color).all()


@pytest.mark.parametrize(
    ("encoding", "order"),
    [("uyvy", "uyvy"), ("yuv422", "uyvy"), ("yuyv", "yuyv"), ("yuv422_yuy2", "yuyv")],
)
def test_yuv_422(encoding: str, order: str) -> None:
    red = {"y": 81, "u": 90, "v": 240}  # BT.601, limited range
    row = [red[letter] for letter in order] * 3
    pixels = np.array([row] * 4, np.uint8).reshape(4, 6, 2)
    image = _decode(pixels, encoding, padding=5)
    assert image.shape == (4, 6, 3)
    np.testing.assert_allclose(image.reshape(-1, 3), [[255, 0, 0]] * 24, atol=3)


@pytest.mark.parametrize(("encoding", "chroma"), [("nv12", (90, 240)), ("nv21", (240, 90))])
def test_yuv_420(encoding: str, chroma: tuple[int, int]) -> None:
    luma = np.full((4, 6), 81, np.uint8)
    below = np.tile(np.array(chroma, np.uint8), (2, 3))
    rows = _padded(np.vstack([luma, below]), 2)
    image = decode_raw(
        rows.tobytes(), width=6, height=4, encoding=encoding, step=8, is_bigendian=False
    )
    np.testing.assert_allclose(image.reshape(-1, 3), [[255, 0, 0]] * 24, atol=3)


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "mono8", "rgba8"])
def test_the_image_does_not_alias_the_message(encoding: str) -> None:
    data = bytearray(4 * 4 * 4)
    step = 4 * _pixel_channels(encoding)
    image = decode_raw(data, width=4, height=4, encoding=encoding, step=step, is_bigendian=False)
    data[:] = b"\xff" * len(data)
    assert not image.any()
    image[:] = 7


@pytest.mark.parametrize("hold", [bytes, bytearray, memoryview, lambda raw: array("B", raw)])
def test_every_container_of_bytes_is_read(hold: type) -> None:
    data = hold(bytes(range(12)))
    image = decode_raw(data, width=2, height=2, encoding="rgb8", step=6, is_bigendian=False)
    assert image.ravel().tolist() == list(range(12))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoding": "32FC1"}, "encoding '32FC1' is not supported: publish one of rgb8, bgr8"),
        ({"encoding": ""}, "encoding '' is not supported"),
        ({"step": 11}, "step is 11 bytes, a row of 4 pixels of rgb8 needs 12"),
        ({"step": 0}, "step is 0 bytes"),
        ({"data": bytes(35)}, "data holds 35 bytes, 3 rows of 12 need 36"),
        ({"data": b""}, "data holds 0 bytes"),
        ({"width": 0}, "The image is 0 x 3, rgb8 needs at least 1 x 1"),
        ({"height": 0}, "The image is 4 x 0"),
        ({"width": 2**31, "height": 2**31}, "at most 268435456 pixels"),
        ({"width": 3, "encoding": "uyvy"}, "uyvy needs an even width"),
        ({"height": 3, "encoding": "nv12"}, "nv12 needs an even width and height"),
        ({"width": 2, "encoding": "bayer_rggb8"}, "bayer_rggb8 needs at least 3 x 3"),
    ],
)
def test_contradictory_raw_images_are_refused(change: dict[str, Any], message: str) -> None:
    message_fields: dict[str, Any] = {
        "data": bytes(36),
        "width": 4,
        "height": 3,
        "encoding": "rgb8",
        "step": 12,
        "is_bigendian": False,
    }
    with pytest.raises(FrameError, match=message.replace("(", r"\(")):
        decode_raw(**{**message_fields, **change})


@given(
    st.sampled_from([*RAW_ENCODINGS, "unknown"]),
    st.integers(0, 9),
    st.integers(0, 9),
    st.integers(0, 60),
    st.integers(0, 400),
    st.booleans(),
)
@settings(deadline=None)
def test_any_header_gives_an_image_or_a_frame_error(
    encoding: str, width: int, height: int, step: int, length: int, is_bigendian: bool
) -> None:
    try:
        image = decode_raw(
            bytes(length),
            width=width,
            height=height,
            encoding=encoding,
            step=step,
            is_bigendian=is_bigendian,
        )
    except FrameError:
        return
    assert image.shape == (height, width, 3)


def test_png_round_trip_is_exact() -> None:
    image = np.random.default_rng(0).integers(0, 256, (13, 7, 3), dtype=np.uint8)
    encoded = encode_png(image)
    assert encoded.format == encoded_format(encoded.data) == "png"
    np.testing.assert_array_equal(decode_encoded(encoded.data), image)


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".bmp", ".tiff"])
def test_other_formats(suffix: str) -> None:
    (image,) = images(1)
    decoded = decode_encoded(encode(image, suffix))
    assert np.abs(decoded.astype(int) - image).mean() < 4


def test_jpeg_is_rgb_and_named() -> None:
    data = encode(np.full((16, 16, 3), (250, 10, 10), np.uint8), ".jpg")
    assert encoded_format(data) == "jpeg"
    assert np.abs(decode_encoded(data).astype(int) - (250, 10, 10)).max() < 6


def test_gray_becomes_rgb() -> None:
    gray = np.arange(64, dtype=np.uint8).reshape(8, 8)
    data = cv2.imencode(".png", gray)[1]
    np.testing.assert_array_equal(decode_encoded(data), np.repeat(gray[..., None], 3, axis=2))


def test_16_bit_png_is_scaled() -> None:
    deep = (np.arange(64).reshape(8, 8) * 1040).astype(np.uint16)
    image = decode_encoded(cv2.imencode(".png", deep)[1])
    np.testing.assert_array_equal(image[..., 1], np.rint(deep / 257))


def test_alpha_is_laid_on_white() -> None:
    rgba = np.random.default_rng(1).integers(0, 256, (16, 16, 4), dtype=np.uint8)
    data = cv2.imencode(".png", cv2.cvtColor(rgba, cv2.COLOR_RGBA2BGRA))[1]
    alpha = rgba[..., 3:] / 255.0
    expected = np.rint(rgba[..., :3] * alpha + 255.0 * (1 - alpha))
    np.testing.assert_array_equal(decode_encoded(data), expected)


def test_gray_with_alpha_is_laid_on_white() -> None:
    image = decode_encoded(_png(color_type=4, rows=b"\x00" + bytes([100, 255, 0, 0])))
    assert image.tolist() == [[[100] * 3, [255] * 3]]


def test_a_depth_map_is_refused() -> None:
    data = cv2.imencode(".tiff", np.ones((8, 8), np.float32))[1]
    with pytest.raises(FrameError, match="float32 pixels"):
        decode_encoded(data)


def test_an_empty_image_is_refused() -> None:
    with pytest.raises(FrameError, match="empty"):
        decode_encoded(b"")


@pytest.mark.parametrize("data", [b"\x00", b"no image at all", bytes(10_000)])
def test_garbage_is_refused(data: bytes) -> None:
    with pytest.raises(FrameError, match=f"{len(data)} bytes that begin with .* no image"):
        decode_encoded(data)


@given(st.binary(max_size=400), st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"]))
@settings(deadline=None)
def test_any_bytes_give_an_image_or_a_frame_error(tail: bytes, head: bytes) -> None:
    with pytest.raises(FrameError):
        decode_encoded(head + tail)


JPEG = encode(images(1, height=48, width=64)[0], ".jpg")
PNG = encode(images(1)[0], ".png")


@given(st.integers(3, len(JPEG) - 1))
@settings(deadline=None)
def test_a_truncated_jpeg_is_refused(length: int) -> None:
    with pytest.raises(FrameError, match="truncated"):
        decode_encoded(JPEG[:length])


@given(st.integers(8, len(PNG) - 9))
@settings(deadline=None)
def test_a_truncated_png_is_refused(length: int) -> None:
    with pytest.raises(FrameError, match="truncated"):
        decode_encoded(PNG[:length])


def test_a_thumbnail_does_not_hide_a_truncation() -> None:
    thumbnail = encode(images(1, height=8, width=8)[0], ".jpg")
    exif = b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail
    whole = JPEG[:2] + exif + JPEG[2:]
    assert decode_encoded(whole).shape == (48, 64, 3)
    for length in (len(exif) + 2, len(whole) // 2, len(whole) - 2):
        with pytest.raises(FrameError, match="truncated"):
            decode_encoded(whole[:length])


def test_a_progressive_jpeg_needs_its_last_scan() -> None:
    bgr = np.ascontiguousarray(images(1, height=48, width=64)[0][..., ::-1])
    data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    assert decode_encoded(data).shape == (48, 64, 3)
    with pytest.raises(FrameError, match="truncated"):
        decode_encoded(data[: data.rindex(b"\xff\xda") + 4])


def test_bytes_after_the_image_do_no_harm() -> None:
    np.testing.assert_array_equal(decode_encoded(JPEG + bytes(64)), decode_encoded(JPEG))


def _png(*, color_type: int, rows: bytes) -> bytes:
    """Write a PNG of 2 x 1 pixels by hand."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + check

    head = struct.pack(">IIBBBBB", 2, 1, 8, color_type, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def test_a_header_that_announces_a_huge_image_is_believed() -> None:
    image = np.zeros((8, 8, 3), np.uint8)
    png = bytearray(encode(image, ".png"))
    png[16:24] = (30000).to_bytes(4, "big") * 2
    jpeg = bytearray(encode(image, ".jpg"))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = (30000).to_bytes(2, "big") * 2
    for data in (png, jpeg):
        with pytest.raises(FrameError, match="is 30000 x 30000, at most 268435456 pixels"):
            decode_encoded(bytes(data))
