# SPDX-License-Identifier: Apache-2.0
"""~/map and the services of the node, in its own process, on real DDS."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

REASON = (
    "needs ROS 2 and this package's messages: run scripts/test, or build and source a workspace"
)
pytest.importorskip("rclpy", reason=REASON)
pytest.importorskip("tf2_msgs", reason=REASON)
pytest.importorskip("xsvggt_ros.srv", reason=REASON)

from node_process import STATUS_TOPIC, TINY, NodeProcess, Peer, image_message, stamp_of
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import PointCloud2
from std_srvs.srv import SetBool, Trigger
from xsvggt_ros.msg import ReconstructionStatus
from xsvggt_ros.srv import SaveMap

SECOND = 1_000_000_000
STATUS = {STATUS_TOPIC: ReconstructionStatus}
PARAMETERS = {
    **TINY,
    "input.queue_policy": "all",
    "map.voxel_size": 0.01,
    "map.min_confidence": 0.0,
    "map.rate": 10.0,
}


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[NodeProcess, Peer, Any]]:
    with NodeProcess(PARAMETERS) as node, Peer(node.domain, STATUS) as peer:
        yield node, peer, peer.publisher()
        assert node.interrupt() == 0


class MapListener:
    """Whoever subscribes to ~/map as RViz does, at any time."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self.heard: list[PointCloud2] = []
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._subscription = peer.node.create_subscription(
            PointCloud2, "/xsvggt/map", self.heard.append, latched
        )

    def __enter__(self) -> MapListener:
        return self

    def __exit__(self, *_: object) -> None:
        self._peer.node.destroy_subscription(self._subscription)

    def wait_for(self, stamp: int) -> PointCloud2:
        """Return the first map that holds the image of ``stamp``."""
        self._peer.wait_until(
            lambda: any(stamp_of(each) == stamp for each in self.heard), f"map {stamp}"
        )
        return next(each for each in self.heard if stamp_of(each) == stamp)


def _rows(cloud: PointCloud2) -> NDArray[np.float32]:
    return np.frombuffer(cloud.data, np.float32).reshape(cloud.width, 5)


def _call(peer: Peer, kind: type[Any], name: str, **fields: Any) -> Any:
    client: Any = peer.node.create_client(kind, f"/xsvggt/{name}")
    answer = peer.answer(client, kind.Request(**fields))
    peer.node.destroy_client(client)
    return answer


_next = iter(range(1, 1000))


def _send(peer: Peer, publisher: Any, count: int = 1) -> int:
    """Send images and wait for the status of the last; return its stamp."""
    stamps = [SECOND * next(_next) for _ in range(count)]
    for stamp in stamps:
        publisher.publish(image_message(stamp))
    peer.with_stamp("status", stamps[-1])
    return stamps[-1]


def test_the_map_grows_and_a_late_joiner_gets_all_of_it(
    running: tuple[NodeProcess, Peer, Any],
) -> None:
    _, peer, publisher = running
    _send(peer, publisher, 2)
    last = _send(peer, publisher)
    status = peer.with_stamp("status", last)
    assert status.map_points > 0
    assert status.map_bytes > 50 * status.map_points
    assert status.latency_map > 0
    with MapListener(peer) as first:
        cloud = first.wait_for(last)
        assert (cloud.header.frame_id, cloud.height, cloud.is_dense) == ("map", 1, True)
        assert cloud.width == status.map_points
        assert [field.name for field in cloud.fields] == ["x", "y", "z", "rgb", "confidence"]
        assert cloud.row_step == len(cloud.data) == 20 * cloud.width
        rows = _rows(cloud)
        assert np.isfinite(rows[:, [0, 1, 2, 4]]).all()
        assert rows[:, 4].min() >= 1.0
    # Nothing has come since: this one is the latched message.
    with MapListener(peer) as second:
        again = second.wait_for(last)
        assert bytes(again.data) == bytes(cloud.data)


def test_what_is_saved_is_what_is_published(
    running: tuple[NodeProcess, Peer, Any], tmp_path: Path
) -> None:
    _, peer, publisher = running
    last = _send(peer, publisher)
    with MapListener(peer) as listener:
        rows = _rows(listener.wait_for(last))
    for name in ("deep/map.ply", "map.pcd"):
        answer = _call(peer, SaveMap, "save_map", path=str(tmp_path / name))
        assert answer.success, answer.message
        assert answer.points == len(rows)
        assert str(tmp_path / name) in answer.message
    pcd = (tmp_path / "map.pcd").read_bytes()
    header, _, body = pcd.partition(b"DATA binary\n")
    assert b"FIELDS x y z rgb confidence" in header
    saved = np.frombuffer(body, np.float32).reshape(-1, 5)
    np.testing.assert_array_equal(saved[:, [0, 1, 2, 4]], rows[:, [0, 1, 2, 4]])
    ply = (tmp_path / "deep/map.ply").read_bytes()
    assert f"element vertex {len(rows)}\n".encode() in ply
    assert not list(tmp_path.rglob("*.partial"))


