# SPDX-License-Identifier: Apache-2.0
"""The engine over a recorded stream, every frame in order, without threads."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator

from xsvggt_ros.errors import XsvggtError
from xsvggt_ros.stream.frame import Frame, FrameResult
from xsvggt_ros.stream.pipeline import FramePipeline, FrameUpdate, PipelineHooks
from xsvggt_ros.stream.reconstructor import Reconstructor
from xsvggt_ros.stream.stamps import settled

logger = logging.getLogger(__name__)

Refused = Callable[[Frame, XsvggtError], None]


def reconstruct(
    frames: Iterable[Frame], reconstructor: Reconstructor, on_refused: Refused
) -> Iterator[FrameResult]:
    """Yield the result of each usable frame, by the rules that the node's worker follows.

    Args:
        frames: in the order of their stamps.
        reconstructor: at the beginning of a session.
        on_refused: is told of each frame that cannot be used.

    """
    ready: list[FrameUpdate] = []
    hooks = PipelineHooks(report=ready.append, report_refusal=on_refused)
    pipeline = FramePipeline(reconstructor, hooks)
    blind: list[str] = []
    for frame in settled(frames):
        pipeline.process(frame)
        yield from _results(ready, blind)
    pipeline.finish()
    yield from _results(ready, blind)
    if blind:
        logger.warning(
            "%d of %d images show nothing; of the first, %s",
            len(blind), pipeline.processed, blind[0],
        )  # fmt: skip


def _results(ready: list[FrameUpdate], blind: list[str]) -> Iterator[FrameResult]:
    """Yield the results that are ready; add to ``blind`` why images among them show nothing."""
    for update in ready:
        if update.blind:
            blind.append(update.blind)
        yield update.result
    ready.clear()
