# SPDX-License-Identifier: Apache-2.0
"""Which cases of a test run each time, and which only where every test does."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def first_is_quick(cases: Iterable[object]) -> list[Any]:
    """Return the cases for parametrize, all but the first marked slow."""
    first, *others = cases
    return [first, *(pytest.param(case, marks=pytest.mark.slow) for case in others)]
