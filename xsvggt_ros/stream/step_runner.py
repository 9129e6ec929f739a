# SPDX-License-Identifier: Apache-2.0
"""One step of the network and its cache: eager, or played again from a CUDA graph.

Once the budget is full, a step has the same operations, shapes and addresses for ever
(:attr:`KvCache.state`). Launching its operations one by one takes a host several times as long as a
large GPU needs to compute them, so such a step is captured once for each image size and then
launched as a whole. Anything that changes the state (another budget, other widths, a new session)
throws the captures away; steps are eager until the state is the same twice again.

Where the device has no memory left, :func:`shrunk` says what the cache gives up.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xsvggt_ros.cache.kv_cache import KvCache
from xsvggt_ros.cache.layer_plan import fitting_budget
from xsvggt_ros.cache.layout import CacheLayout, TokenShape
from xsvggt_ros.cache.settings import CacheSettings
from xsvggt_ros.errors import ConfigurationError, first_line
from xsvggt_ros.geometry.cameras import world_to_camera
from xsvggt_ros.geometry.rigid import invert, log_se3
from xsvggt_ros.model.device import ran_out_of_memory, release_cached_memory
from xsvggt_ros.model.network import Head, Prediction, StreamVggt
from xsvggt_ros.stream.frame import Execution

logger = logging.getLogger(__name__)

HIGHEST_CONFIDENCE = 1e6
"""The exponential behind confidences overflows; beyond this, more confidence means nothing."""

MOST_CAPTURES = 8
"""Captures at the same time: a rig's cameras may differ in size, and for each size there is one for
frames that are stored and one for those that leave nothing."""


def cache_layout(network: StreamVggt) -> CacheLayout:
    """Return what a cache must know of ``network``'s tokens."""
    config = network.config
    return CacheLayout(
        layers=config.depth,
        token=TokenShape(config.num_heads, config.head_dim, network.dtype, network.device),
        special_tokens=config.special_tokens,
        camera_blocks=config.camera.depth,
        camera_iterations=config.camera.iterations,
        anchor_frames=config.stream.anchor_frames,
        window_frames=config.stream.window_frames,
        trained_frames=config.stream.trained_frames,
    )


@dataclass(frozen=True, slots=True)
class _Capture:
    """A captured step: where its image goes in, where its prediction comes out, what it reads."""

    graph: Any
    images: Tensor
    prediction: Prediction
    tokens: int
    constants: list[Tensor]


class StepRunner:
    """Runs frames through a network and its cache, as a CUDA graph where that is possible.

    Attributes:
        execution: how the newest step ran.

    """

    def __init__(
        self, network: StreamVggt, cache: KvCache, heads: Collection[Head], *, graphs: bool = True
    ) -> None:
        """Run ``network`` over ``cache``.

        Args:
            network: the network.
            cache: its memory.
            heads: outputs that are wanted.
            graphs: whether steps may be captured at all.

        """
        self._network = network
        self._cache = cache
        self._heads = heads
        self._hindrance = _hindrance(network.device, graphs)
        self._state: tuple[object, ...] | None = None
        self._steady = False
        self._captures: dict[tuple[int, ...], _Capture] = {}
        self._pool: Any = None
        self.execution = Execution("eager", self._hindrance or "no step has run yet")

    def run(self, images: Tensor) -> Prediction:
        """Return the prediction for one pass, RGB in [0, 1], [1, frames, 3, height, width].

        There is one frame, but for the first pass of a stream. The result's tensors may be
        overwritten by the next call.
        """
        # Graphs and streams belong to the current device, which another card may be.
        with torch.cuda.device_of(images):
            return self._run(images)

    def _run(self, images: Tensor) -> Prediction:
        state = self._cache.state
        stores = self._cache.stores_next
        if state is None or state != self._state:
            self._captures.clear()
            self._steady = False
        capture = None if self._hindrance else self._capture_for(images)
        if capture is None:
            prediction: Prediction = self._network(images, self._cache, self._heads)
            self.execution = Execution("eager", self._hindrance or self._why_eager())
        else:
            prediction = capture.prediction
            self.execution = Execution("cuda graph")
        after = self._cache.state
        # A frame that leaves nothing says nothing about those that do.
        if stores:
            self._steady = after is not None and after == state
        self._state = after
        return prediction

    def run_to_host(self, images: Tensor) -> tuple[list[HostOutput], float]:
        """Return on the host, frame by frame, what :meth:`run` does, and when it was computed.

        The time is in seconds of :func:`time.perf_counter`: the device had finished then.

        Args:
            images: RGB in [0, 1], [1, frames, 3, height, width].

        """
        prediction = self.run(images)
        _finish(images.device)
        computed = perf_counter()
        return [to_host(prediction.of_frame(k)) for k in range(images.shape[1])], computed

    def _capture_for(self, images: Tensor) -> _Capture | None:
        """Play the capture for this size, taking it first; None where a step must be eager."""
        if not self._steady:
            return None
        kind = (*images.shape, int(self._cache.stores_next))
        capture = self._captures.get(kind)
        if capture is not None:
            capture.images.copy_(images)
            capture.graph.replay()
            self._cache.replayed(capture.tokens)
            return capture
        if not self._cache.knows(self._tokens(images)):
            return None
        capture = self._take(images)
        if capture is not None:
            if len(self._captures) >= MOST_CAPTURES:
                self._captures.pop(next(iter(self._captures)))
            self._captures[kind] = capture
            capture.graph.replay()
            release_cached_memory()
        return capture

    def _take(self, images: Tensor) -> _Capture | None:
        """Record a step without running it; the host has counted the frame then."""
        counts = self._cache.counts()
        graph = torch.cuda.CUDAGraph()
        if not self._captures:
            # A pool ends with the last graph that uses it.
            self._pool = torch.cuda.graph_pool_handle()
        static = images.clone()
        try:
            with torch.cuda.graph(graph, pool=self._pool):
                prediction = self._network(static, self._cache, self._heads)
                self._cache.join()
        except RuntimeError as error:
            self._cache.restore(counts)
            if ran_out_of_memory(error):
                self._hindrance = "no memory is left for a CUDA graph"
            else:
                self._hindrance = f"the step cannot be captured: {first_line(error)}"
            logger.warning("steps stay eager: %s", self._hindrance)
            return None
        constants = self._network.constants()
        return _Capture(graph, static, prediction, self._tokens(images), constants)

    def _tokens(self, images: Tensor) -> int:
        return self._network.config.tokens_per_frame(*images.shape[-2:])

    def _why_eager(self) -> str:
        if not self._cache.settings.bounded:
            return "the cache grows with the session"
        if self._cache.settings.adapts:
            return "budgets adapt"
        if self._cache.settings.published:
            return "the released code's cache is not made for it"
        return "the budget is not full yet, or has just changed"


