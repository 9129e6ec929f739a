# SPDX-License-Identifier: Apache-2.0
"""A source of frames with ground truth that lives in memory, and may break off."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from xsvggt_ros.errors import FrameError, SourceError
from xsvggt_ros.evaluation.request import EvaluationRequest, NetworkOptions, ScoringOptions
from xsvggt_ros.evaluation.sources.base import EvaluationFrame, FrameTruth
from xsvggt_ros.geometry.cameras import Intrinsics
from xsvggt_ros.stream.frame import Frame

SECOND = 1_000_000_000


def image(index: int) -> np.ndarray:
    canvas = np.random.default_rng(0).integers(0, 256, (32, 128, 3), np.uint8)
    return np.ascontiguousarray(np.roll(canvas, -3 * index, axis=1)[:, :42])


def truth(index: int) -> FrameTruth:
    pose = np.eye(4)
    pose[:3, 3] = 0.1 * index, 0.02 * index**2, 0.0
    depth = np.full((32, 42), 2.0, np.float32) + np.linspace(0, 1, 42, dtype=np.float32)
    depth[0, 0] = np.nan
    return FrameTruth(pose, depth, Intrinsics(40.0, 40.0, 21.0, 16.0, 42, 32))


def damaged() -> np.ndarray:
    raise FrameError("the image is damaged")


class MemorySource:
    """``count`` frames, ten a second; reading fails before frame ``breaks_at``."""

    kind = "memory"

    def __init__(
        self,
        count: int,
        *,
        breaks_at: int | None = None,
        bad: Collection[int] = (),
        with_truth: bool = True,
        stamps: Sequence[int] | None = None,
    ) -> None:
        self.name = "memory:test"
        self.warnings = ["this source is made up"]
        self._count = count
        self._breaks_at = breaks_at
        self._bad = bad
        self._with_truth = with_truth
        self._stamps = stamps or [SECOND + index * SECOND // 10 for index in range(count)]

    @property
    def frame_count(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[EvaluationFrame]:
        for index in range(self._count):
            if index == self._breaks_at:
                raise SourceError("the file ends here")
            decode = damaged if index in self._bad else partial(image, index)
            known = truth(index) if self._with_truth else None
            yield EvaluationFrame(Frame(self._stamps[index], "camera", decode), known)

    def describe(self) -> dict[str, str]:
        return {"kind": self.kind, "name": self.name}


def tiny_request(**changes: Any) -> EvaluationRequest:
    settings = {
        "network": NetworkOptions(preset="tiny", width=28, device="cpu"),
        "scoring": ScoringOptions(cloud_points=2000),
        **changes,
    }
    return EvaluationRequest("memory", **settings)
