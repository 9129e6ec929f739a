# SPDX-License-Identifier: Apache-2.0
"""One line per problem rather than one per frame."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

_VARYING = re.compile(r"\b[0-9a-f]{2}\b(?: [0-9a-f]{2}\b)*|\d+")
"""Hexadecimal bytes and numbers."""

_MOST_KINDS = 256


class LogThrottle:
    """Lets a text through once per ``interval`` seconds.

    Texts that differ in numbers or bytes are one. What was held back is counted and told with the
    next text that gets through.
    """

    def __init__(self, interval: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval = interval
        self._clock = clock
        self._kinds: dict[str, tuple[float, int]] = {}

    def admit(self, text: str) -> str | None:
        """Return what to log, or None where the same was logged a moment ago."""
        kind = _VARYING.sub("#", text)
        now = self._clock()
        last, held_back = self._kinds.get(kind, (-float("inf"), 0))
        if now - last < self._interval:
            self._kinds[kind] = last, held_back + 1
            return None
        if len(self._kinds) >= _MOST_KINDS:
            self._kinds.clear()
        self._kinds[kind] = now, 0
        return f"{text} ({held_back} more like this)" if held_back else text
