# SPDX-License-Identifier: Apache-2.0
"""Back-pressure without a waiting executor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup

from xsvggt_ros.stream.frame_queue import FrameQueue


class BackPressureGroup(MutuallyExclusiveCallbackGroup):
    """Leaves messages in the middleware while a queue that must not drop is full.

    Whoever makes room must wake the executor, because it waits for nothing of this group then.
    """

    def __init__(self, queue: FrameQueue, full: Callable[[], bool] = lambda: False) -> None:
        """Hold back while the queue, or what stands before it, is ``full``."""
        super().__init__()
        self._queue = queue
        self._full = full

    @property
    def holding(self) -> bool:
        """Return whether messages are left where they are."""
        return self._queue.policy == "all" and (self._queue.full or self._full())

    def can_execute(self, entity: Any) -> bool:
        """Return whether the executor may take a message of ``entity``."""
        return not self.holding and super().can_execute(entity)
