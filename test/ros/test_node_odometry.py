# SPDX-License-Identifier: Apache-2.0
"""What ~/odometry promises of pose and twist, and new first frames, on real DDS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

REASON = "needs ROS 2 and this package's messages: run scripts/test, or source a built workspace"
pytest.importorskip("rclpy", reason=REASON)
pytest.importorskip("tf2_msgs", reason=REASON)
pytest.importorskip("xsvggt_ros.msg", reason=REASON)

from moving_node import MOVING
from node_process import TINY, NodeProcess, Peer, image_message
from std_srvs.srv import Trigger

SECOND = 1_000_000_000
UNKNOWN = 1e6
METRIC = {
    **TINY, "input.queue_policy": "all", "scale.source": "fixed", "scale.value": 2.0,
    "pose.refinement": "off",
}  # fmt: skip
# The very same view from every place, so that two first frames agree on it.
CHAINED = (
    MOVING.replace("-0.1 * step", "-0.001 * step")
    .replace("-0.2 * step", "-0.002 * step")
    .replace("    step += 1\n", "    step += 1\n    output.depth[:] = 2.0\n")
)


@dataclass(frozen=True)
class Told:
    """Matrices of an Odometry message."""

    pose: np.ndarray
    twist: np.ndarray
    velocity: list[float]

    @classmethod
    def of(cls, message: Any) -> Told:
        linear, angular = message.twist.twist.linear, message.twist.twist.angular
        return cls(
            np.reshape(message.pose.covariance, (6, 6)),
            np.reshape(message.twist.covariance, (6, 6)),
            [linear.x, linear.y, linear.z, angular.x, angular.y, angular.z],
        )


def _ask(peer: Peer) -> Any:
    """Ask for a new first frame."""
    client: Any = peer.node.create_client(Trigger, "/xsvggt/reanchor")
    peer.wait_until(client.service_is_ready, "service")
    future = client.call_async(Trigger.Request())
    peer.wait_until(future.done, "an answer")
    return future.result()


def test_twist_and_covariances_are_told_in_metres() -> None:
    with NodeProcess(METRIC, program=("-c", MOVING)) as node, Peer(node.domain) as peer:
        publisher = peer.publisher()
        told = []
        for index in range(4):
            stamp = SECOND + index * SECOND // 2
            publisher.publish(image_message(stamp))
            told.append(Told.of(peer.with_stamp("odometry", stamp)))
        publisher.publish(image_message(20 * SECOND))
        late = Told.of(peer.with_stamp("odometry", 20 * SECOND))
    first, *others = told
    np.testing.assert_array_equal(first.twist, UNKNOWN * np.eye(6))
    np.testing.assert_array_equal(first.pose, np.zeros((6, 6)))
    for each in others:
        # 0.1 right and 0.2 ahead, twice as much in metres, in half a second; optical axes.
        np.testing.assert_allclose(each.velocity, [0.4, 0.0, 0.8, 0.0, 0.0, 0.0], atol=1e-5)
        assert np.all(np.linalg.eigvalsh(each.twist) > 0)
        assert np.diag(each.twist).max() < UNKNOWN
    traces = [float(np.trace(each.pose)) for each in told]
    assert traces == sorted(traces)
    assert traces[1] > 0.0
    np.testing.assert_array_equal(late.twist, UNKNOWN * np.eye(6))


def test_without_a_scale_only_rotations_are_known() -> None:
    parameters = {**METRIC, "scale.source": "none"}
    with NodeProcess(parameters, program=("-c", MOVING)) as node, Peer(node.domain) as peer:
        publisher = peer.publisher()
        for index in range(2):
            publisher.publish(image_message((1 + index) * SECOND))
            message = peer.with_stamp("odometry", (1 + index) * SECOND)
        told = Told.of(message)
        cloud = peer.with_stamp("points", 2 * SECOND)
    assert [field.name for field in cloud.fields][-1] == "stddev"
    assert np.isnan(np.frombuffer(cloud.data, np.float32).reshape(-1, 6)[:, 5]).all()
    assert told.velocity[:3] == [0.0, 0.0, 0.0]
    for covariance in (told.pose, told.twist):
        np.testing.assert_array_equal(covariance[:3, :3], UNKNOWN * np.eye(3))
        assert 0.0 < np.diag(covariance)[3:].max() < UNKNOWN


def test_a_new_first_frame_that_is_asked_for_is_joined() -> None:
    parameters = {**METRIC, "chain.length": 0, "chain.overlap": 2}
    with NodeProcess(parameters, program=("-c", CHAINED)) as node, Peer(node.domain) as peer:
        publisher = peer.publisher()
        refused = _ask(peer)
        assert not refused.success
        assert "no frame yet" in refused.message

        def status(index: int) -> Any:
            publisher.publish(image_message((1 + index) * SECOND))
            return peer.with_stamp("status", (1 + index) * SECOND)

        before = [status(index) for index in range(3)]
        assert {(each.chain_joins, each.chain_state) for each in before} == {(0, "off")}
        assert _ask(peer).success
        after = [status(index) for index in range(3, 7)]
        assert after[-1].chain_joins == 1
        assert after[-1].session == before[0].session
        assert after[-1].session_frames == 7
        assert peer.set_parameters(chain__length=50).successful
        assert not peer.set_parameters(chain__length=3).successful
        positions = [peer.with_stamp("odometry", (1 + i) * SECOND) for i in range(7)]
        ahead = [message.pose.pose.position.x for message in positions]
        # While two networks run, the made-up camera goes two steps an image.
        assert np.all((np.diff(ahead) > 0.003) & (np.diff(ahead) < 0.013))
