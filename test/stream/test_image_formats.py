# SPDX-License-Identifier: Apache-2.0
"""What messages say of their pixels: formats of compressed images, encodings, bits in use."""

from __future__ import annotations

import logging
from typing import Any

import cv2
import numpy as np
import pytest
from bags import encode
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from xsvggt_ros.errors import FrameError
from xsvggt_ros.stream.frame import BitsInUse
from xsvggt_ros.stream.imaging import (
    DEPTH_ENCODINGS,
    IMAGE_ENCODINGS,
    RAW_ENCODINGS,
    CompressedFormat,
    decode_encoded,
    decode_raw,
    parse_format,
)

COLOR = (200, 40, 90)
PATTERNS = ("rggb", "bggr", "gbrg", "grbg")


def _mosaic(pattern: str, factor: int = 1) -> NDArray[np.uint16]:
    mosaic = np.zeros((16, 24), np.uint16)
    for place, letter in enumerate(pattern):
        mosaic[place // 2 :: 2, place % 2 :: 2] = COLOR["rgb".index(letter)] * factor
    return mosaic


def _png(pixels: NDArray[Any]) -> bytes:
    return cv2.imencode(".png", pixels)[1].tobytes()


def _colored(size: tuple[int, int] = (16, 24)) -> NDArray[np.uint8]:
    return np.full((*size, 3), COLOR, np.uint8)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ("", "", "")),
        ("jpeg", ("", "jpeg", "")),
        (" PNG ", ("", "png", "")),
        ("rgb8; jpeg compressed bgr8", ("rgb8", "jpeg", "bgr8")),
        ("bayer_rggb8; jpeg compressed ", ("bayer_rggb8", "jpeg", "")),
        ("bayer_grbg16;png compressed", ("bayer_grbg16", "png", "")),
        ("16UC1; png compressed ", ("16UC1", "png", "")),
        ("16uc1; png compressed ", ("16UC1", "png", "")),
        ("32FC1; compressedDepth rvl", ("32FC1", "compresseddepth", "rvl")),
        ("mono16; tiff compressed ", ("mono16", "tiff", "")),
        ("jpeg compressed bgr8", ("", "jpeg", "bgr8")),
        ("bayer_rggb8", ("bayer_rggb8", "", "")),
        ("h264", ("", "h264", "")),
    ],
)
def test_a_format_is_taken_apart(text: str, expected: tuple[str, str, str]) -> None:
    assert parse_format(text) == CompressedFormat(*expected)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("codec", ["jpeg", "png"])
def test_a_compressed_mosaic_is_demosaiced(pattern: str, codec: str) -> None:
    data = encode(_mosaic(pattern).astype(np.uint8), f".{codec}")
    image = decode_encoded(data, f"bayer_{pattern}8; {codec} compressed ")
    # JPEG smears a mosaic; its colors are kept all the same.
    within = image[4:-4, 4:-4].astype(int).mean(axis=(0, 1))
    np.testing.assert_allclose(within, COLOR, atol=0 if codec == "png" else 25)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_mosaic_of_16_bits_is_demosaiced(pattern: str) -> None:
    image = decode_encoded(_png(_mosaic(pattern, 257)), f"bayer_{pattern}16; png compressed ")
    assert (image == COLOR).all()


def test_a_mosaic_in_three_equal_channels_is_demosaiced() -> None:
    mosaic = _mosaic("rggb").astype(np.uint8)
    image = decode_encoded(_png(cv2.merge([mosaic] * 3)), "bayer_rggb8; jpeg compressed ")
    assert (image == COLOR).all()


def test_colors_that_a_publisher_made_of_a_mosaic_stay() -> None:
    data = _png(_colored()[..., ::-1])
    assert (decode_encoded(data, "bayer_rggb8; jpeg compressed bgr8") == COLOR).all()


@pytest.mark.parametrize(
    "text",
    ["", "jpeg", "png", "rgb8; png compressed bgr8", "bgr8; png compressed bgr8",
     "8UC3; png compressed ", "yuv422_yuy2; jpeg compressed bgr8", "nv21; jpeg compressed bgr8",
     "rgba8; jpeg compressed bgr8", "bgr16; png compressed bgr16", "image/png", "mjpeg",
     "quality 80"],
)  # fmt: skip
def test_ordinary_formats_change_nothing(text: str) -> None:
    assert (decode_encoded(_png(_colored()[..., ::-1]), text) == COLOR).all()


def test_swapped_channels_are_swapped_back() -> None:
    """Old publishers gave red to a codec that takes it for blue, and said so."""
    data = _png(_colored())  # as cv2.imencode takes RGB for BGR
    assert (decode_encoded(data, "rgb8; png compressed rgb8") == COLOR).all()


