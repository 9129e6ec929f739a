# SPDX-License-Identifier: Apache-2.0
"""Stand-in for tf2_py: a buffer of coordinate frames with the public API of the real one.

For environments without a ROS 2 distribution. Semantics follow tf2: parents may change over time,
dynamic transforms are interpolated and never extrapolated, time zero asks for the latest.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import acos, isfinite, isnan, sin, sqrt
from threading import RLock
from typing import Any

from builtin_interfaces.msg import Time as TimeMessage
from geometry_msgs.msg import Quaternion, Transform, TransformStamped, Vector3
from rclpy.duration import Duration
from rclpy.logging import get_logger
from rclpy.time import Time
from std_msgs.msg import Header

__all__ = [
    "BufferCore",
    "ConnectivityException",
    "ExtrapolationException",
    "InvalidArgumentException",
    "LookupException",
    "TimeoutException",
    "TransformException",
]

_SECOND = 1_000_000_000
_CACHE_SECONDS = 10
_MOST_LINKS = 1000
_SMALL_ANGLE = 1e-9

Numbers = tuple[float, float, float, float, float, float, float]
"""Translation x, y, z and quaternion x, y, z, w of a child in its parent."""
_IDENTITY: Numbers = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0)


class TransformException(Exception):  # noqa: N818 - the name in tf2_py
    """Base of everything that a buffer raises."""


class ConnectivityException(TransformException):
    """The frames are not part of one tree."""


class LookupException(TransformException):
    """A frame is unknown."""


class ExtrapolationException(TransformException):
    """The time lies outside of what the buffer holds."""


class InvalidArgumentException(TransformException):
    """A frame's name is empty or begins with a slash."""


class TimeoutException(TransformException):
    """A wait was over."""


@dataclass(frozen=True, slots=True)
class _Sample:
    stamp: int
    parent: str
    numbers: Numbers


@dataclass(slots=True)
class _Link:
    """Where one frame was in its parent, over time; a static one holds one sample for ever."""

    static: bool
    authority: str = ""
    samples: list[_Sample] = field(default_factory=list)

    def insert(self, sample: _Sample, cache: int) -> bool:
        if self.static:
            self.samples = [sample]
            return True
        if self.samples:
            oldest = self.samples[-1].stamp - cache
            del self.samples[: bisect_left(self.samples, oldest, key=_stamp)]
            if sample.stamp < oldest:
                return False
        # Of several at one time, the newest counts from then on, the oldest until then.
        first = bisect_left(self.samples, sample.stamp, key=_stamp)
        behind = bisect_right(self.samples, sample.stamp, key=_stamp)
        if sample not in self.samples[first:behind]:
            self.samples.insert(behind, sample)
        return True

    def at(self, stamp: int) -> _Sample:
        """Return the sample at a time, 0 being the latest; raise ExtrapolationException."""
        if self.static or (not stamp and self.samples):
            return self.samples[-1]
        after = bisect_right(self.samples, stamp, key=_stamp)
        if after and self.samples[after - 1].stamp == stamp:
            earliest = after < len(self.samples) and self.samples[0].stamp == stamp
            return self.samples[0 if earliest else after - 1]
        if after in (0, len(self.samples)):
            raise ExtrapolationException(self._outside(stamp))
        before, behind = self.samples[after - 1], self.samples[after]
        if before.parent != behind.parent:
            return before
        ratio = (stamp - before.stamp) / (behind.stamp - before.stamp)
        return _Sample(stamp, before.parent, _between(before.numbers, behind.numbers, ratio))

    def _outside(self, stamp: int) -> str:
        asked, known = f"{stamp / _SECOND:.6f}", self.samples
        if len(known) < 2:
            only = known[0].stamp if known else 0
            return (
                f"Lookup would require extrapolation at time {asked}, but only time "
                f"{only / _SECOND:.6f} is in the buffer"
            )
        if stamp > known[-1].stamp:
            return (
                "Lookup would require extrapolation into the future.  Requested time "
                f"{asked} but the latest data is at time {known[-1].stamp / _SECOND:.6f}"
            )
        return (
            "Lookup would require extrapolation into the past.  Requested time "
            f"{asked} but the earliest data is at time {known[0].stamp / _SECOND:.6f}"
        )


