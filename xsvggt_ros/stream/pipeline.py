# SPDX-License-Identifier: Apache-2.0
"""The way of one frame, from what a topic, a bag or a directory gave to what comes out."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, Any, Literal

import cv2
import numpy as np

from xsvggt_ros.errors import FrameError, XsvggtError, first_line
from xsvggt_ros.geometry.rectification import is_usable
from xsvggt_ros.geometry.rigid import (
    OPTICAL_TO_BODY,
    Matrix,
    RobotPose,
    invert,
    map_from_world,
    placement_by_odometry,
    placement_of,
)
from xsvggt_ros.stream.frame import Frame, FrameResult, FrameUpdate, ImageArray, SessionInfo
from xsvggt_ros.stream.health import MEMORY, ImageWatch, QualityWatch, blindness
from xsvggt_ros.stream.stamps import Order, StampOrder

if TYPE_CHECKING:
    from xsvggt_ros.stream.reconstructor import Reconstructor

logger = logging.getLogger(__name__)

Stage = Literal[
    "idle",
    "decoding",
    "waiting for transforms",
    "reconstructing",
    "checking",
    "scaling",
    "mapping",
    "publishing",
    "commanded",
]


@dataclass(frozen=True, slots=True)
class Activity:
    """What is being done, and since when (seconds of the monotonic clock)."""

    stage: Stage
    since: float


def _no_transforms(frame: Frame) -> RobotPose:
    return RobotPose()


def _no_scale(result: FrameResult, transforms: RobotPose) -> tuple[FrameResult, bool]:
    return result, False


def _no_pose(result: FrameResult, transforms: RobotPose) -> Matrix | None:
    return None


def _ignore(*_: Any) -> None:
    """Do nothing."""


def _log_failure(result: FrameResult, error: Exception) -> None:
    logger.error("the result of stamp %d was not published", result.stamp, exc_info=error)


@dataclass(frozen=True, slots=True)
class PipelineHooks:
    """What the surroundings add to the way of a frame, on the thread that processes it.

    Attributes:
        transforms: what other nodes know of the robot at a frame's time; raises XsvggtError where
            the frame cannot be used without.
        scale: returns a result in metres, and whether lengths before it were in another unit.
        measured_pose: returns where an odometry that does not know of this node has the camera at
            the time of a result, [4, 4] in metres; None where there is none.
        map: takes the points of an update into a map.
        publish: publishes an update.
        report: told of each update that is through, with its latencies.
        report_refusal: told of each frame that could not be used, and why.
        report_failure: told of each result that did not come out, or not all of it.

    """

    transforms: Callable[[Frame], RobotPose] = _no_transforms
    scale: Callable[[FrameResult, RobotPose], tuple[FrameResult, bool]] = _no_scale
    measured_pose: Callable[[FrameResult, RobotPose], Matrix | None] = _no_pose
    map: Callable[[FrameUpdate], None] = _ignore
    publish: Callable[[FrameUpdate], None] = _ignore
    report: Callable[[FrameUpdate], None] = _ignore
    report_refusal: Callable[[Frame, XsvggtError], None] = _ignore
    report_failure: Callable[[FrameResult, Exception], None] = _log_failure


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A frame that the engine has and that has no result yet."""

    frame: Frame
    decode_seconds: float


