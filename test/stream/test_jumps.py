# SPDX-License-Identifier: Apache-2.0
"""A single wrong stamp costs its own image, a clock that jumped costs none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xsvggt_ros.errors import SourceError, XsvggtError
from xsvggt_ros.stream.frame import BitsInUse, Frame, ImageArray
from xsvggt_ros.stream.imaging import decode_raw
from xsvggt_ros.stream.reconstructor import Reconstructor, ReconstructorSettings
from xsvggt_ros.stream.stamps import (
    LONGEST_PATIENCE,
    MOST_HELD,
    WRAP,
    JumpFilter,
    Order,
    StampOrder,
    settled,
    settled_with,
)
from xsvggt_ros.stream.worker import reconstruct

SECOND = 1_000_000_000
PERIOD = SECOND // 30
START = 1_700_000_000 * SECOND


def _image() -> ImageArray:
    return np.arange(28 * 28 * 3, dtype=np.uint32).astype(np.uint8).reshape(28, 28, 3)


def _frames(stamps: list[int]) -> list[Frame]:
    return [Frame(stamp, "eye", _image) for stamp in stamps]


def _even(count: int, start: int = START, period: int = PERIOD) -> list[int]:
    return [start + i * period for i in range(count)]


def _settled(stamps: list[int]) -> tuple[list[int], list[int]]:
    """Return the stamps that passed and those that were refused, each in order."""
    frames = list(settled(_frames(stamps)))
    assert sorted(f.stamp for f in frames) == sorted(stamps), "each comes out once"
    passed = [frame.stamp for frame in frames if not frame.fault]
    return passed, [frame.stamp for frame in frames if frame.fault]


WRONG: dict[str, Callable[[int], int]] = {
    "5 s ahead": lambda stamp: stamp + 5 * SECOND,
    "5 s behind": lambda stamp: stamp - 5 * SECOND,
    "zero": lambda stamp: 0,
    "71 minutes ahead": lambda stamp: stamp + WRAP,
    "71 minutes behind": lambda stamp: stamp - WRAP,
    "uptime": lambda stamp: stamp - START + 7 * SECOND,
    "far ahead": lambda stamp: 2**31 * SECOND,
    "half a second ahead": lambda stamp: stamp + SECOND // 2,
}


@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.parametrize("length", [1, MOST_HELD])
@pytest.mark.parametrize("period", [PERIOD, SECOND // 10, 2 * SECOND])
def test_a_wrong_stamp_is_dropped_and_the_others_go_on(kind: str, length: int, period: int) -> None:
    stamps = _even(20, period=period)
    wrong = [WRONG[kind](stamp) + (i if kind != "zero" else 0) for i, stamp in
             enumerate(stamps[12 : 12 + length])]  # fmt: skip
    sent = [*stamps[:12], *wrong, *stamps[12 + length :]]
    if period == 2 * SECOND and "5 s" in kind:
        return  # less than the distance of three images
    if kind == "half a second ahead" and (period == 2 * SECOND or length > 1):
        return  # as a pause of the camera would be
    passed, refused = _settled(sent)
    assert refused == wrong
    assert passed == stamps[:12] + stamps[12 + length :]


@given(st.data())
def test_outliers_anywhere_are_all_that_is_dropped(data: st.DataObject) -> None:
    stamps = _even(40)
    sent, wrong = list(stamps), set()
    at = 3
    while at < 36:
        kind = data.draw(st.sampled_from([*WRONG, ""]))
        if kind:
            sent[at] = WRONG[kind](stamps[at])
            wrong.add(at)
        at += data.draw(st.integers(2, 9))
    passed, refused = _settled(sent)
    assert refused == [sent[at] for at in sorted(wrong)]
    assert passed == [stamp for at, stamp in enumerate(stamps) if at not in wrong]


def test_two_wrong_stamps_of_different_kinds_are_both_dropped() -> None:
    stamps = _even(10)
    sent = [*stamps[:5], 0, stamps[6] + 5 * SECOND, *stamps[7:]]
    assert _settled(sent) == ([*stamps[:5], *stamps[7:]], sent[5:7])


@pytest.mark.parametrize("shift", [-5 * SECOND, 5 * SECOND, -WRAP, WRAP, -START, 3600 * SECOND])
@pytest.mark.parametrize("after", [1, 2, 3, 10])
def test_a_clock_that_jumped_costs_no_image(shift: int, after: int) -> None:
    stamps = _even(10)
    later = [stamp + shift + SECOND for stamp in _even(after, stamps[-1])]
    assert _settled([*stamps, *later]) == ([*stamps, *later], [])


@pytest.mark.parametrize("period", [1, PERIOD, SECOND, 10 * SECOND, 3600 * SECOND])
@pytest.mark.parametrize("start", [0, 1, START])
def test_a_steady_stream_passes_at_any_rate(period: int, start: int) -> None:
    stamps = _even(12, start, period)
    passed, refused = _settled(stamps)
    # With nothing to compare it with, a stamp of zero far from the next one is none.
    wrong = [0] if start == 0 and period >= SECOND else []
    assert (passed, refused) == ([s for s in stamps if s not in wrong], wrong)


def test_a_first_stamp_of_zero_is_dropped_where_the_next_one_is_of_another_time() -> None:
    assert _settled([0, 0, *_even(3)]) == (_even(3), [0, 0])


def test_a_slow_beginning_before_a_jump_is_no_outlier() -> None:
    stamps = [8 * SECOND, 9 * SECOND, SECOND, 2 * SECOND, 3 * SECOND]
    assert _settled(stamps) == (stamps, [])


def test_a_second_stamp_can_be_wrong_already() -> None:
    stamps = [START, START + 5 * SECOND, *_even(5, START + PERIOD)]
    assert _settled(stamps) == ([START, *stamps[2:]], stamps[1:2])


def test_stamps_that_are_all_zero_pass_and_are_judged_elsewhere() -> None:
    assert _settled([0] * 8) == ([0] * 8, [])


def test_of_two_publishers_with_clocks_of_their_own_one_goes_on() -> None:
    one, other = _even(20), _even(20, 5 * SECOND)
    sent = [stamp for pair in zip(one, other, strict=True) for stamp in pair]
    passed, refused = _settled(sent)
    # The last one has nothing behind it that would prove it wrong.
    assert (passed[:20], refused) == (one, other[:-1])


@given(st.lists(st.sampled_from([0, START, START + 1, START + 5 * SECOND, 7]), max_size=30))
def test_what_belongs_to_a_frame_comes_out_with_it(stamps: list[int]) -> None:
    items = list(enumerate(_frames(stamps)))
    pairs = list(settled_with(items, lambda item: item[1]))
    assert [item for item, _ in pairs] == items
    assert all(item[1].stamp == frame.stamp for item, frame in pairs)


@pytest.mark.parametrize("pause", [3, 9, 20, 31])
def test_a_camera_that_pauses_loses_nothing_and_waits_for_one_image_only(pause: int) -> None:
    stamps = [*_even(6), *_even(6, START + (6 + pause) * PERIOD)]
    assert _settled(stamps) == (stamps, [])
    jumps = JumpFilter()
    waiting = [len(jumps) for frame in _frames(stamps) if jumps.admit(frame) is not None]
    assert max(waiting) <= (1 if pause < 30 else MOST_HELD)


@pytest.mark.parametrize("period", [PERIOD * 10, PERIOD * 20])
def test_a_camera_that_slows_down_is_soon_usual(period: int) -> None:
    stamps = [*_even(12), *_even(20, START + 12 * PERIOD, period)]
    assert _settled(stamps) == (stamps, [])
    jumps = JumpFilter()
    assert [len(jumps.admit(frame)) for frame in _frames(stamps)][-8:] == [1] * 8


def test_late_images_make_no_jump_of_the_next_one() -> None:
    stamps = _even(10)
    stamps[6] -= SECOND // 2
    jumps = JumpFilter()
    assert [len(jumps.admit(frame)) for frame in _frames(stamps)] == [1] * 10


def test_a_recording_that_breaks_off_loses_no_frame() -> None:
    def recording() -> Iterator[Frame]:
        yield from _frames([*_even(4), START + 5 * SECOND])
        raise SourceError("the file ends here")

    came: list[int] = []
    with pytest.raises(SourceError, match="the file ends here"):
        came.extend(frame.stamp for frame in settled(recording()))
    assert came == [*_even(4), START + 5 * SECOND]


@given(st.lists(st.integers(0, 2**40), max_size=40))
def test_whatever_the_stamps_nothing_is_lost_or_held_for_ever(stamps: list[int]) -> None:
    _settled(stamps)


class _Clock:
    now = 0.0


def test_what_nothing_follows_goes_on_after_a_moment() -> None:
    clock = _Clock()
    jumps = JumpFilter(lambda: clock.now)
    frames = _frames([START, START + PERIOD, START - 100 * SECOND])
    assert [len(jumps.admit(frame)) for frame in frames] == [1, 1, 0]
    assert (len(jumps), jumps.due()) == (1, [])
    clock.now += LONGEST_PATIENCE
    (frame,) = jumps.due()
    assert (frame.stamp, frame.fault, len(jumps), jumps.outliers) == (frames[2].stamp, "", 0, 0)


def test_the_refusal_says_how_far_off_the_stamp_is() -> None:
    stamps = _even(6)
    stamps[3] += 5 * SECOND
    (fault,) = [frame.fault for frame in settled(_frames(stamps)) if frame.fault]
    assert "its stamp lies 5.033 s ahead of those around it" in fault
    stamps[3] = 0
    (fault,) = [frame.fault for frame in settled(_frames(stamps)) if frame.fault]
    assert "its stamp is zero" in fault


def test_a_counter_that_wraps_is_told_from_a_clock_that_jumped() -> None:
    order = StampOrder()
    order.accept(START + WRAP)
    assert order.classify(START + PERIOD) is Order.WRAPPED
    assert order.classify(START - 2 * SECOND) is Order.JUMPED_BACK
    assert order.classify(START + WRAP - 2 * SECOND) is Order.JUMPED_BACK


@pytest.mark.parametrize(
    ("stamps", "sessions", "refused"),
    [
        ([*_even(4), START + 5 * SECOND, *_even(4, START + 4 * PERIOD)], 1, 1),
        ([*_even(4), 0, *_even(4, START + 4 * PERIOD)], 1, 1),
        ([*_even(4), START - WRAP, *_even(4, START + 4 * PERIOD)], 1, 1),
        ([*_even(4), *_even(4, START - WRAP + 4 * PERIOD)], 1, 0),
        ([*_even(4), *_even(4, START - 9 * SECOND)], 2, 0),
        # Five images from another clock, which then is left again.
        ([*_even(4), *_even(5, START + 9 * SECOND), *_even(4, START + 9 * PERIOD)], 1, 0),
        ([*_even(4), *_even(5, 2**31 * SECOND), *_even(4, START + 9 * PERIOD)], 1, 0),
        ([*_even(4), *_even(5, START + 9 * SECOND), *_even(4, START)], 2, 0),
        # A camera that knows no time for a while.
        ([*_even(4), *[0] * 5, *_even(4, START + 9 * PERIOD)], 1, 5),
        ([*_even(4), *[0] * 9], 1, 9),
    ],
)
def test_a_session_ends_only_where_a_clock_jumped(
    network: object, stamps: list[int], sessions: int, refused: int
) -> None:
    engine = Reconstructor(network, ReconstructorSettings(28))  # type: ignore[arg-type]
    faults: list[XsvggtError] = []
    results = list(reconstruct(_frames(stamps), engine, lambda _, error: faults.append(error)))
    assert (engine.session, len(faults)) == (sessions, refused)
    assert len(results) == len(stamps) - refused


def _black() -> ImageArray:
    return np.zeros((28, 28, 3), np.uint8)


def _fail(_: Frame, error: XsvggtError) -> None:
    pytest.fail(str(error))


def _run(network: object, shots: list[Frame]) -> tuple[Reconstructor, list[int]]:
    engine = Reconstructor(network, ReconstructorSettings(28))  # type: ignore[arg-type]
    return engine, [result.index for result in reconstruct(shots, engine, _fail)]


def test_a_session_does_not_hang_on_images_that_show_nothing(
    network: object, caplog: pytest.LogCaptureFixture
) -> None:
    stamps = _even(6)
    shots = [Frame(stamp, "eye", _black) for stamp in stamps[:3]] + _frames(stamps[3:])
    engine, indices = _run(network, shots)
    assert (engine.session, indices) == (2, [0, 1, 2, 0, 1, 2])
    assert "the images before this one show nothing: a new session begins" in caplog.text
    assert "3 of 6 images show nothing; of the first, the image is dark" in caplog.text


def _fine() -> ImageArray:
    """Show texture that is gone at the network's size."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (900, 1200, 3), np.uint8).astype(np.uint8)


