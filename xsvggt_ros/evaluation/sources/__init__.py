# SPDX-License-Identifier: Apache-2.0
"""Finds out what a path holds, and opens it with its ground truth; or renders a synthetic world."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from xsvggt_ros.errors import ConfigurationError, SourceError
from xsvggt_ros.evaluation.request import SourceOptions
from xsvggt_ros.evaluation.sources.bag import BagEvaluationSource
from xsvggt_ros.evaluation.sources.base import (
    DatasetLoader,
    EvaluationFrame,
    EvaluationSource,
    FrameTruth,
    selected,
)
from xsvggt_ros.evaluation.sources.indoor import Exported, NeuralRgbd, Rgbd, ScanNet, SevenScenes
from xsvggt_ros.evaluation.sources.outdoor import KittiDepth, KittiOdometry, Sintel
from xsvggt_ros.evaluation.sources.tum import Tum
from xsvggt_ros.paths import in_home
from xsvggt_ros.stream.frame import Frame, ImageArray
from xsvggt_ros.stream.sources import METADATA, is_bag
from xsvggt_ros.synthetic.scenes import SEPARATOR, SceneSequence
from xsvggt_ros.synthetic.sequence import DEFAULT_ROOM, Sequence, held_out

PREFIX = "synthetic:"
"""Begins the path of a sequence that is on no disk, such as ``synthetic:medium_walk``."""

FRAME_ID = "camera_optical_frame"


LOADERS: dict[str, DatasetLoader] = {
    each.kind: each
    for each in (
        Tum(), SevenScenes(), NeuralRgbd(), KittiDepth(), KittiOdometry(), Sintel(), ScanNet(),
        Rgbd(), Exported(),
    )
}  # fmt: skip
"""Of directories, by kind: ``tum`` is Bonn's, too, ``rgbd`` ICL-NUIM's, and ``directory`` what
``xsvggt synthesize`` writes."""


def open_source(path: str | Path, options: SourceOptions | None = None) -> EvaluationSource:
    """Open a recording with its ground truth.

    Args:
        path: a bag, a directory of a data set, or ``synthetic:NAME`` of a held-out sequence.
        options: what to take of it.

    Raises:
        SourceError: nothing is there, nothing can read it, or it may be read in several ways; the
            message lists them.
        ConfigurationError: an option that is out of range or does not apply.

    """
    options = options or SourceOptions()
    if str(path).startswith(PREFIX):
        return RenderedSource(str(path), options)
    location = in_home(path)
    if not location.exists():
        raise SourceError(
            f"{location} does not exist: give a bag, a directory of a data set, or {PREFIX}NAME"
        )
    if location.name == METADATA and location.is_file():
        location = location.parent  # It stands for the bag that it is of.
    if is_bag(location):
        return BagEvaluationSource(location, options)
    return _open_directory(location.resolve(), options)


def _open_directory(location: Path, options: SourceOptions) -> EvaluationSource:
    if options.kind is not None:
        if options.kind not in LOADERS:
            raise ConfigurationError(
                f"kind '{options.kind}' is unknown; choose one of {', '.join(LOADERS)}"
            )
        return LOADERS[options.kind].open_directory(location, options)
    fitting = [name for name, loader in LOADERS.items() if loader.matches(location)]
    if not fitting:
        raise SourceError(
            f"{location} is no recording with ground truth that is known here: looked for "
            f"{', '.join(LOADERS)}; 'xsvggt reconstruct' takes images without truth"
        )
    if len(fitting) > 1:
        raise SourceError(f"{location} may be read as {' or '.join(fitting)}: say which (--kind)")
    return LOADERS[fitting[0]].open_directory(location, options)


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
