# SPDX-License-Identifier: Apache-2.0
"""Signals that end a program, and the one that nohup keeps from it."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from xsvggt_ros.process import event_at_signals

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def handlers_as_before() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_every_signal_sets_the_event(number: int) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    stop = event_at_signals()
    assert not stop.is_set()
    signal.raise_signal(number)
    assert stop.is_set()


def test_a_program_under_nohup_outlives_its_terminal() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    stop = event_at_signals()
    signal.raise_signal(signal.SIGHUP)
    assert not stop.is_set()
