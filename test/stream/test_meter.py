# SPDX-License-Identifier: Apache-2.0
"""Rates and percentiles of the recent past."""

from __future__ import annotations

import math

from xsvggt_ros.stream.health import LATENCIES, WINDOW, Counters, RateMeter


def test_rates_are_those_of_the_window() -> None:
    meter = RateMeter()
    assert meter.sample(0.0, Counters(5, 5, 0, 0, 0)).received == 0.0
    rates = meter.sample(2.0, Counters(25, 15, 8, 2, 0))
    assert (rates.received, rates.processed, rates.dropped, rates.refused) == (10, 5, 4, 1)
    later = [meter.sample(2.0 + i, Counters(25, 15, 8, 2, 0)) for i in range(1, int(WINDOW) + 1)]
    assert later[0].received > 0.0
    assert later[-1].received == 0.0


def test_percentiles_are_those_of_the_newest_latencies() -> None:
    meter = RateMeter()
    assert all(map(math.isnan, meter.percentiles(50, 95)))
    for _ in range(1000):
        meter.note_latency(9.0)
    for i in range(LATENCIES):
        meter.note_latency(i / LATENCIES)
    median, slow = meter.percentiles(50, 95)
    assert abs(median - 0.4975) < 1e-9
    assert abs(slow - 0.94525) < 1e-9
