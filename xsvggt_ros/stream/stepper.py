# SPDX-License-Identifier: Apache-2.0
"""One frame from its stamp to its result, by the rules that every way of running shares."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from time import perf_counter
from typing import Literal

from xsvggt_ros.errors import FrameError, XsvggtError
from xsvggt_ros.stream.frame import Frame, FrameResult
from xsvggt_ros.stream.reconstructor import Reconstructor
from xsvggt_ros.stream.stamps import Order, StampOrder

logger = logging.getLogger(__name__)

Stage = Literal["idle", "decoding", "reconstructing", "mapping", "publishing", "commanded"]


class Stepper:
    """Judges stamps, decodes, and steps the engine."""

    def __init__(
        self, reconstructor: Reconstructor, enter: Callable[[Stage], None] = lambda stage: None
    ) -> None:
        """Step ``reconstructor``; ``enter`` is told of each stage."""
        self._reconstructor = reconstructor
        self._enter = enter
        self._stamps = StampOrder()
        self._sizes: set[tuple[int, int]] = set()

    def step(self, frame: Frame) -> FrameResult:
        """Reconstruct one frame; a new session begins where stamps jumped back.

        A frame that is refused leaves session and stamps as they were.

        Raises:
            FrameError: a repeated or late stamp, a damaged picture, an output that is not finite,
                or anything unforeseen.

        """
        try:
            return self._step(frame)
        except XsvggtError:
            raise
        except Exception as error:
            logger.exception("unexpected failure on the frame of stamp %d", frame.stamp)
            raise FrameError(f"unexpected {type(error).__name__}: {error}") from error

    def _step(self, frame: Frame) -> FrameResult:
        order = self._stamps.judge(frame.stamp, frame.camera)
        self._refuse_out_of_order(frame, order)
        self._enter("decoding")
        started = perf_counter()
        picture = frame.decode()
        decoded = perf_counter() - started
        if order is Order.JUMPED_BACK:
            self._begin_session(frame)
        self._stamps.accept(frame.stamp, frame.camera)
        self._enter("reconstructing")
        result = self._reconstructor.step(
            picture,
            stamp=frame.stamp,
            frame_id=frame.frame_id,
            camera=frame.camera,
            calibration=frame.calibration,
        )
        self._say_what_is_lost(result)
        return replace(result, timings=replace(result.timings, decode=decoded))

    def _say_what_is_lost(self, result: FrameResult) -> None:
        """Say once for each size of images what of them is cut off or out of proportion."""
        mapping = result.mapping
        size = mapping.source_width, mapping.source_height
        if size not in self._sizes:
            self._sizes.add(size)
            if mapping.remark:
                logger.warning("%s", mapping.remark)

    def _refuse_out_of_order(self, frame: Frame, order: Order) -> None:
        if order is Order.REPEATED:
            raise FrameError(
                f"stamp {frame.stamp} ns came twice in a row; give each picture its own stamp"
            )
        if order is Order.LATE:
            raise FrameError(
                f"stamp {frame.stamp} ns is {self._seconds_back(frame):.3f} s older than the "
                "picture before it; publish pictures in order"
            )

    def _begin_session(self, frame: Frame) -> None:
        logger.warning(
            "stamps jumped back by %.3f s: a new session begins", self._seconds_back(frame)
        )
        self._reconstructor.reset("stamps jumped back")

    def _seconds_back(self, frame: Frame) -> float:
        return ((self._stamps.last or 0) - frame.stamp) / 1e9
