# SPDX-License-Identifier: Apache-2.0
"""~/odometry: pose and twist of the robot's base, or of the camera, each with its covariance."""

from __future__ import annotations

import numpy as np
from geometry_msgs.msg import Twist, Vector3
from nav_msgs.msg import Odometry

from xsvggt_ros.ros.conversions import header, pose
from xsvggt_ros.stream.odometry import carrier_motion
from xsvggt_ros.stream.pipeline import FrameUpdate


def odometry_message(update: FrameUpdate, world: str, carrier: str, *, in_map: bool) -> Odometry:
    """Return what a frame says of the carrier's motion.

    Args:
        update: of the frame.
        world: frame that the pose is in.
        carrier: frame whose pose it is; the twist is about its axes.
        in_map: whether ``world`` is the map, because another node has the odometry.

    """
    result, placement = update.result, update.placement
    carrier_pose = placement.map_from_carrier if in_map else placement.odom_from_carrier
    camera = update.frame.transforms.carrier_from_camera
    motion = carrier_motion(
        result.motion,
        carrier_pose,
        np.eye(4) if camera is None else camera,
        metric=result.metric,
        lost=bool(update.faults),
    )
    message = Odometry(header=header(result.stamp, world), child_frame_id=carrier)
    message.pose.pose = pose(carrier_pose)
    message.pose.covariance = motion.covariance.ravel()
    linear, angular = (
        Vector3(x=x, y=y, z=z) for x, y, z in np.split(motion.twist, 2)
    )  # fmt: skip
    message.twist.twist = Twist(linear=linear, angular=angular)
    message.twist.covariance = motion.twist_covariance.ravel()
    return message
