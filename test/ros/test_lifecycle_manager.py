# SPDX-License-Identifier: Apache-2.0
"""Under a lifecycle manager; with bondpy, or with a double of it where there is none."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import pytest

REASON = "needs ROS 2: run scripts/test, or source a workspace"
pytest.importorskip("rclpy", reason=REASON)
pytest.importorskip("xsvggt_ros.msg", reason=REASON)

import rclpy
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from node_process import TINY, NodeProcess, Peer, image_message
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from std_msgs.msg import String
from xsvggt_ros.msg import ReconstructionStatus

from xsvggt_ros.ros.lifecycle import ManagerBond, manager_appears
from xsvggt_ros.ros.processes import free_domain

PATIENCE = 30.0


@pytest.fixture
def node() -> Iterator[Node]:
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=free_domain())
    node = rclpy.create_node("xsvggt", context=context, namespace="/robot")
    yield node
    node.destroy_node()
    rclpy.shutdown(context=context)


class _Bond:
    """Does to the node what the Bond of bondpy does."""

    made: list[_Bond] = []  # noqa: RUF012 - of the class on purpose

    def __init__(self, node: Node, topic: str, bond_id: str) -> None:
        self.topic, self.id, self.node = topic, bond_id, node
        self.heartbeat_period = 1.0
        self.is_shutdown = self.is_breaking = False
        self.pub = node.create_publisher(String, topic, 1)
        self.on_formed: Any = None
        self.on_broken: Any = None
        self.made.append(self)

    def start(self) -> None:
        self.sub = self.node.create_subscription(String, self.topic, lambda _: None, 1)

    def set_formed_callback(self, callback: Any) -> None:
        self.on_formed = callback

    def set_broken_callback(self, callback: Any) -> None:
        self.on_broken = callback

    def break_bond(self) -> None:
        self.is_breaking = True

    def is_broken(self) -> bool:
        return False  # the manager has not answered yet

    def shutdown(self) -> None:
        self.is_shutdown = True
        self.sub.destroy()
        self.pub.destroy()


class _OldBond(_Bond):
    """The same with the arguments of Humble."""

    def __init__(self, topic: str, id: str, node: Node) -> None:
        super().__init__(node, topic, id)


@pytest.fixture(params=[_Bond, _OldBond])
def double(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list[_Bond]:
    module = ModuleType("bondpy.bondpy")
    module.Bond = request.param  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "bondpy", ModuleType("bondpy"))
    monkeypatch.setitem(sys.modules, "bondpy.bondpy", module)
    monkeypatch.setattr(_Bond, "made", [])
    return _Bond.made


def test_an_active_node_has_one_bond_of_its_name(node: Node, double: list[_Bond]) -> None:
    bond = ManagerBond(node)
    bond.start()
    bond.start()
    assert [(each.topic, each.id, each.is_breaking) for each in double] == [
        ("bond", "xsvggt", True),
        ("bond", "xsvggt", False),
    ]
    assert double[1].heartbeat_period < 1.0
    assert double[1].pub.topic_name == "/robot/bond"


def test_a_node_that_is_destroyed_waits_for_no_manager(node: Node, double: list[_Bond]) -> None:
    before = len(list(node.subscriptions)), len(list(node.publishers))
    bond = ManagerBond(node)
    bond.start()
    bond.stop()
    assert not double[0].is_shutdown  # the manager is still to answer
    bond.stop(now=True)
    assert double[0].is_shutdown
    assert (len(list(node.subscriptions)), len(list(node.publishers))) == before


@pytest.mark.parametrize("now", [True, False])
def test_an_end_on_purpose_is_told_and_leaves_nothing(
    node: Node, double: list[_Bond], caplog: pytest.LogCaptureFixture, now: bool
) -> None:
    before = len(list(node.subscriptions)), len(list(node.publishers))
    bond = ManagerBond(node)
    bond.start()
    double[0].on_formed()
    bond.stop(now=now)
    bond.stop(now=now)
    if not now:
        assert double[0].is_breaking
        assert not double[0].is_shutdown
        double[0].on_broken()  # the manager has answered
    assert double[0].is_shutdown
    assert (len(list(node.subscriptions)), len(list(node.publishers))) == before
    assert not [each for each in caplog.records if each.levelname == "WARNING"]
    executor = SingleThreadedExecutor(context=node.context)
    executor.add_node(node)
    executor.spin_once(timeout_sec=0.01)


def test_a_manager_that_dies_is_told(
    node: Node, double: list[_Bond], caplog: pytest.LogCaptureFixture
) -> None:
    bond = ManagerBond(node)
    bond.start()
    double[0].on_formed()
    double[0].on_broken()
    assert "has gone; the node goes on" in caplog.text


def test_without_bondpy_the_node_does_without(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bondpy", None)
    bond = ManagerBond(node)
    bond.start()
    bond.stop()


def test_a_real_bond_forms_and_breaks(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="xsvggt_ros")
    bondpy = pytest.importorskip("bondpy.bondpy", reason="needs bondpy, of a ROS 2 distribution")
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=node.context.get_domain_id())
    manager = rclpy.create_node("manager", context=context, namespace="/robot")
    executors = [SingleThreadedExecutor(context=each.context) for each in (node, manager)]
    for executor, each in zip(executors, (node, manager), strict=True):
        executor.add_node(each)
    bond, other = ManagerBond(node), bondpy.Bond(manager, "bond", "xsvggt")
    formed: list[bool] = []
    other.set_formed_callback(lambda: formed.append(True))
    other.start()
    bond.start()
    _spin(executors, lambda: bool(formed) and "watches this node by a bond" in caplog.text)
    bond.stop()
    _spin(executors, other.is_broken)
    bond.stop(now=True)
    other.shutdown()
    rclpy.shutdown(context=context)


def _spin(executors: list[SingleThreadedExecutor], condition: Any) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        for executor in executors:
            executor.spin_once(timeout_sec=0.01)


def test_a_client_for_its_transitions_is_a_manager(node: Node) -> None:
    if not hasattr(node, "count_clients"):
        pytest.skip("this distribution cannot count clients")
    assert not manager_appears(node, within=0.0)
    client: Any = node.create_client(ChangeState, "/robot/xsvggt/change_state")
    assert manager_appears(node, within=PATIENCE)
    node.destroy_client(client)


class _Nav2Manager:
    """Asks and waits as the lifecycle_manager of Nav2 does, in the same order.

    Transitions have no time limit, each is confirmed by get_state, and a bond of the node's name
    has to form after activate. Needs no bondpy where ``bond_timeout`` is 0, as there.
    """

    LEADS_TO = {  # noqa: RUF012 - constant
        Transition.TRANSITION_CONFIGURE: State.PRIMARY_STATE_INACTIVE,
        Transition.TRANSITION_ACTIVATE: State.PRIMARY_STATE_ACTIVE,
        Transition.TRANSITION_DEACTIVATE: State.PRIMARY_STATE_INACTIVE,
        Transition.TRANSITION_CLEANUP: State.PRIMARY_STATE_UNCONFIGURED,
        Transition.TRANSITION_UNCONFIGURED_SHUTDOWN: State.PRIMARY_STATE_FINALIZED,
    }

    def __init__(self, peer: Peer, name: str) -> None:
        self._peer, self._name = peer, name
        self.bond_timeout = 4.0 if find_spec("bondpy") else 0.0
        self.bond: Any = None
        self._change: Any = peer.node.create_client(ChangeState, f"{name}/change_state")
        self._get: Any = peer.node.create_client(GetState, f"{name}/get_state")
        peer.wait_until(self._get.service_is_ready, "service of the node")

    def change(self, *transitions: int) -> None:
        for transition in transitions:
            request = ChangeState.Request(transition=Transition(id=transition))
            assert self._answer(self._change, request).success
            state = self._answer(self._get, GetState.Request()).current_state.id
            assert state == self.LEADS_TO[transition]
            if transition == Transition.TRANSITION_ACTIVATE and self.bond_timeout:
                self._create_bond()
            elif transition == Transition.TRANSITION_DEACTIVATE and self.bond:
                # It tells of its end by itself, before the manager lets go.
                self._peer.wait_until(self.bond.is_broken, "end of the bond")
                self.release_bond()

    def release_bond(self) -> None:
        bond, self.bond = self.bond, None
        bond.shutdown()
        # It destroys what the executor still knows of.
        self._peer.node.destroy_subscription(bond.sub)
        self._peer.node.destroy_publisher(bond.pub)

    def _create_bond(self) -> None:
        from bondpy.bondpy import Bond

        formed: list[bool] = []
        self.bond = Bond(self._peer.node, "bond", self._name)
        self.bond.heartbeat_timeout = self.bond_timeout
        self.bond.heartbeat_period = 0.1
        self.bond.set_formed_callback(lambda: formed.append(True))
        self.bond.start()
        self._peer.wait_until(lambda: bool(formed), "bond")

    def _answer(self, client: Any, request: Any) -> Any:
        self._peer.wait_until(client.service_is_ready, "service of the node")
        future = client.call_async(request)
        self._peer.wait_until(future.done, "answer of a lifecycle service")
        return future.result()


STARTUP = (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE)
PAUSE, RESUME = (Transition.TRANSITION_DEACTIVATE,), (Transition.TRANSITION_ACTIVATE,)
RESET = (Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP)
SHUTDOWN = (*RESET, Transition.TRANSITION_UNCONFIGURED_SHUTDOWN)
UNMANAGED = {**TINY, "lifecycle.autostart": False}
STATUS = {"/xsvggt/status": ReconstructionStatus}


def test_every_command_of_the_manager_of_nav2() -> None:
    with NodeProcess(UNMANAGED) as process, Peer(process.domain, STATUS) as peer:
        manager = _Nav2Manager(peer, "xsvggt")
        manager.change(*STARTUP)
        publisher = peer.publisher()
        for stamp, commands in enumerate((PAUSE + RESUME, RESET + STARTUP, SHUTDOWN), start=1):
            peer.wait_until(lambda: publisher.get_subscription_count() > 0, "subscription")
            publisher.publish(image_message(stamp * 10**9))
            status = peer.with_stamp("status", stamp * 10**9)
            assert status.state in {"running", "degraded"}  # the machine may be slow
            manager.change(*commands)
        assert "Traceback" not in process.output


def test_a_manager_notices_that_the_node_has_died() -> None:
    pytest.importorskip("bondpy.bondpy", reason="needs bondpy, of a ROS 2 distribution")
    from bond.msg import Status

    with NodeProcess(UNMANAGED) as process, Peer(process.domain, STATUS) as peer:
        manager = _Nav2Manager(peer, "xsvggt")
        manager.change(*STARTUP)
        heard: list[str] = []
        peer.node.create_subscription(Status, "bond", lambda m: heard.append(m.instance_id), 10)
        # bondpy watches from the second heartbeat on.
        own = manager.bond.instance_id
        peer.wait_until(lambda: len([each for each in heard if each != own]) > 2, "heartbeats")
        assert not manager.bond.is_broken()
        process.interrupt(signal.SIGKILL)
        peer.wait_until(manager.bond.is_broken, "broken bond")
        manager.release_bond()