@pytest.mark.parametrize(
    ("path", "words"),
    [("map.obj", "ends in '.obj'; a cloud is written to .ply or .pcd"), ("", "ends in ''")],
)
def test_a_map_that_cannot_be_saved_says_why(
    running: tuple[NodeProcess, Peer, Any], path: str, words: str
) -> None:
    _, peer, publisher = running
    _send(peer, publisher)
    answer = _call(peer, SaveMap, "save_map", path=path)
    assert not answer.success
    assert words in answer.message


def test_a_path_may_begin_with_the_home_directory(
    running: tuple[NodeProcess, Peer, Any], tmp_path: Path
) -> None:
    _, peer, publisher = running
    _send(peer, publisher)
    below = f"xsvggt_{tmp_path.name}"
    answer = _call(peer, SaveMap, "save_map", path=f"~/{below}/map.ply")
    home = Path.home() / below
    try:
        assert answer.success, answer.message
        assert str(home / "map.ply") in answer.message
        assert (home / "map.ply").is_file()
        assert not Path("~").exists()
    finally:
        shutil.rmtree(home, ignore_errors=True)
    answer = _call(peer, SaveMap, "save_map", path="~nobody_of_that_name/map.ply")
    assert not answer.success
    assert "give the whole path" in answer.message


def test_a_place_that_takes_no_files_is_told(
    running: tuple[NodeProcess, Peer, Any], tmp_path: Path
) -> None:
    _, peer, publisher = running
    _send(peer, publisher)
    (tmp_path / "file").write_text("no directory")
    answer = _call(peer, SaveMap, "save_map", path=str(tmp_path / "file/map.ply"))
    assert not answer.success
    assert "cannot be written" in answer.message


def test_reset_begins_a_session_and_publishes_an_empty_map(
    running: tuple[NodeProcess, Peer, Any], tmp_path: Path
) -> None:
    node, peer, publisher = running
    last = _send(peer, publisher, 3)
    before = peer.with_stamp("status", last)
    with MapListener(peer) as listener:
        assert listener.wait_for(last).width > 0
        answer = _call(peer, Trigger, "reset")
        assert answer.success, answer.message
        peer.wait_until(lambda: listener.heard[-1].width == 0, "an empty map")
    with MapListener(peer) as late:
        peer.wait_until(lambda: bool(late.heard), "a map")
        assert late.heard[0].width == 0
    refused = _call(peer, SaveMap, "save_map", path=str(tmp_path / "map.ply"))
    assert not refused.success
    assert "it is empty" in refused.message
    after = peer.with_stamp("status", _send(peer, publisher))
    assert (after.session, after.session_frames) == (before.session + 1, 1)
    assert after.cache_tokens < before.cache_tokens
    assert node.said("asked for by ~/reset")


def test_images_of_a_pause_are_counted_as_dropped_and_the_session_goes_on(
    running: tuple[NodeProcess, Peer, Any],
) -> None:
    _, peer, publisher = running
    before = peer.with_stamp("status", _send(peer, publisher))
    assert _call(peer, SetBool, "pause", data=True).success
    assert "paused already" in _call(peer, SetBool, "pause", data=True).message
    missed = [SECOND * next(_next) for _ in range(7)]
    for stamp in missed:
        publisher.publish(image_message(stamp))
    dropped = before.frames_dropped + 7
    during = peer.wait_for_status(
        lambda s: s.frames_dropped == dropped and s.state == "paused", "all seven dropped"
    )
    assert during.frames_processed == before.frames_processed
    answer = _call(peer, SetBool, "pause", data=False)
    assert answer.success
    assert "7 images were dropped" in answer.message
    after = peer.with_stamp("status", _send(peer, publisher))
    assert (after.session, after.session_frames) == (before.session, before.session_frames + 1)
    assert after.frames_received == (
        after.frames_processed + after.frames_dropped + after.frames_refused + after.frames_pending
    )


def test_the_map_is_bounded_and_its_voxels_change_while_it_runs(
    running: tuple[NodeProcess, Peer, Any],
) -> None:
    _, peer, publisher = running
    full = peer.with_stamp("status", _send(peer, publisher))
    assert full.map_points > 50
    assert peer.set_parameters(map__max_points=50).successful
    assert 0 < peer.with_stamp("status", _send(peer, publisher)).map_points <= 50
    assert peer.set_parameters(map__max_points=100_000, map__voxel_size=0.02).successful
    assert peer.with_stamp("status", _send(peer, publisher)).map_points > 50
    assert not peer.set_parameters(map__voxel_size=0.0).successful
    assert peer.set_parameters(map__enabled=False).successful
    without = peer.with_stamp("status", _send(peer, publisher))
    assert without.map_points == 0
    assert without.map_bytes < full.map_bytes
    assert peer.set_parameters(map__enabled=True).successful


def test_services_say_that_they_need_an_engine() -> None:
    parameters = {**PARAMETERS, "lifecycle.autostart": False}
    with NodeProcess(parameters) as node, Peer(node.domain, STATUS) as peer:
        for kind, name, fields in (
            (Trigger, "reset", {}),
            (SetBool, "pause", {"data": True}),
            (SaveMap, "save_map", {"path": "map.ply"}),
        ):
            answer = _call(peer, kind, name, **fields)
            assert not answer.success
            assert "the node is not configured" in answer.message
        assert node.interrupt() == 0
