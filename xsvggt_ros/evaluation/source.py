# SPDX-License-Identifier: Apache-2.0
"""Finds out what a path holds, and opens it with its ground truth."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from xsvggt_ros.errors import ConfigurationError, SourceError
from xsvggt_ros.evaluation.frame import EvaluationFrame, FrameTruth
from xsvggt_ros.evaluation.sources import (
    exported,
    kitti_depth,
    kitti_odometry,
    neural_rgbd,
    rgbd,
    scannet,
    seven_scenes,
    sintel,
    tum,
)
from xsvggt_ros.evaluation.sources.bag import BagEvaluationSource
from xsvggt_ros.evaluation.sources.base import EvaluationSource, SourceOptions
from xsvggt_ros.evaluation.sources.synthetic import (
    PREFIX,
    SuiteSource,
    SyntheticSource,
    names_stream,
)
from xsvggt_ros.stream.sources import METADATA, is_bag

__all__ = ["EvaluationFrame", "EvaluationSource", "FrameTruth", "SourceOptions", "open_source"]


class DirectoryKind(NamedTuple):
    """How directories of one kind are known and opened."""

    matches: Callable[[Path], bool]
    open_directory: Callable[[Path, SourceOptions], EvaluationSource]


DIRECTORY_KINDS: dict[str, DirectoryKind] = {
    "tum": DirectoryKind(tum.matches, tum.open_directory),
    "seven_scenes": DirectoryKind(seven_scenes.matches, seven_scenes.open_directory),
    "neural_rgbd": DirectoryKind(neural_rgbd.matches, neural_rgbd.open_directory),
    "kitti_depth": DirectoryKind(kitti_depth.matches, kitti_depth.open_directory),
    "kitti_odometry": DirectoryKind(kitti_odometry.matches, kitti_odometry.open_directory),
    "sintel": DirectoryKind(sintel.matches, sintel.open_directory),
    "scannet": DirectoryKind(scannet.matches, scannet.open_directory),
    "rgbd": DirectoryKind(rgbd.matches, rgbd.open_directory),
    "directory": DirectoryKind(exported.matches, exported.open_directory),
}
"""``tum`` is Bonn's, too; ``rgbd`` ICL-NUIM's; ``directory`` what ``xsvggt synthesize`` writes."""


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
    if names_stream(str(path)):
        return SuiteSource(str(path), options)
    if str(path).startswith(PREFIX):
        return SyntheticSource(str(path), options)
    place = Path(path).expanduser()
    if not place.exists():
        raise SourceError(
            f"{place} does not exist: give a bag, a directory of a data set, or {PREFIX}NAME"
        )
    if place.name == METADATA and place.is_file():
        place = place.parent  # It stands for the bag that it is of.
    if is_bag(place):
        return BagEvaluationSource(place, options)
    return _open_directory(place.resolve(), options)


def _open_directory(place: Path, options: SourceOptions) -> EvaluationSource:
    if options.kind is not None:
        if options.kind not in DIRECTORY_KINDS:
            raise ConfigurationError(
                f"kind '{options.kind}' is unknown; choose one of {', '.join(DIRECTORY_KINDS)}"
            )
        return DIRECTORY_KINDS[options.kind].open_directory(place, options)
    fitting = [name for name, kind in DIRECTORY_KINDS.items() if kind.matches(place)]
    if not fitting:
        raise SourceError(
            f"{place} is no recording with ground truth that is known here: looked for "
            f"{', '.join(DIRECTORY_KINDS)}; 'xsvggt reconstruct' takes images without truth"
        )
    if len(fitting) > 1:
        raise SourceError(f"{place} may be read as {' or '.join(fitting)}: say which (--kind)")
    return DIRECTORY_KINDS[fitting[0]].open_directory(place, options)
