# SPDX-License-Identifier: Apache-2.0
"""benchmarks/growth.py: short runs have an early and a late part, too."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest


@pytest.mark.parametrize("frames", [10, 29, 60, 2000])
def test_early_and_late_are_compared(monkeypatch: pytest.MonkeyPatch, frames: int) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    growth = importlib.import_module("growth")
    milliseconds = [1.0 + index / (frames - 1) for index in range(frames)]
    runs = [growth.Run("one", milliseconds, [2**20] * frames, [2**19] * frames)]
    row = growth.table(runs, frames, "head").splitlines()[-1].split("|")
    early, late, ratio = (float(cell) for cell in row[2:5])
    assert 1.0 <= early < 1.5 < late <= 2.0
    assert ratio == pytest.approx(late / early, abs=0.15)
