# SPDX-License-Identifier: Apache-2.0
"""Training on synthetic streams: clips of rooms, or scenes that are rendered for every step."""

import time

import xsvggt_ros.logs  # noqa: F401 - before any logger is made

BEGAN = time.monotonic()
"""When this was first imported: a call's minutes count from here, not from PyTorch on."""