def test_the_alpha_of_a_camera_is_padding() -> None:
    bgra = np.dstack([_colored()[..., ::-1], np.zeros((16, 24), np.uint8)])
    assert (decode_encoded(_png(bgra), "bgra8; png compressed ") == COLOR).all()
    assert (decode_encoded(_png(bgra), "png") == 255).all()


@pytest.mark.parametrize(
    "text",
    [*(f"{name}; png compressed " for name in sorted(DEPTH_ENCODINGS)), "16UC1", "32FC1",
     "16UC1; compressedDepth", "16UC1; compressedDepth png", "32FC1; compressedDepth rvl"],
)  # fmt: skip
def test_depth_is_no_image(text: str) -> None:
    depth = np.full((16, 24), 1500, np.uint16)
    with pytest.raises(FrameError, match="is that of a depth map, not of a camera's image: remap"):
        decode_encoded(_png(depth), text)


def test_an_unknown_encoding_is_named() -> None:
    with pytest.raises(FrameError, match="names the image encoding 'rgb99', which is not known"):
        decode_encoded(_png(_colored()), "rgb99; png compressed bgr8")


@pytest.mark.parametrize("codec", ["h264", "hevc", "H265"])
def test_a_video_codec_is_named(codec: str) -> None:
    with pytest.raises(FrameError, match=f"video codec '{codec.lower()}'"):
        decode_encoded(b"\x00\x00\x00\x01\x67", codec)


ENCODED = st.sampled_from(
    [_png(_colored()), _png(_mosaic("rggb")), _png(_mosaic("rggb").astype(np.uint8)),
     _png(_colored()[:1, :2]), encode(_colored(), ".jpg"), b"\xff\xd8\xff\xe0", b""]
)  # fmt: skip
FORMATS = st.one_of(
    st.text(max_size=40),
    st.builds(
        "{}; {} {} {}".format,
        st.sampled_from([*sorted(IMAGE_ENCODINGS), "rgb99", ""]),
        st.sampled_from(["jpeg", "png", "tiff", "compressedDepth", "h264", ""]),
        st.sampled_from(["compressed", ""]),
        st.sampled_from(["bgr8", "rgb8", "bgr16", "png", ""]),
    ),
)


@given(ENCODED, FORMATS)
@settings(deadline=None)
def test_any_format_gives_an_image_or_a_frame_error(data: bytes, text: str) -> None:
    try:
        image = decode_encoded(data, text, bits=BitsInUse())
    except FrameError:
        return
    assert image.dtype == np.uint8
    assert image.shape[2] == 3


@pytest.mark.parametrize("encoding", sorted(IMAGE_ENCODINGS))
def test_every_encoding_of_sensor_msgs_is_read_or_refused_by_name(encoding: str) -> None:
    arguments = {"width": 8, "height": 4, "step": 128, "is_bigendian": False}
    data = bytes(128 * 12)
    if encoding in RAW_ENCODINGS:
        assert decode_raw(data, encoding=encoding, **arguments).shape == (4, 8, 3)  # type: ignore[arg-type]
    else:
        with pytest.raises(FrameError, match=f"'{encoding}' is not supported: publish one of rgb8"):
            decode_raw(data, encoding=encoding, **arguments)  # type: ignore[arg-type]


def test_what_is_not_read_has_no_colors() -> None:
    signed = {name for name in IMAGE_ENCODINGS if name[:2] in ("8S", "32", "64") or "16S" in name}
    assert set(IMAGE_ENCODINGS) - set(RAW_ENCODINGS) == signed | {"8UC2", "16UC1", "16UC2"}


def test_8uc4_is_bgra() -> None:
    pixels = np.tile(np.array([COLOR[2], COLOR[1], COLOR[0], 0], np.uint8), (2, 3, 1))
    image = decode_raw(
        pixels.tobytes(), width=3, height=2, encoding="8UC4", step=12, is_bigendian=False
    )
    assert (image == COLOR).all()


def test_nv24_has_a_chroma_for_each_pixel() -> None:
    """Against nv12 of twice the size, pixel by pixel: odd sizes, too."""
    rng = np.random.default_rng(0)
    luma = rng.integers(16, 236, (5, 7), np.uint8)
    chroma = rng.integers(16, 241, (5, 7, 2), np.uint8)
    data = luma.tobytes() + chroma.tobytes()
    image = decode_raw(data, width=7, height=5, encoding="nv24", step=7, is_bigendian=False)
    assert image.shape == (5, 7, 3)
    y, u, v = (each.astype(float) for each in (luma, chroma[..., 0], chroma[..., 1]))
    scaled = 1.164 * (y - 16)
    expected = np.stack(  # BT.601, limited range
        [scaled + 1.596 * (v - 128), scaled - 0.813 * (v - 128) - 0.391 * (u - 128),
         scaled + 2.018 * (u - 128)], -1
    )  # fmt: skip
    np.testing.assert_allclose(image, expected.clip(0, 255), atol=2)


