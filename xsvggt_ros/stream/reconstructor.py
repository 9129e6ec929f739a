# SPDX-License-Identifier: Apache-2.0
"""The engine: one image in, what is known of it out, in memory that does not grow."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xsvggt_ros.cache.kv_cache import KvCache
from xsvggt_ros.cache.layout import CacheStatistics
from xsvggt_ros.cache.settings import CacheSettings
from xsvggt_ros.errors import (
    ConfigurationError,
    DeviceFullError,
    FrameError,
    NonFiniteOutputError,
    XsvggtError,
    first_line,
)
from xsvggt_ros.geometry.cameras import (
    Calibration,
    inverted,
)
from xsvggt_ros.geometry.rectification import Rectification
from xsvggt_ros.geometry.rigid import Matrix, apparent_motion
from xsvggt_ros.model.device import ran_out_of_memory, release_cached_memory
from xsvggt_ros.model.network import Head, StreamVggt
from xsvggt_ros.stream.frame import CameraMotion, FrameResult, ImageArray, ImageMapping, Timings
from xsvggt_ros.stream.processing import (
    CalibrationUse,
    Calibrator,
    PoseTrack,
    PredictedView,
    check_width,
    preprocess,
    to_network,
    with_camera,
)
from xsvggt_ros.stream.step_runner import HostOutput, StepRunner, cache_layout, changed, shrunk

logger = logging.getLogger(__name__)

_HEADS: tuple[Head, ...] = ("camera", "depth")


@dataclass(frozen=True, slots=True)
class ReconstructorSettings:
    """Settings of the engine.

    Attributes:
        width: of the network's input in pixels, a multiple of the patch size; its height follows
            from the image's aspect and is at most as much.
        cache: how the KV cache behaves.
        calibration: what is made of the calibration that comes with an image.
        point_head: whether the head that predicts points directly runs as well, for results that
            are compared with published ones; maps are made of depth and pose.
        cuda_graphs: whether a step may be captured and launched as a whole, where a GPU can.

    """

    width: int = 518
    cache: CacheSettings = field(default_factory=CacheSettings)
    calibration: CalibrationUse = "auto"
    point_head: bool = False
    cuda_graphs: bool = True


@dataclass(frozen=True, slots=True)
class Arrival:
    """A frame on its way through the network, as the network is to see it."""

    color: ImageArray
    mapping: ImageMapping
    stamp: int
    frame_id: str
    camera: str
    rectification: Rectification | None
    preprocess_seconds: float


class Reconstructor:
    """Runs a network over a stream, frame by frame.

    Nothing of a frame stays on the device but what the cache keeps of it. The world is the optical
    frame of the session's first camera. Not thread-safe: one thread owns it.
    """

    def __init__(
        self,
        network: StreamVggt,
        settings: ReconstructorSettings | None = None,
        *,
        caches: int = 1,
    ) -> None:
        """Make an engine with an empty session.

        Args:
            network: on its device already.
            settings: see there.
            caches: that live at once, of other engines, and share ``cache.budget_mib``.

        Raises:
            ConfigurationError: a width that does not divide into patches, an impossible budget, a
                point head that the network does not have.

        """
        self.settings = settings or ReconstructorSettings()
        self._network, self._caches = network, caches
        config = network.config
        check_width(self.settings.width, config.patch_size)
        if self.settings.point_head and not self.has_point_head:
            raise ConfigurationError(
                "these weights have no point head; take points from depth and pose (mv_recon: "
                "--prediction projection), or weights of StreamVGGT"
            )
        self._take_cache(self._new_cache(self.settings.cache))
        self._calibrator = Calibrator(self.settings.calibration)
        self._session = 1
        self._reset_reason = ""
        self._warned_of: set[tuple[int, int]] = set()
        self._begin_session()

    def _new_cache(self, settings: CacheSettings) -> KvCache:
        layout = replace(cache_layout(self._network), caches=self._caches)
        return KvCache(settings, layout, self._network.side)

    def _take_cache(self, cache: KvCache) -> None:
        """Run over ``cache`` from now on."""
        self._cache = cache
        self._runner = StepRunner(
            self._network, cache, self._heads, graphs=self.settings.cuda_graphs
        )

    @torch.inference_mode()
    def _begin_session(self) -> None:
        self._cache.clear()
        self._index = 0
        self._poses = PoseTrack()
        self._last_pose: Matrix | None = None
        self._view = PredictedView()
        self._held_said = False
        self._size: tuple[int, int] | None = None
        self._waiting: list[Arrival] = []

    @property
    def waiting_frames(self) -> int:
        """Frames that wait until the first pass of the session is complete."""
        return len(self._waiting)

    @property
    def first_pass_frames(self) -> int:
        """Frames that the first pass of a session takes together; 1 = none ever waits."""
        return self._cache.layout.anchor_frames

    @property
    def has_point_head(self) -> bool:
        """Whether the network can predict points directly."""
        return "points" in self._network.config.heads

    def learn_from_step(self, motion: CameraMotion, step: Matrix) -> None:
        """Take in a step [4, 4] as another measured it; an engine without odometry learns nothing.

        Args:
            motion: of the camera, in the same unit.
            step: the camera in its frame of the image before.

        """

    def cache_statistics(self) -> CacheStatistics:
        """Return the state of the cache."""
        return self._cache.statistics()

    def _successor(self) -> Reconstructor:
        """Return an engine that begins another gauge of the same stream, and repeats no warning."""
        other = Reconstructor(self._network, self.settings, caches=self._caches)
        other._calibrator, other._warned_of = self._calibrator, self._warned_of
        other._view.warned, other._held_said = self._view.warned, self._held_said
        return other

    def _adopt(self, other: Reconstructor) -> None:
        """Go on in the gauge of another engine of the same network; the session stays."""
        self._cache, self._runner = other._cache, other._runner
        self._poses, self._last_pose = other._poses, other._last_pose
        self._view.focal, self._size = other._view.focal, other._size

    @property
    def _heads(self) -> tuple[Head, ...]:
        return (*_HEADS, "points") if self.settings.point_head else _HEADS

    @property
    def session(self) -> int:
        """Number of the current session, from 1."""
        return self._session

    @property
    def session_frames(self) -> int:
        """Frames reconstructed in this session."""
        return self._index

    @property
    def reset_reason(self) -> str:
        """Why the session before this one ended; empty in the first one."""
        return self._reset_reason

    @property
    def device(self) -> torch.device:
        """Where the network runs."""
        return self._network.device

    def reset(self, reason: str = "") -> None:
        """Forget the stream: the next frame is the first of a new session."""
        self._reset_reason = reason
        if self._index:
            logger.info("session %d ends after %d frames%s", self._session, self._index,
                        f": {reason}" if reason else "")  # fmt: skip
        self._session += 1
        self._begin_session()

    def warm_up(self, image: ImageArray) -> None:
        """Run a first pass of copies of ``image`` [h, w, 3], then forget it; room stays.

        Raises:
            FrameError: what :meth:`take` raises.

        """
        session = self._session
        self._view.warned = True  # of a made-up image, any view is as good
        try:
            for _ in range(self.first_pass_frames):
                self.take(image)
        finally:
            self._session = session
            self._begin_session()

    def check_cache(self, settings: CacheSettings, *, caches: int = 0) -> None:
        """Raise ConfigurationError where :meth:`configure_cache` would; for any thread.

        Args:
            settings: that are asked for.
            caches: that are to share ``cache.budget_mib`` from then on; 0 = as many as now.

        """
        self._cache.check(settings, caches=caches)

    def configure_cache(self, settings: CacheSettings) -> None:
        """Change budget, widths or policy at once; what is remembered and still fits stays.

        Raises:
            ConfigurationError: settings that this session cannot take on; all is as before then.

        """
        if settings == self.settings.cache:
            return
        self._cache.check(settings)
        try:
            with torch.inference_mode():
                self._cache.configure(settings)
        except Exception as error:
            # Whatever comes after the check comes half-way.
            self._take_cache(self._new_cache(self.settings.cache))
            self.reset("its cache could not be changed")
            raise ConfigurationError(
                f"the cache could not be changed, and a new session has begun with the settings "
                f"as they were: {first_line(error)}. If the device ran out of memory, ask for less"
            ) from error
        self.settings = replace(self.settings, cache=settings)
        self._warn_of_no_history()

    def step(
        self,
        image: ImageArray,
        *,
        stamp: int = 0,
        frame_id: str = "",
        camera: str = "",
        calibration: Calibration | None = None,
    ) -> FrameResult:
        """Reconstruct one frame with a network that answers every frame at once.

        Args and errors as for :meth:`take`.

        Raises:
            ConfigurationError: the network answers the first frames of a session together.

        """
        if self.first_pass_frames > 1:
            raise ConfigurationError(
                f"this network answers the first {self.first_pass_frames} frames of a session "
                "together; use take() and finish(), or set cache.anchor_frames to 1"
            )
        (result,) = self.take(
            image, stamp=stamp, frame_id=frame_id, camera=camera, calibration=calibration
        )
        return result

    @torch.inference_mode()
    def take(
        self,
        image: ImageArray,
        *,
        stamp: int = 0,
        frame_id: str = "",
        camera: str = "",
        calibration: Calibration | None = None,
    ) -> list[FrameResult]:
        """Take one frame in; return the results that are ready now, in the order of their frames.

        While the first pass of a session fills there are none; its last frame brings those of all.
        A frame of another size than those that wait is not waited with: they go without it.

        Args:
            image: RGB, uint8 [height, width, 3], of any size.
            stamp: time of acquisition in nanoseconds, handed through.
            frame_id: the camera's optical frame, handed through.
            camera: its name in a rig of several.
            calibration: of the camera; its distortion is removed, and its intrinsics replace the
                network's.

        Raises:
            FrameError: an unusable image; the session is as before.
            NonFiniteOutputError: no finite pose or depth came out. What came out is in the cache
                too, so a new session has begun.

        """
        started = perf_counter()
        rectification = self._calibrator.rectification_for(calibration, image)
        if rectification is not None:
            image = rectification.rectify(image)
        color, mapping = preprocess(image, self.settings.width, self._network.config.patch_size)
        frame = Arrival(
            color, mapping, stamp, frame_id, camera, rectification, perf_counter() - started
        )
        return self._enter(frame)

    def _enter(self, frame: Arrival) -> list[FrameResult]:
        """Run a frame, or wait with it for those of the first pass."""
        if self._index:
            return self._run([frame])
        before = self.finish() if self._waits_for_another_size(frame.mapping) else []
        if before:
            return before + self._run([frame])
        self._waiting.append(frame)
        return self.finish() if len(self._waiting) >= self.first_pass_frames else []

    @torch.inference_mode()
    def finish(self) -> list[FrameResult]:
        """Run the first pass over the frames that wait, though there may be too few; empty = none.

        For a stream that ends; in one that goes on, :meth:`take` does it.

        Raises:
            FrameError: as :meth:`take`; none of them has a result then.

        """
        frames, self._waiting = self._waiting, []
        return self._run(frames) if frames else []

    def _waits_for_another_size(self, mapping: ImageMapping) -> bool:
        sizes = {(frame.mapping.width, frame.mapping.height) for frame in self._waiting}
        return bool(sizes) and (mapping.width, mapping.height) not in sizes

    def _run(self, frames: list[Arrival]) -> list[FrameResult]:
        """Run one pass of the network over one frame, or over those of a first pass."""
        started = perf_counter()
        device = self._network.device
        self._note_size(frames[0].mapping, len(frames))
        images = torch.cat([to_network(frame.color, device) for frame in frames], dim=1)
        self._cache.expect_camera(frames[-1].camera)
        ready = perf_counter()
        outputs, computed = self._compute(images)
        self._refuse_non_finite(outputs)
        results = [self._result(*each) for each in zip(frames, outputs, strict=True)]
        last = results[-1]
        self._end_frame(last.camera_to_world, last.depth)
        collected = perf_counter()
        # What is shared by the frames of a pass is charged to each in equal parts.
        shares = len(frames)
        timings = Timings(
            0.0, (ready - started) / shares, (computed - ready) / shares,
            (collected - computed) / shares,
        )  # fmt: skip
        statistics = self._cache.statistics()
        return [
            replace(
                result,
                cache=statistics,
                timings=replace(timings, preprocess=timings.preprocess + frame.preprocess_seconds),
            )
            for frame, result in zip(frames, results, strict=True)
        ]

    def _compute(self, images: Tensor) -> tuple[list[HostOutput], float]:
        """Run the network; return its output on the host, and when the device had finished."""
        try:
            output, computed = self._runner.run_to_host(images)
        except Exception as error:
            # Some layers hold the frame by now and others do not: the stream cannot go on.
            raise self._failure("the network", error) from error
        if self._network.config.pose_convention == "camera_to_world":
            output = [replace(each, encoding=inverted(each.encoding)) for each in output]
        return output, computed

    def _end_frame(self, pose: Matrix, depth: NDArray[np.float32]) -> None:
        try:
            self._cache.end_frame(self._motion(pose, depth))
        except Exception as error:
            # Some layers have their new budget and others do not.
            raise self._failure("the cache", error) from error

    def _failure(self, what: str, error: Exception) -> FrameError:
        """Begin a new session; return what to raise."""
        frame = self._index
        if ran_out_of_memory(error):
            return self._out_of_memory(error)
        self.reset(f"{what} failed")
        return FrameError(
            f"{what} failed on frame {frame} of the session, and a new session has begun: "
            f"{first_line(error)}"
        )

    def _out_of_memory(self, error: Exception) -> DeviceFullError:
        """Begin a new session with a smaller cache; return what to raise."""
        frame, before = self._index, self._cache.settings
        # Anchors are given up where the first pass itself did not fit.
        smaller = shrunk(before, self._cache.layout, self._frame_tokens, first_pass=not frame)
        self._take_cache(self._new_cache(smaller))
        changes = changed(before, smaller)
        given: dict[str, Any] = {n.removeprefix("cache."): each for n, each in changes.items()}
        self.settings = replace(self.settings, cache=replace(self.settings.cache, **given))
        self.reset("the device ran out of memory")
        release_cached_memory()
        words = ", ".join(f"{name} is now {value:g}" for name, value in changes.items())
        return DeviceFullError(
            f"the device ran out of memory on frame {frame} of the session, and a new session has "
            f"begun: {words or 'nothing can be given up; lower input.width'} ({first_line(error)})",
            changes,
        )

    def _motion(self, pose: Matrix, depth: NDArray[np.float32]) -> float:
        """Return how far the image moved, about in radians: the turn, and the way by depth."""
        last, self._last_pose = self._last_pose, pose
        if last is None:
            return 0.0
        return apparent_motion(last, pose, float(np.nanmedian(depth)))

    def _result(self, frame: Arrival, output: HostOutput) -> FrameResult:
        """Return the result of the session's next frame."""
        pose, pose_source = self._poses.pose_of(output.encoding, frame.stamp, frame.camera)
        if pose_source == "held":
            self._log_held()
        intrinsics, source = self._view.intrinsics(output.encoding, frame.mapping, self._index)
        result = FrameResult(
            index=self._index,
            stamp=frame.stamp,
            frame_id=frame.frame_id,
            camera=frame.camera,
            camera_to_world=pose,
            pose_source=pose_source,
            execution=self._runner.execution,
            intrinsics=intrinsics,
            intrinsics_source=source,
            depth=output.depth,
            confidence=output.confidence,
            color=frame.color,
            mapping=frame.mapping,
            cache=self._cache.statistics(),
            timings=Timings(),
            points=output.points,
            world_from_network=self._poses.world_from_network,
            head_change=output.head_change,
        )
        self._index += 1
        return result if frame.rectification is None else with_camera(result, frame.rectification)

    def _log_held(self) -> None:
        if not self._held_said:
            self._held_said = True
            logger.info(
                "the network left the rotation of frame %d open: its pose is held, and wherever "
                "it happens again in this session", self._index,
            )  # fmt: skip

    def _refuse_non_finite(self, outputs: list[HostOutput]) -> None:
        if all(output.is_usable for output in outputs):
            return
        frame = self._index
        self.reset("the network's output was not finite")
        raise NonFiniteOutputError(
            f"frame {frame} of the session gave no finite pose or depth; a new session has begun. "
            f"If it happens again, {self._other_dtypes()}check the weights"
        )

    def _other_dtypes(self) -> str:
        """Return what to try where numbers overflow; nothing computes further than float32."""
        if self._network.dtype == torch.float32:
            return ""
        used = str(self._network.dtype).removeprefix("torch.")
        others = [name for name in ("float32", "bfloat16") if name != used]
        return f"use model.dtype {' or '.join(others)} instead of {used}, or "

    def _note_size(self, mapping: ImageMapping, together: int) -> None:
        """Make ready for frames of a size, ``together`` of them in one pass."""
        size = (mapping.width, mapping.height)
        if size == self._size:
            return
        tokens = self._network.config.tokens_per_frame(mapping.height, mapping.width)
        try:
            self._cache.prepare(tokens, together)
        except XsvggtError:
            raise
        except Exception as error:
            # Some layers have their new budget and others do not.
            raise self._failure("the cache", error) from error
        if self._size is not None:
            logger.warning(
                "the network's image changes from %dx%d to %dx%d pixels; the session goes on",
                *self._size, *size,
            )  # fmt: skip
        self._size = size
        self._warn_of_no_history()

    @property
    def _frame_tokens(self) -> int:
        """Tokens of a frame of the newest size."""
        width, height = self._size or (self.settings.width, self.settings.width)
        return self._network.config.tokens_per_frame(height, width)

    def _warn_of_no_history(self) -> None:
        if self._size is None:
            return
        (width, height), tokens = self._size, self._frame_tokens
        case = (self._cache.statistics().budget_tokens, tokens)
        if self._cache.history_tokens(tokens) == 0 and case not in self._warned_of:
            self._warned_of.add(case)
            logger.warning(
                "a budget of %d tokens leaves no history: first and newest frame alone take %d "
                "tokens at %dx%d; set cache.budget_tokens to %d or more, or raise cache.budget_mib",
                self._cache.statistics().budget_tokens,
                self._cache.smallest_history_budget(tokens) - 1, width, height,
                self._cache.smallest_history_budget(tokens),
            )  # fmt: skip
