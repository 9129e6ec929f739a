# SPDX-License-Identifier: Apache-2.0
"""Camera poses: the path of 90 frames (Table 4 of the paper), and pairs of CO3D."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xsvggt_ros.errors import ConfigurationError, EvaluationError, SourceError
from xsvggt_ros.evaluation.protocols.base import (
    Column,
    ProtocolOptions,
    ProtocolRow,
    Specification,
    answered,
    each_row,
)
from xsvggt_ros.evaluation.protocols.video_depth import SINTEL_14, decoded
from xsvggt_ros.evaluation.request import SourceOptions
from xsvggt_ros.evaluation.sources import open_source
from xsvggt_ros.evaluation.sources.files import directories
from xsvggt_ros.geometry.rigid import Matrix, invert, rotation_angles
from xsvggt_ros.metrics.trajectory import score_trajectory
from xsvggt_ros.stream.frame import ImageArray
from xsvggt_ros.stream.imaging import decode_encoded
from xsvggt_ros.stream.reconstructor import Reconstructor

PATH_DATASETS = ("tum", "scannet", "sintel14")

PATH_METRICS = ("ate_sim3", "rpe_translation_sim3", "rpe_rotation_deg", "scale_sim3")

FRAMES, STRIDE = 90, 3
"""Of TUM-dynamics and ScanNet; 30 Hz become 10."""

THRESHOLDS = (30, 15, 5, 3)
"""Degrees of the areas under the curve."""

CO3D_FRAMES, CO3D_LEAST = 10, 50
"""Images taken of a sequence, and images that it must have."""

CO3D_SEED = 0
FAR_AWAY = 1e5
"""Annotations whose translation adds up to more are broken."""

STANDING = 1e-15

Poses = NDArray[np.float64]


def relpose(
    engine: Reconstructor,
    dataset: str,
    root: Path,
    *,
    frames: int = FRAMES,
    stride: int = STRIDE,
) -> Iterator[ProtocolRow]:
    """Yield ATE, and RPE between neighbouring frames, of each sequence after Sim(3) alignment.

    All are root mean squares. The reference has no such evaluation, although its functions are
    named so; this is MonST3R's, on which such tables rest. 100 to 1000 frames make long tables.

    Args:
        engine: at the width of the protocol.
        dataset: of Sintel, 14 whole sequences are taken.
        root: directory of the sequences; of Sintel the one with ``training``.
        frames: the most of a sequence.
        stride: every nth frame is taken.

    Raises:
        ConfigurationError: an unknown data set.
        EvaluationError: the root holds no sequence.

    """
    places = _places(dataset, root)
    whole = dataset == "sintel14"
    options = SourceOptions(
        kind="sintel" if whole else dataset,
        stride=1 if whole else stride,
        limit=None if whole else frames,
    )

    def measure(name: str) -> ProtocolRow:
        engine.reset("next sequence")
        estimated, true, count = [], [], 0
        width = engine.settings.width
        images = (
            (given, partial(decoded, given.frame, width), given.stamp)
            for given in open_source(places[name], options)
        )
        for given, result in answered(engine, images):
            count += 1
            if given.truth is not None and given.truth.camera_to_world is not None:
                estimated.append(result.camera_to_world)
                true.append(given.truth.camera_to_world)
        score = score_trajectory(np.array(estimated), np.array(true), "sim3")
        measured = score.metrics()
        return ProtocolRow(name, count, {each: measured[each] for each in PATH_METRICS})

    return each_row(places, measure)


def co3d(
    engine: Reconstructor, annotations: Path, root: Path, *, seed: int = CO3D_SEED
) -> Iterator[ProtocolRow]:
    """Yield the areas under the curve of pairwise pose errors of each category of CO3Dv2.

    Of each sequence with 50 images or more, ten are drawn, in random order: the first of them
    defines the world. (The reference's script stops at an option that it never defines; this is
    what it does up to there and beyond.)

    Args:
        engine: at the width of the protocol; images are preprocessed as the node does it.
        annotations: directory with ``CATEGORY_test.jgz``, as VGGT's evaluation prepares them.
        root: directory of CO3Dv2.
        seed: of the images drawn, for the whole run.

    Raises:
        EvaluationError: there are no annotations.

    """
    files = {each.name.removesuffix("_test.jgz"): each for each in annotations.glob("*_test.jgz")}
    if not files:
        raise EvaluationError(f"{annotations} holds no CATEGORY_test.jgz; see docs/protocols.md")
    random = np.random.RandomState(seed)

    def measure(category: str) -> ProtocolRow:
        errors, count = [], 0
        for sequence in _sequences(files[category]):
            chosen = random.choice(len(sequence), CO3D_FRAMES, replace=False)
            views = [sequence[index] for index in chosen]
            errors.append(_pair_errors_of(engine, root, views))
            count += len(views)
        if not errors:
            raise EvaluationError(f"{category} has no sequence of {CO3D_LEAST} good images")
        worst = np.concatenate(errors)
        return ProtocolRow(category, count, {f"auc_{t}": auc(worst, t) for t in THRESHOLDS})

    return each_row(sorted(files), measure)


def pair_errors(estimated: Poses, true: Poses) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the errors of the relative poses of all pairs, in degrees.

    Args:
        estimated: camera-to-world, float64 [n, 4, 4].
        true: the same.

    Returns:
        Angles between the relative rotations, and between the directions of the relative
        translations, the latter without regard to their sign, each [n (n - 1) / 2].

    """
    first, second = np.triu_indices(len(true), 1)
    relative = [
        np.stack([invert(poses[i]) @ poses[j] for i, j in zip(first, second, strict=True)])
        for poses in (estimated, true)
    ]
    found, expected = relative
    turned = np.swapaxes(expected[:, :3, :3], 1, 2) @ found[:, :3, :3]
    a, b = found[:, :3, 3], expected[:, :3, 3]
    across = np.linalg.norm(np.cross(a, b), axis=1)
    along = np.abs((a * b).sum(axis=1))
    apart = np.degrees(np.arctan2(across, along))
    # A camera that is said to stand still has no direction, which is as wrong as can be.
    apart[across + along < STANDING] = 90.0
    return np.degrees(rotation_angles(turned)), apart


