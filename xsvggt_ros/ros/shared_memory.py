# SPDX-License-Identifier: Apache-2.0
"""The shared memory of Fast DDS that outlives the processes it was made for.

Fast DDS 3 gives each participant a segment ``fastdds_…`` of the size in the profile, allocated
whole, and an empty file ``fastdds_…_el``, locked as long as the process lives; the names of Fast
DDS 2 (Humble, Jazzy) begin with ``fastrtps_``. A process that takes no leave of DDS leaves both,
and nobody removes them until the machine restarts. A segment whose lock is free has no owner any
more; `fastdds shm clean` goes by the same rule.
"""

from __future__ import annotations

import fcntl
import os
import re
from contextlib import suppress
from pathlib import Path

DIRECTORY = Path("/dev/shm")
_OWN_FILES = Path("/proc/self/fd")
_LOCK = re.compile(r"(fastdds|fastrtps)_[0-9a-f]{16}_el")


def abandoned() -> list[Path]:
    """Return the segments whose owners are gone."""
    found = []
    for lock in _locks():
        try:
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
