# SPDX-License-Identifier: Apache-2.0
"""What goes into the engine and what comes out of it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from xsvggt_ros.geometry.cameras import Intrinsics
from xsvggt_ros.geometry.pose_covariance import USUAL_PERSISTENCE, Persistence
from xsvggt_ros.geometry.rigid import Placement, RobotPose

if TYPE_CHECKING:
    from xsvggt_ros.cache.layout import CacheStatistics
    from xsvggt_ros.geometry.cameras import Calibration

logger = logging.getLogger(__name__)

SECOND = 1_000_000_000
"""Nanoseconds, in which every stamp is given."""

ImageArray = NDArray[np.uint8]
"""RGB image, uint8 [height, width, 3]."""

IntrinsicsSource = Literal["calibrated", "predicted", "held", "assumed"]
PoseSource = Literal["predicted", "fused", "held"]
Refinement = Literal["off", "auto", "on"]
REFINEMENTS: tuple[Refinement, ...] = ("off", "auto", "on")

FULL_SCALE = 65535
"""White of a 16-bit image."""

LEAST_USED = (FULL_SCALE + 1) // 8
"""A camera that has not reached an eighth of the range has fewer bits than its pixels."""

_DEPTHS = (8, 10, 12, 14, 16)
"""Bits that sensors have."""

_HOT_PIXELS = 5000
"""Pixels of which one may be brighter than the sensor can measure: a hot one, or none at all."""


def _brightest(pixels: NDArray[Any]) -> int:
    """Return the largest value, but for those of hot pixels."""
    values = pixels.ravel()
    odd = values.size // _HOT_PIXELS
    most = int(values.max(initial=0))
    # Counting is for images whose bits only a few pixels decide about.
    if not odd or int(np.count_nonzero(values > most // 4)) > odd:
        return most
    return int(np.partition(values, values.size - 1 - odd)[values.size - 1 - odd])


class BitsInUse:
    """Follows the largest value of a camera's 16-bit images through a session.

    A 10-bit camera whose values were taken for 16-bit ones would reach the network as four levels
    of grey.
    """

    def __init__(self) -> None:
        self._most = 0
        self._newest = 0
        self._said = 0

    def begin(self) -> None:
        """Take note that a session began with the newest image."""
        self._most = self._newest

    def full_scale(self, pixels: NDArray[Any]) -> int:
        """Return the value of white, by these uint16 pixels [h, w, ...] and all before them."""
        self._newest = _brightest(pixels)
        self._most = max(self._most, self._newest)
        bits = next(depth for depth in _DEPTHS if self._most < 1 << depth)
        if 0 < self._most < LEAST_USED and bits != self._said:
            self._said = bits
            logger.warning(
                "16-bit images reach no more than %d of %d so far: they are read as %d-bit "
                "ones; shift the driver's pixels up if that is wrong",
                self._most, FULL_SCALE, bits,
            )  # fmt: skip
        return (1 << bits) - 1


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """An image as a file or message holds it.

    ``format`` is what the message said, else ``jpeg`` or ``png``.
    """

    data: bytes
    format: str


@dataclass(frozen=True, slots=True)
class Frame:
    """One image of a stream, not decoded yet.

    ``decode`` runs on the worker, because a subscription callback must not wait for it; it
    returns the RGB image or raises :class:`~xsvggt_ros.errors.FrameError`.
    ``stamp`` is the time of acquisition in nanoseconds, ``frame_id`` the camera's optical frame,
    ``camera`` its name in a rig of several. ``bits`` follows its 16-bit images, and is to be told
    of each new session. ``recorded`` is when a recording took the image down, in nanoseconds of a
    clock that may be another than that of ``stamp``. ``fault`` says why the frame is to be refused,
    where that is known before it is decoded. ``received_at`` is when it was received, in seconds of
    the monotonic clock. ``transforms`` are those of its time, once they have been looked up.
    """

    stamp: int
    frame_id: str
    decode: Callable[[], ImageArray]
    calibration: Calibration | None = None
    encoded: EncodedImage | None = None
    camera: str = ""
    bits: BitsInUse | None = None
    recorded: int | None = None
    fault: str = ""
    received_at: float = field(default_factory=monotonic)
    transforms: RobotPose = field(default_factory=RobotPose)


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds that one frame spent in each stage."""

    decode: float = 0.0
    preprocess: float = 0.0
    network: float = 0.0
    collect: float = 0.0

    @property
    def total(self) -> float:
        """Sum of all stages, in seconds."""
        return self.decode + self.preprocess + self.network + self.collect


@dataclass(frozen=True, slots=True)
class Execution:
    """How a step ran, and why so.

    Attributes:
        mode: ``cuda graph`` where it was launched as a whole, else ``eager``.
        reason: why not as a graph; empty for a graph.

    """

    mode: Literal["eager", "cuda graph"] = "eager"
    reason: str = ""


