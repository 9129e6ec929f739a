# SPDX-License-Identifier: Apache-2.0
"""The engine over a recorded stream, every frame in order, without threads."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator

from xsvggt_ros.errors import FrameError
from xsvggt_ros.stream.frame import Frame, FrameResult
from xsvggt_ros.stream.image_watch import blindness
from xsvggt_ros.stream.jumps import settled
from xsvggt_ros.stream.reconstructor import Reconstructor
from xsvggt_ros.stream.stepper import Stepper

logger = logging.getLogger(__name__)

Refused = Callable[[Frame, FrameError], None]


def reconstruct(
    frames: Iterable[Frame], reconstructor: Reconstructor, on_refused: Refused
) -> Iterator[FrameResult]:
    """Yield the result of each usable frame, by the rules that the node's worker follows."""
    stepper = Stepper(reconstructor)
    blind: list[str] = []
    count = 0
    for frame in settled(frames):
        try:
            result = stepper.step(frame)
        except FrameError as error:
            on_refused(frame, error)
            continue
        count += 1
        blind += filter(None, [blindness(result.color)])
        yield result
    if blind:
        logger.warning(
            "%d of %d images show nothing; of the first, %s", len(blind), count, blind[0]
        )
