# SPDX-License-Identifier: Apache-2.0
"""Sequences of made-up worlds, rendered on demand: held-out rooms, and streams of suites."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from xsvggt_ros.evaluation.frame import EvaluationFrame, FrameTruth
from xsvggt_ros.evaluation.sources.base import SourceOptions, selected
from xsvggt_ros.stream.frame import Frame, ImageArray
from xsvggt_ros.synthetic.held_out import DEFAULT_ROOM, held_out
from xsvggt_ros.synthetic.scenes.suite import SEPARATOR, SceneSequence
from xsvggt_ros.synthetic.sequence import Sequence, SyntheticFrame

PREFIX = "synthetic:"
"""Begins the path of a sequence that is on no disk, such as ``synthetic:medium_walk``."""

FRAME_ID = "camera_optical_frame"


class SyntheticSource:
    """One sequence of ``synthetic/held_out.py``; every pixel's depth is known."""

    kind = "synthetic"

    def __init__(self, path: str, options: SourceOptions) -> None:
        """Build the room and plan the motion of ``synthetic:NAME`` or ``synthetic:NAME@ROOM``.

        Raises:
            ConfigurationError: an unknown sequence or room, or an option that means nothing here.
            SourceError: no frame is left.

        """
        options.refuse(
            path, "kind", "sequence", "topic", "depth_topic", "truth", "intrinsics", "depth_scale"
        )
        sequence, _, room = path.removeprefix(PREFIX).partition("@")
        self._room = options.room or room or DEFAULT_ROOM
        settings = held_out(
            sequence, self._room, width=options.width or 112, height=options.height or 84
        )
        self._sequence = Sequence(settings)
        self._indices = selected(options, settings.frames, path)
        self.name = f"{PREFIX}{sequence}@{self._room}"
        self.warnings: list[str] = []

    @property
    def frame_count(self) -> int:
        """Number of frames taken."""
        return len(self._indices)

    def __iter__(self) -> Iterator[EvaluationFrame]:
        """Render and yield the frames."""
        for index in self._indices:
            yield _with_truth(self._sequence.frame(index))

    def describe(self) -> dict[str, Any]:
        """Return the settings that the sequence follows from."""
        settings = self._sequence.settings
        return {
            "kind": self.kind,
            "name": self.name,
            "seed": settings.seed,
            "room": self._room,
            "motion": settings.motion.kind,
            "size": [settings.width, settings.height],
            "frames": {"of": settings.frames, "start": self._indices.start,
                       "stride": self._indices.step, "taken": len(self._indices)},
            "poses": "exact",
            "depth": "exact",
        }  # fmt: skip


def _with_truth(shown: SyntheticFrame) -> EvaluationFrame:
    frame = Frame(shown.stamp, FRAME_ID, partial(_image, shown.color))
    return EvaluationFrame(frame, FrameTruth(shown.camera_to_world, shown.depth, shown.intrinsics))


def _image(color: ImageArray) -> ImageArray:
    return color


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
