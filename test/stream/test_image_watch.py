# SPDX-License-Identifier: Apache-2.0
"""Images that show nothing are told from rooms, dark and bright ones included."""

from __future__ import annotations

import numpy as np
import pytest
from bags import images
from hypothesis import given
from hypothesis import strategies as st

from xsvggt_ros.stream.frame import ImageArray
from xsvggt_ros.stream.health import MOST_ALIKE, ImageWatch, blindness
from xsvggt_ros.synthetic.sequence import Sequence, held_out

SIZE = (84, 112)


def _noise(level: float, deviation: float) -> ImageArray:
    noise = np.random.default_rng(0).normal(level, deviation, (*SIZE, 3))
    return noise.clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("color", "reason"),
    [
        (np.zeros((*SIZE, 3), np.uint8), "dark"),
        (_noise(4, 4), "dark"),
        (np.full((*SIZE, 3), 255, np.uint8), "overexposed"),
        (_noise(254, 3), "overexposed"),
        (np.full((*SIZE, 3), 128, np.uint8), "no texture"),
        (_noise(90, 6), "no texture"),
        (np.full((*SIZE, 3), (180, 40, 30), np.uint8), "no texture"),
    ],
)
def test_an_image_without_a_scene_is_named(color: ImageArray, reason: str) -> None:
    told = blindness(color)
    assert told is not None
    assert reason in told
    watch = ImageWatch()
    assert watch.faults_of(color) == (told,)
    assert watch.blind


@pytest.mark.parametrize("size", [(1, 1), (6, 6), (14, 28), (392, 518)])
def test_every_size_is_judged(size: tuple[int, int]) -> None:
    assert "dark" in str(blindness(np.zeros((*size, 3), np.uint8)))


@pytest.mark.parametrize("gain", [0.15, 0.5, 1.0])
def test_rooms_are_scenes_by_day_and_by_night(gain: float) -> None:
    for frame, _ in zip(
        Sequence(held_out("short_walk", width=112, height=84)), range(3), strict=False
    ):
        assert blindness((frame.color * gain).astype(np.uint8)) is None


def test_a_lamp_in_the_dark_is_a_scene() -> None:
    color = np.zeros((*SIZE, 3), np.uint8)
    color[:30, :40] = 120
    assert blindness(color) is None


@given(st.integers(0, 255), st.integers(0, 255), st.integers(0, 255))
def test_one_color_is_never_a_scene(red: int, green: int, blue: int) -> None:
    assert blindness(np.full((14, 14, 3), (red, green, blue), np.uint8))


def test_a_frozen_camera_is_told_and_a_moving_one_is_not() -> None:
    watch = ImageWatch()
    one, other = images(2, height=84, width=112)
    told = [watch.faults_of(one) for _ in range(MOST_ALIKE + 1)]
    assert told[: MOST_ALIKE - 1] == [()] * (MOST_ALIKE - 1)
    assert f"{MOST_ALIKE} images in a row are the same" in told[MOST_ALIKE - 1][0]
    assert not watch.blind
    assert watch.faults_of(other) == ()
    assert watch.faults_of(one) == ()
