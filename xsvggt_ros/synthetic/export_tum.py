# SPDX-License-Identifier: Apache-2.0
"""A sequence as a directory of the TUM RGB-D benchmark."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

from xsvggt_ros.geometry.cameras import Intrinsics
from xsvggt_ros.geometry.files import replacing
from xsvggt_ros.geometry.rigid import Matrix
from xsvggt_ros.geometry.trajectory_io import Trajectory, seconds_text, write_tum
from xsvggt_ros.synthetic.images import depth_steps, png
from xsvggt_ros.synthetic.sequence import SyntheticFrame

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
