# SPDX-License-Identifier: Apache-2.0
"""The robot around the camera, as far as TF knows it, image by image."""

from __future__ import annotations

from collections.abc import Callable

from rclpy.node import Node

from xsvggt_ros.errors import TransformMissingError, TransformTimeError
from xsvggt_ros.geometry.rigid import Matrix
from xsvggt_ros.geometry.robot_frames import RobotPose
from xsvggt_ros.ros.parameters import Settings
from xsvggt_ros.ros.transform_listener import TransformListener
from xsvggt_ros.ros.transform_owners import TransformOwners
from xsvggt_ros.stream.frame import Frame


class TransformLookup:
    """Looks up the transforms of each frame, on the worker's thread.

    A frame whose transforms are missing is refused before the network has seen it: an identity in
    their place would bend the map for good.
    """

    def __init__(self, node: Node, settings: Callable[[], Settings]) -> None:
        self._node = node
        self._settings = settings
        self._listener: TransformListener | None = None
        self._follows = False
        self.owners = TransformOwners()
        """Who broadcasts which transforms."""

    def listen(self) -> None:
        """Subscribe to TF; follow it where its transforms are needed."""
        settings = self._settings()
        self._follows = bool(settings.frames.base) or settings.tf.odometry == "external"
        if settings.frames.base:
            self.owners.note_carrier(settings.frames.base)
        self._listener = TransformListener(self._node, self.owners, follow=self._follows)

    def match_publishers(self) -> None:
        """Subscribe again if the publishers of TF now offer another reliability."""
        if self._listener is not None:
            self._listener.match_publishers()

    def close(self) -> None:
        """Unsubscribe from TF."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
            self.owners.forget()

    def look_up(self, frame: Frame) -> RobotPose:
        """Return the transforms of the robot at the time of a frame, as far as they are needed.

        Raises:
            TransformMissingError: it has not come within ``tf.timeout``.

        """
        if not self._follows:
            return RobotPose()
        settings = self._settings()
        carrier = settings.frames.base or frame.frame_id
        external = settings.tf.odometry == "external"
        odometry = self._pose(settings.frames.odom, carrier, frame) if external else None
        camera = self._pose(carrier, frame.frame_id, frame) if settings.frames.base else None
        return RobotPose(camera, odometry)

    def _pose(self, target: str, source: str, frame: Frame) -> Matrix:
        listener = self._listener
        if listener is None:  # unsubscribed while this frame was waiting
            raise TransformMissingError("the node was deactivated; activate it again")
        timeout, odom = self._settings().tf.timeout, self._settings().frames.odom
        try:
            return listener.wait_for(target, source, frame.stamp, timeout)
        except TransformTimeError as error:
            raise TransformMissingError(
                f"{error}. It was waited for {timeout:g} s: raise tf.timeout where it comes later, "
                "or have its broadcaster and the camera stamp by one clock"
            ) from error
        except TransformMissingError as error:
            names = ["frames.base", "frames.odom"] if target == odom else ["frames.base"]
            if not frame.camera:  # frames.camera is none of a rig's parameters
                names.append("frames.camera")
            raise TransformMissingError(
                f"{error}. It was waited for {timeout:g} s (tf.timeout): broadcast it, or correct "
                f"{' or '.join(names)}"
            ) from error
