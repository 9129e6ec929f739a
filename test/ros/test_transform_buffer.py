# SPDX-License-Identifier: Apache-2.0
"""Frames that move in each other, by numbers: over tf2's buffer or its stand-in alike."""

from __future__ import annotations

import re
from threading import Thread
from time import sleep

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from motions import rigid

REASON = "needs ROS 2: run scripts/test, or source a workspace"
pytest.importorskip("rclpy", reason=REASON)
pytest.importorskip("tf2_ros", reason=REASON)

from geometry_msgs.msg import TransformStamped

from xsvggt_ros.errors import TransformMissingError, TransformTimeError
from xsvggt_ros.geometry.rigid import (
    Matrix,
    PoseTuple,
    interpolate,
    invert,
    quaternion_from_matrix,
    rotation_angle,
)
from xsvggt_ros.ros.conversions import header
from xsvggt_ros.ros.transform_buffer import HISTORY, SHORTEST_JUMP, TransformBuffer

SECOND = 1_000_000_000


class Buffer(TransformBuffer):
    """Takes transforms as the tests tell them."""

    def put(
        self,
        parent: str,
        child: str,
        stamp: int,
        place: Matrix | PoseTuple,
        *,
        static: bool = False,
    ) -> str | None:
        if isinstance(place, np.ndarray):
            place = (*place[:3, 3].tolist(), *quaternion_from_matrix(place[:3, :3]).tolist())
        message = TransformStamped(header=header(stamp, parent), child_frame_id=child)
        moved, turned = message.transform.translation, message.transform.rotation
        moved.x, moved.y, moved.z = place[:3]
        turned.x, turned.y, turned.z, turned.w = place[3:]
        return self.insert(message, static=static)