@dataclass(frozen=True, slots=True)
class HostOutput:
    """What the network says of one frame, on the host.

    Attributes:
        encoding: of the pose, the last one, [9].
        depth: [h, w], NaN where unknown.
        confidence: [h, w], from 1 upwards.
        points: [h, w, 3]; None where there is no point head.
        head_change: by how much the last refinement moved the pose, [6].

    """

    encoding: NDArray[np.float32]
    depth: NDArray[np.float32]
    confidence: NDArray[np.float32]
    points: NDArray[np.float32] | None
    head_change: NDArray[np.float64]

    @property
    def is_usable(self) -> bool:
        """Whether there is a finite pose and some finite depth."""
        pose = self.encoding
        usable = np.isfinite(pose).all() and pose[3:7].any() and np.isfinite(self.depth).any()
        return bool(usable)


def _finish(device: torch.device) -> None:
    """Wait for the device, so that each stage is charged with its own time."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def to_host(prediction: Prediction) -> HostOutput:
    """Return what the network says of one frame."""
    assert prediction.pose_encodings is not None
    assert prediction.depth is not None
    assert prediction.depth_confidence is not None
    depth = prediction.depth[0, 0].float().cpu().numpy()
    confidence = prediction.depth_confidence[0, 0].float().cpu().numpy()
    depth[~np.isfinite(depth) | np.isnan(confidence)] = np.nan
    points = prediction.points
    encodings = prediction.pose_encodings[0, 0].float().cpu().numpy()
    return HostOutput(
        encodings[-1],
        depth,
        np.nan_to_num(confidence, nan=1.0).clip(1.0, HIGHEST_CONFIDENCE),
        None if points is None else points[0, 0].float().cpu().numpy(),
        _head_change(encodings),
    )


def _head_change(encodings: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return by how much the last refinement [..., 9] moved the pose, [6]; zero of a single one."""
    if len(encodings) < 2 or not (np.isfinite(encodings).all() and encodings[:, 3:7].any(1).all()):
        return np.zeros(6)
    before, after = (world_to_camera(each.astype(np.float64)) for each in encodings[-2:])
    return log_se3(before @ invert(after))


def _hindrance(device: torch.device, graphs: bool) -> str:
    """Return why no step can be captured on ``device``; empty where it can."""
    if device.type != "cuda":
        return f"CUDA graphs need a CUDA device, not {device.type}"
    return "" if graphs else "model.cuda_graphs is off"


KEPT = 0.7
"""Share of a budget that is kept: half would throw away too much for a first try."""


def shrunk(
    settings: CacheSettings, layout: CacheLayout, frame: int, *, first_pass: bool = False
) -> CacheSettings:
    """Return settings that need less memory, or the same where there is nothing to give up.

    A budget in MiB shrinks as such, because it replaces the one in tokens or frames. A cache
    without a bound (policy none) and the published code's have nothing that could shrink.

    Args:
        settings: of the cache that did not fit, settled.
        layout: of the network's tokens.
        frame: tokens of a frame.
        first_pass: whether it was the first pass of a session that did not fit. Where that has
            several frames, it gets fewer.

    """
    if first_pass and settings.anchor_frames > 2:
        return replace(settings, anchor_frames=max(2, settings.anchor_frames // 2))
    if not settings.bounded or settings.published:
        return settings
    if settings.budget_mib:
        return _shrunk_mib(settings, layout, frame)
    if settings.keeps_frames:
        return replace(settings, window_frames=max(1, int(settings.window_frames * KEPT)))
    least = max(layout.smallest_budget, settings.budget_min_tokens)
    return replace(settings, budget_tokens=max(least, int(settings.budget_tokens * KEPT)))


def _shrunk_mib(settings: CacheSettings, layout: CacheLayout, frame: int) -> CacheSettings:
    smaller = replace(settings, budget_mib=round(settings.budget_mib * KEPT, 3))
    try:
        anchor = frame * layout.anchor_frames
        fitting_budget(smaller, layout, anchor=anchor, frames={frame})
    except ConfigurationError:  # not even special tokens would fit
        return settings
    return smaller


def changed(before: CacheSettings, after: CacheSettings) -> dict[str, int | float]:
    """Return the sizes that differ, by the name of their parameter."""
    names = ("budget_tokens", "budget_mib", "window_frames", "anchor_frames")
    return {
        f"cache.{name}": getattr(after, name)
        for name in names
        if getattr(after, name) != getattr(before, name)
    }
