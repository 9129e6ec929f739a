# SPDX-License-Identifier: Apache-2.0
"""The node and what it needs of ROS; the only room that imports rclpy."""

import xsvggt_ros.logs  # noqa: F401 - before any logger is made
