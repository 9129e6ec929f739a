# SPDX-License-Identifier: Apache-2.0
"""A sequence as a directory of images, which every command of this package reads."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

import numpy as np

from xsvggt_ros.geometry.files import replacing
from xsvggt_ros.geometry.rigid import Matrix
from xsvggt_ros.geometry.trajectory_io import Trajectory, seconds_text, write_tum
from xsvggt_ros.synthetic.images import png
from xsvggt_ros.synthetic.sequence import SyntheticFrame


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
