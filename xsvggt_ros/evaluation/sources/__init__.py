# SPDX-License-Identifier: Apache-2.0
"""Finds out what a path holds, and opens it with its ground truth."""

from __future__ import annotations

from pathlib import Path

from xsvggt_ros.errors import ConfigurationError, SourceError
from xsvggt_ros.evaluation.request import SourceOptions
from xsvggt_ros.evaluation.sources.bag import BagEvaluationSource
from xsvggt_ros.evaluation.sources.base import DatasetLoader, EvaluationSource
from xsvggt_ros.evaluation.sources.indoor import Exported, NeuralRgbd, Rgbd, ScanNet, SevenScenes
from xsvggt_ros.evaluation.sources.outdoor import KittiDepth, KittiOdometry, Sintel
from xsvggt_ros.evaluation.sources.synthetic import PREFIX, RenderedSource
from xsvggt_ros.evaluation.sources.tum import Tum
from xsvggt_ros.stream.sources import METADATA, is_bag

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
        if options.kind not in LOADERS:
            raise ConfigurationError(
                f"kind '{options.kind}' is unknown; choose one of {', '.join(LOADERS)}"
            )
        return LOADERS[options.kind].open_directory(place, options)
    fitting = [name for name, loader in LOADERS.items() if loader.matches(place)]
    if not fitting:
        raise SourceError(
            f"{place} is no recording with ground truth that is known here: looked for "
            f"{', '.join(LOADERS)}; 'xsvggt reconstruct' takes images without truth"
        )
    if len(fitting) > 1:
        raise SourceError(f"{place} may be read as {' or '.join(fitting)}: say which (--kind)")
    return LOADERS[fitting[0]].open_directory(place, options)
