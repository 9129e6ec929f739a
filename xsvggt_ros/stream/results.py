# SPDX-License-Identifier: Apache-2.0
"""The files that a recording leaves behind."""

from __future__ import annotations

import logging
import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from xsvggt_ros.cache.settings import CacheSettings
from xsvggt_ros.errors import ConfigurationError, OutputError
from xsvggt_ros.geometry.cameras import Intrinsics
from xsvggt_ros.geometry.cloud_io import write_ply
from xsvggt_ros.geometry.files import replacing, write_each
from xsvggt_ros.geometry.trajectory_io import seconds_text, write_tum
from xsvggt_ros.stream.overview import write_overview
from xsvggt_ros.stream.recording import Recording

if TYPE_CHECKING:
    from xsvggt_ros.stream.ground_truth import TruthComparison


STEPS_PER_UNIT = 1000
"""Of a 16-bit PNG: thousandths of the model's unit, so millimetres where that is metres."""

MOST_STEPS = 65535

TABLE = "cameras.csv"

_OWN = re.compile(r"[0-9]{6,}\.(png|npy)")
"""Names of depth maps."""

logger = logging.getLogger(__name__)


class DepthFiles:
    """Writes one depth map per frame, and ``cameras.csv`` with the pinhole camera of each.

    ``png`` is 16 bit, STEPS_PER_UNIT to a unit, 0 where unknown or out of range; ``npy`` is
    float32, NaN where unknown. With the first file, those of an earlier run go, so that no two are
    mixed. After one that cannot be written, no more are.

    Attributes:
        failure: why writing ended early; None while it goes well.

    """

    def __init__(self, directory: Path, kind: str) -> None:
        """Make the directory; raise ConfigurationError for an unknown kind."""
        if kind not in ("png", "npy"):
            raise ConfigurationError(f"depth format '{kind}' is unknown; choose png or npy")
        self._directory = directory
        self._kind = kind
        self.failure: OutputError | None = None
        self._rows = ["file,timestamp,fx,fy,cx,cy,width,height"]

    def write(self, stamp: int, depth: NDArray[np.float32], camera: Intrinsics) -> None:
        """Write the depth of one frame and note its camera.

        Args:
            stamp: nanoseconds.
            depth: [h, w].
            camera: of that size.

        """
        if self.failure is not None:
            return
        name = f"{len(self._rows) - 1:06d}.{self._kind}"
        try:
            if len(self._rows) == 1:
                self._remove_earlier()
                self.close()  # Even a run that is killed leaves the mark of its files.
            with replacing(self._directory / name) as stream:
                if self._kind == "npy":
                    np.save(stream, depth)
                else:
                    stream.write(cv2.imencode(".png", depth_steps(depth))[1].tobytes())
        except OutputError as error:
            self.failure = error
            logger.warning("no more depth is written after %d maps: %s", len(self._rows) - 1, error)
            return
        numbers = ",".join(f"{v:.6f}" for v in (camera.fx, camera.fy, camera.cx, camera.cy))
        size = f"{camera.width},{camera.height}"
        self._rows.append(f"{name},{seconds_text(stamp)},{numbers},{size}")

    def _remove_earlier(self) -> None:
        """Remove what an earlier run wrote here, and nothing else."""
        if not (self._directory / TABLE).is_file():
            return
        try:
            for each in self._directory.iterdir():
                if each.name == TABLE or _OWN.fullmatch(each.name):
                    each.unlink()
        except OSError as error:
            raise OutputError(
                f"'{self._directory}' holds depth of an earlier run that cannot be removed "
                f"({error.strerror}); choose another place"
            ) from error

    def close(self) -> Path:
        """Write the table of cameras so far; return the directory."""
        with replacing(self._directory / TABLE) as stream:
            stream.write("\n".join([*self._rows, ""]).encode("ascii"))
        return self._directory


def depth_steps(depth: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Return depth [h, w] in STEPS_PER_UNIT; 0 where it is unknown, not positive or too far."""
    steps = np.rint(depth.astype(np.float64) * STEPS_PER_UNIT)
    steps[~((steps > 0) & (steps <= MOST_STEPS))] = 0
    return steps.astype(np.uint16)


def write_results(
    recording: Recording, directory: Path, heading: str, comparison: TruthComparison | None = None
) -> list[Path]:
    """Write cloud.ply, trajectory.tum and overview.png; return their paths.

    The camera's path comes first, since a kilobyte fits on most full disks.

    Args:
        recording: what is written.
        directory: of the files.
        heading: of the overview.
        comparison: with the truth; adds to the overview.

    Raises:
        PartlyWrittenError: some cannot be written; the others are.

    """
    paths = [directory / name for name in ("cloud.ply", "trajectory.tum", "overview.png")]
    cloud, path, overview = paths
    write_each(
        {
            path: partial(write_tum, path, recording.trajectory()),
            overview: partial(write_overview, overview, recording, heading, comparison),
            cloud: partial(write_ply, cloud, *recording.cloud.arrays()),
        }
    )
    return paths


def title(source: str, weights: str, cache: CacheSettings, frames: int) -> str:
    """Return the heading of an overview; of a long path, it shows the end.

    Args:
        source: of the images.
        weights: a file, or a name.
        cache: settings in force.
        frames: number of frames.

    """
    source, weights = (str(Path(*Path(each).parts[-2:])) for each in (source, weights))
    return f"{source}  ·  {weights}  ·  {cache.words}  ·  {frames} frames"
