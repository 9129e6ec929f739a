# SPDX-License-Identifier: Apache-2.0
"""The program ``reconstruct_node``."""

from __future__ import annotations

from xsvggt_ros.interruption import leave, leave_at_signals
from xsvggt_ros.threads import wait_passively


def main(args: list[str] | None = None) -> int:
    """Run the node until a signal ends it; return the exit code."""
    leave_at_signals()
    wait_passively()
    from xsvggt_ros.ros.running import run  # takes seconds

    return run(args)


if __name__ == "__main__":
    leave(main())
