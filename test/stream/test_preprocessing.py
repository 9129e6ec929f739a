# SPDX-License-Identifier: Apache-2.0
"""Images of any size reach the network by the reference's rule, and the way back exists."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from xsvggt_ros.errors import ConfigurationError, FrameError
from xsvggt_ros.geometry.cameras import Intrinsics
from xsvggt_ros.stream.processing import plan, preprocess, to_network

sides = st.integers(1, 4000)
widths = st.integers(1, 40).map(lambda patches: 14 * patches)


def image(height: int, width: int) -> np.ndarray:
    generator = np.random.default_rng(height * width)
    coarse = generator.integers(0, 256, (8, 8, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


@pytest.mark.parametrize(
    ("source", "size"),
    [
        ((640, 480), (518, 392)),
        ((1280, 720), (518, 294)),
        ((1242, 375), (518, 154)),
        ((480, 640), (518, 518)),
        ((512, 512), (518, 518)),
        ((512, 384), (518, 392)),
    ],
)
def test_sizes_of_the_reference(source: tuple[int, int], size: tuple[int, int]) -> None:
    mapping = plan(*source, 518, 14)
    assert (mapping.width, mapping.height) == size


def test_portrait_images_are_cut_evenly() -> None:
    mapping = plan(480, 640, 518, 14)
    assert mapping.resized_height == 686
    assert mapping.crop_top == (686 - 518) // 2


sizes = st.tuples(sides, sides).filter(lambda size: size[1] <= 16 * size[0])


@given(sizes, widths)
def test_any_image_gets_a_size_in_whole_patches(size: tuple[int, int], target: int) -> None:
    mapping = plan(*size, target, 14)
    assert mapping.width == target
    assert mapping.height % 14 == 0
    assert 14 <= mapping.height <= target
    assert 0 <= mapping.crop_top <= mapping.resized_height - mapping.height


@given(sizes, widths)
def test_intrinsics_survive_the_round_trip(size: tuple[int, int], target: int) -> None:
    width, height = size
    mapping = plan(width, height, target, 14)
    camera = Intrinsics(1.1 * width, 0.9 * width, 0.4 * width, 0.6 * height, width, height)
    again = mapping.intrinsics_to_source(mapping.intrinsics_from_source(camera))
    assert again.width == width
    assert again.height == height
    for name in ("fx", "fy", "cx", "cy"):
        assert getattr(again, name) == pytest.approx(getattr(camera, name), rel=1e-9, abs=1e-6)


@given(st.integers(19, 300), st.integers(1, 300), st.integers(1, 6).map(lambda n: 14 * n))
def test_depth_goes_back_to_the_source_size(width: int, height: int, target: int) -> None:
    mapping = plan(width, height, target, 14)
    pixels = np.arange(mapping.height * mapping.width, dtype=np.float32)
    depth = pixels.reshape(mapping.height, mapping.width)
    back = mapping.depth_to_source(depth)
    assert back.shape == (height, width)
    known = back[np.isfinite(back)]
    assert np.isin(known, depth).all()
    if mapping.resized_height == mapping.height:
        assert np.isfinite(back).all()


def test_intrinsics_of_a_cut_image() -> None:
    mapping = plan(480, 640, 518, 14)
    camera = Intrinsics(480.0, 480.0, 240.0, 320.0, 480, 640)
    small = mapping.intrinsics_from_source(camera)
    assert small.fx == pytest.approx(518)
    assert small.fy == pytest.approx(480 * 686 / 640)
    assert (small.cx, small.cy) == pytest.approx((259, 343 - 84))
    assert (small.width, small.height) == (518, 518)


def test_the_callers_image_is_its_own_again() -> None:
    source = image(56, 70).copy()
    resized, _ = preprocess(source, 70, 14)
    assert not np.shares_memory(source, resized)


def test_depth_is_unknown_where_rows_were_cut_off() -> None:
    mapping = plan(28, 56, 28, 14)
    back = mapping.depth_to_source(np.ones((28, 28), np.float32))
    assert np.isnan(back[:14]).all()
    assert (back[14:42] == 1).all()
    assert np.isnan(back[42:]).all()


@pytest.mark.parametrize(("height", "width"), [(480, 640), (90, 120), (375, 1242)])
def test_resampling_agrees_with_pillow_to_within_two_levels(height: int, width: int) -> None:
    source = image(height, width)
    resized, mapping = preprocess(source, 252, 14)
    expected = Image.fromarray(source).resize(
        (mapping.width, mapping.resized_height), Image.Resampling.BICUBIC
    )
    difference = np.abs(resized.astype(int) - np.asarray(expected).astype(int))
    assert difference.max() <= 2
    assert difference.mean() < 0.05


def test_an_image_of_the_right_size_is_untouched() -> None:
    source = image(56, 70)
    resized, _ = preprocess(source, 70, 14)
    assert np.array_equal(resized, source)


def test_network_input() -> None:
    images = to_network(np.full((14, 28, 3), 255, np.uint8), torch.device("cpu"))
    assert images.shape == (1, 1, 3, 14, 28)
    assert images.dtype == torch.float32
    assert images.unique().tolist() == [1.0]


@pytest.mark.parametrize("width", [0, 13, 100, 519, -14])
def test_a_width_that_is_no_multiple_is_refused_with_the_nearest(width: int) -> None:
    with pytest.raises(ConfigurationError, match=rf"input.width is {width}; .* multiple .* 14"):
        plan(640, 480, width, 14)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((1, 20000, 3), np.uint8),
        np.zeros((400, 1, 3), np.uint8),
    ],
)
def test_unusable_images_are_refused(array: NDArray[Any]) -> None:
    with pytest.raises(FrameError, match="image of"):
        preprocess(array, 28, 14)
