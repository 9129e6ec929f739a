# SPDX-License-Identifier: Apache-2.0
"""The made-up room that `xsvggt demo` shows: a bag for the node, and the truth for the page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from xsvggt_ros.stream.recording import GroundTruth, TopView
from xsvggt_ros.synthetic.export import IMAGE_TOPIC, write_first_frames
from xsvggt_ros.synthetic.sequence import Sequence, held_out, room_from_above

SEQUENCE = "long_loop"
"""Of the held-out suite: laps through one room, so that places are seen again."""

BAG = "made_up_room"
"""What the bag is called in the output directory."""

TOPIC = IMAGE_TOPIC


class DemoRoom:
    """The beginning of a held-out sequence."""

    def __init__(self, most: int) -> None:
        """Take at most ``most`` frames."""
        self._sequence = Sequence(held_out(SEQUENCE))
        self.frames = min(most, len(self._sequence))
        self._index = {self._sequence.stamp(index): index for index in range(self.frames)}

    def write(self, directory: Path, each: Callable[[int], None]) -> Path:
        """Render the images into a bag in ``directory`` and return its path."""
        place = directory / BAG
        write_first_frames(self._sequence, self.frames, place, each)
        return place

    def truth(self) -> GroundTruth:
        """Return poses, depth and the room from above."""
        world = self._sequence.world
        (x, y, _), (to_x, to_y, _) = world.low.tolist(), world.high.tolist()
        poses = {stamp: self._sequence.poses[index] for stamp, index in self._index.items()}
        place = TopView(room_from_above(world), (x, y), (to_x, to_y))
        return GroundTruth(poses, self._depth, place)

    def _depth(self, stamp: int) -> NDArray[np.float32]:
        return self._sequence.frame(self._index[stamp]).depth
