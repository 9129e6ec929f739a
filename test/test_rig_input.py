# SPDX-License-Identifier: Apache-2.0
"""The cameras of the node, by name."""

from __future__ import annotations

import numpy as np
import pytest

REASON = "needs ROS 2: run scripts/test, or source a workspace"
pytest.importorskip("rclpy", reason=REASON)

from rclpy.node import Node

from xsvggt_ros.ros.parameters import Input, Settings
from xsvggt_ros.ros.rig_input import RigInput
from xsvggt_ros.stream.frame import Frame
from xsvggt_ros.stream.frame_queue import FrameQueue


@pytest.mark.parametrize("name", ["", "left"])
def test_frames_of_one_camera_carry_its_name(node: Node, name: str) -> None:
    taken: list[Frame] = []

    def noted(frame: Frame) -> Frame:
        taken.append(frame)
        return frame

    settings = Settings(input=Input(cameras=name))
    rig = RigInput(node, settings, FrameQueue("latest", 1), noted)
    (camera,) = rig.cameras
    camera._put(Frame(7, "optical", lambda: np.zeros((1, 1, 3), np.uint8)))
    rig.close()
    assert [(frame.stamp, frame.camera) for frame in taken] == [(7, name)]
