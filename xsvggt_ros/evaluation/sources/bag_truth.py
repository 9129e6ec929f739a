# SPDX-License-Identifier: Apache-2.0
"""True poses of a bag over time: from TF, from a topic, or from a file beside it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from xsvggt_ros.errors import FrameError, SourceError
from xsvggt_ros.evaluation.request import NO_TRUTH
from xsvggt_ros.evaluation.sources.truth_files import read_truth, true_poses
from xsvggt_ros.geometry.rigid import Matrix, interpolate, invert, is_pose, is_rotation, pose_from
from xsvggt_ros.paths import in_home
from xsvggt_ros.stream.messages import Topic, frame_name, nanoseconds
from xsvggt_ros.stream.sources.bag_reader import BagReader


class TimedPoses:
    """Poses of one frame in another; a pose between two known ones is interpolated."""

    def __init__(self, stamps: Sequence[int], poses: Sequence[Matrix], tolerance: int) -> None:
        """Take poses [4, 4] at stamps in nanoseconds, in any order.

        A pose is known at most ``tolerance`` nanoseconds from a stamp. Of equal stamps the last one
        counts.
        """
        latest = dict(zip(stamps, poses, strict=True))
        self.stamps: NDArray[np.int64] = np.array(sorted(latest), np.int64)
        self._poses = [latest[int(stamp)] for stamp in self.stamps]
        self._tolerance = tolerance

    def __len__(self) -> int:
        """Return the number of known poses."""
        return len(self._poses)

    def at(self, stamp: int) -> Matrix | None:
        """Return the pose [4, 4] at a stamp in nanoseconds; None where none is near enough."""
        after = int(np.searchsorted(self.stamps, stamp))
        if after < len(self) and self.stamps[after] == stamp:
            return self._poses[after]
        near = [
            index
            for index in (after - 1, after)
            if 0 <= index < len(self) and abs(int(self.stamps[index]) - stamp) <= self._tolerance
        ]
        if len(near) == 2:
            first, second = (int(self.stamps[index]) for index in near)
            share = (stamp - first) / (second - first)
            return between(self._poses[near[0]], self._poses[near[1]], share)
        return self._poses[near[0]] if near else None


class FixedPose:
    """A pose that holds at all times, such as one of ``/tf_static``."""

    def __init__(self, pose: Matrix) -> None:
        self._pose = pose

    def at(self, stamp: int) -> Matrix | None:
        """Return the pose [4, 4], the same at every stamp."""
        return self._pose


def between(first: Matrix, second: Matrix, share: float) -> Matrix:
    """Return the pose [4, 4] at a share of the way: straight, turning evenly about one axis.

    The rotation is NaN where either is not known.
    """
    if is_rotation(first[:3, :3]) and is_rotation(second[:3, :3]):
        return interpolate(first, second, share)
    pose = np.eye(4)
    pose[:3, :3] = np.nan
    pose[:3, 3] = (1 - share) * first[:3, 3] + share * second[:3, 3]
    return pose


ARROW = "->"
TRANSFORMS = ("tf2_msgs/msg/TFMessage", "tf/msg/tfMessage")

NAMES_OF_TRUTH = (
    "ground_truth",
    "groundtruth",
    "ground-truth",
    "/gt",
    "mocap",
    "vicon",
    "optitrack",
)
"""A pose topic with one of these in its name is taken for the truth without being asked for."""


_BODY = "poses of EuRoC are those of the body (IMU), not of the camera"


class Poses(Protocol):
    """Camera-to-world poses at stamps."""

    def at(self, stamp: int) -> Matrix | None:
        """Return the pose [4, 4] at a stamp in nanoseconds, or None."""
        ...


class BagTruth(NamedTuple):
    """What a bag says about the camera's true poses.

    Attributes:
        poses: by stamp; None where there are none.
        by_index: one per image, of a file without stamps; None otherwise.
        origin: in words, for reports.
        warnings: what a reader of results must know.
        stamps: of the first and the last true pose, nanoseconds, where they have any.

    """

    poses: Poses | None
    by_index: list[Matrix | None] | None
    origin: str
    warnings: tuple[str, ...] = ()
    stamps: tuple[int, int] | None = None


class _Stamped(NamedTuple):
    stamp: int
    child: str
    pose: Matrix


def _pose(message: Any) -> Matrix:
    p, q = message.position, message.orientation
    return pose_from(np.array([p.x, p.y, p.z]), np.array([q.x, q.y, q.z, q.w]))


def _transform(message: Any) -> Matrix:
    t, q = message.translation, message.rotation
    return pose_from(np.array([t.x, t.y, t.z]), np.array([q.x, q.y, q.z, q.w]))


def _time(header: Any) -> int:
    return nanoseconds(header.stamp)


POSE_KINDS: dict[str, Callable[[Any], _Stamped]] = {
    "nav_msgs/msg/Odometry": lambda m: _Stamped(
        _time(m.header), m.child_frame_id, _pose(m.pose.pose)
    ),
    "geometry_msgs/msg/PoseStamped": lambda m: _Stamped(_time(m.header), "", _pose(m.pose)),
    "geometry_msgs/msg/PoseWithCovarianceStamped": lambda m: _Stamped(
        _time(m.header), "", _pose(m.pose.pose)
    ),
    "geometry_msgs/msg/TransformStamped": lambda m: _Stamped(
        _time(m.header), m.child_frame_id, _transform(m.transform)
    ),
}
"""Types of topics that can give poses, and how."""


def find_truth(
    reader: BagReader, wanted: str | None, camera_frame: str, tolerance: int
) -> BagTruth:
    """Return the true poses of the camera.

    Args:
        reader: an open bag.
        wanted: a topic, two frames as ``map->camera``, a file, ``none``, or None: the only topic
            whose name says that it is the truth.
        camera_frame: the images' ``frame_id``.
        tolerance: nanoseconds by which stamps may differ.

    Raises:
        SourceError: what is wanted is not there, or nothing is and several would do; the message
            lists them.

    """
    if wanted == NO_TRUTH:
        return BagTruth(None, None, NO_TRUTH)
    if wanted and ARROW in wanted:
        return _from_frames(reader, wanted, tolerance)
    if wanted and in_home(wanted).is_file():
        return _from_file(in_home(wanted), tolerance)
    topics = [each for each in reader.topics() if each.holds(*POSE_KINDS)]
    topic = _choose(topics, wanted)
    if topic is None:
        return BagTruth(None, None, "none", (_nothing_chosen(topics),))
    return _from_topic(reader, topic, camera_frame, tolerance)


def _choose(topics: list[Topic], wanted: str | None) -> Topic | None:
    listed = ", ".join(map(str, topics)) or "none"
    if wanted is not None:
        for each in topics:
            if each.name.strip("/") == wanted.strip("/"):
                return each
        raise SourceError(
            f"the truth '{wanted}' is neither a file nor a topic with poses; such topics are "
            f"{listed}. For TF give two frames, such as 'map->camera_optical_frame'"
        )
    named = [each for each in topics if any(part in each.name for part in NAMES_OF_TRUTH)]
    if len(named) > 1:
        raise SourceError(
            f"{len(named)} topics look like ground truth: choose one (--truth), or 'none'; they "
            f"are {', '.join(map(str, named))}"
        )
    return named[0] if named else None


def _nothing_chosen(topics: list[Topic]) -> str:
    if not topics:
        return "the bag has no topic with poses, so that the path cannot be judged"
    return (
        "no topic is called ground truth, so that the path is not judged; --truth takes one of "
        f"{', '.join(each.name for each in topics)}, two TF frames, or a file"
    )


def _from_file(path: Path, tolerance: int) -> BagTruth:
    found = read_truth(path)
    origin = f"{path.name} ({found.kind})"
    poses, remarks = true_poses(found.poses, path.name)
    if not any(each is not None for each in poses):
        raise SourceError(f"{path} holds no pose that is finite and has a rotation")
    if found.stamps is None:
        return BagTruth(None, poses, origin, tuple(remarks))
    track, stamps = _track(found.stamps, poses, tolerance)
    body = (_BODY,) if found.kind == "euroc" else ()
    return BagTruth(track, None, origin, (*remarks, *body), stamps)


def _track(
    stamps: Sequence[int], poses: Sequence[Matrix | None], tolerance: int
) -> tuple[TimedPoses, tuple[int, int]]:
    """Return the poses that there are over time, and the times of the first and the last."""
    known = [(s, pose) for s, pose in zip(stamps, poses, strict=True) if pose is not None]
    times = [stamp for stamp, _ in known]
    return TimedPoses(times, [pose for _, pose in known], tolerance), (min(times), max(times))


def _from_topic(reader: BagReader, topic: Topic, camera_frame: str, tolerance: int) -> BagTruth:
    stamped = list(_read(reader, topic))
    poses, remarks = true_poses([each.pose for each in stamped], topic.name)
    if not any(each is not None for each in poses):
        raise SourceError(f"no message of {topic.name} holds a pose; choose another truth")
    child, camera_frame = frame_name(stamped[0].child), frame_name(camera_frame)
    track, stamps = _track([each.stamp for each in stamped], poses, tolerance)
    if child == camera_frame:
        return BagTruth(track, None, topic.name, tuple(remarks), stamps)
    mount = TransformTree(reader, tolerance).fixed(child, camera_frame) if child else None
    if mount is None:
        whose = f"of '{child}'" if child else "of an unnamed frame"
        warning = (
            f"{topic.name} gives poses {whose}, images come from '{camera_frame}', and no static "
            "transform leads from one to the other: they are taken for the camera's, so that "
            "clouds cannot be trusted and a lever arm counts as error"
        )
        return BagTruth(track, None, topic.name, (*remarks, warning), stamps)
    chain = _Chain([(track, False), (FixedPose(mount), False)])
    return BagTruth(chain, None, topic.name, tuple(remarks), stamps)


def _read(reader: BagReader, topic: Topic) -> Iterable[_Stamped]:
    for recorded in reader.messages(topic):
        try:
            stamped = POSE_KINDS[topic.kind](reader.deserialize(recorded))
            yield stamped if stamped.stamp else stamped._replace(stamp=recorded.received)
        except (FrameError, AttributeError, TypeError, ValueError):
            continue  # One damaged pose of many is a gap that the next ones close.


def _from_frames(reader: BagReader, wanted: str, tolerance: int) -> BagTruth:
    world, _, camera = (frame_name(part.strip()) for part in wanted.partition(ARROW))
    tree = TransformTree(reader, tolerance)
    chain = tree.chain(world, camera)
    remarks = (
        (f"{tree.lost} transforms are none (not finite, or no rotation): they are left out",)
        if tree.lost
        else ()
    )
    return BagTruth(chain, None, f"TF {world} {ARROW} {camera}", remarks, tree.stamps)


class _Chain:
    """A product of poses, some of them inverted."""

    def __init__(self, links: list[tuple[Poses, bool]]) -> None:
        self._links = links

    def at(self, stamp: int) -> Matrix | None:
        whole = np.eye(4)
        for poses, inverted in self._links:
            pose = poses.at(stamp)
            if pose is None:
                return None
            whole = whole @ (invert(pose) if inverted else pose)
        return whole


class TransformTree:
    """All transforms of a bag; memory grows with their number."""

    def __init__(self, reader: BagReader, tolerance: int) -> None:
        """Read ``/tf`` and ``/tf_static``."""
        moving: dict[tuple[str, str], list[_Stamped]] = defaultdict(list)
        self._edges: dict[str, tuple[str, Poses]] = {}
        self._fixed: set[str] = set()
        self.lost = 0
        """Transforms that are none."""
        self.stamps: tuple[int, int] | None = None
        """Times of the first and the last moving transform, nanoseconds."""
        topics = [each for each in reader.topics() if each.holds(*TRANSFORMS)]
        for recorded in reader.messages(*topics):
            for parent, each in _transforms(reader, recorded):
                if not is_pose(each.pose):
                    self.lost += 1
                elif recorded.topic.endswith("tf_static"):
                    self._edges[each.child] = parent, FixedPose(each.pose)
                    self._fixed.add(each.child)
                else:
                    moving[each.child, parent].append(each)
        for (child, parent), stamped in moving.items():
            track = TimedPoses([s.stamp for s in stamped], [s.pose for s in stamped], tolerance)
            self._edges[child] = parent, track
            times = [int(track.stamps[0]), int(track.stamps[-1]), *(self.stamps or ())]
            self.stamps = min(times), max(times)
            self._fixed.discard(child)

    @property
    def frames(self) -> list[str]:
        """Names of all frames."""
        return sorted({*self._edges, *(parent for parent, _ in self._edges.values())})

    def chain(self, world: str, camera: str) -> Poses:
        """Return the poses of ``camera`` in ``world``.

        Raises:
            SourceError: one of them is unknown, or nothing joins them.

        """
        for frame in (world, camera):
            if frame not in self.frames:
                raise SourceError(
                    f"TF of this bag has no frame '{frame}'; its frames are "
                    f"{', '.join(self.frames) or 'none'}"
                )
        up, down = self._ancestry(world), self._ancestry(camera)
        common = next((frame for frame in down if frame in up), None)
        if common is None:
            raise SourceError(f"TF of this bag does not join '{world}' and '{camera}'")
        outward = [(self._edges[frame][1], True) for frame in up[: up.index(common)]]
        inward = [(self._edges[frame][1], False) for frame in down[: down.index(common)]]
        return _Chain([*outward, *reversed(inward)])

    def fixed(self, parent: str, child: str) -> Matrix | None:
        """Return ``parent_from_child`` [4, 4] where only static transforms join them, else None."""
        if parent == child:
            return np.eye(4)
        if not {parent, child} <= set(self.frames):
            return None
        up, down = self._ancestry(parent), self._ancestry(child)
        common = next((frame for frame in down if frame in up), None)
        used = {*up[: up.index(common)], *down[: down.index(common)]} if common else {""}
        return self.chain(parent, child).at(0) if used <= self._fixed else None

    def _ancestry(self, frame: str) -> list[str]:
        """Return a frame, its parent, and so on up to the root."""
        path = [frame]
        while path[-1] in self._edges and self._edges[path[-1]][0] not in path:
            path.append(self._edges[path[-1]][0])
        return path


def _transforms(reader: BagReader, recorded: Any) -> list[tuple[str, _Stamped]]:
    """Return parent and transform of each part of a message; of a damaged one, nothing."""
    try:
        return [
            (
                frame_name(each.header.frame_id),
                _Stamped(
                    _time(each.header) or recorded.received,
                    frame_name(each.child_frame_id),
                    _transform(each.transform),
                ),
            )
            for each in reader.deserialize(recorded).transforms
        ]
    except (FrameError, AttributeError, TypeError, ValueError):
        return []
