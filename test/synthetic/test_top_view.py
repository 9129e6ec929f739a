# SPDX-License-Identifier: Apache-2.0
"""A room from above: what is where, at which scale, without what hangs over it."""

from __future__ import annotations

import numpy as np
import pytest

from xsvggt_ros.synthetic.materials import Material, Pattern
from xsvggt_ros.synthetic.sequence import room_from_above
from xsvggt_ros.synthetic.world import Lamp, Part, World, assemble_world, block, no_tint

WHITE, RED, BLUE = (
    Material(Pattern.PLAIN, color, color)
    for color in ((0.8, 0.8, 0.8), (0.8, 0.05, 0.05), (0.05, 0.05, 0.8))
)
SIZE = (4.0, 2.0, 3.0)
PIXELS = 80
PER_METRE = PIXELS / SIZE[0]


def room(*parts: Part) -> World:
    lamp = Lamp((2.0, 1.0, 2.8), (5.0, 5.0, 5.0), 0.0)
    walls = [WHITE] * 5 + [BLUE]  # the last is the ceiling
    return assemble_world(SIZE, parts, walls, [lamp], (0.3, 0.3, 0.3), no_tint())


def mask(image: np.ndarray, channel: int) -> np.ndarray:
    """Return where a channel outweighs both others by far."""
    others = np.delete(image.astype(int), channel, axis=-1).max(axis=-1)
    found: np.ndarray = image[..., channel] > others + 60
    return found


def test_a_box_lies_where_it_stands_with_y_upwards() -> None:
    image = room_from_above(room(block((2.5, 1.2, 0.0), (1.0, 0.6, 0.5), RED)), PIXELS)
    assert image.shape == (40, 80, 3)
    assert image.dtype == np.uint8
    rows, columns = np.nonzero(mask(image, 0))
    found = (columns.min(), columns.max() + 1, rows.min(), rows.max() + 1)
    expected = np.array([2.5, 3.5, SIZE[1] - 1.8, SIZE[1] - 1.2]) * PER_METRE
    assert found == pytest.approx(expected, abs=1)


def test_the_ceiling_and_what_hangs_from_it_are_taken_off() -> None:
    high = block((1.0, 0.5, 2.4), (1.0, 1.0, 0.3), RED)
    image = room_from_above(room(high), PIXELS)
    np.testing.assert_array_equal(image, room_from_above(room(), PIXELS))
    assert not mask(image, 2).any()


def test_what_reaches_up_from_the_floor_stays() -> None:
    shelf = block((1.0, 0.5, 0.0), (1.0, 1.0, 2.9), RED)
    seen = mask(room_from_above(room(shelf), PIXELS), 0)
    assert seen.sum() == pytest.approx(PER_METRE**2, rel=0.12)
