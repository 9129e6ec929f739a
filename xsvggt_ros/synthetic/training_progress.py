# SPDX-License-Identifier: Apache-2.0
"""What a training says while it runs and when it ends."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from xsvggt_ros.synthetic.scores import Scores

PARTS = ("total", "depth", "points", "camera", "guides")
"""Parts of the loss, as they are logged."""


@dataclass(frozen=True)
class Progress:
    """What a step was like; losses are means since the last report."""

    step: int
    steps: int
    stage: str
    losses: dict[str, float]
    frames_per_second: float
    skipped: int

    def line(self) -> str:
        """Return the progress as one line."""
        parts = ", ".join(f"{name} {value:.4f}" for name, value in self.losses.items())
        skipped = f", {self.skipped} steps skipped" if self.skipped else ""
        return (
            f"step {self.step}/{self.steps} {self.stage}: {parts}, "
            f"{self.frames_per_second:.1f} frames/s{skipped}"
        )


@dataclass(frozen=True)
class Outcome:
    """What a training came to.

    ``weights`` is a safetensors file in float16; ``scores`` belong to it, None where the training
    was stopped.
    """

    step: int
    steps: int
    scores: Scores | None
    weights: Path

    def line(self) -> str:
        """Return the final line."""
        if self.scores is None:
            return f"stopped after step {self.step} of {self.steps}; the same command goes on"
        state = "" if self.step == self.steps else f" (step {self.step} of {self.steps})"
        return f"held-out{state}: {self.scores.line()}"


class Meter:
    """Means of losses and frames per second between two reports."""

    def __init__(self, seconds: float = 5.0) -> None:
        self._seconds = seconds
        self._clear(time.monotonic())

    def _clear(self, now: float) -> None:
        self._since = now
        self._sums: dict[str, list[float]] = {}
        self._frames = 0

    def add(self, parts: dict[str, float], frames: int) -> None:
        """Note one step."""
        self._frames += frames
        for name, value in parts.items():
            self._sums.setdefault(name, []).append(value)

    def due(self, now: float) -> bool:
        """Return whether it is time to report."""
        return now - self._since >= self._seconds

    def report(self, now: float, step: int, steps: int, stage: str, skipped: int) -> Progress:
        """Return the means and start again."""
        means = {name: sum(values) / len(values) for name, values in self._sums.items()}
        rate = self._frames / max(now - self._since, 1e-9)
        self._clear(now)
        return Progress(step, steps, stage, means, rate, skipped)
