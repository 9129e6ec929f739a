# SPDX-License-Identifier: Apache-2.0
"""Sequences of made-up worlds, rendered on demand: held-out rooms, and streams of suites."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from xsvggt_ros.evaluation.request import SourceOptions
from xsvggt_ros.evaluation.sources.base import EvaluationFrame, FrameTruth, selected
from xsvggt_ros.stream.frame import Frame, ImageArray
from xsvggt_ros.synthetic.scenes import SEPARATOR, SceneSequence
from xsvggt_ros.synthetic.sequence import DEFAULT_ROOM, Sequence, held_out

PREFIX = "synthetic:"
"""Begins the path of a sequence that is on no disk, such as ``synthetic:medium_walk``."""

FRAME_ID = "camera_optical_frame"


class RenderedSource:
    """``synthetic:NAME``, ``synthetic:NAME@ROOM`` (rooms) or ``synthetic:SUITE#NUMBER`` (scenes).

    Every pixel's depth is known; it is NaN where there is sky.
    """

    kind = "synthetic"

    def __init__(self, path: str, options: SourceOptions) -> None:
        """Build the world and plan the motion.

        Raises:
            ConfigurationError: an unknown sequence, room, suite or number, or an option that means
                nothing here.
            SourceError: no frame is left.

        """
        options.refuse(
            path, "kind", "sequence", "topic", "depth_topic", "truth", "intrinsics", "depth_scale"
        )
        name = path.removeprefix(PREFIX)
        size = options.width or 112, options.height or 84
        self.name = path
        self._facts: dict[str, Any] = {"size": list(size)}
        self._sequence: Sequence | SceneSequence
        if SEPARATOR in name:
            options.refuse(path, "room")
            self._sequence = SceneSequence(name, *size)
        else:
            name, _, room = name.partition("@")
            room = options.room or room or DEFAULT_ROOM
            settings = held_out(name, room, *size)
            self._sequence = Sequence(settings)
            self.name = f"{PREFIX}{name}@{room}"
            motion = settings.motion.kind
            self._facts = {"seed": settings.seed, "room": room, "motion": motion, **self._facts}
        self._indices = selected(options, len(self._sequence), path)
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
        """Return the settings that the sequence follows from."""
        return {
            "kind": self.kind,
            "name": self.name,
            **self._facts,
            "frames": {"of": len(self._sequence), "start": self._indices.start,
                       "stride": self._indices.step, "taken": len(self._indices)},
            "poses": "exact",
            "depth": "exact",
        }  # fmt: skip


def _image(color: ImageArray) -> ImageArray:
    return color
