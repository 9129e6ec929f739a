# SPDX-License-Identifier: Apache-2.0
"""camera_info through the node, on real DDS."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

REASON = (
    "needs ROS 2 and this package's messages: run scripts/test, or build and source a workspace"
)
pytest.importorskip("rclpy", reason=REASON)
pytest.importorskip("tf2_msgs", reason=REASON)
pytest.importorskip("xsvggt_ros.msg", reason=REASON)

from node_process import TINY, NodeProcess, Peer, image_message
from rclpy.qos import ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, PointCloud2
from xsvggt_ros.msg import ReconstructionStatus

from xsvggt_ros.ros.conversions import header

SECOND = 1_000_000_000
OUTPUTS: dict[str, type[Any]] = {
    "/xsvggt/depth/camera_info": CameraInfo,
    "/xsvggt/points": PointCloud2,
    "/xsvggt/status": ReconstructionStatus,
}


def _info(frame_id: str) -> CameraInfo:
    return CameraInfo(
        header=header(SECOND, frame_id),
        width=64,
        height=48,
        distortion_model="plumb_bob",
        d=[-0.2, 0.05, 0.0, 0.0, 0.0],
        k=[60.0, 0.0, 31.0, 0.0, 61.0, 25.0, 0.0, 0.0, 1.0],
        p=[48.0, 0.0, 32.0, 0.0, 0.0, 48.0, 24.0, 0.0, 0.0, 0.0, 1.0, 0.0],
    )


def test_the_cameras_calibration_is_used_and_one_of_another_camera_is_not() -> None:
    with NodeProcess(TINY) as node, Peer(node.domain, OUTPUTS) as peer:
        infos = peer.publisher(
            "/camera_info", CameraInfo, reliability=ReliabilityPolicy.BEST_EFFORT
        )
        images = peer.publisher()
        stamp = SECOND

        def sent_until(frame_id: str, condition: Any) -> None:
            """Send both until they meet: nothing orders one topic behind another."""

            def once() -> bool:
                nonlocal stamp
                stamp += SECOND
                infos.publish(_info(frame_id))
                images.publish(image_message(stamp))
                peer.with_stamp("status", stamp)
                return bool(condition())

            peer.wait_until(once, f"a camera_info of '{frame_id}' that takes effect")

        sent_until("camera_optical", lambda: _sources(peer)[-1] == "calibrated")
        camera = peer.with_stamp("depth/camera_info", stamp)
        assert (camera.width, camera.height) == (56, 42)
        scale = 56 / 64
        expected = [48 * scale, 0, 32 * scale, 0, 48 * scale, 24 * scale, 0, 0, 1]
        np.testing.assert_allclose(camera.k, expected)
        np.testing.assert_allclose(camera.p.reshape(3, 4)[:, :3].ravel(), expected)
        assert not any(camera.d)
        cloud = peer.with_stamp("points", stamp)
        rows = np.frombuffer(cloud.data, np.float32).reshape(42, 56, 6)
        depth = rows[..., 2]
        columns = np.broadcast_to(np.arange(56), (42, 56))
        expected_x = (columns - camera.k[2]) / camera.k[0] * depth
        np.testing.assert_allclose(rows[..., 0], expected_x, rtol=1e-4, atol=1e-5)
        assert node.said("images of 64x48 pixels are rectified here")

        sent_until("another_camera", lambda: _sources(peer)[-1] != "calibrated")
        node.wait_for_line("speaks of frame 'another_camera', the images are of 'camera_optical'")
        assert node.interrupt() == 0


def _sources(peer: Peer) -> list[str]:
    return [status.intrinsics_source for status in peer.messages("status")]