@dataclass(frozen=True, slots=True)
class CameraMotion:
    """How a camera moves. Covariances are of disturbances on the right, in the camera's own axes.

    Attributes:
        odom_from_camera: float64 [4, 4], the sum of all steps since the session began: it never
            jumps, but drifts from ``camera_to_world`` with each fused step and each join.
        covariance: float64 [6, 6] of it, translation first.
        world_covariance: float64 [6, 6] of ``camera_to_world``: the same, and by how much the two
            differ.
        step: float64 [4, 4], this camera in its frame of the result before.
        step_covariance: float64 [6, 6] of it; zero for the first frame, and for that of a rig's
            camera that begins again.
        seconds: from the frame before to this one; 0 where there is no step either.
        inliers: share of the points that fit a registered pose; NaN where none was tried.
        depth_error: standard deviation of depth as a share of it, by how much two depth maps in a
            row differ: errors that both share do not show. NaN where unknown.
        persistence: how long the error of the step lasts.

    """

    odom_from_camera: NDArray[np.float64]
    covariance: NDArray[np.float64]
    world_covariance: NDArray[np.float64]
    step: NDArray[np.float64]
    step_covariance: NDArray[np.float64]
    seconds: float = 0.0
    inliers: float = np.nan
    depth_error: float = np.nan
    persistence: Persistence = USUAL_PERSISTENCE

    def scaled(self, scale: float, odom_from_camera: NDArray[np.float64]) -> CameraMotion:
        """Return the motion in another unit that is exact, with the pose [4, 4] there."""
        unit = np.array([scale] * 3 + [1.0] * 3)
        units = np.outer(unit, unit)
        step = self.step.copy()
        step[:3, 3] *= scale
        return replace(
            self,
            odom_from_camera=odom_from_camera,
            covariance=self.covariance * units,
            world_covariance=self.world_covariance * units,
            step=step,
            step_covariance=self.step_covariance * units,
        )


@dataclass(frozen=True, slots=True)
class GaugeChange:
    """That another gauge of the network was tried, and what came of it.

    Attributes:
        reason: why it was due.
        objection: why it was refused; empty where it took over.
        scale: units of the session per unit of the new gauge; NaN where it was not found.
        distance: median distance between the points of both, as a share of depth; NaN likewise.
        scale_spread: standard deviation of ``scale``, as a share; NaN likewise.
        joins: gauges that took over in this session so far.

    """

    reason: str
    objection: str
    scale: float
    distance: float
    joins: int
    scale_spread: float = np.nan


CUT_SAID = 0.02
"""Share of the rows that may be cut off without a word."""

STRETCH_SAID = 1.25
"""Factor between the scales of the two axes up to which nothing is said."""


