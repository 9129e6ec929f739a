# SPDX-License-Identifier: Apache-2.0
"""Bonn as MonST3R prepares it: images 30 to 139 of a sequence, depth paired by order.

J. Zhang et al., "MonST3R", ICLR 2025: ``rgb_110/`` and ``depth_110/``. Where these directories are
missing, the same files are taken from ``rgb/`` and ``depth/``. Pairing by order is looser than by
stamp, and is kept because published figures rest on it.
"""

from __future__ import annotations

from pathlib import Path

from xsvggt_ros.errors import SourceError
from xsvggt_ros.evaluation.sources.base import SourceOptions
from xsvggt_ros.evaluation.sources.depth_reading import steps
from xsvggt_ros.evaluation.sources.files import has, images
from xsvggt_ros.evaluation.sources.recorded import Layout, Record, RecordedSource
from xsvggt_ros.evaluation.sources.sizes import image_size
from xsvggt_ros.evaluation.sources.tum import CAMERAS, STEPS_PER_METRE
from xsvggt_ros.geometry.cameras import Intrinsics
from xsvggt_ros.stream.sources.base import stamp_at

RATE = 30.0
FIRST, LAST = 30, 140


def open_prepared(directory: Path) -> RecordedSource:
    """Open a sequence.

    Raises:
        SourceError: files are missing.

    """
    if has(directory, "rgb_110", "depth_110"):
        colors, depths = images(directory / "rgb_110"), images(directory / "depth_110")
    else:
        colors = images(directory / "rgb")[FIRST:LAST]
        depths = images(directory / "depth")[FIRST:LAST]
    if not colors or len(colors) > len(depths):
        raise SourceError(
            f"{directory} has {len(colors)} images from number {FIRST} on and {len(depths)} "
            "depths; is the sequence complete?"
        )
    camera = Intrinsics(*CAMERAS["bonn"], *image_size(colors[0]))
    records = [
        Record(stamp_at(index, RATE), color, depth, None, camera)
        for index, (color, depth) in enumerate(zip(colors, depths[: len(colors)], strict=True))
    ]
    provenance = {"poses": "none", "depth": "paired by order"}
    layout = Layout("bonn", directory, directory.name, records, steps(STEPS_PER_METRE), provenance)
    return RecordedSource(layout, SourceOptions())
