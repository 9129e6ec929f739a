# SPDX-License-Identifier: Apache-2.0
"""What every file format of bags has in common."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

READ_ENCODINGS = ("cdr", "ros1")
"""Serializations of messages that are read."""


class NoBagError(ValueError):
    """A file is whole, but no bag."""


@dataclass(frozen=True, slots=True)
class Channel:
    """Messages of one type on one topic, as one file holds them.

    Attributes:
        number: in its file.
        topic: its name.
        kind: type of its messages, ``package/msg/Name`` for those of ROS; empty = not said.
        encoding: of its messages: ``cdr`` (ROS 2), ``ros1``, or what is not read here.
        language: of ``definition``; empty where there is none that can be read.
        definition: of the type, the types in it included.
        count: of its messages.

    """

    number: int
    topic: str
    kind: str
    encoding: str
    language: Literal["msg", "idl", ""] = ""
    definition: str = ""
    count: int = 0

    @property
    def is_read(self) -> bool:
        """Whether its messages can be read at all."""
        return self.encoding in READ_ENCODINGS


class Storage(Protocol):
    """One file of a bag.

    Attributes:
        start: time of the first message, nanoseconds; above ``end`` where there is none.
        end: time of the last message, nanoseconds.
        damage: why the file is not whole, and None where it is.

    """

    start: int
    end: int
    damage: str | None

    @property
    def channels(self) -> list[Channel]:
        """What the file holds."""
        ...

    def messages(self, numbers: Collection[int]) -> Iterator[tuple[int, int, bytes]]:
        """Yield number of the channel, time in nanoseconds and data, in the order of time.

        Raises:
            ValueError: the file is damaged here.
            OSError: it cannot be read.

        """
        ...

    def close(self) -> None:
        """Close the file."""
        ...


def kind_of(name: str) -> str:
    """Return the name of a type as ROS 2 writes it: ROS 1 leaves ``msg`` out."""
    return re.sub(r"^([A-Za-z]\w*)/([A-Za-z]\w*)$", r"\1/msg/\2", name)


EMPTY_TIMES = (2**63 - 1, 0)
"""Start and end of a file without messages."""
