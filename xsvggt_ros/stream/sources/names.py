# SPDX-License-Identifier: Apache-2.0
"""What the names of files say: their order, and the times that some of them are."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

SECOND = 1_000_000_000
"""Nanoseconds."""

_TIME = re.compile(r"[^0-9]*?([0-9]+(?:\.[0-9]+)?)[^0-9]*")
_FRACTION = re.compile(r"([0-9]+\.[0-9]{3,})")
"""Seconds with milliseconds; a version such as 1.2 is no time."""

_EARLIEST, _LATEST = 946_684_800, 4_102_444_800
"""Seconds since 1970 of the years 2000 and 2100, between which a time is taken for one."""

UNITS = {"seconds": SECOND, "milliseconds": 1_000_000, "microseconds": 1000, "nanoseconds": 1}
"""Nanoseconds of each unit that times are written in."""


def natural_order(path: Path) -> tuple[list[tuple[int, str]], str]:
    """Sort 2 before 10; equal numbers such as 1 and 01 in the order of their names."""
    parts = re.split(r"([0-9]+)", path.name.lower())
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts], path.name


def time_unit(values: Sequence[Decimal]) -> str | None:
    """Return the unit in which all values are times between 2000 and 2100; None where none is."""
    if not values:
        return None
    least, most = min(values), max(values)
    for unit, length in UNITS.items():
        scale = Decimal(SECOND // length)
        if _EARLIEST * scale <= least and most < _LATEST * scale:
            return unit
    return None


def times_of(names: Sequence[str]) -> tuple[list[int], str] | None:
    """Return the times in nanoseconds that file names without suffix are, and their unit.

    Names that count frames are none, and neither are times that repeat.
    """
    fractions = [_FRACTION.fullmatch(name) for name in names]
    found = [_TIME.fullmatch(name) for name in names]
    if len(names) < 2 or not all(found):
        return None
    values = [Decimal(match[1]) for match in found if match]
    unit = "seconds" if all(fractions) else time_unit(values)
    if unit is None:
        return None
    stamps = [int(value * UNITS[unit]) for value in values]
    ordered = sorted(stamps)
    if ordered[0] < 0 or any(first == second for first, second in pairwise(ordered)):
        return None
    return stamps, unit