@dataclass(frozen=True, slots=True)
class ImageMapping:
    """How the network's image lies in the source image.

    The source is resized to ``width`` x ``resized_height``, then rows ``crop_top`` to
    ``crop_top + height`` are kept.
    """

    source_width: int
    source_height: int
    width: int
    height: int
    resized_height: int
    crop_top: int

    @property
    def scale_x(self) -> float:
        """Network pixels per source pixel along x."""
        return self.width / self.source_width

    @property
    def scale_y(self) -> float:
        """Network pixels per source pixel along y."""
        return self.resized_height / self.source_height

    @property
    def remark(self) -> str:
        """What of the source is lost or out of proportion, in a sentence; empty for little."""
        size = f"images of {self.source_width}x{self.source_height}"
        kept = self.height / self.resized_height
        if kept < 1 - CUT_SAID:
            rows = round(kept * self.source_height)
            return (
                f"{size} are higher than wide: the middle {rows} rows are used, "
                f"{100 - 100 * kept:.0f} % is cut off; turn the camera, or cut them yourself, to "
                "choose another part"
            )
        stretch = self.scale_y / self.scale_x
        if max(stretch, 1 / stretch) > STRETCH_SAID:
            change = "stretched" if stretch > 1 else "squeezed"
            return (
                f"{size} are {change} {max(stretch, 1 / stretch):.1f} times in height, to whole "
                "patches of the network: poses and depth suffer; cut them to a usual shape, or "
                "raise input.width"
            )
        return ""

    def intrinsics_to_source(self, intrinsics: Intrinsics) -> Intrinsics:
        """Carry the network image's camera over to the source image."""
        return Intrinsics(
            fx=intrinsics.fx / self.scale_x,
            fy=intrinsics.fy / self.scale_y,
            cx=intrinsics.cx / self.scale_x,
            cy=(intrinsics.cy + self.crop_top) / self.scale_y,
            width=self.source_width,
            height=self.source_height,
        )

    def intrinsics_from_source(self, intrinsics: Intrinsics) -> Intrinsics:
        """Carry the source image's camera over to the network image."""
        return Intrinsics(
            fx=intrinsics.fx * self.scale_x,
            fy=intrinsics.fy * self.scale_y,
            cx=intrinsics.cx * self.scale_x,
            cy=intrinsics.cy * self.scale_y - self.crop_top,
            width=self.width,
            height=self.height,
        )

    def mask_from_source(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Bring a mask of the source to [height, width], nearest neighbour."""
        size = (self.width, self.resized_height)
        whole = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST_EXACT)
        return whole[self.crop_top : self.crop_top + self.height].astype(bool)

    def depth_to_source(self, depth: NDArray[np.float32]) -> NDArray[np.float32]:
        """Bring depth [height, width] to the source's size; NaN where rows were cut off.

        Nearest neighbour, because a mean of two depths lies on neither surface.
        """
        whole = np.full((self.resized_height, self.width), np.nan, np.float32)
        whole[self.crop_top : self.crop_top + self.height] = depth
        size = (self.source_width, self.source_height)
        return cv2.resize(whole, size, interpolation=cv2.INTER_NEAREST_EXACT).astype(np.float32)


@dataclass(frozen=True, slots=True)
class FrameResult:
    """What the engine knows after one frame; all arrays live on the host.

    Depth, confidence and colour share the size of the network's input, [h, w]. Lengths are in
    the model's unit, which is metres only where a scale source says so.

    Attributes:
        index: number of the frame in its session, from 0.
        camera_to_world: float64 [4, 4]; optical frame of this camera into the first one's.
        pose_source: ``fused`` where the network's pose was fused with a registered one, ``held``
            where the network left the rotation open and the camera is taken to go on as it went.
        intrinsics: of the [h, w] images here; ``mapping`` leads back to the source image.
        depth: float32 [h, w] along the optical axis, NaN where unknown.
        confidence: float32 [h, w], from 1 upwards.
        color: uint8 [h, w, 3], RGB.
        camera: name of the camera in a rig of several.
        execution: whether the step was launched as a CUDA graph, and why not.
        points: float32 [h, w, 3] of the point head, in the network's own world, which tends to be
            the first camera's; None where the head was not asked for.
        world_from_network: float64 [4, 4], of ``points``.
        head_change: float64 [6], by how much the camera head's last refinement moved the pose.
        focal_ratio: the calibrated focal length over the predicted one; NaN where one is unknown.
        motion: how the camera moves and how precise that is.
        gauge_change: told with the first result after another gauge was tried.
        joins: gauges that took over since the session began.
        chain_state: ``off``, ``on``, or why the newest gauge was refused; and which cameras the one
            that runs has not seen yet.
        metric: whether lengths are metres.

    """

    index: int
    stamp: int
    frame_id: str
    camera_to_world: NDArray[np.float64]
    intrinsics: Intrinsics
    intrinsics_source: IntrinsicsSource
    depth: NDArray[np.float32]
    confidence: NDArray[np.float32]
    color: ImageArray
    mapping: ImageMapping
    cache: CacheStatistics
    timings: Timings
    camera: str = ""
    points: NDArray[np.float32] | None = None
    pose_source: PoseSource = "predicted"
    execution: Execution = Execution()
    world_from_network: NDArray[np.float64] = field(default_factory=lambda: np.eye(4))
    head_change: NDArray[np.float64] | None = None
    focal_ratio: float = np.nan
    motion: CameraMotion | None = None
    gauge_change: GaugeChange | None = None
    joins: int = 0
    chain_state: str = "off"
    metric: bool = False


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """Number of the session, from 1, frames in it so far, and why the one before it ended."""

    number: int = 0
    frames: int = 0
    reset_reason: str = ""


_AT_ORIGIN = Placement(np.eye(4), np.eye(4), np.eye(4), np.eye(4))


@dataclass(frozen=True, slots=True)
class FrameUpdate:
    """What one frame brought.

    Attributes:
        frame: as it was received, with its transforms.
        result: in metres where a scale is known.
        session: that the frame belongs to.
        faults: what is implausible about the result, in words.
        degraded: whether it, or one of the newest results, is implausible.
        blind: why the image shows nothing; empty where it shows a scene.
        unit_changed: whether lengths of this session before this frame were in another unit.
        placement: where camera, robot and odometry are in the map.
        publish_seconds: how long it took to publish.
        total_seconds: from receiving the frame to its last publication.

    """

    frame: Frame
    result: FrameResult
    session: SessionInfo = SessionInfo()
    faults: tuple[str, ...] = ()
    degraded: bool = False
    blind: str = ""
    unit_changed: bool = False
    placement: Placement = _AT_ORIGIN
    publish_seconds: float = 0.0
    total_seconds: float = 0.0

    @property
    def starts_over(self) -> bool:
        """Whether map and path start over: with another world, or another unit."""
        return self.unit_changed or self.result.index == 0
