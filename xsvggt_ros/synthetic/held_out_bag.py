# SPDX-License-Identifier: Apache-2.0
"""The beginning of a sequence as a bag that replaces the one before."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from xsvggt_ros.errors import OutputError
from xsvggt_ros.geometry.files import replacing_directory
from xsvggt_ros.synthetic.export_bag import BagWriter
from xsvggt_ros.synthetic.sequence import Sequence


def write_beginning(
    sequence: Sequence, frames: int, place: Path, each: Callable[[int], None] = lambda done: None
) -> None:
    """Write the first ``frames`` frames as a bag that is there whole or not at all.

    Args:
        sequence: what is rendered.
        frames: how many of them, from the first one on.
        place: directory of the bag; another bag there is replaced.
        each: hears the number of frames rendered after every one.

    Raises:
        OutputError: nothing can be written there, or it holds something else than a bag.

    """
    if place.exists() and not (place / "metadata.yaml").is_file():
        raise OutputError(f"'{place}' is not a bag; remove it or choose another place")
    with replacing_directory(place) as unfinished, BagWriter(unfinished) as writer:
        for index in range(frames):
            writer.add(sequence.frame(index))
            each(index + 1)