def test_texture_that_only_the_camera_sees_begins_one_session_only(network: object) -> None:
    engine, indices = _run(network, [Frame(stamp, "eye", _fine) for stamp in _even(5)])
    assert (engine.session, indices) == (1, [0, 1, 2, 3, 4])


def test_darkness_in_between_ends_no_session(network: object) -> None:
    stamps = _even(6)
    shots = _frames(stamps)
    shots[2:4] = [Frame(stamp, "eye", _black) for stamp in stamps[2:4]]
    engine, indices = _run(network, shots)
    assert (engine.session, indices) == (1, [0, 1, 2, 3, 4, 5])


def test_bits_in_use_are_learned_again_in_each_session(network: object) -> None:
    bits = BitsInUse()

    def shot(stamp: int, most: int) -> Frame:
        values = np.linspace(0, most, 28 * 28).astype("<u2").reshape(28, 28)
        decode = partial(
            decode_raw, values.tobytes(), width=28, height=28, encoding="mono16", step=56,
            is_bigendian=False, bits=bits,
        )  # fmt: skip
        return Frame(stamp, "eye", decode, bits=bits)

    stamps = [*_even(3), *_even(3, START - 9 * SECOND)]
    _run(network, [shot(stamp, 65535 if i == 1 else 1023) for i, stamp in enumerate(stamps)])
    assert bits.full_scale(np.full((1, 1), 5, np.uint16)) == 1023
