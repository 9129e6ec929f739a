# SPDX-License-Identifier: Apache-2.0
"""How many messages the middleware threw away: nobody else counts them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


class Losses:
    """Finds gaps in the numbers that publishers give their messages."""

    def __init__(self, count_publishers: Callable[[], int]) -> None:
        """Watch one topic; middleware that does not name publishers needs to know how many."""
        self._count_publishers = count_publishers
        self._newest: dict[str | None, int] = {}

    def before(self, info: Mapping[str, Any]) -> int:
        """Return how many messages its publisher sent between this one and the one before it.

        Zero where this distribution or middleware does not number messages.
        """
        number = info.get("publication_sequence_number")
        if number is None:
            return 0
        gid = info.get("publisher_gid")
        publisher = None if gid is None else str(gid)
        gap = number - self._newest.get(publisher, number) - 1
        self._newest[publisher] = number
        if gap <= 0 or (publisher is None and self._count_publishers() > 1):
            return 0
        return int(gap)
