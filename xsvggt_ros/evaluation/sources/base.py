# SPDX-License-Identifier: Apache-2.0
"""What sources offer: frames, each with what is true about it; and sources that lie in files."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from xsvggt_ros.errors import FrameError, SourceError
from xsvggt_ros.evaluation.request import SourceOptions
from xsvggt_ros.evaluation.sources.files import Depth, ReadDepth, choose, directories
from xsvggt_ros.evaluation.sources.truth_files import true_poses
from xsvggt_ros.geometry.cameras import Intrinsics
from xsvggt_ros.geometry.rigid import Matrix
from xsvggt_ros.stream.frame import BitsInUse, Frame, ImageArray
from xsvggt_ros.stream.imaging import decode_encoded
from xsvggt_ros.stream.sources.base import stamp_at

if TYPE_CHECKING:
    from xsvggt_ros.geometry.cameras import Intrinsics
    from xsvggt_ros.stream.frame import Frame


@dataclass(frozen=True, slots=True)
class FrameTruth:
    """What is known about one frame; what is not known is None.

    Attributes:
        camera_to_world: float64 [4, 4], metres; optical frame (x right, y down, z forward) into a
            world that all frames of the source share. The rotation is NaN where only positions
            are known.
        depth: float32 [H, W], metres along the optical axis, NaN where unknown. It shows what the
            image shows, maybe at another size.
        intrinsics: the pinhole camera of ``depth``; without depth, that of the image.

    """

    camera_to_world: NDArray[np.float64] | None = None
    depth: NDArray[np.float32] | None = None
    intrinsics: Intrinsics | None = None

    @property
    def has_points(self) -> bool:
        """Whether true points in the world are known."""
        if self.depth is None or self.camera_to_world is None or self.intrinsics is None:
            return False
        return bool(np.isfinite(self.camera_to_world).all())


@dataclass(frozen=True, slots=True)
class EvaluationFrame:
    """A frame for the engine, and the truth to compare its result with, if any is known."""

    frame: Frame
    truth: FrameTruth | None = None

    @property
    def stamp(self) -> int:
        """Time of acquisition in nanoseconds."""
        return self.frame.stamp


class EvaluationSource(Protocol):
    """Frames in the order in which they were taken, each with what is true about it.

    Iteration begins again each time, holds one frame at a time, and drops none: an image that
    cannot be read is a frame whose ``decode`` raises.

    Attributes:
        name: what people call it, for headings and directories.
        kind: of recording, such as ``bag`` or ``tum``.
        warnings: what a reader of results must know; iterating may add to it.

    """

    name: str
    kind: str
    warnings: list[str]

    @property
    def frame_count(self) -> int | None:
        """Number of frames, or None where only reading tells."""
        ...

    def __iter__(self) -> Iterator[EvaluationFrame]:
        """Yield the frames from the first one on; raise SourceError where reading fails."""
        ...

    def describe(self) -> dict[str, Any]:
        """Return where frames and truth come from, in types that JSON holds."""
        ...


def selected(options: SourceOptions, count: int, source: str) -> range:
    """Return the numbers of the frames that ``options`` take out of ``count``.

    Raises:
        SourceError: none is left.

    """
    every = range(options.start, count, options.stride)[: options.limit]
    if not every:
        raise SourceError(
            f"{source} has {count} frames, so that none is left after the first "
            f"{options.start}; start earlier"
        )
    return every


FRAME_ID = "camera_optical_frame"
MOST_WARNINGS = 20


@dataclass(frozen=True, slots=True)
class Record:
    """Where the parts of one frame lie; ``intrinsics`` are those of the depth, or of the image.

    ``pose`` is camera-to-world, optical axes, metres. What is not there is None.
    """

    stamp: int
    image: Path
    depth: Path | None = None
    pose: Matrix | None = None
    intrinsics: Intrinsics | None = None


def records_at(
    rate: float,
    colors: Sequence[Path],
    depths: Sequence[Path | None],
    poses: Sequence[Matrix | None],
    camera: Intrinsics | None,
) -> list[Record]:
    """Return records of images whose files have no stamps, one for each image.

    Args:
        rate: images per second.
        colors: the images.
        depths: of each image.
        poses: of each image, camera-to-world [4, 4].
        camera: of all.

    """
    return [
        Record(stamp_at(index, rate), color, depth, pose, camera)
        for index, (color, depth, pose) in enumerate(zip(colors, depths, poses, strict=True))
    ]


@dataclass(frozen=True)
class Layout:
    """What a loader found out about a directory.

    Attributes:
        kind: of data set.
        path: the directory of the sequence.
        name: of the sequence.
        records: all of its frames, in order.
        read_depth: reads a depth file to metres.
        provenance: further facts for :meth:`RecordedSource.describe`.
        warnings: what a reader of results must know.
        truth_stamps: times of the first and the last true pose, where poses have times of their
            own, nanoseconds.

    """

    kind: str
    path: Path
    name: str
    records: Sequence[Record]
    read_depth: ReadDepth
    provenance: dict[str, Any]
    warnings: tuple[str, ...] = ()
    truth_stamps: tuple[int, int] | None = None


class DatasetLoader(ABC):
    """Knows the directories of one data set and describes the frames in them.

    Attributes:
        kind: of data set, as ``--kind`` and reports name it.
        several: whether a directory may hold several sequences.

    """

    kind: ClassVar[str]
    several: ClassVar[bool] = True

    @abstractmethod
    def is_sequence(self, directory: Path) -> bool:
        """Tell, from names of files alone, whether a directory is one sequence."""

    @abstractmethod
    def layout(self, directory: Path, options: SourceOptions) -> Layout:
        """Describe the frames of a sequence.

        Raises:
            ConfigurationError: an option that means nothing here.
            SourceError: files are missing or damaged.

        """

    def sequences(self, directory: Path) -> dict[str, Path]:
        """Return the sequences that a directory holds, by name."""
        return {name: p for name, p in directories(directory).items() if self.is_sequence(p)}

    def matches(self, directory: Path) -> bool:
        """Tell whether a directory is a sequence, or holds some."""
        return self.is_sequence(directory) or (self.several and bool(self.sequences(directory)))

    def open_directory(self, directory: Path, options: SourceOptions) -> RecordedSource:
        """Open a sequence, or the one of several that ``options`` name.

        Raises:
            ConfigurationError: an option that means nothing here.
            SourceError: files are missing or damaged, or there are several sequences.

        """
        sequence = directory
        if not self.several:
            options.refuse(str(directory), "sequence")
        elif not self.is_sequence(directory):
            sequence = choose(directory, self.sequences(directory), options.sequence)
        return RecordedSource(self.layout(sequence, options), options)


class RecordedSource:
    """A sequence of a data set; files are read when their frame's turn has come."""

    def __init__(self, layout: Layout, options: SourceOptions) -> None:
        """Choose the frames.

        Raises:
            ConfigurationError: an option that means nothing here.
            SourceError: no frame is left.

        """
        options.refuse(str(layout.path), "topic", "depth_topic", "truth", "room", "width", "height")
        self._layout = layout
        self._indices = selected(options, len(layout.records), str(layout.path))
        chosen = [layout.records[index] for index in self._indices]
        poses, remarks = true_poses([each.pose for each in chosen], layout.name)
        self._records = [replace(each, pose=pose) for each, pose in zip(chosen, poses, strict=True)]
        self.name, self.kind = layout.name, layout.kind
        self.truth_stamps = layout.truth_stamps
        self.warnings = [*layout.warnings, *remarks, *self._gaps()]
        self._unreadable = 0

    @property
    def frame_count(self) -> int:
        """Number of frames taken."""
        return len(self._records)

    def __iter__(self) -> Iterator[EvaluationFrame]:
        """Yield the frames."""
        bits = BitsInUse()
        for record in self._records:
            decode = partial(_decode, record.image, bits)
            frame = Frame(record.stamp, FRAME_ID, decode, bits=bits)
            depth = self._depth(record)
            camera = self._camera(record.intrinsics, depth)
            yield EvaluationFrame(frame, FrameTruth(record.pose, depth, camera))

    def describe(self) -> dict[str, Any]:
        """Return where frames and truth come from."""
        with_depth = sum(each.depth is not None for each in self._records)
        with_pose = sum(each.pose is not None for each in self._records)
        return {
            "kind": self.kind,
            "name": self.name,
            "path": str(self._layout.path),
            "digest": self._digest(),
            "frames": {"of": len(self._layout.records), "start": self._indices.start,
                       "stride": self._indices.step, "taken": len(self._records)},
            "with_depth": with_depth,
            "with_pose": with_pose,
            **self._layout.provenance,
        }  # fmt: skip

    def _gaps(self) -> Iterator[str]:
        for part, files in (
            ("pose", [each.pose for each in self._records]),
            ("depth", [each.depth for each in self._records]),
        ):
            known = sum(each is not None for each in files)
            if known < len(files):
                yield f"{len(files) - known} of {len(files)} frames have no true {part}"
        if any(each.intrinsics is None and each.depth is not None for each in self._records):
            yield "intrinsics are unknown, so that clouds cannot be judged; give fx, fy, cx, cy"

    def _depth(self, record: Record) -> Depth | None:
        if record.depth is None:
            return None
        try:
            return self._layout.read_depth(record.depth)
        except FrameError as error:
            self._warn(str(error))
            return None

    def _camera(self, camera: Intrinsics | None, depth: Depth | None) -> Intrinsics | None:
        """Return the camera of the depth, where that has another size than the image."""
        if camera is None or depth is None or depth.shape == (camera.height, camera.width):
            return camera
        height, width = depth.shape
        shape = "" if camera.has_shape_of(width, height) else ", in another shape"
        self._warn(
            f"depth is {width}x{height} and its camera {camera.width}x{camera.height}{shape}: it "
            "is taken to show the same image; check that the depth is registered to it"
        )
        return camera.at_size(width, height)

    def _warn(self, text: str) -> None:
        if text in self.warnings:
            return
        self._unreadable += 1
        if self._unreadable <= MOST_WARNINGS:
            self.warnings.append(text)

    def _digest(self) -> str:
        """Return a hash over names and sizes of the images, which tells recordings apart."""
        sha = hashlib.sha256()
        for record in self._records:
            size = record.image.stat().st_size if record.image.exists() else -1
            sha.update(f"{record.image.name}\0{size}\0".encode())
        return sha.hexdigest()[:16]


def _decode(path: Path, bits: BitsInUse) -> ImageArray:
    try:
        return decode_encoded(path.read_bytes(), bits=bits)
    except OSError as error:
        raise FrameError(f"cannot read {path}: {error.strerror}") from error
    except FrameError as error:
        raise FrameError(f"{path}: {error}") from error