def _gray16(values: NDArray[np.uint16], bits: BitsInUse) -> NDArray[np.uint8]:
    height, width = values.shape
    return decode_raw(
        values.astype("<u2").tobytes(), width=width, height=height, encoding="mono16",
        step=2 * width, is_bigendian=False, bits=bits,
    )[..., 0]  # fmt: skip


@pytest.mark.parametrize("depth", [8, 10, 12, 14, 16])
def test_the_bits_in_use_are_scaled_to_eight(depth: int) -> None:
    values = np.linspace(0, 2**depth - 1, 256).round().astype(np.uint16).reshape(16, 16)
    expected = np.rint(values * (255 / (2**depth - 1)))
    np.testing.assert_allclose(_gray16(values, BitsInUse()), expected, atol=1)
    image = decode_encoded(_png(values), "mono16; png compressed ", bits=BitsInUse())
    np.testing.assert_allclose(image[..., 0], expected, atol=1)


def test_a_mosaic_of_12_bits_has_its_colors() -> None:
    mosaic = (_mosaic("rggb").astype(int) * 4095 // 255).astype("<u2")
    image = decode_raw(
        mosaic.tobytes(), width=24, height=16, encoding="bayer_rggb16", step=48,
        is_bigendian=False, bits=BitsInUse(),
    )  # fmt: skip
    np.testing.assert_allclose(image.reshape(-1, 3), [COLOR] * (16 * 24), atol=1)


def test_the_scale_follows_the_largest_value_of_the_session() -> None:
    bits = BitsInUse()
    bright, dark = np.full((2, 2), 4000, np.uint16), np.full((2, 2), 1000, np.uint16)
    assert _gray16(dark, bits)[0, 0] == round(1000 * 255 / 1023)
    assert _gray16(bright, bits)[0, 0] == round(4000 * 255 / 4095)
    assert _gray16(dark, bits)[0, 0] == round(1000 * 255 / 4095)
    bits.begin()  # the dark one was the first of its session
    assert _gray16(dark, bits)[0, 0] == round(1000 * 255 / 1023)


@pytest.mark.parametrize("hot", [1, 4])
def test_hot_pixels_do_not_decide_about_the_bits(hot: int) -> None:
    values = np.linspace(0, 1023, 160 * 160).astype(np.uint16).reshape(160, 160)
    values[0, :hot] = 65535
    image = _gray16(values, BitsInUse())
    assert image[0, 0] == 255
    assert (image[80, 80], image[-1, -1]) == (round(int(values[80, 80]) * 255 / 1023), 255)


def test_a_bright_window_in_a_dark_room_is_no_hot_pixel() -> None:
    values = np.full((160, 160), 900, np.uint16)
    values[:8, :8] = 60000
    image = _gray16(values, BitsInUse())
    assert (image[0, 0], image[-1, -1]) == (round(60000 / 257), round(900 / 257))


@pytest.mark.parametrize("encoding", ["RGB8", "rgb8 ", "rgb8\0", "Rgb8"])
def test_the_case_of_an_encoding_and_blanks_around_it_say_nothing(encoding: str) -> None:
    pixels = _colored()
    image = decode_raw(pixels.tobytes(), width=24, height=16, encoding=encoding, step=72,
                       is_bigendian=False)  # fmt: skip
    np.testing.assert_array_equal(image, pixels)


@pytest.mark.parametrize("text", ["jpeg; compressed bgr8", "JPEG; jpeg compressed", "png; x"])
def test_a_codec_may_stand_where_the_encoding_belongs(text: str) -> None:
    assert parse_format(text).encoding == ""
    assert parse_format(text).codec in ("jpeg", "png")


@pytest.mark.parametrize(("most", "said"), [(0, 0), (1023, 1), (8191, 1), (8192, 0), (65535, 0)])
def test_less_than_an_eighth_of_the_range_is_said_once(
    most: int, said: int, caplog: pytest.LogCaptureFixture
) -> None:
    bits = BitsInUse()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            _gray16(np.full((2, 2), most, np.uint16), bits)
    told = [
        r.getMessage() for r in caplog.records if f"no more than {most} of 65535" in r.getMessage()
    ]
    assert len(told) == said
