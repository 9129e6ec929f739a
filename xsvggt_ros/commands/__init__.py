# SPDX-License-Identifier: Apache-2.0
"""The commands of `xsvggt`, one file each; each imports what it needs itself, for quick help."""

import xsvggt_ros.logs  # noqa: F401 - before any logger is made
