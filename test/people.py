# SPDX-License-Identifier: Apache-2.0
"""The scenes with people of benchmarks/moving_people.py, for tests."""

from __future__ import annotations

import sys
from pathlib import Path

_BENCHMARKS = str(Path(__file__).parents[1] / "benchmarks")
sys.path.append(_BENCHMARKS)
try:
    import moving_people
finally:
    sys.path.remove(_BENCHMARKS)

__all__ = ["moving_people"]
