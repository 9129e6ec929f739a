# SPDX-License-Identifier: Apache-2.0
"""A managed node, its steps, and its bond with a lifecycle manager."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from inspect import signature
from time import monotonic, sleep
from typing import Any

from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.node import Node

from xsvggt_ros.errors import XsvggtError, first_line

logger = logging.getLogger(__name__)


BOND_TOPIC = "bond"
"""As Nav2 names it, relative to the namespace."""
HEARTBEAT_PERIOD = 0.5
"""Seconds; a manager's bond_timeout is 4 by default."""
DISCOVERY = 0.3
"""Seconds in which nodes of one machine find each other."""
_POLL = 0.02


class ManagerBond:
    """Tells a manager that an active node is alive, by a bond of its name.

    Needs bondpy; without it, nothing is told, and the manager's ``bond_timeout`` is to be 0.0. A
    node without a manager tells it for ten seconds and then falls silent.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._bond: Any = None
        self._ending: list[Any] = []
        """Broken bonds whose manager has not answered yet."""

    def start(self) -> None:
        """Begin to send heartbeats; the node is active."""
        self.stop()
        try:
            from bondpy.bondpy import Bond
        except ImportError as error:
            logger.debug("no bond with a lifecycle manager: %s", error)
            return
        # Its arguments changed their order and a name between Humble and Jazzy.
        identifier = "bond_id" if "bond_id" in signature(Bond).parameters else "id"
        named = {"node": self._node, "topic": BOND_TOPIC, identifier: self._node.get_name()}
        bond = Bond(**named)
        bond.heartbeat_period = HEARTBEAT_PERIOD
        bond.set_formed_callback(self._formed)
        bond.start()
        self._bond = bond

    def stop(self, *, now: bool = False) -> None:
        """Tell the manager that the end is on purpose.

        Args:
            now: whether the node is about to be destroyed; else the manager is told until it
                answers, for two seconds at most.

        """
        bond, self._bond = self._bond, None
        if bond is not None:
            self._ending.append(bond)
        if now:
            # Their threads would publish on a node that is gone.
            for each in list(self._ending):
                each.set_broken_callback(None)
                self._release(each)
        elif bond is not None:
            bond.set_broken_callback(partial(self._release, bond))
            bond.break_bond()
            if bond.is_broken():  # nobody was there to be told
                self._release(bond)

    def _release(self, bond: Any) -> None:
        if bond not in self._ending:
            return
        self._ending.remove(bond)
        bond.shutdown()
        # It destroys what the node's executor still knows of.
        self._node.destroy_subscription(bond.sub)
        self._node.destroy_publisher(bond.pub)

    def _formed(self) -> None:
        logger.info("a lifecycle manager watches this node by a bond")
        if self._bond is not None:
            self._bond.set_broken_callback(self._broken)

    def _broken(self) -> None:
        logger.warning("the lifecycle manager that watched this node has gone; the node goes on")


def manager_appears(node: Node, within: float = DISCOVERY) -> bool:
    """Return whether another node holds a client for this node's transitions.

    Args:
        node: which has just been made.
        within: seconds that discovery may take.

    Returns:
        False, at once, also where the distribution (Humble) cannot tell.

    """
    count = getattr(node, "count_clients", None)
    if count is None:
        return False
    service, deadline = node.resolve_service_name("~/change_state"), monotonic() + within
    while not count(service):
        if monotonic() >= deadline:
            return False
        sleep(_POLL)
    return True


class ManagedNode(LifecycleNode):
    """Turns the transitions of a lifecycle node into four steps, with a bond while it is active."""

    _failure: Exception | None = None
    _raises = False
    _bond: ManagerBond | None = None

    @abstractmethod
    def configure(self) -> None:
        """Acquire resources."""

    @abstractmethod
    def activate(self) -> None:
        """Start working."""

    @abstractmethod
    def deactivate(self) -> None:
        """Stop working, and keep all resources."""

    @abstractmethod
    def cleanup(self) -> None:
        """Release all resources; from any state, also half-configured."""

    @abstractmethod
    def recover(self, failure: str) -> None:
        """Clean up after an unforeseen failure."""

    @property
    def label(self) -> str:
        """Name of the lifecycle state, such as inactive."""
        # rclpy offers no public way to ask a node of one's own.
        return str(self._state_machine.current_state[1])

    def destroy_node(self) -> None:
        """Destroy the node and its lifecycle, which rclpy forgets.

        The lifecycle holds on to the node below, and so to the shared memory of DDS.
        """
        if self._bond is not None:
            self._bond.stop(now=True)
        super().destroy_node()
        self._state_machine.destroy_when_not_in_use()

    def autostart(self) -> None:
        """Configure and activate; raise what stands in the way."""
        self._raises = True
        try:
            for trigger in (self.trigger_configure, self.trigger_activate):
                if trigger() != TransitionCallbackReturn.SUCCESS and self._failure:
                    raise self._failure
        finally:
            self._raises = False

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Acquire resources."""
        return self._attempt("configure", self.configure)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Begin to work."""
        answer = self._attempt("activate", self.activate)
        if answer == TransitionCallbackReturn.SUCCESS:
            if self._bond is None:
                self._bond = ManagerBond(self)
            self._bond.start()
        return answer

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop working."""
        self._end_bond()
        return self._attempt("deactivate", self.deactivate)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release all resources."""
        return self._attempt("clean up", self.cleanup)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Give back what was taken, for good."""
        self._end_bond()
        return self._attempt("shut down", self.cleanup)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Clean up, so that the node may be configured again."""
        self._end_bond()
        failure = str(self._failure or "an unforeseen error")
        return self._attempt("recover", partial(self.recover, failure))

    def _end_bond(self) -> None:
        if self._bond is not None:
            self._bond.stop()

    def _attempt(self, what: str, step: Callable[[], None]) -> TransitionCallbackReturn:
        try:
            step()
        except XsvggtError as error:
            self._note_failure(error, f"cannot {what}: {error}")
            return TransitionCallbackReturn.FAILURE
        except Exception as error:
            text = f"cannot {what}: unexpected {type(error).__name__}: {first_line(error)}"
            logger.debug("%s", text, exc_info=True)
            self._note_failure(XsvggtError(text), text)
            return TransitionCallbackReturn.ERROR
        return TransitionCallbackReturn.SUCCESS

    def _note_failure(self, error: Exception, text: str) -> None:
        self._failure = error
        if not self._raises:
            logger.error("%s", text)
