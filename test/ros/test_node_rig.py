# SPDX-License-Identifier: Apache-2.0
"""Two cameras through one stream, on real DDS."""

from __future__ import annotations

import pytest

REASON = "needs ROS 2 and this package's messages: run scripts/test, or source a built workspace"
pytest.importorskip("rclpy", reason=REASON)
pytest.importorskip("tf2_msgs", reason=REASON)
pytest.importorskip("xsvggt_ros.msg", reason=REASON)

from diagnostic_msgs.msg import DiagnosticArray
from nav_msgs.msg import Odometry, Path
from node_process import TINY, NodeProcess, Peer, image_message, stamp_of
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from tf2_msgs.msg import TFMessage
from xsvggt_ros.msg import ReconstructionStatus

from xsvggt_ros.errors import ConfigurationError
from xsvggt_ros.ros.parameters import Settings

SECOND = 1_000_000_000
CAMERAS = ("left", "right")
RIG = {
    **TINY,
    "input.cameras": "left, right",
    "input.queue_policy": "all",
    "input.rig_wait": 0.3,
    "watchdog.timeout": 1.0,
}
WATCHED = {
    "/tf": TFMessage,
    "/diagnostics": DiagnosticArray,
    **{f"/xsvggt/{camera}/points": PointCloud2 for camera in CAMERAS},
    **{f"/xsvggt/{camera}/depth/camera_info": CameraInfo for camera in CAMERAS},
    **{f"/xsvggt/{camera}/odometry": Odometry for camera in CAMERAS},
    **{f"/xsvggt/{camera}/path": Path for camera in CAMERAS},
    "/xsvggt/status": ReconstructionStatus,
}


def test_two_cameras_make_one_stream_and_answer_under_their_names() -> None:
    with NodeProcess(RIG) as node, Peer(node.domain, WATCHED) as peer:
        left, right = (peer.publisher(f"/{camera}/image", Image) for camera in CAMERAS)
        stamps = [SECOND + i * SECOND // 10 for i in range(4)]
        for stamp in stamps:
            # The right one comes first, although it was taken a little later.
            right.publish(image_message(stamp + 1000, "right_optical"))
            left.publish(image_message(stamp, "left_optical"))
        last = peer.with_stamp("status", stamps[-1] + 1000)
        assert (last.frames_processed, last.frames_refused) == (8, 0)
        assert (last.session, last.session_frames) == (1, 8)
        results = [s for s in peer.messages("status") if s.session_frames]
        order = [stamp_of(s) for s in results]
        assert order == sorted(order)
        for camera, shift in zip(CAMERAS, (0, 1000), strict=True):
            expected = [stamp + shift for stamp in stamps]
            for topic in ("points", "depth/camera_info", "odometry"):
                peer.with_stamp(f"/xsvggt/{camera}/{topic}", expected[-1])
                messages = peer.messages(f"/xsvggt/{camera}/{topic}")
                assert [stamp_of(message) for message in messages] == expected
            clouds = peer.messages(f"/xsvggt/{camera}/points")
            assert {cloud.header.frame_id for cloud in clouds} == {f"{camera}_optical"}
            path = peer.with_stamp(f"/xsvggt/{camera}/path", expected[-1])
            assert [stamp_of(pose) for pose in path.poses] == expected
        children = {
            link.child_frame_id for message in peer.messages("/tf") for link in message.transforms
        }
        assert children == {"odom", "left_optical", "right_optical"}

        # Both at the very same moment, and one of them twice.
        for publisher, camera in ((left, "left"), (right, "right"), (left, "left")):
            publisher.publish(image_message(5 * SECOND, f"{camera}_optical"))
        status = peer.wait_for_status(lambda s: s.frames_refused == 1, "the repeated stamp")
        assert "twice in a row" in status.message
        status = peer.wait_for_status(lambda s: s.frames_processed == 10, "both cameras")
        assert status.session == 1

        # One goes silent; the other goes on, and the silent one is told.
        peer.node.destroy_publisher(right)
        left.publish(image_message(6 * SECOND, "left_optical"))
        assert peer.with_stamp("status", 6 * SECOND).frames_processed == 11
        node.wait_for_line(r"no image for \d+ s on /right/image: it has no publisher")
        names = {part.name for message in peer.messages("/diagnostics") for part in message.status}
        assert {"xsvggt: input left", "xsvggt: input right"} <= names
        assert not node.said("two parents")
        assert node.interrupt() == 0


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"input.cameras": "left left"}, "names a camera twice"),
        ({"input.cameras": "left 2nd"}, "names '2nd', which no topic can carry"),
        ({"input.cameras": "a b", "frames.camera": "eye"}, "frames.camera is one name for all"),
    ],
)
def test_rigs_that_cannot_be_are_refused(values: dict[str, str], reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        Settings.from_values(values)


def test_names_may_be_parted_by_commas_or_blanks() -> None:
    settings = Settings.from_values({"input.cameras": " left,right  rear "})
    assert settings.input.camera_names == ("left", "right", "rear")
    assert Settings().input.camera_names == ("",)
