# SPDX-License-Identifier: Apache-2.0
"""The newest camera_info beside the images, and what is to be done without one."""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import monotonic

from rclpy.node import Node
from sensor_msgs.msg import CameraInfo

from xsvggt_ros.geometry.cameras import Calibration, is_rectified_topic
from xsvggt_ros.ros import qos
from xsvggt_ros.ros.small_subscription import SmallSubscription
from xsvggt_ros.ros.topics import calibration_topic, topics_of_type, type_name
from xsvggt_ros.stream.messages import calibration_of

logger = logging.getLogger(__name__)

LONGEST_WAIT = 1.0
"""Seconds that a first image waits for its camera_info, where somebody publishes that."""
SHORTEST_WAIT = 0.2
"""Seconds that it waits until a publisher is found."""


class CalibrationInput:
    """Keeps what the camera_info says."""

    def __init__(
        self,
        node: Node,
        images: str,
        camera: str = "",
        *,
        used: bool = True,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Subscribe.

        Args:
            node: whose subscription it is.
            images: resolved topic of the images.
            camera: name of one of several.
            used: whether anything is made of it; nobody misses it otherwise.
            clock: in seconds.

        """
        self._newest: Calibration | None = None
        self.topic = calibration_topic(node, images, camera)
        self._name = f"{camera}/camera_info" if camera else "camera_info"
        self._rectified = is_rectified_topic(images)
        self._warned_of: str | None = None
        self._node = node
        self._used = used
        self._clock = clock
        self._first_image: float | None = None
        self._missed = False
        self._subscription = SmallSubscription(
            node, CameraInfo, self.topic, self._receive, depth=qos.LARGE_DEPTH
        )

    def close(self) -> None:
        """Unsubscribe."""
        self._subscription.close()

    def match_publishers(self) -> None:
        """Subscribe again where the publishers now ask for another reliability."""
        self._subscription.match_publishers()

    def note_image(self) -> None:
        """Take note that images come."""
        if self._first_image is None:
            self._first_image = self._clock()

    @property
    def awaited(self) -> bool:
        """Whether an image that has come is to wait for it.

        image_transport sends an image before its camera_info, and the first image is what all
        others are measured by.
        """
        if self._newest is not None or not self._used or self._first_image is None:
            return False
        longest = LONGEST_WAIT if self._subscription.publisher_count else SHORTEST_WAIT
        return self._clock() - self._first_image < longest

    def missing(self, timeout: float) -> str | None:
        """Return what to say, once, where images come for ``timeout`` seconds without one."""
        if self._newest is not None or not self._used or self._first_image is None:
            return None
        if self._missed or self._clock() - self._first_image < timeout:
            return None
        self._missed = True
        others = [
            topic for topic in topics_of_type(self._node, type_name(CameraInfo))
            if topic != self.topic
        ]  # fmt: skip
        if self._subscription.publisher_count:
            why = "has a publisher, but nothing has come: see that the driver knows its calibration"
        elif others:
            listed = ", ".join(others)
            why = f"has no publisher: remap {self._name} to that of this camera, of {listed}"
        else:
            why = "has no publisher: have the driver load its calibration"
        return (
            f"{self.topic} {why}. Until then distortion stays in the images, and the field of "
            "view is the network's guess; set input.calibration to ignore where that is meant"
        )

    def of(self, frame_id: str) -> Calibration | None:
        """Return the calibration of the camera whose images carry ``frame_id``."""
        newest = self._newest
        if newest is None or newest.speaks_of(frame_id):
            return newest
        if newest.frame_id != self._warned_of:
            self._warned_of = newest.frame_id
            logger.warning(
                f"{self.topic} speaks of frame '{newest.frame_id}', the images are of "
                f"'{frame_id}': it is not used; remap {self._name} to that of their camera"
            )
        return None

    def _receive(self, message: CameraInfo) -> None:
        self._newest = calibration_of(message, rectified=self._rectified)
