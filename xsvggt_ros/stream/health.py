# SPDX-License-Identifier: Apache-2.0
"""What is implausible about images and results, how fast frames go, and the state of a stream.

The first rule that applies gives the state:

=============  ===================================================================================
unconfigured,  there is no engine, or nothing is subscribed to
inactive
paused         somebody asked for it
stalled        an image has been in one stage for the timeout, or the worker has ended
waiting        for the timeout, no image has come or is on its way
error          the newest image was refused, or its result could not be published
warming up     the engine is being made; or images have come and none is through yet, in all or,
               where the first ones are answered together, in this session
degraded       within the last :data:`MEMORY` results, one was implausible, or
               something else was not as it was asked for
running        none of these
=============  ===================================================================================
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from threading import Lock
from time import monotonic
from typing import Literal

import cv2
import numpy as np

from xsvggt_ros.geometry.rigid import Matrix, apparent_motion
from xsvggt_ros.stream.frame import FrameResult, ImageArray

DARK = 16
"""Of 255: below is black, with the noise of a sensor."""
BRIGHT = 250
"""Above is white, where nothing is told apart any more."""
SHARE = 95
"""Percent of the image that is black or white, where it is called so."""
FLAT_IMAGE = 6
"""Levels of grey within which an image has no texture."""
MOST_ALIKE = 30
"""Images in a row that are the same in every pixel; the noise of a real sensor never repeats."""

_BLOCK = 7
"""Pixels along each edge of what is averaged, so that noise is no texture."""


def blindness(color: ImageArray) -> str | None:
    """Return why an image, uint8 RGB [h, w, 3], shows nothing; None where it shows a scene."""
    height, width = color.shape[:2]
    blocks = (max(1, width // _BLOCK), max(1, height // _BLOCK))
    whole = cv2.cvtColor(color, cv2.COLOR_RGB2GRAY)
    gray = cv2.resize(whole, blocks, interpolation=cv2.INTER_AREA)
    low, high = np.percentile(gray, (100 - SHARE, SHARE))
    if high < DARK:
        return (
            f"the image is dark: {SHARE} % of it below {DARK} of 255; look for a covered lens, "
            "give light, or raise the exposure"
        )
    if low > BRIGHT:
        return (
            f"the image is overexposed: {SHARE} % of it above {BRIGHT} of 255; lower the exposure"
        )
    if high - low < FLAT_IMAGE:
        return (
            f"the image has no texture: nearly all of it within {high - low:.0f} levels of grey; "
            "look for a covered or fogged lens"
        )
    return None


class ImageWatch:
    """Follows the images of one camera.

    Attributes:
        blind: whether the newest one shows nothing.

    """

    def __init__(self) -> None:
        self.blind = False
        self._last: ImageArray | None = None
        self._alike = 0

    def faults_of(self, color: ImageArray) -> tuple[str, ...]:
        """Return what is wrong with the newest image [h, w, 3], in words; nothing of a scene."""
        reason = blindness(color)
        self.blind = reason is not None
        same = self._last is not None and np.array_equal(self._last, color)
        self._alike = self._alike + 1 if same else 1
        self._last = color
        if reason:
            return (reason,)
        if self._alike >= MOST_ALIKE:
            return (
                f"{self._alike} images in a row are the same in every pixel; restart the camera's "
                "driver, unless it is a simulation at rest",
            )
        return ()


COLLAPSED = 0.2
"""Share of the session's usual confidence above its floor of 1."""
FLAT_DEPTH = 0.01
"""Range between the 10th and 90th percentile of depth, in medians."""
LEAST_KNOWN = 0.1
"""Share of pixels with a finite depth."""
SMALLEST_JUMP = 0.5
"""Apparent motion between two frames (see :func:`apparent_motion`), about 29 degrees."""
JUMP = 10.0
"""Times the usual motion."""
BASELINE = 100
LEAST_BASELINE = 10
"""Frames from which on something is usual."""

_STRIDE = 4
"""Every how many pixels are looked at: percentiles of a whole image cost 10 ms."""


