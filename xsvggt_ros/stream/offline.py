# SPDX-License-Identifier: Apache-2.0
"""The engine over a recorded stream, every frame in order, without threads."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator

from xsvggt_ros.errors import XsvggtError
from xsvggt_ros.stream.frame import Frame, FrameResult
from xsvggt_ros.stream.jumps import settled
from xsvggt_ros.stream.pipeline import FramePipeline, PipelineHooks
from xsvggt_ros.stream.reconstructor import Reconstructor

logger = logging.getLogger(__name__)

Refused = Callable[[Frame, XsvggtError], None]


def reconstruct(
    frames: Iterable[Frame], reconstructor: Reconstructor, on_refused: Refused
) -> Iterator[FrameResult]:
    """Yield the result of each usable frame, by the rules that the node's worker follows."""
    pipeline = FramePipeline(reconstructor, PipelineHooks(report_refusal=on_refused))
    blind: list[str] = []
    for frame in settled(frames):
        update = pipeline.process(frame)
        if update is None:
            continue
        blind += filter(None, [update.blind])
        yield update.result
    if blind:
        logger.warning(
            "%d of %d images show nothing; of the first, %s",
            len(blind), pipeline.processed, blind[0],
        )  # fmt: skip
