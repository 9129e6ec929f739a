# SPDX-License-Identifier: Apache-2.0
"""One word for how a running stream does, by rules that a test can hold against it.

The first rule that applies gives the state:

=============  ===================================================================================
unconfigured,  there is no engine, or nothing is subscribed to
inactive
paused         somebody asked for it
stalled        an image has been in one stage for the timeout, or the worker has ended
waiting        for the timeout, no image has come or is on its way
error          the newest image was refused, or its result could not be published
warming up     the engine is being made; or images have come and none is through yet, in all or,
               where the first ones are answered together, in this session
degraded       within the last :data:`MEMORY` results, one was implausible (see `quality.py`), or
               something else was not as it was asked for
running        none of these
=============  ===================================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from xsvggt_ros.stream.worker import Counters

State = Literal[
    "unconfigured", "inactive", "paused", "stalled", "waiting", "error", "warming up", "degraded",
    "running",
]  # fmt: skip

MEMORY = 10
"""Results for which a fault is remembered, so that the state does not flicker."""


class Health:
    """Keeps what the rules ask for. Not thread-safe: whoever shares it has a lock."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self.paused = False
        self.begin()

    def begin(self) -> None:
        """Forget the stream."""
        self._counters: Counters | None = None
        self._refused = False
        self._since_fault = MEMORY
        self._last_change = -float("inf")

    def note_result(self, faults: Sequence[str]) -> None:
        """Take in that a frame is through, and what is wrong with it."""
        self._refused = False
        self._since_fault = 0 if faults else min(MEMORY, self._since_fault + 1)

    def note_refusal(self) -> None:
        """Take in that a frame was refused, or that nothing came out of it."""
        self._refused = True

    def note_fault(self) -> None:
        """Take in that something else is not as it was asked for."""
        self._since_fault = 0

    def state(self, counters: Counters, *, timeout: float, stuck: bool = False) -> State:
        """Return the state of an active stream.

        Args:
            counters: of now.
            timeout: seconds after which silence is a state.
            stuck: whether a frame has been in one stage for as long.

        """
        if counters.pending > counters.waiting or (
            counters != self._counters and counters.received
        ):
            self._last_change = self._clock()
        self._counters = counters
        if self.paused:
            return "paused"
        if stuck:
            return "stalled"
        if self._clock() - self._last_change >= timeout:
            self._refused = False
            return "waiting"
        if self._refused:
            return "error"
        if not counters.processed or counters.waiting:
            return "warming up"
        return "degraded" if self._since_fault < MEMORY else "running"
