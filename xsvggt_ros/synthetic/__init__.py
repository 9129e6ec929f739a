# SPDX-License-Identifier: Apache-2.0
"""Procedural rooms and camera motion with exact ground truth."""

import xsvggt_ros.logs  # noqa: F401 - before any logger is made
