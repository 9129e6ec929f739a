# SPDX-License-Identifier: Apache-2.0
"""Stand-in for cv_bridge in environments without a ROS 2 distribution, with its public API."""

from .core import CvBridge as CvBridge
from .core import CvBridgeError as CvBridgeError
