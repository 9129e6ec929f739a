# SPDX-License-Identifier: Apache-2.0
"""Procedural rooms and camera motion with exact ground truth, and the training on them."""

import xsvggt_ros.logs  # noqa: F401 - before any logger is made
