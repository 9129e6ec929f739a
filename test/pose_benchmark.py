# SPDX-License-Identifier: Apache-2.0
"""The views and tables of benchmarks/pose.py, for tests that hold them against their targets."""

from __future__ import annotations

import sys
from pathlib import Path

_BENCHMARKS = str(Path(__file__).parents[1] / "benchmarks")
sys.path.append(_BENCHMARKS)
try:
    import pose as pose_benchmark
    import pose_views
finally:
    sys.path.remove(_BENCHMARKS)

__all__ = ["pose_benchmark", "pose_views"]
