# SPDX-License-Identifier: Apache-2.0
"""Depth of whole sequences, and of single images: Tables 5 and 6 of the paper."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from xsvggt_ros.errors import ConfigurationError, EvaluationError
from xsvggt_ros.evaluation.evaluator import at_size_of
from xsvggt_ros.evaluation.protocols.base import (
    PATCH,
    Column,
    ProtocolOptions,
    ProtocolRow,
    Specification,
    answered,
    each_row,
    length_note,
)
from xsvggt_ros.evaluation.request import SourceOptions
from xsvggt_ros.evaluation.sources import open_source
from xsvggt_ros.evaluation.sources.base import EvaluationFrame, EvaluationSource
from xsvggt_ros.evaluation.sources.files import directories
from xsvggt_ros.evaluation.sources.tum import open_prepared
from xsvggt_ros.metrics.depth import (
    DepthAlignmentKind,
    DepthErrors,
    DepthPairs,
    comparable_pixels,
    score_depth,
)
from xsvggt_ros.stream.frame import Frame, ImageArray
from xsvggt_ros.stream.reconstructor import Reconstructor

SINTEL_14 = (
    "alley_2", "ambush_4", "ambush_5", "ambush_6", "cave_2", "cave_4", "market_2", "market_5",
    "market_6", "shaman_3", "sleeping_1", "sleeping_2", "temple_2", "temple_3",
)  # fmt: skip
"""The sequences that MonST3R and its successors measure on."""

ALIGNMENT: DepthAlignmentKind = "l1"
"""Of whole sequences, in the reference."""

IMAGE_ALIGNMENT = "median_per_image"
"""Of single images: each by its own median."""

BONN_5 = ("balloon2", "crowd2", "crowd3", "person_tracking2", "synchronous")
KITTI_FRAMES = 110
"""The most of each drive."""


@dataclass(frozen=True)
class DepthRules:
    """What counts of a data set's depth.

    Attributes:
        farthest: metres; truths of this and more do not count.
        clip: metres; aligned predictions beyond it are set to it.

    """

    farthest: float | None = None
    clip: float | None = None


RULES: dict[str, DepthRules] = {
    "sintel": DepthRules(70.0, 70.0),
    "sintel14": DepthRules(70.0, 70.0),
    "bonn": DepthRules(70.0),
    "kitti": DepthRules(),
}


def video_depth(
    engine: Reconstructor,
    dataset: str,
    root: Path,
    *,
    frames: int | None = None,
) -> Iterator[ProtocolRow]:
    """Yield the errors of each sequence, all of its pixels aligned together.

    Rows weigh as much as they have pixels, as in the reference.

    Args:
        engine: at the width of the protocol (518 for published weights).
        dataset: which one.
        root: of Sintel the directory with ``training``; of Bonn that with the sequences; of KITTI
            ``val_selection_cropped``.
        frames: the most of each sequence; None = as the reference; 100 to 1000 for the long tables,
            which take Bonn and KITTI from the first frame on.

    Raises:
        SourceError: there are no such sequences.
        ConfigurationError: an unknown data set.

    """
    rules = _rules(dataset)

    def measure(name: str) -> ProtocolRow:
        pairs = DepthPairs(None, rules.farthest, rules.clip)
        count = 0
        engine.reset("next sequence")
        sequence = open_sequence(dataset, root, name, frames)
        for index, (given, depth) in enumerate(_predicted(engine, sequence)):
            count += 1
            if given.truth is not None and given.truth.depth is not None:
                pairs.add(index, at_size_of(depth, given.truth.depth), given.truth.depth)
        score = pairs.score(ALIGNMENT)
        return ProtocolRow(name, count, score.metrics(), score.errors.pixels)

    return each_row(sequence_names(dataset, root), measure)


def mono_depth(engine: Reconstructor, dataset: str, root: Path) -> Iterator[ProtocolRow]:
    """Yield the errors of each sequence, every image a stream of its own, scaled by its median.

    No cache takes part in it. Errors are means over images, weighted by their pixels.

    Args:
        engine: at the width of the protocol.
        dataset: which one.
        root: as for :func:`video_depth`.

    Raises:
        SourceError: there are no such sequences.
        ConfigurationError: an unknown data set.

    """
    rules = _rules(dataset)

    def measure(name: str) -> ProtocolRow:
        found = []
        for given in open_sequence(dataset, root, name, None):
            engine.reset("every image stands alone")
            ((_, prediction),) = _predicted(engine, [given])
            errors = _of_image(prediction, given, rules)
            if errors is not None:
                found.append(errors)
        if not found:
            raise EvaluationError(f"{name} has no image with known depth")
        pixels = np.array([each.pixels for each in found], np.float64)
        images = [each.metrics(IMAGE_ALIGNMENT) for each in found]
        metrics = {
            key: float(np.average([each[key] for each in images], weights=pixels))
            for key in images[0]
        }
        return ProtocolRow(name, len(found), metrics, float(pixels.sum()))

    return each_row(sequence_names(dataset, root), measure)


def sequence_names(dataset: str, root: Path) -> list[str]:
    """Return the names of a data set's sequences, in order.

    Raises:
        ConfigurationError: an unknown data set.
        EvaluationError: the root holds none.

    """
    _rules(dataset)
    if dataset == "kitti":
        names = sorted(directories(root / "image_gathered"))
    elif dataset == "bonn":
        present = directories(root)
        names = [f"rgbd_bonn_{each}" for each in BONN_5 if f"rgbd_bonn_{each}" in present]
    else:
        present = directories(root / "training" / "final")
        names = sorted(present if dataset == "sintel" else set(present) & set(SINTEL_14))
    if not names:
        raise EvaluationError(f"{root} holds no sequence of {dataset}; see docs/protocols.md")
    return names


def open_sequence(dataset: str, root: Path, name: str, frames: int | None) -> EvaluationSource:
    """Open a sequence as the protocol takes it.

    Args:
        dataset: which one.
        root: as for :func:`video_depth`.
        name: of the sequence.
        frames: the most; None = as the reference.

    """
    if dataset == "kitti":
        options = SourceOptions(kind="kitti_depth", limit=frames or KITTI_FRAMES)
        return open_source(root / "image_gathered" / name, options)
    if dataset == "bonn" and frames is None:
        return open_prepared(root / name)
    if dataset == "bonn":
        return open_source(root / name, SourceOptions(kind="tum", limit=frames))
    options = SourceOptions(kind="sintel", limit=frames)
    return open_source(root / "training" / "final" / name, options)


def _rules(dataset: str) -> DepthRules:
    if dataset not in RULES:
        raise ConfigurationError(
            f"depth data set '{dataset}' is unknown; choose one of {', '.join(RULES)}"
        )
    return RULES[dataset]


def _predicted(
    engine: Reconstructor, sequence: Iterable[EvaluationFrame]
) -> Iterator[tuple[EvaluationFrame, np.ndarray]]:
    """Yield each frame with the depth of its whole image at the network's size."""
    width = engine.settings.width
    images = ((given, partial(decoded, given.frame, width), given.stamp) for given in sequence)
    for given, result in answered(engine, images):
        yield given, result.depth


