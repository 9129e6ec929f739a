# SPDX-License-Identifier: Apache-2.0
"""Streams of the suites in which memory is asked for, rendered while they are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from xsvggt_ros.evaluation.frame import EvaluationFrame, FrameTruth
from xsvggt_ros.evaluation.sources.base import SourceOptions
from xsvggt_ros.evaluation.sources.selection import selected
from xsvggt_ros.evaluation.sources.synthetic import FRAME_ID, PREFIX
from xsvggt_ros.stream.frame import Frame, ImageArray
from xsvggt_ros.synthetic.scenes.frames import SEPARATOR, SceneSequence


def names_stream(path: str) -> bool:
    """Return whether a path is that of a stream, such as ``synthetic:landmarks_100_lap50#3``."""
    return path.startswith(PREFIX) and SEPARATOR in path


class SuiteSource:
    """One stream of a suite; depth is NaN where there is sky."""

    kind = "synthetic"

    def __init__(self, path: str, options: SourceOptions) -> None:
        """Plan the worlds and the way of ``synthetic:SUITE#NUMBER``.

        Raises:
            ConfigurationError: an unknown suite or number, or an option that means nothing here.
            SourceError: no frame is left.

        """
        options.refuse(
            path, "kind", "sequence", "topic", "depth_topic", "truth", "intrinsics", "depth_scale",
            "room",
        )  # fmt: skip
        self._size = (options.width or 112, options.height or 84)
        self._sequence = SceneSequence(path.removeprefix(PREFIX), *self._size)
        self._indices = selected(options, len(self._sequence), path)
        self.name = path
        self.warnings: list[str] = []

    @property
    def frame_count(self) -> int:
        """Number of frames taken."""
        return len(self._indices)

    def __iter__(self) -> Iterator[EvaluationFrame]:
        """Render and yield the frames."""
        for index in self._indices:
            shown = self._sequence.frame(index)
            frame = Frame(shown.stamp, FRAME_ID, partial(_image, shown.color))
            truth = FrameTruth(shown.camera_to_world, shown.depth, shown.intrinsics)
            yield EvaluationFrame(frame, truth)

    def describe(self) -> dict[str, Any]:
        """Return the settings that the stream follows from."""
        return {
            "kind": self.kind,
            "name": self.name,
            "size": list(self._size),
            "frames": {"of": len(self._sequence), "start": self._indices.start,
                       "stride": self._indices.step, "taken": len(self._indices)},
            "poses": "exact",
            "depth": "exact",
        }  # fmt: skip


def _image(color: ImageArray) -> ImageArray:
    return color
