# SPDX-License-Identifier: Apache-2.0
"""The files that a recording leaves behind."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from xsvggt_ros.cache.settings import CacheSettings
from xsvggt_ros.geometry.cloud_io import write_ply
from xsvggt_ros.geometry.files import write_each
from xsvggt_ros.geometry.trajectory_io import write_tum
from xsvggt_ros.stream.overview import write_overview
from xsvggt_ros.stream.recording import Recording

if TYPE_CHECKING:
    from xsvggt_ros.stream.ground_truth import Comparison


def write_results(
    recording: Recording, directory: Path, heading: str, comparison: Comparison | None = None
) -> list[Path]:
    """Write cloud.ply, trajectory.tum and overview.png; return their paths.

    The camera's path comes first, since a kilobyte fits on most full disks. ``comparison`` with the
    truth adds to the overview.

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
    """Return the heading of an overview; of a long path it shows the end."""
    source, weights = (str(Path(*Path(each).parts[-2:])) for each in (source, weights))
    return f"{source}  ·  {weights}  ·  {cache.words}  ·  {frames} frames"
