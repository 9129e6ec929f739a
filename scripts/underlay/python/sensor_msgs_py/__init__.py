# SPDX-License-Identifier: Apache-2.0
"""Stand-in for sensor_msgs_py in environments without a ROS 2 distribution."""
