# SPDX-License-Identifier: Apache-2.0
"""The online engine: frames in; poses, depth and points out. Knows no ROS."""

import xsvggt_ros.logs  # noqa: F401 - before any logger is made
