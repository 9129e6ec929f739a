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

import torch


class SideStream:
    """A stream beside the one that is captured.

    Whoever forks keeps every tensor that the forked work reads alive until :meth:`join`.
    """

    def __init__(self) -> None:
        """Begin with nothing to wait for."""
        self._stream: torch.cuda.Stream | None = None
        self._forked = False

    @contextmanager
    def fork(self) -> Iterator[None]:
        """Run what is inside beside what follows, up to :meth:`join`; in its turn if not capturing.

        It may use all results of before.
        """
        if not capturing():
            yield
            return
        if self._stream is None:
            self._stream = torch.cuda.Stream()
        self._stream.wait_stream(torch.cuda.current_stream())
        self._forked = True
        with torch.cuda.stream(self._stream):
            yield

    def join(self) -> None:
        """Let what follows use the results of what was forked."""
        if self._forked and self._stream is not None:
            torch.cuda.current_stream().wait_stream(self._stream)
            self._forked = False

    def forget(self) -> None:
        """Have nothing to wait for: the capture that was forked from has failed."""
        self._forked = False


def capturing() -> bool:
    """Return whether a CUDA graph is being captured by this thread's stream."""
    return torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()
