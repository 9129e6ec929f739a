# SPDX-License-Identifier: Apache-2.0
"""The files that a recording leaves behind."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from xsvggt_ros.cache.settings import CacheSettings
from xsvggt_ros.geometry.cloud_io import write_ply
from xsvggt_ros.geometry.trajectory_io import write_tum
from xsvggt_ros.stream.overview import write_overview
from xsvggt_ros.stream.recording import Recording

if TYPE_CHECKING:
    from xsvggt_ros.stream.ground_truth import Comparison


def write_results(
    recording: Recording, folder: Path, heading: str, comparison: Comparison | None = None
) -> list[Path]:
    """Write cloud.ply, trajectory.tum and overview.png; return their paths.

    ``comparison`` with the truth adds to the overview.

    Raises:
        OutputError: they cannot be written.

    """
    paths = [folder / name for name in ("cloud.ply", "trajectory.tum", "overview.png")]
    write_ply(paths[0], *recording.cloud.arrays())
    write_tum(paths[1], recording.trajectory())
    write_overview(paths[2], recording, heading, comparison)
    return paths


def title(source: str, weights: str, cache: CacheSettings, frames: int) -> str:
    """Return the heading of an overview; of a long path it shows the end."""
    source, weights = (str(Path(*Path(each).parts[-2:])) for each in (source, weights))
    return f"{source}  ·  {weights}  ·  {cache.words}  ·  {frames} frames"
