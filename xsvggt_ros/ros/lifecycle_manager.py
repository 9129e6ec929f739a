# SPDX-License-Identifier: Apache-2.0
"""What a lifecycle manager, such as that of Nav2, wants of a node beyond its transitions."""

from __future__ import annotations

import logging
from time import monotonic, sleep
from typing import Any

from rclpy.node import Node

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

    def start(self) -> None:
        """Begin to send heartbeats; the node is active."""
        self.stop()
        try:
            from bondpy.bondpy import Bond
        except ImportError as error:
            logger.debug("no bond with a lifecycle manager: %s", error)
            return
        bond = Bond(BOND_TOPIC, self._node.get_name(), self._node)
        bond.heartbeat_period = HEARTBEAT_PERIOD
        bond.set_formed_callback(self._formed)
        bond.start()
        self._bond = bond

    def stop(self) -> None:
        """Tell the manager that the end is on purpose."""
        bond, self._bond = self._bond, None
        if bond is None:
            return
        bond.set_broken_callback(None)
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
