# SPDX-License-Identifier: Apache-2.0
"""Training on worlds that are never the same twice, in pieces of a few minutes of a GPU."""

import time

BEGAN = time.monotonic()
"""When this was first imported: the minutes of a piece count from here, not from PyTorch on."""
