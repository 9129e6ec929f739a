# SPDX-License-Identifier: Apache-2.0
"""Work that a CUDA graph may do beside other work.

Many parts of a step are too small to fill a GPU, and wait for nothing that is computed meanwhile.
While a step is captured, such a part is recorded on a stream of its own, so that the graph runs it
at the same time as what follows. Everywhere else it runs in its turn: eager steps are bound by the
host, and there memory that one stream frees could be given to another too early.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

Kind = Literal["camera head", "cache", "attention"]
"""Kinds of work that may run beside the rest, and beside each other."""


class SideStreams:
    """Streams beside the one that is captured: one for each kind of work.

    A network has them, and hands them to its caches. Whoever forks keeps every tensor that the
    forked work reads alive until :meth:`join`.
    """

    def __init__(self) -> None:
        """Begin with nothing to wait for."""
        self._streams: dict[Kind, torch.cuda.Stream] = {}
        self._forked: set[Kind] = set()

    @contextmanager
    def fork(self, kind: Kind) -> Iterator[None]:
        """Run what is inside beside what follows, up to :meth:`join`; in its turn if not capturing.

        It may use all results of before.
        """
        if not capturing():
            yield
            return
        if kind not in self._streams:
            self._streams[kind] = torch.cuda.Stream()
        stream = self._streams[kind]
        stream.wait_stream(torch.cuda.current_stream())
        self._forked.add(kind)
        with torch.cuda.stream(stream):
            yield

    def join(self, kind: Kind) -> None:
        """Let what follows use the results of what was forked."""
        if kind in self._forked:
            torch.cuda.current_stream().wait_stream(self._streams[kind])
            self._forked.remove(kind)

    def forget(self) -> None:
        """Have nothing to wait for: the capture that was forked from has failed."""
        self._forked.clear()


def capturing() -> bool:
    """Return whether a CUDA graph is being captured by this thread's stream."""
    return torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()
