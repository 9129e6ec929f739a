# SPDX-License-Identifier: Apache-2.0
"""Which of a source's frames are taken."""

from __future__ import annotations

from xsvggt_ros.errors import SourceError
from xsvggt_ros.evaluation.sources.base import SourceOptions


def selected(options: SourceOptions, count: int, source: str) -> range:
    """Return the numbers of the frames that ``options`` take out of ``count``.

    Raises:
        SourceError: none is left.

    """
    every = range(options.start, count, options.stride)[: options.limit]
    if not every:
        raise SourceError(
            f"{source} has {count} frames, so that none is left after the first "
            f"{options.start}; start earlier"
        )
    return every