def _moved(x: float = 0.0, y: float = 0.0, turn: float = 0.0) -> Matrix:
    """Return a shift in the plane and a turn about z."""
    pose = np.eye(4)
    pose[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    pose[:2, 3] = x, y
    return pose


@given(rigid(), rigid(), rigid())
def test_chains_are_products_in_both_directions(a: Matrix, b: Matrix, c: Matrix) -> None:
    buffer = Buffer()
    buffer.put("root", "left", 0, a, static=True)
    buffer.put("left", "hand", 0, b, static=True)
    buffer.put("root", "right", 0, c, static=True)
    np.testing.assert_allclose(buffer.lookup("root", "hand", 7), a @ b, atol=1e-9)
    across = buffer.lookup("right", "hand", 7)
    np.testing.assert_allclose(across, invert(c) @ a @ b, atol=1e-9)
    np.testing.assert_allclose(buffer.lookup("hand", "right", 7), invert(across), atol=1e-9)
    np.testing.assert_array_equal(buffer.lookup("nowhere", "nowhere", 7), np.eye(4))


@given(rigid(), rigid(), st.floats(0.0, 1.0))
def test_between_two_times_the_turn_is_even(a: Matrix, b: Matrix, share: float) -> None:
    middle = interpolate(a, b, share)
    whole = rotation_angle(invert(a) @ b)
    assert rotation_angle(invert(a) @ middle) == pytest.approx(share * whole, abs=1e-5)
    assert rotation_angle(invert(middle) @ b) == pytest.approx((1 - share) * whole, abs=1e-5)
    np.testing.assert_allclose(middle[:3, 3], (1 - share) * a[:3, 3] + share * b[:3, 3], atol=1e-9)


def test_a_moving_link_is_interpolated() -> None:
    buffer = Buffer()
    for second, turn in ((1, 0.2), (2, 0.4), (3, 0.6)):
        buffer.put("odom", "base", second * SECOND, _moved(x=second, turn=turn))
    found = buffer.lookup("odom", "base", 2 * SECOND + SECOND // 4)
    np.testing.assert_allclose(found, _moved(x=2.25, turn=0.45), atol=1e-12)
    np.testing.assert_allclose(buffer.lookup("odom", "base", 3 * SECOND), _moved(3, 0, 0.6))


def test_nothing_is_extrapolated() -> None:
    buffer = Buffer()
    buffer.put("odom", "base", SECOND, np.eye(4))
    buffer.put("odom", "base", 2 * SECOND, np.eye(4))
    for stamp in (SECOND - 1, 2 * SECOND + 1):
        with pytest.raises(TransformTimeError, match=rf"not known at {stamp / SECOND:.3f} s"):
            buffer.lookup("odom", "base", stamp)


def test_history_is_bounded_and_a_jump_back_begins_again() -> None:
    buffer = Buffer()
    for i in range(1, 3001):
        buffer.put("odom", "base", i * SECOND // 100, _moved(x=i))
    newest = 30 * SECOND
    with pytest.raises(TransformTimeError):
        buffer.lookup("odom", "base", newest - HISTORY - SECOND // 10)
    np.testing.assert_allclose(
        buffer.lookup("odom", "base", newest - HISTORY + SECOND // 10), _moved(x=2010)
    )
    buffer.put("base", "camera", 0, _moved(y=1.0), static=True)
    back = newest - SHORTEST_JUMP
    buffer.put("odom", "base", back, _moved(x=5.0))
    np.testing.assert_allclose(buffer.lookup("odom", "camera", back), _moved(x=5.0, y=1.0))
    with pytest.raises(TransformTimeError):
        buffer.lookup("odom", "base", newest)


def test_one_link_in_two_clocks_does_not_hide_the_others() -> None:
    buffer = Buffer()
    for i in range(1, 50):
        buffer.put("odom", "base", i * SECOND, _moved(x=i))
        buffer.put("base", "arm", (i + (i % 2) * 5) * SECOND, np.eye(4))
    np.testing.assert_allclose(buffer.lookup("odom", "base", 48 * SECOND), _moved(x=48))


@given(st.lists(st.integers(SECOND, SECOND + SHORTEST_JUMP - 1), min_size=1, max_size=30))
def test_the_order_of_arrival_does_not_matter(stamps: list[int]) -> None:
    buffer = Buffer()
    for stamp in stamps:
        buffer.put("odom", "base", stamp, _moved(x=stamp / SECOND))
    for stamp in stamps:
        found = buffer.lookup("odom", "base", stamp)
        np.testing.assert_allclose(found, _moved(x=stamp / SECOND), atol=1e-12)
    middle = (min(stamps) + max(stamps)) // 2
    np.testing.assert_allclose(
        buffer.lookup("odom", "base", middle), _moved(x=middle / SECOND), atol=1e-12
    )


def test_what_is_missing_is_told_with_what_is_known() -> None:
    buffer = Buffer()
    with pytest.raises(TransformMissingError, match="of frame 'base' and 'camera'; known are none"):
        buffer.lookup("base", "camera", 0)
    buffer.put("odom", "base", 0, np.eye(4))
    with pytest.raises(TransformMissingError, match="of frame 'camera'; known are base, odom"):
        buffer.lookup("base", "camera", 0)
    buffer.put("mast", "camera", 0, np.eye(4), static=True)
    with pytest.raises(TransformMissingError, match="'base' and 'camera' are not connected"):
        buffer.lookup("base", "camera", 0)


def test_a_loop_is_told() -> None:
    buffer = Buffer()
    buffer.put("a", "b", 0, np.eye(4), static=True)
    buffer.put("b", "a", 0, np.eye(4), static=True)
    buffer.put("c", "d", 0, np.eye(4), static=True)
    with pytest.raises(TransformMissingError, match="form a loop"):
        buffer.lookup("a", "d", 0)


@pytest.mark.parametrize(("parent", "child"), [("base", "base"), ("", "base"), ("odom", "/")])
def test_a_link_without_two_names_is_refused(parent: str, child: str) -> None:
    buffer = Buffer()
    assert "two different frames" in (buffer.put(parent, child, 7, np.eye(4)) or "")
    assert not buffer.frames


def test_slashes_of_ros_1_before_names_do_not_count() -> None:
    buffer = Buffer()
    buffer.put("/odom", "/base", 7, _moved(x=1.0))
    np.testing.assert_allclose(buffer.lookup("odom", "base", 7), _moved(x=1.0))


def test_who_waits_gets_what_comes_later_at_once() -> None:
    buffer, found = Buffer(), []
    waiting = Thread(target=lambda: found.append(buffer.wait_for("odom", "base", 7, 60.0)))
    waiting.start()
    sleep(0.05)
    buffer.put("odom", "base", 7, _moved(x=1.0))
    waiting.join(30.0)
    np.testing.assert_allclose(found[0], _moved(x=1.0))


def test_who_waits_is_let_go() -> None:
    buffer, ended = Buffer(), []

    def wait() -> None:
        with pytest.raises(TransformMissingError):
            buffer.wait_for("odom", "base", 7, 60.0)
        ended.append(True)

    waiting = Thread(target=wait)
    waiting.start()
    buffer.close()
    waiting.join(30.0)
    assert ended == [True]


def test_a_frame_may_change_its_parent() -> None:
    buffer = Buffer()
    buffer.put("left", "tool", 0, _moved(x=1.0), static=True)
    buffer.put("right", "tool", 0, _moved(x=2.0), static=True)
    np.testing.assert_allclose(buffer.lookup("right", "tool", 0), _moved(x=2.0))
    with pytest.raises(TransformMissingError):
        buffer.lookup("left", "tool", 0)


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
    place: PoseTuple, words: str, static: bool
) -> None:
    buffer = Buffer()
    assert buffer.put("odom", "base", 7, _moved(x=1.0), static=static) is None
    for parent in ("odom", "map"):
        assert re.search(words, buffer.put(parent, "base", 7, place, static=static) or "")
    np.testing.assert_allclose(buffer.lookup("odom", "base", 7), _moved(x=1.0))


def test_a_quaternion_of_few_digits_is_taken() -> None:
    buffer = Buffer()
    assert buffer.put("odom", "base", 7, (0.0, 0.0, 0.0, 0.0, 0.0, 0.7, 0.7)) is None
    np.testing.assert_allclose(buffer.lookup("odom", "base", 7), _moved(turn=np.pi / 2), atol=1e-12)
