# SPDX-License-Identifier: Apache-2.0
"""The protocols by name: their data sets, options, columns, and what a reader must know."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, cast, get_args

from xsvggt_ros.errors import ConfigurationError
from xsvggt_ros.evaluation.protocols import mv_recon, relpose, video_depth
from xsvggt_ros.evaluation.protocols.rows import ProtocolRow
from xsvggt_ros.stream.reconstructor import Reconstructor

WIDTH = 518
"""Pixels; of the published weights and all published tables."""

CO3D = "co3d"


@dataclass(frozen=True)
class Column:
    """A number of the table; with the unit ``%`` it is stored as a share."""

    name: str
    label: str
    decimals: int = 4
    unit: str = ""

    def show(self, value: float | None) -> str:
        """Return a value for people, a dash for none."""
        if value is None:
            return "-"
        shown = 100 * value if self.unit == "%" else value
        return f"{shown:.{self.decimals}f}"


@dataclass(frozen=True)
class ProtocolOptions:
    """Data set and sampling; None = as in the paper.

    Attributes:
        dataset: name of the data set.
        root: its directory.
        frames: the most of each sequence, for the long tables.
        stride: every nth frame is taken, likewise.
        prediction: of ``mv_recon``: ``points`` of the point head, or ``projection`` of depth and
            pose.
        annotations: of CO3D.

    """

    dataset: str
    root: Path
    frames: int | None = None
    stride: int | None = None
    prediction: str | None = None
    annotations: Path | None = None

    def plain(self) -> dict[str, Any]:
        """Return the options in types that JSON holds."""
        return {
            key: str(value) if isinstance(value, Path) else value
            for key, value in asdict(self).items()
        }

    def refuse(self, protocol: str, *names: str) -> None:
        """Raise ConfigurationError where one of the named options is set."""
        spelt = {"frames": "--max-frames"}
        for name in names:
            if getattr(self, name) is not None:
                option = spelt.get(name, f"--{name}")
                raise ConfigurationError(
                    f"protocol {protocol} on {self.dataset} knows no {option} "
                    f"({getattr(self, name)}); leave it out"
                )


class Specification(ABC):
    """One protocol.

    Attributes:
        name: as on the command line.
        datasets: that it is defined on.
        columns: of its table.
        width: of the network's input in the paper, pixels.

    """

    name: ClassVar[str]
    datasets: ClassVar[tuple[str, ...]]
    columns: ClassVar[tuple[Column, ...]]
    width = WIDTH

    @abstractmethod
    def check(self, options: ProtocolOptions) -> None:
        """Raise ConfigurationError for options that this protocol does not know."""

    @abstractmethod
    def rows(self, engine: Reconstructor, options: ProtocolOptions) -> Iterator[ProtocolRow]:
        """Yield the row of each sequence; raise XsvggtError where there is none."""

    @abstractmethod
    def notes(self, options: ProtocolOptions) -> tuple[str, ...]:
        """Return what a reader of the table must know."""

    def names(self, options: ProtocolOptions) -> list[str] | None:
        """Return the sequences in the order of the rows, None where they are unknown in advance."""
        return None

    def needs_points(self, options: ProtocolOptions) -> bool:
        """Return whether the point head has to run."""
        return False


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


class VideoDepth(Specification):
    """Tables 6 and 7."""

    name = "video_depth"
    datasets = get_args(video_depth.DepthDataset)
    columns = _depth_columns(video_depth.ALIGNMENT)

    def check(self, options: ProtocolOptions) -> None:
        """Allow ``frames``."""
        options.refuse(self.name, "stride", "prediction", "annotations")

    def names(self, options: ProtocolOptions) -> list[str]:
        """Return the sequences of the data set."""
        return video_depth.sequence_names(_depth_dataset(options), options.root)

    def rows(self, engine: Reconstructor, options: ProtocolOptions) -> Iterator[ProtocolRow]:
        """Run whole sequences."""
        return video_depth.video_depth(
            engine, _depth_dataset(options), options.root, frames=options.frames
        )

    def notes(self, options: ProtocolOptions) -> tuple[str, ...]:
        """Say how depth is aligned and averaged."""
        return (
            _length(options, "each sequence as the reference takes it"),
            "all pixels of a sequence aligned together by the scale of least absolute error; the "
            "mean is weighted by pixels",
        )


class MonoDepth(Specification):
    """Table 5."""

    name = "mono_depth"
    datasets = get_args(video_depth.DepthDataset)
    columns = _depth_columns(video_depth.IMAGE_ALIGNMENT)

    def check(self, options: ProtocolOptions) -> None:
        """Allow nothing but data set and root."""
        options.refuse(self.name, "frames", "stride", "prediction", "annotations")

    def names(self, options: ProtocolOptions) -> list[str]:
        """Return the sequences of the data set."""
        return video_depth.sequence_names(_depth_dataset(options), options.root)

    def rows(self, engine: Reconstructor, options: ProtocolOptions) -> Iterator[ProtocolRow]:
        """Run single images."""
        return video_depth.mono_depth(engine, _depth_dataset(options), options.root)

    def notes(self, options: ProtocolOptions) -> tuple[str, ...]:
        """Say that no cache takes part."""
        return (
            "every image is a stream of its own, scaled by its median: no cache takes part",
            "the mean is weighted by pixels",
        )


class MultiViewReconstruction(Specification):
    """Tables 2 and 3."""

    name = "mv_recon"
    datasets = get_args(mv_recon.SceneDataset)
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
        choices = get_args(mv_recon.Prediction)
        if options.prediction is not None and options.prediction not in choices:
            raise ConfigurationError(
                f"--prediction '{options.prediction}' is unknown; choose {' or '.join(choices)}"
            )

    def names(self, options: ProtocolOptions) -> list[str]:
        """Return the sequences of the data set."""
        return mv_recon.sequence_names(_scenes(options), options.root)

    def needs_points(self, options: ProtocolOptions) -> bool:
        """Return whether the point head is scored."""
        return _prediction(options) == "points"

    def rows(self, engine: Reconstructor, options: ProtocolOptions) -> Iterator[ProtocolRow]:
        """Run the scenes."""
        return mv_recon.mv_recon(
            engine,
            _scenes(options),
            options.root,
            prediction=_prediction(options),
            sampling=mv_recon.Sampling(options.frames, options.stride or 1),
        )

    def notes(self, options: ProtocolOptions) -> tuple[str, ...]:
        """Say how many images there are, and what is aligned with the ground truth."""
        sparse = "the reference's sparse sampling: 2 to 5 images, hardly any cache"
        scored = {
            "points": "points of the point head, shifted and scaled as in the reference, then ICP",
            "projection": "points of depth and pose, laid upon the truth by a similarity, then ICP",
        }
        return (_length(options, sparse), scored[_prediction(options)])


class RelativePose(Specification):
    """Table 4, and the pairs of CO3D."""

    name = "relpose"
    datasets = (*get_args(relpose.PathDataset), CO3D)
    columns = (
        Column("ate_sim3", "ATE, m"), Column("rpe_translation_sim3", "RPE, m"),
        Column("rpe_rotation_deg", "RPE, °", 3), Column("scale_sim3", "scale", 3),
        *(Column(f"auc_{limit}", f"AUC@{limit}", 1, "%") for limit in relpose.THRESHOLDS),
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
            return relpose.co3d(engine, options.annotations, options.root)
        return relpose.relpose(
            engine,
            cast("relpose.PathDataset", options.dataset),
            options.root,
            frames=options.frames or relpose.FRAMES,
            stride=options.stride or relpose.STRIDE,
        )

    def notes(self, options: ProtocolOptions) -> tuple[str, ...]:
        """Say what is drawn and how paths are aligned."""
        if options.dataset == CO3D:
            return (
                f"{relpose.CO3D_FRAMES} images of each sequence, drawn with seed "
                f"{relpose.CO3D_SEED}; per pair the larger of both angles",
            )
        if options.dataset == "sintel14":
            return ("14 whole sequences of Sintel; paths aligned by Sim(3)",)
        frames, stride = options.frames or relpose.FRAMES, options.stride or relpose.STRIDE
        return (
            f"at most {frames} frames of a sequence, one in {stride}; paths aligned by Sim(3)",
            "figures of another length or stride are figures of another protocol",
        )


SPECIFICATIONS: dict[str, Specification] = {
    each.name: each
    for each in (VideoDepth(), MonoDepth(), MultiViewReconstruction(), RelativePose())
}


def specification_of(name: str, options: ProtocolOptions) -> Specification:
    """Return the protocol of a name, checked against the options.

    Raises:
        ConfigurationError: an unknown protocol or data set, or options that mean nothing to it.

    """
    if name not in SPECIFICATIONS:
        raise ConfigurationError(
            f"protocol '{name}' is unknown; choose one of {', '.join(SPECIFICATIONS)}"
        )
    found = SPECIFICATIONS[name]
    if options.dataset not in found.datasets:
        raise ConfigurationError(
            f"protocol {name} has no data set '{options.dataset}'; choose one of "
            f"{', '.join(found.datasets)}"
        )
    found.check(options)
    return found


def _length(options: ProtocolOptions, usual: str) -> str:
    if options.frames is None:
        return usual
    return f"at most {options.frames} frames of each sequence: a long table, not the paper's"


def _depth_dataset(options: ProtocolOptions) -> video_depth.DepthDataset:
    return cast("video_depth.DepthDataset", options.dataset)


def _scenes(options: ProtocolOptions) -> mv_recon.SceneDataset:
    return cast("mv_recon.SceneDataset", options.dataset)


def _prediction(options: ProtocolOptions) -> mv_recon.Prediction:
    return cast("mv_recon.Prediction", options.prediction or "points")
