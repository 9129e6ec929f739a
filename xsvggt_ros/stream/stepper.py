# SPDX-License-Identifier: Apache-2.0
"""One frame from its stamp to its result, by the rules that every way of running shares."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from time import perf_counter
from typing import Literal

from xsvggt_ros.errors import FrameError, XsvggtError, first_line
from xsvggt_ros.geometry.rectification import is_usable
from xsvggt_ros.stream.frame import Frame, FrameResult, ImageArray
from xsvggt_ros.stream.image_watch import blindness
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
        self._unknown: set[str] = set()
        """Cameras of which this session has images without a calibration."""
        self._become_known: set[str] = set()
        self._blind = False
        """Whether no image of this session shows anything."""
        self._sizes: set[tuple[int, int]] = set()

    def step(self, frame: Frame) -> FrameResult:
        """Reconstruct one frame; a new session begins where it cannot go on with the one before.

        It cannot where stamps jumped back, where a camera becomes known, and where all images
        before it show nothing.

        A frame that is refused leaves session and stamps as they were.

        Raises:
            FrameError: a fault that is known, a repeated or late stamp, a damaged image, an
                output that is not finite, or anything unforeseen.

        """
        try:
            return self._step(frame)
        except XsvggtError:
            raise
        except Exception as error:
            logger.debug("unforeseen, on the frame of stamp %d", frame.stamp, exc_info=True)
            raise FrameError(f"unexpected {type(error).__name__}: {first_line(error)}") from error

    def _step(self, frame: Frame) -> FrameResult:
        if frame.fault:
            raise FrameError(frame.fault)
        order = self._stamps.judge(frame.stamp, frame.camera)
        self._refuse_out_of_order(frame, order)
        self._enter("decoding")
        started = perf_counter()
        image = frame.decode()
        decoded = perf_counter() - started
        self._begin_where_due(frame, image, order)
        self._stamps.accept(frame.stamp, frame.camera)
        self._enter("reconstructing")
        result = self._reconstructor.step(
            image,
            stamp=frame.stamp,
            frame_id=frame.frame_id,
            camera=frame.camera,
            calibration=frame.calibration,
        )
        self._note(frame, result)
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
                f"stamp {frame.stamp} ns came twice in a row; give each image its own stamp"
            )
        if order is Order.LATE:
            remedy = (
                "raise input.rig_wait, or have all cameras stamp by one clock"
                if frame.camera
                else "publish images in order"
            )
            raise FrameError(
                f"stamp {frame.stamp} ns is {self._seconds_back(frame):.3f} s older than the "
                f"image before it; {remedy}"
            )

    def _begin_where_due(self, frame: Frame, image: ImageArray, order: Order) -> None:
        """Begin a session where this frame cannot go on with the one before."""
        back = self._seconds_back(frame)
        if order is Order.JUMPED_BACK:
            self._begin("stamps jumped back", f"stamps jumped back by {back:.3f} s")
        elif order is Order.WRAPPED:
            logger.warning(
                "stamps went back by %.3f s, after which a camera's counter of 32-bit microseconds "
                "begins again: the session goes on", back,
            )  # fmt: skip
        # The first image is what all others are measured by.
        if self._becomes_known(frame, image):
            self._begin("the camera has become known")
        if self._blind and self._reconstructor.session_frames and not blindness(image):
            self._begin("the images before this one show nothing")

    def _begin(self, reason: str, told: str = "") -> None:
        logger.warning("%s: a new session begins", told or reason)
        self._reconstructor.reset(reason)

    def _note(self, frame: Frame, result: FrameResult) -> None:
        """Keep what later frames are judged by."""
        if result.index == 0:
            self._unknown.clear()
            self._blind = True
            if frame.bits is not None:
                frame.bits.begin()
        self._blind = self._blind and blindness(result.color) is not None
        if result.intrinsics_source != "calibrated":
            self._unknown.add(frame.camera)

    def _becomes_known(self, frame: Frame, image: ImageArray) -> bool:
        """Return whether a session has images that were not rectified, and now one that will be.

        Each camera becomes known once.
        """
        calibration, camera = frame.calibration, frame.camera
        if camera not in self._unknown or camera in self._become_known:
            return False
        if calibration is None or self._reconstructor.settings.calibration == "ignore":
            return False
        self._become_known.add(camera)
        return is_usable(calibration, image.shape[1], image.shape[0])

    def _seconds_back(self, frame: Frame) -> float:
        return ((self._stamps.last or 0) - frame.stamp) / 1e9
