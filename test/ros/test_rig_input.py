# SPDX-License-Identifier: Apache-2.0
"""The cameras of the node, by name."""

from __future__ import annotations

import numpy as np
import pytest

REASON = "needs ROS 2: run scripts/test, or source a workspace"
pytest.importorskip("rclpy", reason=REASON)

from rclpy.node import Node

from xsvggt_ros.ros.image_input import RigInput
from xsvggt_ros.ros.parameters import Input, Settings
from xsvggt_ros.stream.frame import Frame
from xsvggt_ros.stream.pipeline import Activity
from xsvggt_ros.stream.worker import FrameQueue

SECOND = 1_000_000_000


@pytest.mark.parametrize("name", ["", "left"])
def test_frames_of_one_camera_carry_its_name(node: Node, name: str) -> None:
    settings = Settings(input=Input(cameras=name))
    queue = FrameQueue("latest", 1)
    rig = RigInput(node, settings, queue, lambda: Activity("idle", 0.0))
    (camera,) = rig.cameras
    camera._put(Frame(7, "optical", lambda: np.zeros((1, 1, 3), np.uint8)))
    rig.close()
    frame = queue.take()
    assert frame is not None
    assert (frame.stamp, frame.camera) == (7, name)


def _rig(node: Node, cameras: str) -> tuple[RigInput, FrameQueue]:
    settings = Settings(input=Input(cameras=cameras, rig_wait=0.0))
    queue = FrameQueue("latest", 9)
    return RigInput(node, settings, queue, lambda: Activity("idle", 0.0)), queue


def _frame(stamp: int) -> Frame:
    return Frame(stamp, "optical", lambda: np.zeros((1, 1, 3), np.uint8))


@pytest.mark.parametrize("cameras", ["", "left right"])
def test_a_wrong_stamp_is_marked_counted_and_disturbs_nothing(node: Node, cameras: str) -> None:
    rig, queue = _rig(node, cameras)
    first = rig.cameras[0]
    for stamp in (10 * SECOND, 10 * SECOND + 1, 15 * SECOND, 10 * SECOND + 2):
        first._put(_frame(stamp))
        for other in rig.cameras[1:]:
            other._put(_frame(min(stamp, 10 * SECOND + 2)))
    rig._look()
    taken = [queue.take() for _ in range(len(queue))]
    own = [frame for frame in taken if frame and frame.camera == first.camera]
    assert [frame.stamp - 10 * SECOND for frame in own if not frame.fault] == [0, 1, 2]
    assert [frame.stamp for frame in own if frame.fault] == [15 * SECOND]
    assert rig.outliers(first.camera) == 1
    rig.close()


def test_a_camera_of_another_clock_is_told_with_the_remedy(node: Node) -> None:
    rig, _ = _rig(node, "left right")
    left, right = rig.cameras
    for i in range(5):
        left._arrived(100 * SECOND + i)
        right._arrived(60 * SECOND + i)
    (warning,) = rig.clock_warnings()
    assert "camera 'right' lives in another clock: its stamps are 40.0 s behind" in warning
    assert "have all drivers stamp by one clock" in warning
    rig.close()


def test_what_is_held_at_the_end_counts_as_dropped(node: Node) -> None:
    rig, queue = _rig(node, "")
    rig.cameras[0]._put(_frame(10 * SECOND))
    rig.cameras[0]._put(_frame(SECOND))
    first = queue.take()
    assert first is not None
    assert (first.stamp, len(queue)) == (10 * SECOND, 0)
    rig.close()
    assert queue.counts() == (2, 1)
