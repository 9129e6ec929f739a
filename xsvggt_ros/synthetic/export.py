# SPDX-License-Identifier: Apache-2.0
"""Writes a sequence where other programs can read it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from xsvggt_ros.errors import ConfigurationError, OutputError
from xsvggt_ros.geometry.cameras import Intrinsics
from xsvggt_ros.geometry.files import UNFINISHED, replacing, replacing_directory, require_writable
from xsvggt_ros.geometry.rigid import Matrix
from xsvggt_ros.geometry.trajectory_io import Trajectory, seconds_text, write_tum
from xsvggt_ros.synthetic.export_bag import BagWriter
from xsvggt_ros.synthetic.sequence import Sequence, SyntheticFrame

JPEG_QUALITY = 95


def png(image: NDArray[np.uint8] | NDArray[np.uint16]) -> bytes:
    """Return RGB [H, W, 3] or 16-bit [H, W] as PNG, without loss."""
    return _encoded(".png", image, [])


def jpeg(image: NDArray[np.uint8]) -> bytes:
    """Return RGB [H, W, 3] as JPEG."""
    return _encoded(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])


def depth_steps(depth: NDArray[np.float32], steps: float) -> NDArray[np.uint16]:
    """Return depth in 1/``steps`` metres, 0 where it is out of range."""
    scaled = np.rint(depth.astype(np.float64) * steps)
    scaled[~((scaled > 0) & (scaled <= 65535))] = 0
    return scaled.astype(np.uint16)


def _encoded(
    suffix: str, image: NDArray[np.uint8] | NDArray[np.uint16], options: list[int]
) -> bytes:
    ordered = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image
    good, data = cv2.imencode(suffix, ordered, options)
    assert good, f"OpenCV cannot write {suffix}"
    return bytes(data)


class DirectoryWriter:
    """Writes ``NNNNNN.png``, and beside them what is true about them.

    ``depth/NNNNNN.npy`` is float32 in metres along the optical axis, ``trajectory.tum`` the pose of
    the camera's optical frame in a z-up world, ``cameras.csv`` the pinhole camera of each image.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._stamps: list[int] = []
        self._poses: list[Matrix] = []
        self._rows = ["file,timestamp,fx,fy,cx,cy,width,height"]

    def __enter__(self) -> DirectoryWriter:
        """Return itself."""
        return self

    def add(self, frame: SyntheticFrame) -> None:
        """Write image and depth of one frame."""
        name = f"{frame.index:06d}"
        with replacing(self._directory / f"{name}.png") as stream:
            stream.write(png(frame.color))
        with replacing(self._directory / "depth" / f"{name}.npy") as stream:
            np.save(stream, frame.depth)
        k = frame.intrinsics
        numbers = ",".join(f"{value:.6f}" for value in (k.fx, k.fy, k.cx, k.cy))
        self._rows.append(f"{name}.png,{seconds_text(frame.stamp)},{numbers},{k.width},{k.height}")
        self._stamps.append(frame.stamp)
        self._poses.append(frame.camera_to_world)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Write trajectory and cameras of the frames so far."""
        if self._stamps:
            write_tum(
                self._directory / "trajectory.tum", Trajectory.from_poses(self._stamps, self._poses)
            )
            with replacing(self._directory / "cameras.csv") as stream:
                stream.write("\n".join([*self._rows, ""]).encode("ascii"))


STEPS_PER_METRE = 5000
"""Of the benchmark's 16-bit depth; what lies beyond 13.1 m is 0, unknown."""


class TumWriter:
    """Writes ``rgb/``, ``depth/``, their lists, ``groundtruth.txt`` and ``calibration.txt``."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._stamps: list[int] = []
        self._poses: list[Matrix] = []
        self._intrinsics: Intrinsics | None = None

    def __enter__(self) -> TumWriter:
        """Return itself."""
        return self

    def add(self, frame: SyntheticFrame) -> None:
        """Write image and depth of one frame."""
        name = f"{seconds_text(frame.stamp)}.png"
        with replacing(self._directory / "rgb" / name) as stream:
            stream.write(png(frame.color))
        with replacing(self._directory / "depth" / name) as stream:
            stream.write(png(depth_steps(frame.depth, STEPS_PER_METRE)))
        self._stamps.append(frame.stamp)
        self._poses.append(frame.camera_to_world)
        self._intrinsics = frame.intrinsics

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Write the lists of the frames so far."""
        if self._intrinsics is None:
            return
        for part in ("rgb", "depth"):
            lines = [f"{seconds_text(s)} {part}/{seconds_text(s)}.png" for s in self._stamps]
            with replacing(self._directory / f"{part}.txt") as stream:
                stream.write("\n".join(["# timestamp filename", *lines, ""]).encode("ascii"))
        write_tum(
            self._directory / "groundtruth.txt", Trajectory.from_poses(self._stamps, self._poses)
        )
        k = self._intrinsics
        with replacing(self._directory / "calibration.txt") as stream:
            stream.write(f"# fx fy cx cy\n{k.fx:.9f} {k.fy:.9f} {k.cx} {k.cy}\n".encode("ascii"))


class FrameWriter(Protocol):
    """Takes the frames of a sequence, one after the other."""

    def add(self, frame: SyntheticFrame) -> None:
        """Write one frame."""
        ...


FORMATS: dict[str, Callable[[Path], AbstractContextManager[FrameWriter]]] = {
    "directory": DirectoryWriter,
    "bag": BagWriter,
    "tum": TumWriter,
}
"""directory: images, depth, cameras and trajectory. bag: rosbag2 (mcap). tum: as TUM RGB-D."""


def write_sequence(
    sequence: Sequence,
    destination: Path,
    kind: str,
    each: Callable[[int], None] = lambda done: None,
) -> Path:
    """Write a sequence, whole or not at all; ``each`` is called with the frames done.

    Raises:
        ConfigurationError: an unknown format.
        OutputError: the place is taken, or nothing can be written there.

    """
    if kind not in FORMATS:
        raise ConfigurationError(f"format '{kind}' is unknown; choose one of {', '.join(FORMATS)}")
    if destination.exists() and (
        not destination.is_dir() or any(entry.name != UNFINISHED for entry in destination.iterdir())
    ):
        raise OutputError(
            f"'{destination}' exists and is not empty; choose another place or remove it"
        )
    require_writable(destination)
    with replacing_directory(destination) as place, FORMATS[kind](place) as writer:
        for done, frame in enumerate(sequence, start=1):
            writer.add(frame)
            each(done)
    return destination
