# SPDX-License-Identifier: Apache-2.0
"""What the names of files say: their order, and the times that some of them are."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

from xsvggt_ros.geometry.text_tables import UNITS, time_unit

_TIME = re.compile(r"[^0-9]*?([0-9]+(?:\.[0-9]+)?)[^0-9]*")
_LATEST = 2**31 * 1_000_000_000
"""Nanoseconds, from which on the seconds of a stamp outgrow the 32 bits that ROS has for them."""

_FRACTION = re.compile(r"([0-9]+\.[0-9]{3,})")
"""Seconds with milliseconds; a version such as 1.2 is no time."""


def natural_order(path: Path) -> tuple[list[tuple[int, str]], str]:
    """Sort 2 before 10; equal numbers such as 1 and 01 in the order of their names."""
    parts = re.split(r"([0-9]+)", path.name.lower())
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts], path.name


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
    if ordered[-1] >= _LATEST or any(first == second for first, second in pairwise(ordered)):
        return None
    return stamps, unit
