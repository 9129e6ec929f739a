# SPDX-License-Identifier: Apache-2.0
"""Back-pressure without a waiting executor."""

from __future__ import annotations

from typing import Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup

from xsvggt_ros.stream.frame_queue import FrameQueue


class BackPressureGroup(MutuallyExclusiveCallbackGroup):
    """Leaves messages in the middleware while a queue that must not drop is full.

    Whoever makes room must wake the executor, because it waits for nothing of this group then.
    """

    def __init__(self, queue: FrameQueue) -> None:
        super().__init__()
        self._queue = queue

    @property
    def holding(self) -> bool:
        """Return whether messages are left where they are."""
        return self._queue.policy == "all" and self._queue.full

    def can_execute(self, entity: Any) -> bool:
        """Return whether the executor may take a message of ``entity``."""
        return not self.holding and super().can_execute(entity)