class BufferCore:
    """Takes transforms and answers where frames are in each other; may be used on any thread."""

    def __init__(self, cache_time: Duration | None = None) -> None:
        self._cache = cache_time.nanoseconds if cache_time else _CACHE_SECONDS * _SECOND
        self._links: dict[str, _Link] = {}
        self._names: dict[str, None] = {}
        self._lock = RLock()

    def clear(self) -> None:
        """Forget all dynamic transforms."""
        with self._lock:
            for link in self._links.values():
                if not link.static:
                    link.samples.clear()

    def set_transform(self, transform: TransformStamped, authority: str) -> None:
        """Take in a transform that holds at its stamp."""
        self._set(transform, authority, static=False)

    def set_transform_static(self, transform: TransformStamped, authority: str) -> None:
        """Take in a transform that holds for ever."""
        self._set(transform, authority, static=True)

    def can_transform_core(
        self, target_frame: str, source_frame: str, time: Time | TimeMessage
    ) -> tuple[bool, str]:
        """Return whether a look-up would succeed now, and what stands in its way."""
        try:
            self.lookup_transform_core(target_frame, source_frame, time)
        except TransformException as error:
            return False, str(error)
        return True, ""

    def can_transform_full_core(
        self,
        target_frame: str,
        target_time: Time | TimeMessage,
        source_frame: str,
        source_time: Time | TimeMessage,
        fixed_frame: str,
    ) -> tuple[bool, str]:
        """Return the same for a look-up between two times."""
        try:
            self.lookup_transform_full_core(
                target_frame, target_time, source_frame, source_time, fixed_frame
            )
        except TransformException as error:
            return False, str(error)
        return True, ""

    def lookup_transform_core(
        self, target_frame: str, source_frame: str, time: Time | TimeMessage
    ) -> TransformStamped:
        """Return the pose of ``source_frame`` in ``target_frame``; raise a TransformException."""
        with self._lock:
            stamp, numbers = self._look_up(target_frame, source_frame, _nanoseconds(time))
        return _message(stamp, target_frame, source_frame, numbers)

    def lookup_transform_full_core(
        self,
        target_frame: str,
        target_time: Time | TimeMessage,
        source_frame: str,
        source_time: Time | TimeMessage,
        fixed_frame: str,
    ) -> TransformStamped:
        """Return the pose of a frame at one time in another at another one."""
        with self._lock:
            self._check(target_frame, source_frame, fixed_frame)
            _, later = self._look_up(fixed_frame, source_frame, _nanoseconds(source_time))
            stamp, fixed = self._look_up(target_frame, fixed_frame, _nanoseconds(target_time))
        return _message(stamp, target_frame, source_frame, _unit(_product(fixed, later)))

    def get_latest_common_time(self, target_frame: str, source_frame: str) -> Time:
        """Return the latest time at which the pose of one frame in the other is known."""
        with self._lock:
            self._check(target_frame, source_frame)
            target, source = self._paths(target_frame, source_frame, 0)
            return Time(nanoseconds=self._common_time([*target, *source]))

    def all_frames_as_yaml(self) -> str:
        """Return every frame that has a parent, as tf2_tools reads them."""
        with self._lock:
            parts = [_described(name, link) for name, link in self._links.items() if link.samples]
        return "".join(parts) if parts or self._names else "[]"

    def all_frames_as_string(self) -> str:
        """Return every frame with its parent, in words."""
        with self._lock:
            return "".join(
                f"Frame {name} exists with parent {link.samples[-1].parent}.\n"
                for name, link in self._known_links()
            )

    def _known_links(self) -> Iterator[tuple[str, _Link]]:
        """Yield the frames that have a parent now, in the order in which they were heard of."""
        for name in self._names:
            link = self._links.get(name)
            if link is not None and link.samples:
                yield name, link

    def _set(self, transform: TransformStamped, authority: str, *, static: bool) -> None:
        parent = transform.header.frame_id.removeprefix("/")
        child = transform.child_frame_id.removeprefix("/")
        moved, turned = transform.transform.translation, transform.transform.rotation
        numbers = (moved.x, moved.y, moved.z, turned.x, turned.y, turned.z, turned.w)
        if fault := _fault(parent, child, numbers):
            get_logger("tf2").error(f'{fault} (authority "{authority}")')
            return
        sample = _Sample(_nanoseconds(transform.header.stamp), parent, _unit(numbers))
        with self._lock:
            self._names |= {child: None, parent: None}
            link = self._links.get(child)
            if link is None or link.static != static:
                link = self._links[child] = _Link(static)
            if link.insert(sample, self._cache):
                link.authority = authority
                return
        get_logger("tf2").warning(
            f"TF_OLD_DATA ignoring data from the past for frame {child} at time "
            f"{sample.stamp / _SECOND:.6f} according to authority {authority}"
        )

    def _look_up(self, target: str, source: str, stamp: int) -> tuple[int, Numbers]:
        if target == source:
            return stamp or self._latest(target), _IDENTITY
        self._check(target, source)
        if not stamp:
            stamp = self._common_time([name for p in self._paths(target, source, 0) for name in p])
        above_target, above_source = self._paths(target, source, stamp)
        below_target = self._climb(above_target, stamp)
        return stamp, _unit(_product(_inverse(below_target), self._climb(above_source, stamp)))

    def _check(self, target: str, source: str, fixed: str | None = None) -> None:
        roles = {"target_frame": target, "source_frame": source}
        if fixed is not None:
            roles["fixed_frame"] = fixed
        for role, name in roles.items():
            passed = f'"{name}" passed to lookupTransform argument {role}'
            if not name or name.startswith("/"):
                what = "cannot start with a '/'" if name else "cannot be empty"
                raise InvalidArgumentException(
                    f"Invalid argument {passed} - in tf2 frame_ids {what}"
                )
            if name not in self._names:
                raise LookupException(f"{passed} does not exist. ")

    def _paths(self, target: str, source: str, stamp: int) -> tuple[list[str], list[str]]:
        """Return the frames from either one up to below the first that both hang from."""
        up, up_fault = self._ancestors(source, stamp)
        down, down_fault = self._ancestors(target, stamp)
        shared = next((name for name in up if name in down), None)
        if shared is not None:
            return down[: down.index(shared)], up[: up.index(shared)]
        if fault := down_fault or up_fault:
            raise ExtrapolationException(
                f"{fault}, when looking up transform from frame [{source}] to frame [{target}]"
            )
        raise ConnectivityException(
            f"Could not find a connection between '{target}' and '{source}' because they are not "
            "part of the same tree.Tf has two or more unconnected trees."
        )

    def _ancestors(self, name: str, stamp: int) -> tuple[list[str], str]:
        """Return a frame and those above it, and why it goes no further, empty at a root."""
        names = [name]
        while (link := self._links.get(names[-1])) is not None:
            if len(names) > _MOST_LINKS:
                raise LookupException(
                    "The tf tree is invalid because it contains a loop.\n"
                    f"{self.all_frames_as_string()}\n"
                )
            if not stamp and not link.samples:
                break
            try:
                names.append(link.at(stamp).parent)
            except ExtrapolationException as error:
                return names, str(error)
        return names, ""

    def _latest(self, name: str) -> int:
        link = self._links.get(name)
        return 0 if link is None or link.static or not link.samples else link.samples[-1].stamp

    def _common_time(self, names: Sequence[str]) -> int:
        links = [self._links[name] for name in names]
        return min((link.samples[-1].stamp for link in links if not link.static), default=0)

    def _climb(self, names: Sequence[str], stamp: int) -> Numbers:
        """Return the pose of the first of ``names`` in the parent of the last one."""
        pose = _IDENTITY
        for name in names:
            pose = _product(self._links[name].at(stamp).numbers, pose)
        return pose


