# SPDX-License-Identifier: Apache-2.0
"""The transforms of each frame, looked up in what others broadcast."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from rclpy.node import Node
from tf2_msgs.msg import TFMessage

from xsvggt_ros.errors import TransformMissingError, TransformTimeError
from xsvggt_ros.geometry.rigid import Matrix
from xsvggt_ros.geometry.robot_frames import RobotPose
from xsvggt_ros.ros import qos
from xsvggt_ros.ros.parameters import Settings
from xsvggt_ros.ros.subscriptions import SmallSubscription
from xsvggt_ros.ros.transform_buffer import TransformBuffer
from xsvggt_ros.ros.transforms import TransformOwners, broadcast
from xsvggt_ros.stream.frame import Frame

logger = logging.getLogger(__name__)


class TransformListener:
    """Fills a buffer on the executor's thread; another thread may wait for what is still to come.

    That of tf2_ros hears nothing of best-effort publishers on /tf, nor of volatile ones on
    /tf_static, such as a bag that is played without its QoS.
    """

    def __init__(self, node: Node, owners: TransformOwners, *, follow: bool) -> None:
        """Listen; ``owners`` hears of the links of others, the buffer only where it follows."""
        self._owners = owners
        self._follow = follow
        self._buffer = TransformBuffer()
        self._refused: set[tuple[str, str]] = set()
        self._subscriptions = [
            SmallSubscription(
                node,
                TFMessage,
                topic,
                partial(self._receive, static),
                depth=qos.TRANSFORMS_DEPTH,
                latched=static,
            )
            for topic, static in (("/tf", False), ("/tf_static", True))
        ]

    def match_publishers(self) -> None:
        """Subscribe again where the publishers now ask for another reliability."""
        for subscription in self._subscriptions:
            subscription.match_publishers()

    def close(self) -> None:
        """Unsubscribe, and let go who waits."""
        for subscription in self._subscriptions:
            subscription.close()
        self._buffer.close()

    def wait_for(self, target: str, source: str, stamp: int, timeout: float) -> Matrix:
        """Return the pose of ``source`` in ``target`` at a time in nanoseconds, [4, 4].

        Waits ``timeout`` seconds for it at most, because a transform often comes after the image
        that it belongs to.

        Raises:
            TransformMissingError: it has not come; the message says what is known.

        """
        return self._buffer.wait_for(target, source, stamp, timeout)

    def _receive(self, static: bool, message: TFMessage) -> None:
        for transform in message.transforms:
            link = broadcast(transform)
            if self._owners.comes_back(link):
                continue
            parent, child, _, _ = link
            self._owners.note_foreign(parent, child, static=static)
            if not self._follow:
                continue
            if fault := self._buffer.insert(transform, static=static):
                self._warn(parent, child, fault)

    def _warn(self, parent: str, child: str, fault: str) -> None:
        """Tell of a transform that was refused, once for each link."""
        if (parent, child) not in self._refused:
            self._refused.add((parent, child))
            logger.warning("the transform from '%s' to '%s' is %s", parent, child, fault)


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
