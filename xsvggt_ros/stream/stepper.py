# SPDX-License-Identifier: Apache-2.0
"""One frame from its stamp to its result, by the rules that every way of running shares."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from time import perf_counter
from typing import Literal

from xsvggt_ros.errors import FrameError
from xsvggt_ros.stream.frame import Frame, FrameResult
from xsvggt_ros.stream.reconstructor import Reconstructor
from xsvggt_ros.stream.stamps import Order, StampOrder

logger = logging.getLogger(__name__)

Stage = Literal["idle", "decoding", "reconstructing", "publishing", "commanded"]


class Stepper:
    """Judges stamps, decodes, and steps the engine."""

    def __init__(
        self, reconstructor: Reconstructor, enter: Callable[[Stage], None] = lambda stage: None
    ) -> None:
        """Step ``reconstructor``; ``enter`` is told of each stage."""
        self._reconstructor = reconstructor
        self._enter = enter
        self._stamps = StampOrder()

    def step(self, frame: Frame) -> FrameResult:
        """Reconstruct one frame; a new session begins where stamps went back.

        Raises:
            FrameError: a repeated stamp, a damaged picture, or an output that is not finite.

        """
        self._check_stamp(frame)
        self._enter("decoding")
        started = perf_counter()
        picture = frame.decode()
        decoded = perf_counter() - started
        self._enter("reconstructing")
        result = self._reconstructor.step(picture, stamp=frame.stamp, frame_id=frame.frame_id)
        return replace(result, timings=replace(result.timings, decode=decoded))

    def _check_stamp(self, frame: Frame) -> None:
        last = self._stamps.last
        order = self._stamps.judge(frame.stamp)
        if order is Order.REPEATED:
            raise FrameError(
                f"stamp {frame.stamp} ns came twice in a row; give each picture its own stamp"
            )
        if order is Order.BACKWARD:
            logger.warning(
                "stamps went back by %.3f s: a new session begins",
                ((last or 0) - frame.stamp) / 1e9,
            )
            self._reconstructor.reset("stamps went back")