class QualityWatch:
    """Compares each result of a stream with those of its session so far."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._confidences: deque[float] = deque(maxlen=BASELINE)
        self._motions: deque[float] = deque(maxlen=BASELINE)
        self._gaps: deque[int] = deque(maxlen=BASELINE)
        self._last: tuple[Matrix, int] | None = None

    def faults_of(self, result: FrameResult) -> tuple[str, ...]:
        """Return what is wrong with a result, in words; nothing where it is plausible."""
        if result.index == 0:
            self._begin()
        depth = result.depth[::_STRIDE, ::_STRIDE]
        known = depth[np.isfinite(depth)]
        faults = [*self._faults_of_confidence(result), *_faults_of_depth(known, depth.size)]
        if result.pose_source == "held":
            faults.append("the network left the rotation open: the pose is held")
        if known.size:
            faults += self._faults_of_pose(result, float(np.median(known)))
        return tuple(faults)

    def _faults_of_confidence(self, result: FrameResult) -> Iterator[str]:
        # Confidences begin at 1: what is above says something.
        excess = float(np.mean(result.confidence[::_STRIDE, ::_STRIDE])) - 1.0
        usual = median(self._confidences) if len(self._confidences) >= LEAST_BASELINE else 0.0
        if excess < COLLAPSED * usual:
            yield f"confidence collapsed to {1 + excess:.2f} from {1 + usual:.2f}"
        else:
            self._confidences.append(excess)

    def _faults_of_pose(self, result: FrameResult, distance: float) -> Iterator[str]:
        last, self._last = self._last, (result.camera_to_world, result.stamp)
        if last is None:
            return
        motion = apparent_motion(last[0], result.camera_to_world, distance)
        # Frames may be missing in between.
        gap = result.stamp - last[1]
        usual_gap = median(self._gaps) if self._gaps else gap
        steps = max(1.0, gap / usual_gap) if usual_gap > 0 else 1.0
        known = len(self._motions) >= LEAST_BASELINE
        usual = JUMP * median(self._motions) if known else 0.0
        if motion > steps * max(SMALLEST_JUMP, usual):
            yield f"the pose jumped by {motion:.2f} (radians, plus way by median depth)"
        else:
            self._motions.append(motion / steps)
            self._gaps.append(gap)


def _faults_of_depth(known: np.ndarray, pixels: int) -> Iterator[str]:
    if known.size < LEAST_KNOWN * pixels:
        yield f"depth is known for only {known.size / pixels:.0%} of the image"
        return
    low, middle, high = np.percentile(known, (10, 50, 90))
    if high - low < FLAT_DEPTH * abs(middle):
        yield f"depth is flat: all of it within {(high - low) / abs(middle):.1%} of its median"


WINDOW = 10.0
"""Seconds over which rates are taken."""
LATENCIES = 200
"""Frames over which percentiles are taken."""


@dataclass(frozen=True, slots=True)
class Rates:
    """Frames per second over the last :data:`WINDOW` seconds at most."""

    received: float = 0.0
    processed: float = 0.0
    dropped: float = 0.0
    refused: float = 0.0


@dataclass(frozen=True, slots=True)
class Counters:
    """Frames since the worker was made; ``received`` is the sum of the four after it.

    Attributes:
        waiting: of those pending, the ones that wait for the first pass of their session to fill.

    """

    received: int
    processed: int
    dropped: int
    refused: int
    pending: int
    waiting: int = 0


class RateMeter:
    """Counts are sampled on one thread, latencies noted on another."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, Counters]] = deque()
        self._latencies: deque[float] = deque(maxlen=LATENCIES)
        self._lock = Lock()

    def note_latency(self, seconds: float) -> None:
        """Take in how long one frame took."""
        with self._lock:
            self._latencies.append(seconds)

    def sample(self, now: float, counters: Counters) -> Rates:
        """Take in the counters of a moment, in seconds of a steady clock; return the rates."""
        self._samples.append((now, counters))
        while self._samples[0][0] < now - WINDOW:
            self._samples.popleft()
        then, before = self._samples[0]
        if now <= then:
            return Rates()
        seconds = now - then
        return Rates(
            (counters.received - before.received) / seconds,
            (counters.processed - before.processed) / seconds,
            (counters.dropped - before.dropped) / seconds,
            (counters.refused - before.refused) / seconds,
        )

    def percentiles(self, *ranks: float) -> list[float]:
        """Return percentiles of the latencies, in seconds; NaN before the first."""
        with self._lock:
            known = list(self._latencies)
        if not known:
            return [float("nan")] * len(ranks)
        return [float(value) for value in np.percentile(known, ranks)]


State = Literal[
    "unconfigured", "inactive", "paused", "stalled", "waiting", "error", "warming up", "degraded",
    "running",
]  # fmt: skip

MEMORY = 10
"""Results for which a fault is remembered, so that the state does not flicker."""


class Health:
    """Keeps what the rules ask for. Not thread-safe: whoever shares it has a lock."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self.paused = False
        self.begin()

    def begin(self) -> None:
        """Forget the stream."""
        self._counters: Counters | None = None
        self._refused = False
        self._since_fault = MEMORY
        self._last_change = -float("inf")

    def note_result(self, faults: Sequence[str]) -> None:
        """Take in that a frame is through, and what is wrong with it."""
        self._refused = False
        self._since_fault = 0 if faults else min(MEMORY, self._since_fault + 1)

    def note_refusal(self) -> None:
        """Take in that a frame was refused, or that nothing came out of it."""
        self._refused = True

    def note_fault(self) -> None:
        """Take in that something else is not as it was asked for."""
        self._since_fault = 0

    def state(self, counters: Counters, *, timeout: float, stuck: bool = False) -> State:
        """Return the state of an active stream.

        Args:
            counters: of now.
            timeout: seconds after which silence is a state.
            stuck: whether a frame has been in one stage for as long.

        """
        if counters.pending > counters.waiting or (
            counters != self._counters and counters.received
        ):
            self._last_change = self._clock()
        self._counters = counters
        if self.paused:
            return "paused"
        if stuck:
            return "stalled"
        if self._clock() - self._last_change >= timeout:
            self._refused = False
            return "waiting"
        if self._refused:
            return "error"
        if not counters.processed or counters.waiting:
            return "warming up"
        return "degraded" if self._since_fault < MEMORY else "running"
