# SPDX-License-Identifier: Apache-2.0
"""Which cases of a test run each time, and which only where every test does."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import settings

QUICK, THOROUGH = 20, 100
"""Examples of a property that says no number, in the profiles of hypothesis of these names."""


def first_is_quick(cases: Iterable[object]) -> list[Any]:
    """Return the cases for parametrize, all but the first marked slow."""
    first, *others = cases
    return [first, *(pytest.param(case, marks=pytest.mark.slow) for case in others)]


def thorough() -> bool:
    """Return whether this run takes its time, as the nightly one does."""
    return settings().max_examples >= THOROUGH


def examples(count: int) -> int:
    """Return how many of ``count`` examples a property is tried with: a quick run takes a fifth."""
    return max(1, count * settings().max_examples // THOROUGH)
