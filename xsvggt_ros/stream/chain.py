# SPDX-License-Identifier: Apache-2.0
"""A stream longer than one gauge of the network: the engine over a chain of gauges, in one world.

A network measures everything by the first frame that it saw, and wears out as that frame gets out
of reach. So from time to time another gauge begins: for a few frames the network runs over both
caches, then the new one takes over where the old one had the camera. Session, world and unit go on;
only the first frame that all others are measured by is another one.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median

import numpy as np
import torch

from xsvggt_ros.cache.layer_plan import MIB
from xsvggt_ros.cache.layout import CacheStatistics
from xsvggt_ros.cache.settings import CacheSettings
from xsvggt_ros.errors import ConfigurationError, XsvggtError, first_line
from xsvggt_ros.geometry.joining import Join, OverlapFrame, join, overlap_frame
from xsvggt_ros.geometry.rigid import Matrix, Similarity
from xsvggt_ros.model.device import free_memory, release_cached_memory
from xsvggt_ros.model.network import StreamVggt
from xsvggt_ros.stream.chain_settings import ChainSettings, caches_of
from xsvggt_ros.stream.frame import REFINEMENTS, CameraMotion, FrameResult, GaugeChange
from xsvggt_ros.stream.odometry import VisualOdometry
from xsvggt_ros.stream.reconstructor import Arrival, Reconstructor, ReconstructorSettings

logger = logging.getLogger(__name__)

CONFIDENCE_MEMORY = 100
"""Frames whose median confidence is usual."""
LEAST_CONFIDENCE_MEMORY = 20
FALLEN_FRAMES = 3
"""Frames in a row of low confidence after which another gauge begins."""
MOST_JOINS_KEPT = 1000
PATIENCE = 4
"""Times the usual length of an overlap after which it ends without a rig's silent cameras."""

_CONFIDENCE_STRIDE = 4


@dataclass(frozen=True, slots=True)
class GaugeJoin:
    """A join that was made.

    Attributes:
        frame: of the session, the first one in the new gauge.
        stamp: of the last frame in the old one.
        join: how the new gauge lies in the session's world.

    """

    frame: int
    stamp: int
    join: Join