class FramePipeline:
    """Processes the frames of a stream one after another. Not thread-safe.

    Attributes:
        reconstructor: the engine.
        processed: frames that have a result.
        refused: frames that could not be used.
        activity: what is being done; any thread may look.

    """

    def __init__(self, reconstructor: Reconstructor, hooks: PipelineHooks | None = None) -> None:
        self.reconstructor = reconstructor
        self.processed = 0
        self.refused = 0
        self.activity = Activity("idle", monotonic())
        self._hooks = hooks or PipelineHooks()
        self._stamps = StampOrder()
        self._map_from_world: Matrix = OPTICAL_TO_BODY
        self._map_from_odom: Matrix | None = None
        """What corrects the odometry of another node; None before the first plausible result."""
        self._odometry_poses: dict[str, Matrix] = {}
        """By camera, where an independent odometry had it in the frame before."""
        self._results_since_fault = MEMORY
        self._quality: defaultdict[str, QualityWatch] = defaultdict(QualityWatch)
        self._images: defaultdict[str, ImageWatch] = defaultdict(ImageWatch)
        self._uncalibrated: set[str] = set()
        """Cameras of which this session has images without a calibration."""
        self._become_known: set[str] = set()
        self._blind = False
        """Whether no image of this session shows anything."""
        self._result_size: tuple[int, int] | None = None
        """Width and height of the image of the newest result."""
        self._sizes: set[tuple[int, int]] = set()
        self._waiting: list[_Waiting] = []

    def process(self, frame: Frame) -> FrameUpdate | None:
        """Take one frame the whole way; return its update.

        None where it was refused, and where it waits until the first pass of its session is
        complete (LingBot-Map answers the first frames together). Hooks are told of each update and
        each refusal, in the order of the frames. A frame that is refused leaves session and stamps
        as they were. A result that cannot be published is a result all the same. Neither is raised.
        """
        try:
            order = self._classify_stamp(frame)
            image, decode_seconds = self._decode(frame)
            frame = self._look_up_transforms(frame)
            self._begin_session_where_due(frame, image, order)
            results = self._reconstruct(frame, image, decode_seconds)
        except Exception as error:  # noqa: BLE001 - one frame must not end the stream
            self.refuse_lost_frames()
            self._refuse(frame, error)
            return None
        updates = [self._complete(*each) for each in self._with_frames(results)]
        return updates[-1] if updates else None

    def finish(self) -> None:
        """Run the first pass over the frames that wait for more, for a stream that has ended."""
        waiting = [waiting.frame for waiting in self._waiting]
        try:
            results = self.reconstructor.finish()
        except Exception as error:  # noqa: BLE001 - as in process
            self._waiting.clear()
            for frame in waiting:
                self._refuse(frame, error)
            return
        for frame, result in self._with_frames(results):
            self._complete(frame, result)

    @property
    def waiting_frames(self) -> int:
        """Frames that wait until the first pass of their session is complete."""
        return len(self._waiting)

    def refuse_lost_frames(self) -> None:
        """Refuse the frames whose session ended before its first pass was complete."""
        lost = len(self._waiting) - self.reconstructor.waiting_frames
        gone, self._waiting = self._waiting[:lost], self._waiting[lost:]
        for waiting in gone:
            self._refuse(
                waiting.frame,
                FrameError(
                    "the session ended before the first pass, for which this frame waited, was "
                    "complete"
                ),
            )

    def _with_frames(self, results: list[FrameResult]) -> list[tuple[Frame, FrameResult]]:
        """Return results, which come in the order of their frames, each with its frame."""
        ready, self._waiting = self._waiting[: len(results)], self._waiting[len(results) :]
        pairs = []
        for waiting, result in zip(ready, results, strict=True):
            timings = replace(result.timings, decode=waiting.decode_seconds)
            pairs.append((waiting.frame, replace(result, timings=timings)))
        return pairs

    def _complete(self, frame: Frame, result: FrameResult) -> FrameUpdate:
        """Take a result the rest of its way."""
        self.processed += 1
        self._note_calibration(frame, result)
        self._warn_of_what_is_lost(result)
        update = FrameUpdate(frame, result, self._session_info())
        try:
            update = self._check(update)
            update = self._scale(update)
            update = self._place(update)
            self._map(update)
            update = self._publish(update)
            self._hooks.report(update)
        except Exception as error:  # noqa: BLE001 - told by whoever publishes
            self._call(self._hooks.report_failure, result, error)
        return update

    def enter(self, stage: Stage) -> None:
        """Say what is being done from now on."""
        self.activity = Activity(stage, monotonic())

    def _classify_stamp(self, frame: Frame) -> Order:
        """Return how a frame's stamp follows those before it.

        Raises:
            FrameError: a fault that is known already, or a repeated or late stamp.

        """
        if frame.fault:
            raise FrameError(frame.fault)
        order = self._stamps.classify(frame.stamp, frame.camera)
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
        return order

    def _decode(self, frame: Frame) -> tuple[ImageArray, float]:
        """Return the image, and the seconds that it took to decode."""
        self.enter("decoding")
        started = perf_counter()
        image = frame.decode()
        return image, perf_counter() - started

    def _look_up_transforms(self, frame: Frame) -> Frame:
        """Return the frame with the transforms of its time."""
        self.enter("waiting for transforms")
        return replace(frame, transforms=self._hooks.transforms(frame))

    def _begin_session_where_due(self, frame: Frame, image: ImageArray, order: Order) -> None:
        """Begin a session where this frame cannot go on with the one before.

        It cannot where stamps jumped back, where a camera becomes known, and where all images
        before it show nothing: the first image is what all others are measured by.
        """
        back = self._seconds_back(frame)
        if order is Order.JUMPED_BACK:
            self._begin_session("stamps jumped back", f"stamps jumped back by {back:.3f} s")
        elif order is Order.WRAPPED:
            logger.warning(
                "stamps went back by %.3f s, after which a camera's counter of 32-bit microseconds "
                "begins again: the session goes on", back,
            )  # fmt: skip
        elif order is Order.RETURNED:
            logger.warning(
                "stamps went back by %.3f s, to where they were before they jumped ahead: the "
                "session goes on", back,
            )  # fmt: skip
        if self._becomes_known(frame, image):
            self._begin_session("the camera has become known")
        if self._blind and self.reconstructor.session_frames and self._shows_something(image):
            self._begin_session("the images before this one show nothing")
        self._stamps.accept(frame.stamp, frame.camera)

    def _shows_something(self, image: ImageArray) -> bool:
        """Return whether an image will show something at the size at which results are checked.

        Fine texture is gone there; taken as it is, it would begin a session with every image.
        """
        if self._result_size is None:
            return blindness(image) is None
        small = cv2.resize(image, self._result_size, interpolation=cv2.INTER_AREA)
        return blindness(np.asarray(small, np.uint8)) is None

    def _begin_session(self, reason: str, told: str = "") -> None:
        logger.warning("%s: a new session begins", told or reason)
        self.reconstructor.reset(reason)
        self.refuse_lost_frames()

    def _reconstruct(
        self, frame: Frame, image: ImageArray, decode_seconds: float
    ) -> list[FrameResult]:
        """Return the results that are ready: this frame's, and of those that waited with it."""
        self.enter("reconstructing")
        results = self.reconstructor.take(
            image,
            stamp=frame.stamp,
            frame_id=frame.frame_id,
            camera=frame.camera,
            calibration=frame.calibration,
        )
        self._waiting.append(_Waiting(frame, decode_seconds))
        return results

    def _note_calibration(self, frame: Frame, result: FrameResult) -> None:
        """Keep what later frames are compared with."""
        if result.index == 0:
            self._uncalibrated.clear()
            if frame.bits is not None:
                frame.bits.begin()
        if result.intrinsics_source != "calibrated":
            self._uncalibrated.add(frame.camera)

    def _becomes_known(self, frame: Frame, image: ImageArray) -> bool:
        """Return whether a session has images that were not rectified, and now one that will be.

        Each camera becomes known once.
        """
        calibration, camera = frame.calibration, frame.camera
        if camera not in self._uncalibrated or camera in self._become_known:
            return False
        if calibration is None or self.reconstructor.settings.calibration == "ignore":
            return False
        self._become_known.add(camera)
        return is_usable(calibration, image.shape[1], image.shape[0])

    def _warn_of_what_is_lost(self, result: FrameResult) -> None:
        """Say once for each size of images what of them is cut off or out of proportion."""
        mapping = result.mapping
        size = mapping.source_width, mapping.source_height
        if size not in self._sizes:
            self._sizes.add(size)
            if mapping.remark:
                logger.warning("%s", mapping.remark)

    def _check(self, update: FrameUpdate) -> FrameUpdate:
        """Find what is implausible about a result, and whether its image shows anything."""
        self.enter("checking")
        result = update.result
        if result.index == 0:
            self._quality.clear()
            self._blind = True
            self._results_since_fault = MEMORY
        watch = self._images[result.camera]
        faults = watch.faults_of(result.color)
        blind = faults[0] if watch.blind else ""
        self._blind = self._blind and watch.blind
        self._result_size = result.color.shape[1], result.color.shape[0]
        faults += self._quality[result.camera].faults_of(result)
        self._results_since_fault = 0 if faults else self._results_since_fault + 1
        degraded = self._results_since_fault < MEMORY
        return replace(update, faults=faults, degraded=degraded, blind=blind)

    def _scale(self, update: FrameUpdate) -> FrameUpdate:
        """Bring a result into metres, where a scale is known."""
        self.enter("scaling")
        result, unit_changed = self._hooks.scale(update.result, update.frame.transforms)
        update = replace(update, result=result, unit_changed=unit_changed)
        self._learn_precision(update)
        return update

    def _learn_precision(self, update: FrameUpdate) -> None:
        """Compare the step of the camera with that of an independent odometry, in metres.

        The odometry in TF is not one: a filter that fuses this very step may broadcast it.
        """
        result = update.result
        before = self._odometry_poses.pop(result.camera, None)
        if not result.metric:
            return
        pose = self._hooks.measured_pose(result, update.frame.transforms)
        if pose is None:
            return
        self._odometry_poses[result.camera] = pose
        if before is not None and result.motion is not None and not update.faults:
            self.reconstructor.learn_from_step(result.motion, invert(before) @ pose)

    def _place(self, update: FrameUpdate) -> FrameUpdate:
        """Find where everything is in the map; the first frame of a session defines the map.

        While results are implausible, the odometry of another node goes on from the last correction
        that was not: a jump of the estimate would move the robot at once.
        """
        transforms = update.frame.transforms
        if update.result.index == 0:
            self._map_from_world = map_from_world(transforms)
        if update.starts_over or transforms.odom_from_carrier is None:
            self._map_from_odom = None
        if update.degraded and self._map_from_odom is not None:
            placement = placement_by_odometry(self._map_from_odom, transforms)
        else:
            motion = update.result.motion
            placement = placement_of(
                self._map_from_world,
                update.result.camera_to_world,
                transforms,
                None if motion is None else motion.odom_from_camera,
            )
            self._map_from_odom = placement.map_from_odom
        return replace(update, placement=placement)

    def _map(self, update: FrameUpdate) -> None:
        self.enter("mapping")
        self._hooks.map(update)

    def _publish(self, update: FrameUpdate) -> FrameUpdate:
        """Publish an update; return it with its latencies."""
        self.enter("publishing")
        started = perf_counter()
        self._hooks.publish(update)
        return replace(
            update,
            publish_seconds=perf_counter() - started,
            total_seconds=monotonic() - update.frame.received_at,
        )

    def _refuse(self, frame: Frame, error: Exception) -> None:
        """Count and report a frame that could not be used."""
        if not isinstance(error, XsvggtError):
            logger.debug("unforeseen, on the frame of stamp %d", frame.stamp, exc_info=error)
            text = f"unexpected {type(error).__name__}: {first_line(error)}"
            error = FrameError(text)
        self.refused += 1
        self._call(self._hooks.report_refusal, frame, error)

    def _call(self, hook: Callable[..., None], *arguments: Any) -> None:
        """Call a hook that reports; what it raises must not end the stream."""
        try:
            hook(*arguments)
        except Exception:
            logger.exception("the frame of stamp %d was not reported", arguments[0].stamp)

    def _session_info(self) -> SessionInfo:
        engine = self.reconstructor
        return SessionInfo(engine.session, engine.session_frames, engine.reset_reason)

    def _seconds_back(self, frame: Frame) -> float:
        return ((self._stamps.last or 0) - frame.stamp) / 1e9