def auc(errors: NDArray[np.float64], threshold: int) -> float:
    """Return the mean of the cumulative histogram of errors [n] in bins of one degree."""
    counts, _ = np.histogram(errors, bins=np.arange(threshold + 1))
    return float(np.cumsum(counts / max(len(errors), 1)).mean())


def _places(dataset: str, root: Path) -> dict[str, Path]:
    if dataset == "sintel14":
        found = directories(root / "training" / "final")
        places = {name: each for name, each in found.items() if name in SINTEL_14}
    elif dataset in ("tum", "scannet"):
        marker = "rgb.txt" if dataset == "tum" else "pose"
        places = {n: each for n, each in directories(root).items() if (each / marker).exists()}
    else:
        raise ConfigurationError(f"paths '{dataset}' are unknown; choose tum, scannet or sintel14")
    if not places:
        raise EvaluationError(f"{root} holds no sequence of {dataset}; see docs/protocols.md")
    return places


def _sequences(path: Path) -> Iterator[list[dict[str, Any]]]:
    """Yield the images of each sequence that is long enough and has whole annotations."""
    try:
        with gzip.open(path, "rt", encoding="utf-8") as stream:
            annotations = json.load(stream)
    except (OSError, ValueError) as error:
        raise SourceError(f"cannot read the annotations {path}: {error}") from error
    for views in annotations.values():
        if len(views) >= CO3D_LEAST and all(sum(view["T"]) <= FAR_AWAY for view in views):
            yield views


def _pair_errors_of(
    engine: Reconstructor, root: Path, views: list[dict[str, Any]]
) -> NDArray[np.float64]:
    """Return the larger of both errors of each pair."""
    engine.reset("next sequence")
    images = (
        (view, partial(_read_image, root / view["filepath"]), index + 1)
        for index, view in enumerate(views)
    )
    estimated = [result.camera_to_world for _, result in answered(engine, images)]
    true = [camera_to_world_of(view) for view in views]
    return np.maximum(*pair_errors(np.array(estimated), np.array(true)))


def _read_image(path: Path) -> ImageArray:
    return decode_encoded(path.read_bytes())


def camera_to_world_of(view: dict[str, Any]) -> Matrix:
    """Return an annotation's camera_to_world [4, 4], optical frame.

    PyTorch3D has other axes (x left, y up) and row vectors.
    """
    flip = np.array([-1.0, -1.0, 1.0])
    extrinsics = np.eye(4)
    extrinsics[:3, :3] = (np.array(view["R"]) * flip).T
    extrinsics[:3, 3] = np.array(view["T"]) * flip
    return invert(extrinsics)


CO3D = "co3d"


class RelativePose(Specification):
    """Table 4, and the pairs of CO3D."""

    name = "relpose"
    datasets = (*PATH_DATASETS, CO3D)
    columns = (
        Column("ate_sim3", "ATE, m"), Column("rpe_translation_sim3", "RPE, m"),
        Column("rpe_rotation_deg", "RPE, °", 3), Column("scale_sim3", "scale", 3),
        *(Column(f"auc_{limit}", f"AUC@{limit}", 1, "%") for limit in THRESHOLDS),
    )  # fmt: skip

    def check(self, options: ProtocolOptions) -> None:
        """Allow sampling for paths, annotations for CO3D."""
        if options.dataset == CO3D:
            options.refuse(self.name, "frames", "stride", "prediction")
            if options.annotations is None:
                raise ConfigurationError(
                    "relpose on co3d needs --annotations, the directory with CATEGORY_test.jgz"
                )
        elif options.dataset == "sintel14":
            options.refuse(self.name, "frames", "stride", "prediction", "annotations")
        else:
            options.refuse(self.name, "prediction", "annotations")

    def rows(self, engine: Reconstructor, options: ProtocolOptions) -> Iterator[ProtocolRow]:
        """Run paths, or pairs of CO3D."""
        if options.dataset == CO3D:
            assert options.annotations is not None
            return co3d(engine, options.annotations, options.root)
        return relpose(
            engine,
            options.dataset,
            options.root,
            frames=options.frames or FRAMES,
            stride=options.stride or STRIDE,
        )

    def notes(self, options: ProtocolOptions) -> tuple[str, ...]:
        """Say what is drawn and how paths are aligned."""
        if options.dataset == CO3D:
            return (
                f"{CO3D_FRAMES} images of each sequence, drawn with seed "
                f"{CO3D_SEED}; per pair the larger of both angles",
            )
        if options.dataset == "sintel14":
            return ("14 whole sequences of Sintel; paths aligned by Sim(3)",)
        frames, stride = options.frames or FRAMES, options.stride or STRIDE
        return (
            f"at most {frames} frames of a sequence, one in {stride}; paths aligned by Sim(3)",
            "figures of another length or stride are figures of another protocol",
        )
