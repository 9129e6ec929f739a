# SPDX-License-Identifier: Apache-2.0
"""What the person in front of the terminal reads: numbered steps, and errors with a remedy."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class SetupError(Exception):
    """The set-up cannot go on; says why and what to do about it."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.remedy = remedy


class Steps:
    """Counts steps and times them."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._done = 0

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Announce one step, and its duration when it has succeeded."""
        self._done += 1
        label = f"[{self._done}/{self._total}]"
        say(f"{label} {title}")
        begin = time.monotonic()
        yield
        say(f"{' ' * len(label)} done in {time.monotonic() - begin:.1f} s")


def say(text: str) -> None:
    """Print at once, also into a pipe."""
    print(text, flush=True)


def note(text: str) -> None:
    """Print a detail of the current step."""
    say(f"      {text}")
