# SPDX-License-Identifier: Apache-2.0
"""Multi-view reconstruction on 7-Scenes and Neural RGB-D: Tables 2 and 3 of the paper.

With the reference's sampling a stream is 2 to 5 images long, so that it says next to nothing
about a cache; the long protocol takes 100 to 1000 neighbouring ones.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from xsvggt_ros.errors import ConfigurationError, EvaluationError, SourceError
from xsvggt_ros.evaluation.cloud import score_cloud
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
from xsvggt_ros.evaluation.sources.base import EvaluationSource
from xsvggt_ros.evaluation.sources.files import directories
from xsvggt_ros.geometry.cameras import Intrinsics, unproject
from xsvggt_ros.geometry.rigid import Matrix, align, invert
from xsvggt_ros.geometry.text_tables import read_text
from xsvggt_ros.stream.frame import FrameResult, ImageArray
from xsvggt_ros.stream.reconstructor import Reconstructor

PREDICTIONS = ("points", "projection")
"""Of the point head, as in the published tables; of depth and pose, laid upon the truth by a
similarity (the reference's ``--use_proj``)."""

SEVEN_SCENES_STRIDE = 200
NEURAL_RGBD_STRIDE = 500
"""Every nth image is taken; of Neural RGB-D at least two of a scene."""

CROP = 224
"""Side of the middle of each image that is scored."""

LARGEST_CLOUD = 2_000_000
"""Points on each side that the long protocol keeps; the reference's sampling stays below it."""

Points = NDArray[np.float64]


@dataclass(frozen=True)
class Sampling:
    """Which images are taken.

    Attributes:
        frames: the most; None takes the reference's sparse ones.
        stride: of the long protocol.

    """

    frames: int | None = None
    stride: int = 1


@dataclass(frozen=True)
class _View:
    """Points of the same pixels, [h, w, 3] each; NaN where the truth is unknown."""

    predicted: Points
    true: Points


def mv_recon(
    engine: Reconstructor,
    dataset: str,
    root: Path,
    *,
    prediction: str = PREDICTIONS[0],
    sampling: Sampling | None = None,
) -> Iterator[ProtocolRow]:
    """Yield accuracy, completeness and normal consistency of each sequence.

    Args:
        engine: with ``point_head`` for the prediction ``points``.
        dataset: which one.
        root: directory of the scenes.
        prediction: one of PREDICTIONS.
        sampling: sparse as in the reference, or long.

    Raises:
        ConfigurationError: an unknown data set, or an engine without point head.
        EvaluationError: the root holds no scene.

    """
    if prediction == "points" and not engine.settings.point_head:
        raise ConfigurationError(
            "the engine's point head does not run; make it with point_head=True, or choose the "
            "prediction 'projection'"
        )
    names = sequence_names(dataset, root)
    chosen = sampling or Sampling()

    def measure(name: str) -> ProtocolRow:
        source = _open(dataset, root, name, chosen)
        views = list(_views(engine, source, prediction))
        predicted, true = _normalized(views, prediction)
        score = score_cloud(thinned(predicted), thinned(true))
        metrics = {
            "acc": score.accuracy.mean, "acc_med": score.accuracy.median,
            "comp": score.completeness.mean, "comp_med": score.completeness.median,
            "nc1": score.normal_accuracy.mean, "nc1_med": score.normal_accuracy.median,
            "nc2": score.normal_completeness.mean, "nc2_med": score.normal_completeness.median,
            "nc": score.normal_consistency.mean, "nc_med": score.normal_consistency.median,
            "f_score": score.f_score,
        }  # fmt: skip
        return ProtocolRow(name, len(views), metrics)

    return each_row(names, measure)


def sequence_names(dataset: str, root: Path) -> list[str]:
    """Return ``scene/seq-NN`` of the test split of 7-Scenes, or the scenes of Neural RGB-D.

    Raises:
        ConfigurationError: an unknown data set.
        EvaluationError: the root holds none.

    """
    if dataset == "neural_rgbd":
        names = [name for name, each in directories(root).items() if (each / "poses.txt").exists()]
    elif dataset == "seven_scenes":
        names = [
            f"{scene}/seq-{int(number):02d}"
            for scene, each in directories(root).items()
            if (each / "TestSplit.txt").exists()
            for number in re.findall(r"sequence\s*(\d+)", read_text(each / "TestSplit.txt"))
        ]
    else:
        raise ConfigurationError(
            f"scenes '{dataset}' are unknown; choose seven_scenes or neural_rgbd"
        )
    if not names:
        raise EvaluationError(f"{root} holds no sequence of {dataset}; see docs/protocols.md")
    return names


def _open(dataset: str, root: Path, name: str, sampling: Sampling) -> EvaluationSource:
    directory = root / name
    if sampling.frames is not None:
        options = SourceOptions(kind=dataset, stride=sampling.stride, limit=sampling.frames)
        return open_source(directory, options)
    if dataset == "seven_scenes":
        return open_source(directory, SourceOptions(kind=dataset, stride=SEVEN_SCENES_STRIDE))
    count = open_source(directory, SourceOptions(kind=dataset)).frame_count
    if count is None:
        raise SourceError(f"the number of images of {directory} is unknown")
    stride = max(1, min(NEURAL_RGBD_STRIDE, count // 2))
    return open_source(directory, SourceOptions(kind=dataset, stride=stride))


def _views(engine: Reconstructor, source: EvaluationSource, prediction: str) -> Iterator[_View]:
    """Step through the sequence; yield the middle of each image, in the first true camera."""
    engine.reset("next sequence")
    width = engine.settings.width
    height = round(width * 3 / 4 / PATCH) * PATCH
    first: Matrix | None = None
    for true_view, result in answered(engine, _true_views(source, width, height)):
        if first is None:
            first = invert(true_view.camera_to_world)
        pose = first @ true_view.camera_to_world
        seen = unproject(true_view.depth, true_view.camera).astype(np.float64)
        true = seen @ pose[:3, :3].T + pose[:3, 3]
        yield _View(_middle(_predicted(result, prediction)), _middle(true))


@dataclass(frozen=True)
class _TrueView:
    """What is true of an image as the network is given it."""

    camera_to_world: Matrix
    depth: NDArray[np.float32]
    camera: Intrinsics


def _true_views(
    source: EvaluationSource, width: int, height: int
) -> Iterator[tuple[_TrueView, Callable[[], ImageArray], int]]:
    """Yield what is true of each image, what gives the image, and its stamp."""
    for given in source:
        truth = given.truth
        if truth is None or truth.depth is None or truth.intrinsics is None:
            raise EvaluationError(f"the frame of stamp {given.stamp} has no true depth")
        if truth.camera_to_world is None:
            continue  # The reference leaves images with a lost pose out as well.
        image, depth, camera = cropped(
            given.frame.decode(), truth.depth, truth.intrinsics, width, height
        )
        true_view = _TrueView(truth.camera_to_world, depth, camera)
        yield true_view, partial(np.asarray, image), given.stamp


def _predicted(result: FrameResult, prediction: str) -> Points:
    if prediction == "points":
        assert result.points is not None
        return result.points.astype(np.float64)
    pose = result.camera_to_world
    seen = unproject(result.depth, result.intrinsics).astype(np.float64)
    return np.asarray(seen @ pose[:3, :3].T + pose[:3, 3], np.float64)


def _middle(points: Points) -> Points:
    height, width = points.shape[:2]
    tall, wide = min(CROP, height), min(CROP, width)
    top, left = height // 2 - tall // 2, width // 2 - wide // 2
    return points[top : top + tall, left : left + wide]


def _normalized(views: list[_View], prediction: str) -> tuple[Points, Points]:
    """Return both clouds of the pixels with known depth, in one scale.

    For ``points``: the median depth of each side becomes 0, and sizes are made equal, a size being
    the median distance from the coordinate-wise median (the reference's Regr3D_t_ScaleShiftInv).
    For ``projection``: a similarity over corresponding points.
    """
    if not views:
        raise EvaluationError("no image of the sequence has a true pose")
    predicted = np.concatenate([each.predicted.reshape(-1, 3) for each in views])
    true = np.concatenate([each.true.reshape(-1, 3) for each in views])
    known = np.isfinite(true).all(axis=1) & np.isfinite(predicted).all(axis=1)
    if known.sum() < 3:
        raise EvaluationError("fewer than three pixels have a known depth")
    predicted, true = predicted[known], true[known]
    if prediction == "projection":
        return align(predicted, true, scale=True).points(predicted), true
    predicted, true = _without_depth_shift(predicted), _without_depth_shift(true)
    factor = _size(true) / float(np.clip(_size(predicted), 1e-3, 1e3))
    return predicted * factor, true


def _without_depth_shift(points: Points) -> Points:
    return points - [0.0, 0.0, float(np.median(points[:, 2]))]


def _size(points: Points) -> float:
    return float(np.median(np.linalg.norm(points - np.median(points, axis=0), axis=1)))


def thinned(points: Points, most: int = LARGEST_CLOUD) -> Points:
    """Return at most so many of some points [n, 3], rounded to float32 where points are dropped.

    Every second one is dropped at random (seeded) until they are few enough.
    """
    if len(points) <= most:
        return points
    random = np.random.default_rng(0)
    points = points.astype(np.float32).astype(np.float64)
    while len(points) > most:
        points = points[random.random(len(points)) < 0.5]
    return points


def cropped(
    pixels: ImageArray, depth: NDArray[np.float32], camera: Intrinsics, width: int, height: int
) -> tuple[ImageArray, NDArray[np.float32], Intrinsics]:
    """Bring image and depth to one size, the principal point in the middle before that.

    The loader of DUSt3R's data sets, which multi-view reconstruction is measured with: crop
    symmetrically around the principal point, scale until the target is covered, crop the middle.
    Images are resampled by Lanczos, depth by nearest neighbour.

    Args:
        pixels: uint8 [H, W, 3], of any size; brought to that of the depth first.
        depth: float32 [H, W].
        camera: of the depth.
        width: of the result.
        height: of the result.

    Raises:
        EvaluationError: the principal point lies at the edge of the image.

    """
    image = Image.fromarray(pixels)
    if image.size != (camera.width, camera.height):
        image = image.resize((camera.width, camera.height), Image.Resampling.LANCZOS)
    cx, cy = round(camera.cx), round(camera.cy)
    half_x, half_y = min(cx, camera.width - cx), min(cy, camera.height - cy)
    if half_x <= camera.width / 5 or half_y <= camera.height / 5:
        raise EvaluationError(
            f"the principal point ({camera.cx}, {camera.cy}) is too near the edge of the "
            f"{camera.width}x{camera.height} image to crop around it"
        )
    left, top = cx - half_x, cy - half_y
    image = image.crop((left, top, cx + half_x, cy + half_y))
    depth = depth[top : cy + half_y, left : cx + half_x]
    scale = max(width / image.width, height / image.height) + 1e-8
    size = (int(image.width * scale), int(image.height * scale))
    method = Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC
    image = image.resize(size, method)
    rows = np.minimum(((np.arange(size[1])) / scale).astype(int), depth.shape[0] - 1)
    columns = np.minimum(((np.arange(size[0])) / scale).astype(int), depth.shape[1] - 1)
    depth = depth[rows][:, columns]
    right, down = (size[0] - width) // 2, (size[1] - height) // 2
    image = image.crop((right, down, right + width, down + height))
    # Pixel corners scale, centres do not: the half pixel goes in and out again.
    moved = Intrinsics(
        fx=camera.fx * scale,
        fy=camera.fy * scale,
        cx=(camera.cx - left + 0.5) * scale - 0.5 - right,
        cy=(camera.cy - top + 0.5) * scale - 0.5 - down,
        width=width,
        height=height,
    )
    return np.array(image, np.uint8), depth[down : down + height, right : right + width], moved


class MultiViewReconstruction(Specification):
    """Tables 2 and 3."""

    name = "mv_recon"
    datasets = ("seven_scenes", "neural_rgbd")
    columns = (
        Column("acc", "Acc, m"), Column("acc_med", "Acc median"),
        Column("comp", "Comp, m"), Column("comp_med", "Comp median"),
        Column("nc", "NC"), Column("nc_med", "NC median"),
        Column("f_score", "F-score", 1, "%"),
    )  # fmt: skip

    def check(self, options: ProtocolOptions) -> None:
        """Allow ``frames`` with ``stride``, and ``prediction``."""
        options.refuse(self.name, "annotations")
        if options.stride is not None and options.frames is None:
            raise ConfigurationError(
                f"--stride {options.stride} is for the long table of {self.name}; add --max-frames"
            )
        if options.prediction not in (None, *PREDICTIONS):
            raise ConfigurationError(
                f"--prediction '{options.prediction}' is unknown; choose {' or '.join(PREDICTIONS)}"
            )

    def names(self, options: ProtocolOptions) -> list[str]:
        """Return the sequences of the data set."""
        return sequence_names(options.dataset, options.root)

    def needs_points(self, options: ProtocolOptions) -> bool:
        """Return whether the point head is scored."""
        return (options.prediction or PREDICTIONS[0]) == "points"

    def rows(self, engine: Reconstructor, options: ProtocolOptions) -> Iterator[ProtocolRow]:
        """Run the scenes."""
        return mv_recon(
            engine,
            options.dataset,
            options.root,
            prediction=(options.prediction or PREDICTIONS[0]),
            sampling=Sampling(options.frames, options.stride or 1),
        )

    def notes(self, options: ProtocolOptions) -> tuple[str, ...]:
        """Say how many images there are, and what is aligned with the ground truth."""
        sparse = "the reference's sparse sampling: 2 to 5 images, hardly any cache"
        scored = {
            "points": "points of the point head, shifted and scaled as in the reference, then ICP",
            "projection": "points of depth and pose, laid upon the truth by a similarity, then ICP",
        }
        return (length_note(options, sparse), scored[(options.prediction or PREDICTIONS[0])])
