# SPDX-License-Identifier: Apache-2.0
"""Domains of DDS, and its segments of shared memory."""

from __future__ import annotations

import fcntl
import os
import random
import re
import socket
from contextlib import suppress
from pathlib import Path
from time import time

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


DIRECTORY = Path("/dev/shm")
YOUNG = 5.0
"""Seconds in which a new lock may not have been taken yet by the participant that made it.
Trying such a lock would be in its way; removing it would cut that participant off."""
_OWN_FILES = Path("/proc/self/fd")
_LOCK = re.compile(r"(fastdds|fastrtps)_[0-9a-f]{16}_el")


def abandoned() -> list[Path]:
    """Return the segments whose owners are gone."""
    found = []
    for lock in _locks():
        try:
            if time() - lock.stat().st_mtime < YOUNG:
                continue
            file = os.open(lock, os.O_RDONLY)
        except OSError:  # it has just gone, or is another user's
            continue
        try:
            if _lockable(file):
                found.append(_segment(lock))
        finally:
            os.close(file)
    return found


def remove_abandoned() -> None:
    """Give back the memory of processes that are gone, those of other users excepted."""
    for segment in abandoned():
        _remove(segment)


def remove_own() -> None:
    """Give back the memory of this process, which is about to end without taking leave of DDS.

    What has been sent may be lost to those who have not looked at it yet.
    """
    with suppress(OSError):  # no such place on this system
        for file in _OWN_FILES.iterdir():
            with suppress(OSError):  # closed meanwhile
                lock = file.readlink()
                # Only through the file by which it is held can a lock be taken again.
                if lock in _locks() and _lockable(int(file.name)):
                    _remove(_segment(lock))


def _locks() -> list[Path]:
    try:
        return [file for file in DIRECTORY.iterdir() if _LOCK.fullmatch(file.name)]
    except OSError:  # no such directory on this system
        return []


def _lockable(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _segment(lock: Path) -> Path:
    return lock.with_name(lock.name.removesuffix("_el"))


def _remove(segment: Path) -> None:
    for file in (segment, segment.with_name(f"{segment.name}_el")):
        with suppress(OSError):
            file.unlink()