class ChainedReconstructor(Reconstructor):
    """A :class:`Reconstructor` whose sessions go on for ever, with odometry.

    Attributes:
        joins: of this session, the newest :data:`MOST_JOINS_KEPT`.

    """

    def __init__(
        self,
        network: StreamVggt,
        settings: ReconstructorSettings | None = None,
        *,
        chain: ChainSettings | None = None,
        refinement: str = "auto",
    ) -> None:
        """Make an engine with an empty session.

        Raises:
            ConfigurationError: what :class:`Reconstructor` raises; an unknown refinement.

        """
        self.chain = chain or ChainSettings()
        self._next: Reconstructor | None = None
        self._reason = self._asked = ""
        self._was_asked = False
        self._begin_gauges()
        self._odometry = VisualOdometry(network.config.patch_size)
        settings = settings or ReconstructorSettings()
        self._point_head_asked = settings.point_head
        super().__init__(network, settings, caches=caches_of(self.chain))
        self.set_refinement(refinement)

    def set_chain(self, chain: ChainSettings) -> None:
        """Chain by other settings from the next frame on.

        Raises:
            ConfigurationError: two caches do not fit ``cache.budget_mib``, or the device's memory
                does not suffice to share it again; all is as before then.

        """
        caches = caches_of(chain)
        if caches != self._caches:
            self._share_budget(caches)
            self._caches = caches
            self._start_overlap_again()
            self._objection = ""
        self.chain = chain

    def _share_budget(self, caches: int) -> None:
        try:
            with torch.inference_mode():
                self._cache.share_budget(caches)
        except XsvggtError:
            raise
        except Exception as error:
            release_cached_memory()
            raise ConfigurationError(
                f"chain.length stays {self.chain.length}, and the stream goes on as it was, "
                f"because the cache could not be laid out for another share of cache.budget_mib: "
                f"{first_line(error)}. If the device ran out of memory, lower cache.budget_mib "
                "first: while it is laid out, the cache is there twice"
            ) from error

    def _begin_gauges(self) -> None:
        self.joins: deque[GaugeJoin] = deque(maxlen=MOST_JOINS_KEPT)
        self._join_count = 0
        self._world_from_gauge = Similarity()
        self._gauge_begun = self._not_before = 0
        self._overlap: list[OverlapFrame] = []
        self._unanswered: deque[FrameResult] = deque()
        """Results of frames that wait for the first pass of the new gauge."""
        self._cameras: set[str] = set()
        """Those whose frames the next overlap waits for."""
        self._silent: tuple[str, ...] = ()
        self._change: GaugeChange | None = None
        self._objection = ""
        self._seen_by_next: dict[str, Matrix] = {}
        self._seen: Counter[str] = Counter()
        """Frames of the overlap, by camera."""
        self._confidences: deque[float] = deque(maxlen=CONFIDENCE_MEMORY)
        self._fallen = 0

    def _begin_session(self) -> None:
        self._next = None
        self._asked = ""
        self._begin_gauges()
        super()._begin_session()

    @property
    def odometry(self) -> VisualOdometry:
        """What follows the camera's motion."""
        return self._odometry

    def set_refinement(self, refinement: str) -> None:
        """Refine poses from the next frame on, or no more.

        Raises:
            ConfigurationError: what :meth:`check_refinement` raises.

        """
        self.check_refinement(refinement)
        self._odometry.refinement = refinement
        point_head = self._point_head_asked or refinement == "on"
        if point_head != self.settings.point_head:
            self.settings = replace(self.settings, point_head=point_head)
            self._take_cache(self._cache)
            self._start_overlap_again()

    def check_refinement(self, refinement: str) -> None:
        """Raise ConfigurationError where :meth:`set_refinement` would; for any thread.

        With ``on``, a network without a point head cannot run.

        Raises:
            ConfigurationError: it is not known, or needs a point head that is not there.

        """
        if refinement not in REFINEMENTS:
            raise ConfigurationError(
                f"pose.refinement is '{refinement}'; choose {', '.join(REFINEMENTS)}"
            )
        if refinement == "on" and not self.has_point_head:
            raise ConfigurationError(
                "pose.refinement is on, but these weights have no point head, whose points it "
                "needs; set it to off or auto"
            )

    def configure_cache(self, settings: CacheSettings) -> None:
        """Change the cache of the gauge that runs; see the class that this one extends."""
        if settings != self.settings.cache:
            self._start_overlap_again()
        super().configure_cache(settings)

    def _start_overlap_again(self) -> None:
        """Drop a gauge that has not taken over yet: it was made with other settings.

        One that was asked for begins again, one that was due only if it still is.
        """
        if self._next is not None:
            self._next = None
            if self._was_asked:
                self._asked = self._reason

    def learn_from_step(self, motion: CameraMotion, step: Matrix) -> None:
        """Learn by how much the variances of steps are off; see the class this one extends."""
        self._odometry.note_true_step(motion, step)

    def ask_for_join(self, reason: str) -> None:
        """Begin another gauge with the next frame.

        Raises:
            ConfigurationError: there is no frame yet to join it to.

        """
        if not self.session_frames:
            raise ConfigurationError(
                "the session has no frame yet, so there is nothing to join to; wait for images"
            )
        self._asked = reason

    def _run(self, frames: list[Arrival]) -> list[FrameResult]:
        """Run one pass; return its results in the world and unit of the session."""
        results = super()._run(frames)
        return [self._follow(*each) for each in zip(frames, results, strict=True)]

    def _follow(self, frame: Arrival, result: FrameResult) -> FrameResult:
        result = _in_world(result, self._world_from_gauge)
        self._cameras.add(result.camera)
        if result.camera in self._silent:
            self._silent = tuple(name for name in self._silent if name != result.camera)
        result = self._odometry.follow(result)
        result = replace(
            result,
            joins=self._join_count,
            gauge_change=self._change,
            chain_state=self._state,
        )
        self._change = None
        self._begin_gauge_where_due(result)
        if self._next is not None:
            result = self._run_next(frame, result)
        return result

    @property
    def _state(self) -> str:
        state = self._objection or ("on" if self.chain.length else "off")
        return f"{state}; {_silence(self._silent)}" if self._silent else state

    def _begin_gauge_where_due(self, result: FrameResult) -> None:
        reason = self._asked or self._reason_for_change(result)
        if self._next is not None or not reason or result.pose_source == "held":
            return
        self._was_asked = bool(self._asked)
        self._asked = ""
        self._reason = reason
        if objection := self._no_room():
            self._refuse(result, objection)
            return
        try:
            self._next = self._successor()
        except (XsvggtError, RuntimeError) as error:  # PyTorch says the latter for want of memory
            self._refuse(result, f"its cache could not be made: {first_line(error)}")
            return
        logger.info("frame %d of the session: another gauge begins, %s", result.index, reason)
        self._clear_overlap()

    def _clear_overlap(self) -> None:
        self._overlap.clear()
        self._unanswered.clear()
        self._seen_by_next.clear()
        self._seen.clear()

    def _reason_for_change(self, result: FrameResult) -> str:
        """Return why another gauge is due after this result; empty where none is."""
        excess = float(np.mean(result.confidence[::_CONFIDENCE_STRIDE, ::_CONFIDENCE_STRIDE])) - 1.0
        known = len(self._confidences) >= LEAST_CONFIDENCE_MEMORY
        usual = median(self._confidences) if known else 0.0
        low = excess < self.chain.min_confidence * usual
        self._fallen = self._fallen + 1 if low else 0
        if not low:
            self._confidences.append(excess)
        if not self.chain.length or result.index < self._not_before:
            return ""
        age = result.index + 1 - self._gauge_begun
        if age > self.chain.length - self._overlap_frames:
            return f"the one before is {age} frames old"
        if self._fallen >= FALLEN_FRAMES:
            return f"confidence fell to {1 + excess:.2f} from {1 + usual:.2f}"
        return ""

    def _no_room(self) -> str:
        """Return why a second cache does not fit beside this one; empty where it does.

        Without this, the session might end for want of memory in the middle of an overlap.
        """
        held, free = self._cache.statistics(), free_memory(self.device)
        allowed = self.settings.cache.budget_mib * MIB
        if allowed and 2 * (held.nbytes + held.scratch_nbytes) > allowed:
            return (
                f"two caches do not fit the {allowed / MIB:g} MiB of cache.budget_mib while "
                "chain.length is 0; set it above 0, and each gets half of them"
            )
        needed = held.nbytes + held.scratch_nbytes + held.camera_nbytes
        if free is None or needed <= free:
            return ""
        return (
            f"a second cache of {needed / MIB:.0f} MiB does not fit the {free / MIB:.0f} MiB that "
            f"are free on device '{self.device}': lower cache.budget_mib, or set chain.length to 0"
        )

    @property
    def _overlap_frames(self) -> int:
        """Frames that both gauges see, of all cameras together, where none is silent."""
        return max(self.first_pass_frames, self.chain.overlap * max(1, len(self._cameras)))

    def _run_next(self, frame: Arrival, result: FrameResult) -> FrameResult:
        """Run a frame through the new gauge, too; let it take over once it knows enough of them."""
        assert self._next is not None
        self._unanswered.append(result)
        try:
            answers = self._next._enter(frame)
        except XsvggtError as error:
            # Not for its frame alone: of a larger first frame, even its cache may be too large.
            self._refuse(result, f"its frame failed: {error}")
            return result
        result = replace(result, cache=_both(result.cache, self._next.cache_statistics()))
        for other in answers:
            self._compare(self._unanswered.popleft(), other)
        if self._knows_enough():
            found = join(self._overlap)
            if found.objection:
                self._refuse(result, found.objection, found)
            else:
                self._take_over(result, found)
        return result

    def _knows_enough(self) -> bool:
        """Whether the overlap is over: all cameras are in it, or it has gone on for long enough."""
        if self._unanswered or len(self._overlap) < self.first_pass_frames:
            return False
        # A gauge may place a camera that it has never seen elsewhere than the one before did.
        complete = all(self._seen[name] >= self.chain.overlap for name in self._cameras)
        return complete or len(self._overlap) >= PATIENCE * self._overlap_frames

    def _compare(self, result: FrameResult, other: FrameResult) -> None:
        """Keep what both gauges say of one frame."""
        self._overlap.append(
            overlap_frame(
                (result.camera_to_world, result.depth, result.confidence),
                (other.camera_to_world, other.depth, other.confidence),
                result.intrinsics,
            )
        )
        self._seen[result.camera] += 1
        self._seen_by_next[result.camera] = other.camera_to_world

    def _take_over(self, result: FrameResult, found: Join) -> None:
        """Go on in the new gauge from the next frame on."""
        assert self._next is not None
        self._adopt(self._next)
        self._next = None
        world = self._world_from_gauge = found.earlier_from_later
        self._odometry.change_gauge(
            {name: world.poses(pose) for name, pose in self._seen_by_next.items()}
        )
        self._note_silent_cameras(result.index)
        self._gauge_begun = result.index + 1
        self._confidences.clear()  # each gauge has a level of its own
        self._join_count += 1
        self.joins.append(GaugeJoin(result.index + 1, result.stamp, found))
        self._note_change(found, "")
        logger.info(
            "gauge %d takes over from frame %d of the session on: scale %.4g, points %.1f %% of "
            "their depth apart", self._join_count + 1, result.index + 1, world.scale,
            100 * found.distance,
        )  # fmt: skip

    def _note_silent_cameras(self, index: int) -> None:
        """Tell of cameras without a frame in the overlap."""
        silent = sorted((self._cameras | set(self._silent)) - self._seen_by_next.keys())
        if set(silent) - set(self._silent):
            logger.warning("frame %d of the session: %s", index, _silence(silent))
        self._silent = tuple(silent)
        self._cameras = set(self._seen_by_next)

    def _refuse(self, result: FrameResult, objection: str, found: Join | None = None) -> None:
        """Stay in the old gauge, and try again later."""
        self._next = None
        self._not_before = result.index + self.chain.retry
        release_cached_memory()
        self._note_change(found, objection)
        logger.warning(
            "frame %d of the session: the new gauge is refused, because %s; the old one goes on, "
            "and the next attempt comes %d frames later", result.index, objection,
            self.chain.retry,
        )  # fmt: skip

    def _note_change(self, found: Join | None, objection: str) -> None:
        self._fallen = 0
        self._objection = objection
        self._clear_overlap()
        self._change = GaugeChange(
            reason=self._reason,
            objection=objection,
            scale=np.nan if found is None else found.earlier_from_later.scale,
            distance=np.nan if found is None else found.distance,
            scale_spread=np.nan if found is None else found.scale_spread,
            joins=self._join_count,
        )


