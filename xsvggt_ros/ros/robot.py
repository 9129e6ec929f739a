# SPDX-License-Identifier: Apache-2.0
"""The robot around the camera, as far as TF knows it, image by image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from rclpy.node import Node

from xsvggt_ros.errors import TransformMissingError, TransformTimeError
from xsvggt_ros.geometry.rigid import OPTICAL_TO_BODY, Matrix
from xsvggt_ros.geometry.robot_frames import (
    Placement,
    RobotPose,
    camera_pose,
    map_from_world,
    place,
)
from xsvggt_ros.ros.parameters import Settings
from xsvggt_ros.ros.transform_listener import TransformListener
from xsvggt_ros.ros.transform_owners import TransformOwners
from xsvggt_ros.stream.frame import Frame, FrameResult, ImageArray


class Robot:
    """Looks up the transforms of each image before it is decoded, on the worker's thread.

    An image whose transforms are missing is refused there, before the network has seen it: an
    identity in their place would bend the map for good.
    """

    def __init__(self, node: Node, settings: Callable[[], Settings]) -> None:
        self._node = node
        self._settings = settings
        self._listener: TransformListener | None = None
        self._follows = False
        self.owners = TransformOwners()
        """Who broadcasts which transforms."""
        self._in_hand = RobotPose()
        self.map_from_world: Matrix = OPTICAL_TO_BODY
        """Where the session's world lies in the map, [4, 4]."""

    def listen(self) -> None:
        """Begin to listen to TF, and to follow it where it is needed."""
        settings = self._settings()
        self._follows = bool(settings.frames.base) or settings.tf.odometry == "external"
        if settings.frames.base:
            self.owners.note_carrier(settings.frames.base)
        self._listener = TransformListener(self._node, self.owners, follow=self._follows)

    def match_publishers(self) -> None:
        """Listen again where the publishers of TF now ask for another reliability."""
        if self._listener is not None:
            self._listener.match_publishers()

    def close(self) -> None:
        """Stop to listen to TF."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
            self.owners.forget()

    def noted(self, frame: Frame) -> Frame:
        """Return the frame such that decoding it looks up its transforms first."""
        if not self._follows:
            return frame
        return replace(frame, decode=lambda: self._decode(frame))

    def carrier(self, camera: str) -> str:
        """Return the frame whose pose is published."""
        return self._settings().frames.base or camera

    def camera_on(self, carrier: Matrix) -> Matrix:
        """Return the pose of the camera in hand, where its carrier's is known, [4, 4]."""
        return camera_pose(carrier, self._in_hand)

    def place(self, result: FrameResult) -> Placement:
        """Return where everything is; the first result of a session defines the map."""
        if result.index == 0:
            self.map_from_world = map_from_world(self._in_hand)
        return place(self.map_from_world, result.camera_to_world, self._in_hand)

    def _decode(self, frame: Frame) -> ImageArray:
        settings = self._settings()
        carrier = self.carrier(frame.frame_id)
        external = settings.tf.odometry == "external"
        odometry = self._pose(settings.frames.odom, carrier, frame) if external else None
        camera = self._pose(carrier, frame.frame_id, frame) if settings.frames.base else None
        self._in_hand = RobotPose(camera, odometry)
        return frame.decode()

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