def _stamp(sample: _Sample) -> int:
    return sample.stamp


def _nanoseconds(time: Any) -> int:
    if isinstance(time, Time):
        return int(time.nanoseconds)
    return int(time.sec) * _SECOND + int(time.nanosec)


def _fault(parent: str, child: str, numbers: Numbers) -> str:
    if parent == child:
        return f'TF_SELF_TRANSFORM: Ignoring transform of frame "{child}" in itself'
    if not child:
        return "TF_NO_CHILD_FRAME_ID: Ignoring transform because child_frame_id not set"
    if not parent:
        return f'TF_NO_FRAME_ID: Ignoring transform with child_frame_id "{child}"'
    # A quaternion of any other length is brought to 1, as tf2 does by way of a matrix.
    if any(map(isnan, numbers)) or not all(map(isfinite, numbers[3:])) or not any(numbers[3:]):
        return f'TF_NAN_INPUT: Ignoring transform for child_frame_id "{child}": {numbers}'
    return ""


def _message(stamp: int, parent: str, child: str, numbers: Numbers) -> TransformStamped:
    x, y, z, qx, qy, qz, qw = numbers
    seconds, rest = divmod(stamp, _SECOND)
    return TransformStamped(
        header=Header(stamp=TimeMessage(sec=seconds, nanosec=rest), frame_id=parent),
        child_frame_id=child,
        transform=Transform(
            translation=Vector3(x=x, y=y, z=z), rotation=Quaternion(x=qx, y=qy, z=qz, w=qw)
        ),
    )