def _silence(cameras: Sequence[str]) -> str:
    """Say what it means that cameras of a rig had no frame in an overlap."""
    names = ", ".join(f"'{name}'" for name in cameras)
    return (
        f"no image of camera {names} while the newest gauge took over; when it is back, it begins "
        "where the network has it, as uncertain as a camera that is new"
    )


def _both(one: CacheStatistics, other: CacheStatistics) -> CacheStatistics:
    """Return the statistics of a cache with the bytes of another, which is there as well."""
    return replace(
        one,
        nbytes=one.nbytes + other.nbytes,
        scratch_nbytes=one.scratch_nbytes + other.scratch_nbytes,
        camera_nbytes=one.camera_nbytes + other.camera_nbytes,
    )


def _in_world(result: FrameResult, world_from_gauge: Similarity) -> FrameResult:
    """Return a result of a gauge in the world and unit of the session."""
    scale = np.float32(world_from_gauge.scale)
    change = result.head_change
    if change is not None:
        change = np.concatenate([world_from_gauge.scale * change[:3], change[3:]])
    return replace(
        result,
        camera_to_world=world_from_gauge.poses(result.camera_to_world),
        depth=result.depth * scale,
        points=None if result.points is None else result.points * scale,
        world_from_network=world_from_gauge.poses(result.world_from_network),
        head_change=change,
    )
