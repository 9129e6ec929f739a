# SPDX-License-Identifier: Apache-2.0
"""Transforms over time: a thin layer over the buffer of tf2_ros.

It refuses invalid transforms, names the known frames in its errors, starts again when the time of
a link jumps back, and lets any thread wait without an executor. Poses are ``target_from_source``,
float64 [4, 4].
"""

from __future__ import annotations

from threading import Condition
from time import monotonic

import numpy as np
from geometry_msgs.msg import Transform, TransformStamped, Vector3
from nav_msgs.msg import Odometry
from rclpy.time import Time
from std_msgs.msg import Header
from tf2_ros import Buffer, ExtrapolationException, TransformException

from xsvggt_ros.errors import TransformMissingError, TransformTimeError
from xsvggt_ros.geometry.rigid import Matrix, PoseTuple, pose_fault
from xsvggt_ros.ros.conversions import transform_matrix
from xsvggt_ros.stream.messages import frame_name, nanoseconds

HISTORY = 10_000_000_000
"""Nanoseconds that the buffer keeps, the default of tf2."""
SHORTEST_JUMP = 1_000_000_000
"""Nanoseconds by which the time of a link must go back to count as a jump."""
_AUTHORITY = "xsvggt_ros"


class TransformBuffer:
    """Stores transforms in any order and looks up the pose of one frame in another; thread-safe."""

    def __init__(self) -> None:
        # Without a node: the buffer's service would outlive it, and the node's clock knows nothing
        # about the stamps of a recording that is played without /clock.
        self._buffer = Buffer()
        self._changed = Condition()
        self._closed = False
        self._frames: set[str] = set()
        self._newest: dict[str, int] = {}
        self._cleared: dict[str, float] = {}

    def close(self) -> None:
        """Release all waiting threads."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def insert(self, transform: TransformStamped, *, static: bool = False) -> str | None:
        """Store a transform; a new parent of a frame replaces the one before.

        Args:
            transform: frame names may begin with a slash, as in ROS 1.
            static: whether it is valid for ever, or at its stamp.

        Returns:
            Why it was refused, with the remedy; None if it was stored.

        """
        child = transform.child_frame_id = frame_name(transform.child_frame_id)
        parent = transform.header.frame_id = frame_name(transform.header.frame_id)
        if not parent or not child or parent == child:
            return "between these names, and refused: name two different frames"
        if fault := pose_fault(pose_tuple(transform)):
            return fault
        with self._changed:
            self._frames |= {parent, child}
            if static:
                self._buffer.set_transform_static(transform, _AUTHORITY)
            else:
                self._start_again_after_a_jump(child, nanoseconds(transform.header.stamp))
                self._buffer.set_transform(transform, _AUTHORITY)
            self._changed.notify_all()
        return None

    def lookup(self, target: str, source: str, stamp: int) -> Matrix:
        """Return ``target_from_source`` at a time, float64 [4, 4].

        Args:
            target: frame in which the pose is wanted.
            source: frame whose pose is wanted.
            stamp: nanoseconds.

        Raises:
            TransformTimeError: a link is not known at that time.
            TransformMissingError: an unknown frame, or frames that are not connected; the message
                says which, and what is known.

        """
        if target == source:
            return np.eye(4)
        try:
            found = self._buffer.lookup_transform_core(target, source, Time(nanoseconds=stamp))
        except ExtrapolationException as error:
            raise TransformTimeError(
                f"the transform from '{target}' to '{source}' is not known at "
                f"{stamp / 1e9:.3f} s: {_sentence(error)}"
            ) from error
        except TransformException as error:
            raise TransformMissingError(self._missing(target, source, error)) from error
        return transform_matrix(found.transform)

    def wait_for(self, target: str, source: str, stamp: int, timeout: float) -> Matrix:
        """Return what :meth:`lookup` does, waiting for it to be known.

        Args:
            target: frame in which the pose is wanted.
            source: frame whose pose is wanted.
            stamp: nanoseconds.
            timeout: seconds.

        Raises:
            TransformMissingError: it has not come; the message says what is known.

        """
        deadline = monotonic() + timeout
        with self._changed:
            while True:
                try:
                    return self.lookup(target, source, stamp)
                except TransformMissingError:
                    left = deadline - monotonic()
                    if left <= 0 or self._closed:
                        raise
                self._changed.wait(left)

    @property
    def frames(self) -> list[str]:
        """All frames that were ever told of, sorted."""
        return sorted(self._frames)

    def _start_again_after_a_jump(self, child: str, stamp: int) -> None:
        """Forget what lies in another time, which tf2 would mix with what comes now.

        A link of two broadcasters whose clocks differ jumps all the time: it empties the buffer
        once in its length only, so that the other links stay usable.
        """
        newest = self._newest.get(child, stamp)
        self._newest[child] = stamp if stamp <= newest - SHORTEST_JUMP else max(stamp, newest)
        if stamp > newest - SHORTEST_JUMP:
            return
        now = monotonic()
        if now - self._cleared.get(child, -HISTORY) >= HISTORY / 1e9:
            self._cleared[child] = now
            self._buffer.clear()

    def _missing(self, target: str, source: str, error: TransformException) -> str:
        frames = self.frames
        known = ", ".join(frames) or "none"
        unknown = [f"'{name}'" for name in (target, source) if name not in frames]
        if unknown:
            return f"no transform tells of frame {' and '.join(unknown)}; known are {known}"
        if "loop" in str(error):
            return f"the transforms above frame '{source}' or '{target}' form a loop; mend them"
        return f"frames '{target}' and '{source}' are not connected; known are {known}"


def pose_tuple(transform: TransformStamped) -> PoseTuple:
    """Return the numbers of a transform."""
    moved, turned = transform.transform.translation, transform.transform.rotation
    return moved.x, moved.y, moved.z, turned.x, turned.y, turned.z, turned.w


def transform_of(message: Odometry, parent: str, child: str) -> TransformStamped:
    """Return the pose of an odometry as the transform between two frames.

    Args:
        message: says the pose.
        parent: frame of the transform.
        child: likewise.

    """
    position = message.pose.pose.position
    return TransformStamped(
        header=Header(stamp=message.header.stamp, frame_id=parent),
        child_frame_id=child,
        transform=Transform(
            translation=Vector3(x=position.x, y=position.y, z=position.z),
            rotation=message.pose.pose.orientation,
        ),
    )


def _sentence(error: TransformException) -> str:
    """Return what tf2 says, from its first letter on in the middle of a sentence."""
    text = " ".join(str(error).split())
    return text[:1].lower() + text[1:]