def _described(name: str, link: _Link) -> str:
    first, last = link.samples[0].stamp / _SECOND, link.samples[-1].stamp / _SECOND
    if link.static:
        first = last = 0.0
    return (
        f"{name}: \n  parent: '{link.samples[-1].parent}'\n  broadcaster: '{link.authority}'\n"
        f"  rate: {len(link.samples) / max(last - first, 1e-4):.3f}\n"
        f"  most_recent_transform: {last:.6f}\n  oldest_transform: {first:.6f}\n"
        f"  buffer_length: {last - first:.3f}\n"
    )


def _product(outer: Numbers, inner: Numbers) -> Numbers:
    """Return the pose ``inner`` of something, moved by ``outer``."""
    ax, ay, az, aw = outer[3:]
    bx, by, bz, bw = inner[3:]
    x, y, z = _turned(outer, inner[:3])
    return (
        x + outer[0],
        y + outer[1],
        z + outer[2],
        aw * bx + ax * bw + ay * bz - az * by,
        aw * by - ax * bz + ay * bw + az * bx,
        aw * bz + ax * by - ay * bx + az * bw,
        aw * bw - ax * bx - ay * by - az * bz,
    )


def _unit(pose: Numbers) -> Numbers:
    """Return a pose with the quaternion that tf2 reads off a matrix: of unit length, with w > 0.

    Below half a unit of w, the largest of the others is the positive one.
    """
    quaternion = pose[3:]
    length = sqrt(sum(number * number for number in quaternion))
    leading = quaternion[3] if 2.0 * abs(quaternion[3]) > length else max(quaternion[:3], key=abs)
    x, y, z, w = (number / (-length if leading < 0.0 else length) for number in quaternion)
    return (pose[0], pose[1], pose[2], x, y, z, w)


def _inverse(pose: Numbers) -> Numbers:
    qx, qy, qz, qw = pose[3:]
    turned_back: Numbers = (0.0, 0.0, 0.0, -qx, -qy, -qz, qw)
    x, y, z = _turned(turned_back, pose[:3])
    return (-x, -y, -z, -qx, -qy, -qz, qw)


def _turned(pose: Numbers, vector: Sequence[float]) -> tuple[float, float, float]:
    """Return a vector turned by the rotation of a pose, which need not be quite of unit length."""
    qx, qy, qz, qw = pose[3:]
    vx, vy, vz = vector
    scale = 2.0 / (qx * qx + qy * qy + qz * qz + qw * qw)
    tx, ty, tz = qy * vz - qz * vy, qz * vx - qx * vz, qx * vy - qy * vx
    return (
        vx + scale * (qw * tx + qy * tz - qz * ty),
        vy + scale * (qw * ty + qz * tx - qx * tz),
        vz + scale * (qw * tz + qx * ty - qy * tx),
    )


def _between(before: Numbers, behind: Numbers, ratio: float) -> Numbers:
    """Return a pose on the straight line between two, turned evenly, the short way."""
    moved = [a + (b - a) * ratio for a, b in zip(before[:3], behind[:3], strict=True)]
    cosine = sum(a * b for a, b in zip(before[3:], behind[3:], strict=True))
    sign = -1.0 if cosine < 0.0 else 1.0
    angle = acos(min(abs(cosine), 1.0))
    if angle < _SMALL_ANGLE:
        first, second = 1.0 - ratio, sign * ratio
    else:
        first = sin((1.0 - ratio) * angle) / sin(angle)
        second = sign * sin(ratio * angle) / sin(angle)
    x, y, z, w = (first * a + second * b for a, b in zip(before[3:], behind[3:], strict=True))
    return (moved[0], moved[1], moved[2], x, y, z, w)
