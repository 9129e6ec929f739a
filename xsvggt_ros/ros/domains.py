# SPDX-License-Identifier: Apache-2.0
"""A ROS domain of one's own, so that no robot, demo or test nearby joins in."""

from __future__ import annotations

import os
import random
import socket

from xsvggt_ros.errors import ConfigurationError, EnvironmentMissingError

HIGHEST_DOMAIN = 101
"""Above it, DDS ports of Linux run into those given to outgoing connections."""

LAST_DOMAIN = 232
"""Above it, there are no ports."""

CANDIDATES = range(1, HIGHEST_DOMAIN + 1)
"""Domains that `free_domain` chooses from; 0 is everybody's default."""


def given_domain() -> int | None:
    """Return the domain that ROS_DOMAIN_ID names, None where it is not set.

    Raises:
        ConfigurationError: it names none.

    """
    given = os.environ.get("ROS_DOMAIN_ID", "")
    if not given:
        return None
    if not (given.isascii() and given.isdigit() and int(given) <= LAST_DOMAIN):
        raise ConfigurationError(
            f"ROS_DOMAIN_ID is '{given}'; set it to a number from 0 to {LAST_DOMAIN}, or unset it"
        )
    return int(given)


def free_domain() -> int:
    """Return a random domain in which nobody on this machine takes part just now.

    Raises:
        EnvironmentMissingError: there is none.

    """
    for domain in random.SystemRandom().sample(CANDIDATES, len(CANDIDATES)):
        if not _taken(domain):
            return domain
    raise EnvironmentMissingError(
        f"all ROS domains from {CANDIDATES[0]} to {CANDIDATES[-1]} are in use on this machine; "
        "end some nodes, or set ROS_DOMAIN_ID"
    )


def _taken(domain: int) -> bool:
    """Ask for the port at which the first participant of the domain is found (RTPS 9.6.1)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(("", 7400 + 250 * domain + 10))
        except OSError:
            return True
        return False