def decoded(frame: Frame, side: int) -> ImageArray:
    """Return the image of a frame with its long side at ``side``, see :func:`long_side`."""
    return long_side(frame.decode(), side)


def _of_image(
    prediction: np.ndarray, given: EvaluationFrame, rules: DepthRules
) -> DepthErrors | None:
    truth = given.truth.depth if given.truth is not None else None
    if truth is None:
        return None
    resized = at_size_of(prediction, truth)
    if not comparable_pixels(resized, truth, rules.farthest)[1].any():
        return None
    found = score_depth(resized, truth, "median", farthest=rules.farthest, clip=rules.clip)
    return found.errors


def long_side(pixels: ImageArray, side: int = 518, patch: int = PATCH) -> ImageArray:
    """Resize so that the long side is ``side`` and both are multiples of the patch, nothing cut.

    The loader of video and monocular depth: first to the long side, keeping the aspect, then to the
    next smaller multiples. Both steps are Lanczos; where images grow the first one is bicubic.

    Args:
        pixels: uint8 [height, width, 3].
        side: pixels.
        patch: pixels.

    """
    image = Image.fromarray(pixels)
    width, height = image.size
    longest = max(width, height)
    shrinks = longest > side
    first = (round(width * side / longest), round(height * side / longest))
    image = image.resize(first, Image.Resampling.LANCZOS if shrinks else Image.Resampling.BICUBIC)
    whole = (_floor(first[0], patch), _floor(first[1], patch))
    return np.array(image.resize(whole, Image.Resampling.LANCZOS), np.uint8)


def _floor(length: int, patch: int) -> int:
    """Return the largest multiple of the patch that fits, at least one patch."""
    return max(length // patch * patch, patch)


def _depth_columns(alignment: str) -> tuple[Column, ...]:
    """Return the columns of depth errors under one alignment, which the notes name."""
    return (
        Column(f"abs_rel_{alignment}", "AbsRel"),
        Column(f"sq_rel_{alignment}", "SqRel"),
        Column(f"depth_rmse_{alignment}", "RMSE, m"),
        Column(f"depth_log_rmse_{alignment}", "log RMSE"),
        Column(f"delta_1_{alignment}", "δ<1.25", 1, "%"),
        Column(f"delta_2_{alignment}", "δ<1.25²", 1, "%"),
        Column(f"delta_3_{alignment}", "δ<1.25³", 1, "%"),
    )


class _DepthProtocol(Specification):
    """A protocol on the data sets with depth."""

    datasets = tuple(RULES)

    def names(self, options: ProtocolOptions) -> list[str]:
        """Return the sequences of the data set."""
        return sequence_names(options.dataset, options.root)


class VideoDepth(_DepthProtocol):
    """Tables 6 and 7."""

    name = "video_depth"
    columns = _depth_columns(ALIGNMENT)

    def check(self, options: ProtocolOptions) -> None:
        """Allow ``frames``."""
        options.refuse(self.name, "stride", "prediction", "annotations")

    def rows(self, engine: Reconstructor, options: ProtocolOptions) -> Iterator[ProtocolRow]:
        """Run whole sequences."""
        return video_depth(engine, options.dataset, options.root, frames=options.frames)

    def notes(self, options: ProtocolOptions) -> tuple[str, ...]:
        """Say how depth is aligned and averaged."""
        return (
            length_note(options, "each sequence as the reference takes it"),
            "all pixels of a sequence aligned together by the scale of least absolute error; the "
            "mean is weighted by pixels",
        )


class MonoDepth(_DepthProtocol):
    """Table 5."""

    name = "mono_depth"
    columns = _depth_columns(IMAGE_ALIGNMENT)

    def check(self, options: ProtocolOptions) -> None:
        """Allow nothing but data set and root."""
        options.refuse(self.name, "frames", "stride", "prediction", "annotations")

    def rows(self, engine: Reconstructor, options: ProtocolOptions) -> Iterator[ProtocolRow]:
        """Run single images."""
        return mono_depth(engine, options.dataset, options.root)

    def notes(self, options: ProtocolOptions) -> tuple[str, ...]:
        """Say that no cache takes part."""
        return (
            "every image is a stream of its own, scaled by its median: no cache takes part",
            "the mean is weighted by pixels",
        )
