# SPDX-License-Identifier: Apache-2.0
"""Frames that move in each other, by numbers."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from motions import rigid

from xsvggt_ros.errors import TransformMissingError
from xsvggt_ros.geometry.rigid import (
    Matrix,
    interpolate,
    invert,
    quaternion_from_matrix,
    rotation_angle,
)
from xsvggt_ros.geometry.transform_tree import (
    HISTORY,
    SHORTEST_JUMP,
    Place,
    TransformTree,
    fault_of,
)

SECOND = 1_000_000_000


def _place(matrix: Matrix) -> Place:
    x, y, z = matrix[:3, 3].tolist()
    return (x, y, z, *quaternion_from_matrix(matrix[:3, :3]).tolist())


def _moved(x: float = 0.0, y: float = 0.0, turn: float = 0.0) -> Matrix:
    """Return a shift in the plane and a turn about z."""
    pose = np.eye(4)
    pose[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    pose[:2, 3] = x, y
    return pose


@given(rigid(), rigid(), rigid())
def test_chains_are_products_in_both_directions(a: Matrix, b: Matrix, c: Matrix) -> None:
    tree = TransformTree()
    tree.put("root", "left", 0, _place(a), static=True)
    tree.put("left", "hand", 0, _place(b), static=True)
    tree.put("root", "right", 0, _place(c), static=True)
    np.testing.assert_allclose(tree.lookup("root", "hand", 7), a @ b, atol=1e-9)
    across = tree.lookup("right", "hand", 7)
    np.testing.assert_allclose(across, invert(c) @ a @ b, atol=1e-9)
    np.testing.assert_allclose(tree.lookup("hand", "right", 7), invert(across), atol=1e-9)
    np.testing.assert_array_equal(tree.lookup("nowhere", "nowhere", 7), np.eye(4))


@given(rigid(), rigid(), st.floats(0.0, 1.0))
def test_between_two_times_the_turn_is_even(a: Matrix, b: Matrix, share: float) -> None:
    middle = interpolate(a, b, share)
    whole = rotation_angle(invert(a) @ b)
    assert rotation_angle(invert(a) @ middle) == pytest.approx(share * whole, abs=1e-5)
    assert rotation_angle(invert(middle) @ b) == pytest.approx((1 - share) * whole, abs=1e-5)
    np.testing.assert_allclose(middle[:3, 3], (1 - share) * a[:3, 3] + share * b[:3, 3], atol=1e-9)


def test_a_moving_link_is_interpolated() -> None:
    tree = TransformTree()
    for second, turn in ((1, 0.2), (2, 0.4), (3, 0.6)):
        tree.put("odom", "base", second * SECOND, _place(_moved(x=second, turn=turn)))
    found = tree.lookup("odom", "base", 2 * SECOND + SECOND // 4)
    np.testing.assert_allclose(found, _moved(x=2.25, turn=0.45), atol=1e-12)
    np.testing.assert_allclose(tree.lookup("odom", "base", 3 * SECOND), _moved(3, 0, 0.6))


def test_nothing_is_extrapolated() -> None:
    tree = TransformTree()
    tree.put("odom", "base", SECOND, _place(np.eye(4)))
    tree.put("odom", "base", 2 * SECOND, _place(np.eye(4)))
    for stamp in (SECOND - 1, 2 * SECOND + 1):
        with pytest.raises(TransformMissingError, match="only from 1.000 to 2.000 s"):
            tree.lookup("odom", "base", stamp)


def test_history_is_bounded_and_a_jump_back_begins_again() -> None:
    tree = TransformTree()
    for i in range(3000):
        tree.put("odom", "base", i * SECOND // 100, _place(np.eye(4)))
    assert len(tree._links["base"].samples) == HISTORY // (SECOND // 100) + 1
    newest = tree._links["base"].samples[-1][0]
    tree.put("odom", "base", newest - SHORTEST_JUMP, _place(_moved(x=5.0)))
    np.testing.assert_allclose(tree.lookup("odom", "base", newest - SHORTEST_JUMP), _moved(x=5.0))
    assert len(tree._links["base"].samples) == 1


@given(st.lists(st.integers(0, SHORTEST_JUMP - 1), min_size=1, max_size=30))
def test_the_order_of_arrival_does_not_matter(stamps: list[int]) -> None:
    tree = TransformTree()
    for stamp in stamps:
        tree.put("odom", "base", stamp, _place(_moved(x=stamp / SECOND)))
    for stamp in stamps:
        found = tree.lookup("odom", "base", stamp)
        np.testing.assert_allclose(found, _moved(x=stamp / SECOND), atol=1e-12)
    middle = (min(stamps) + max(stamps)) // 2
    np.testing.assert_allclose(
        tree.lookup("odom", "base", middle), _moved(x=middle / SECOND), atol=1e-12
    )


def test_what_is_missing_is_told_with_what_is_known() -> None:
    tree = TransformTree()
    with pytest.raises(TransformMissingError, match="of frame 'base' and 'camera'; known are none"):
        tree.lookup("base", "camera", 0)
    tree.put("odom", "base", 0, _place(np.eye(4)))
    with pytest.raises(TransformMissingError, match="of frame 'camera'; known are base, odom"):
        tree.lookup("base", "camera", 0)
    tree.put("mast", "camera", 0, _place(np.eye(4)), static=True)
    with pytest.raises(TransformMissingError, match="'base' and 'camera' are not connected"):
        tree.lookup("base", "camera", 0)


def test_a_loop_is_told() -> None:
    tree = TransformTree()
    tree.put("a", "b", 0, _place(np.eye(4)), static=True)
    tree.put("b", "a", 0, _place(np.eye(4)), static=True)
    with pytest.raises(TransformMissingError, match="form a loop"):
        tree.lookup("a", "c", 0)


def test_a_frame_may_change_its_parent() -> None:
    tree = TransformTree()
    tree.put("left", "tool", 0, _place(_moved(x=1.0)), static=True)
    tree.put("right", "tool", 0, _place(_moved(x=2.0)), static=True)
    np.testing.assert_allclose(tree.lookup("right", "tool", 0), _moved(x=2.0))
    with pytest.raises(TransformMissingError):
        tree.lookup("left", "tool", 0)


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ((NAN, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0), "not finite"),
        ((0.0, INF, 0.0, 0.0, 0.0, 0.0, 1.0), "not finite"),
        ((0.0, 0.0, 0.0, 0.0, NAN, 0.0, 1.0), "not finite"),
        ((0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0), "length 0, .*broadcast a unit quaternion"),
        ((0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.2), "length 1.2, .*broadcast a unit quaternion"),
    ],
)
@pytest.mark.parametrize("static", [False, True])
def test_what_is_no_place_is_refused_and_what_was_known_stays(
    place: Place, words: str, static: bool
) -> None:
    tree = TransformTree()
    assert tree.put("odom", "base", 7, _place(_moved(x=1.0)), static=static)
    assert not tree.put("odom", "base", 7, place, static=static)
    assert not tree.put("map", "base", 7, place, static=static)
    np.testing.assert_allclose(tree.lookup("odom", "base", 7), _moved(x=1.0))
    assert re.search(words, fault_of(place) or "")


def test_a_quaternion_of_few_digits_is_taken() -> None:
    tree = TransformTree()
    assert tree.put("odom", "base", 7, (0.0, 0.0, 0.0, 0.0, 0.0, 0.7, 0.7))
    np.testing.assert_allclose(tree.lookup("odom", "base", 7), _moved(turn=np.pi / 2), atol=1e-12)
