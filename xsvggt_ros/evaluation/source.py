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
from xsvggt_ros.evaluation.sources.suite import SuiteSource, names_stream
from xsvggt_ros.evaluation.sources.synthetic import PREFIX, SyntheticSource
from xsvggt_ros.stream.sources import METADATA, is_bag

__all__ = ["EvaluationFrame", "EvaluationSource", "FrameTruth", "SourceOptions", "open_source"]


class FolderKind(NamedTuple):
    """How folders of one kind are known and opened."""

    matches: Callable[[Path], bool]
    open_folder: Callable[[Path, SourceOptions], EvaluationSource]


FOLDER_KINDS: dict[str, FolderKind] = {
    "tum": FolderKind(tum.matches, tum.open_folder),
    "seven_scenes": FolderKind(seven_scenes.matches, seven_scenes.open_folder),
    "neural_rgbd": FolderKind(neural_rgbd.matches, neural_rgbd.open_folder),
    "kitti_depth": FolderKind(kitti_depth.matches, kitti_depth.open_folder),
    "kitti_odometry": FolderKind(kitti_odometry.matches, kitti_odometry.open_folder),
    "sintel": FolderKind(sintel.matches, sintel.open_folder),
    "scannet": FolderKind(scannet.matches, scannet.open_folder),
    "rgbd": FolderKind(rgbd.matches, rgbd.open_folder),
    "folder": FolderKind(exported.matches, exported.open_folder),
}
"""``tum`` is Bonn's, too; ``rgbd`` ICL-NUIM's; ``folder`` is what ``xsvggt synthesize`` writes."""


def open_source(path: str | Path, options: SourceOptions | None = None) -> EvaluationSource:
    """Open a recording with its ground truth.

    Args:
        path: a bag, a folder of a data set, or ``synthetic:NAME`` of a held-out sequence.
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
            f"{place} does not exist: give a bag, a folder of a data set, or {PREFIX}NAME"
        )
    if place.name == METADATA and place.is_file():
        place = place.parent  # It stands for the bag that it is of.
    if is_bag(place):
        return BagEvaluationSource(place, options)
    return _open_folder(place.resolve(), options)


def _open_folder(place: Path, options: SourceOptions) -> EvaluationSource:
    if options.kind is not None:
        if options.kind not in FOLDER_KINDS:
            raise ConfigurationError(
                f"kind '{options.kind}' is unknown; choose one of {', '.join(FOLDER_KINDS)}"
            )
        return FOLDER_KINDS[options.kind].open_folder(place, options)
    fitting = [name for name, kind in FOLDER_KINDS.items() if kind.matches(place)]
    if not fitting:
        raise SourceError(
            f"{place} is no recording with ground truth that is known here: looked for "
            f"{', '.join(FOLDER_KINDS)}"
        )
    if len(fitting) > 1:
        raise SourceError(f"{place} may be read as {' or '.join(fitting)}: say which (--kind)")
    return FOLDER_KINDS[fitting[0]].open_folder(place, options)
