# SPDX-License-Identifier: Apache-2.0
"""The managed node: what each transition takes, keeps and gives back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

REASON = "needs ROS 2 and this package's messages: run scripts/test, or source a built workspace"
pytest.importorskip("rclpy", reason=REASON)
pytest.importorskip("xsvggt_ros.msg", reason=REASON)

import rclpy
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from node_process import TINY, NodeProcess, Peer, image_message
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from xsvggt_ros.msg import ReconstructionStatus

from xsvggt_ros.errors import CheckpointError
from xsvggt_ros.ros import reconstruct_node as node_module
from xsvggt_ros.ros.processes import free_domain
from xsvggt_ros.ros.reconstruct_node import ReconstructNode

SECOND = 1_000_000_000
BY_HAND = {**TINY, "lifecycle.autostart": False}
STATUS = {"/xsvggt/status": ReconstructionStatus}


class _Manager:
    """A lifecycle manager, as nav2 has one."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._change: Any = peer.node.create_client(ChangeState, "/xsvggt/change_state")
        self._get: Any = peer.node.create_client(GetState, "/xsvggt/get_state")

    def ask(self, transition: int) -> bool:
        request = ChangeState.Request(transition=Transition(id=transition))
        return bool(self._answer(self._change, request).success)

    @property
    def state(self) -> str:
        return str(self._answer(self._get, GetState.Request()).current_state.label)

    def _answer(self, client: Any, request: Any) -> Any:
        self._peer.wait_until(client.service_is_ready, "lifecycle services")
        future = client.call_async(request)
        self._peer.wait_until(future.done, "answer of a lifecycle service")
        return future.result()


def _publish(peer: Peer, publisher: Any, stamp: int) -> ReconstructionStatus:
    publisher.publish(image_message(stamp))
    status: ReconstructionStatus = peer.with_stamp("status", stamp)
    return status


def test_a_life_by_hand() -> None:
    parameters = {**BY_HAND, "model.checkpoint": "/nowhere/weights.pth"}
    with NodeProcess(parameters) as node, Peer(node.domain, STATUS) as peer:
        manager = _Manager(peer)
        peer.wait_for_status(lambda s: s.state == "unconfigured", "its first state")
        assert not manager.ask(Transition.TRANSITION_CONFIGURE)
        assert manager.state == "unconfigured"
        told = peer.wait_for_status(lambda s: "/nowhere/weights.pth" in s.message, "the reason")
        assert told.message.startswith("cannot configure: ")
        assert peer.set_parameters(model__checkpoint="").successful
        assert manager.ask(Transition.TRANSITION_CONFIGURE)
        assert manager.state == "inactive"
        refusal = peer.set_parameters(model__checkpoint="other.pth")
        assert "model.checkpoint is read-only while the node is configured" in refusal.reason
        peer.wait_for_status(lambda s: s.state == "inactive", "the state in ~/status")
        assert peer.node.get_subscriptions_info_by_topic("/image") == []

        assert manager.ask(Transition.TRANSITION_ACTIVATE)
        publisher = peer.publisher()
        first = _publish(peer, publisher, SECOND)
        assert (first.state, first.session, first.session_frames) == ("running", 1, 1)
        assert manager.ask(Transition.TRANSITION_DEACTIVATE)
        peer.wait_until(lambda: publisher.get_subscription_count() == 0, "no subscription")
        assert manager.ask(Transition.TRANSITION_ACTIVATE)
        peer.wait_until(lambda: publisher.get_subscription_count() == 1, "a subscription")
        kept = _publish(peer, publisher, 2 * SECOND)
        assert (kept.session, kept.session_frames) == (1, 2)
        assert kept.cache_tokens > first.cache_tokens

        assert manager.ask(Transition.TRANSITION_DEACTIVATE)
        assert manager.ask(Transition.TRANSITION_CLEANUP)
        assert manager.state == "unconfigured"
        heard = len(peer.messages("status"))
        peer.wait_until(lambda: len(peer.messages("status")) > heard, "a status")
        after = peer.messages("status")[-1]
        blank = ReconstructionStatus(state="unconfigured", scale_source="none", scale_age=-1.0)
        assert after == blank, "it still tells of the session that is gone"
        assert peer.set_parameters(cache__index_sets="head").successful
        assert manager.ask(Transition.TRANSITION_CONFIGURE)
        assert manager.ask(Transition.TRANSITION_ACTIVATE)
        peer.wait_until(lambda: publisher.get_subscription_count() == 1, "a subscription")
        restarted = _publish(peer, publisher, 3 * SECOND)
        assert (restarted.session, restarted.session_frames, restarted.frames_received) == (1, 1, 1)
        assert manager.ask(Transition.TRANSITION_ACTIVE_SHUTDOWN)
        assert manager.state == "finalized"
        assert node.interrupt() == 0
        assert "Traceback" not in node.output


@pytest.fixture
def node() -> Iterator[ReconstructNode]:
    parameters = [f"{name}:={str(value).lower()}" for name, value in BY_HAND.items()]
    arguments = [part for parameter in parameters for part in ("-p", parameter)]
    rclpy.init(args=["--ros-args", *arguments], domain_id=free_domain())
    node = ReconstructNode()
    yield node
    assert node.close()
    rclpy.shutdown()


def test_an_unforeseen_failure_gives_up_all_and_configure_may_be_tried_again(
    node: ReconstructNode, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(_: object) -> None:
        raise KeyError("surprise")

    with monkeypatch.context() as patch:
        patch.setattr(node_module, "build_worker", lambda *_, **__: fail(None))
        assert node.trigger_configure() == TransitionCallbackReturn.ERROR
    assert node.label == "unconfigured"
    assert "cannot configure: unexpected KeyError: 'surprise'" in capfd.readouterr().err
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    with monkeypatch.context() as patch:
        patch.setattr(node_module, "RigInput", fail)
        assert node.trigger_activate() == TransitionCallbackReturn.ERROR
    assert node.label == "unconfigured"
    assert node.set_parameters([Parameter("input.width", value=28)])[0].successful


def test_a_frame_that_takes_too_long_holds_cleanup_but_loses_nothing(
    node: ReconstructNode, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(node_module, "SHUTDOWN_TIMEOUT", 0.0)
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    assert node._engine is not None
    with monkeypatch.context() as patch:
        patch.setattr(node_module.Engine, "settle", lambda *_: False)
        assert node.trigger_cleanup() == TransitionCallbackReturn.FAILURE
    assert node.label == "inactive"
    assert "cannot clean up: the current frame takes longer than 0 s" in capfd.readouterr().err
    monkeypatch.undo()
    assert node.trigger_cleanup() == TransitionCallbackReturn.SUCCESS
    assert node._engine is None


def test_covariances_learn_from_the_odometry_that_the_scale_listens_to(
    node: ReconstructNode,
) -> None:
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    hooks = node._hooks()
    assert hooks.scale == node._scale.scale
    assert hooks.measured_pose == node._scale.measured_pose


def test_autostart_raises_what_stands_in_the_way(
    node: ReconstructNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise CheckpointError("no such weights")

    monkeypatch.setattr(node_module, "build_reconstructor", fail)
    with pytest.raises(CheckpointError, match="no such weights"):
        node.autostart()
    assert node.label == "unconfigured"
