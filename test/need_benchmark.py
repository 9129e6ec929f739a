# SPDX-License-Identifier: Apache-2.0
"""Streams frame by frame as benchmarks/memory_need.py runs them, for tests."""

from __future__ import annotations

import sys
from pathlib import Path

_BENCHMARKS = str(Path(__file__).parents[1] / "benchmarks")
sys.path.append(_BENCHMARKS)
try:
    from memory_need import streamed
finally:
    sys.path.remove(_BENCHMARKS)

__all__ = ["streamed"]
