# SPDX-License-Identifier: Apache-2.0
"""Publish a bag, a video or a directory of images as a camera would have done.

ros2 launch xsvggt_ros replay.launch.py -s    tells the arguments.
"""

from __future__ import annotations

from launch.actions import DeclareLaunchArgument, OpaqueFunction, Shutdown
from launch.events.process import ProcessExited
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from launch import LaunchContext, LaunchDescription

ARGUMENTS = (
    ("bag", None, "Bag, video, image or directory of images."),
    ("topic", "", "Image topic to replay, where the bag holds several."),
    ("image", "image", "Topic to publish on, without /compressed."),
    ("image_transport", "both", "raw, compressed or both."),
    ("speed", "", "Factor on the recording's own pace, such as 0.5."),
    ("fixed_rate", "", "Images per second, whatever the stamps say."),
    ("rate", "", "Images per second of a directory, or of a video in place of its own times."),
    ("loop", "false", "true starts again at the end."),
    ("paused", "false", "true waits for the service ~/pause."),
    ("clock", "true", "false publishes no /clock."),
    ("restamp", "false", "true stamps with the time of publishing; needs clock:=false."),
    ("frame_id", "", "Frame of the images; empty = the recording's."),
    ("best_effort", "false", "true publishes like a camera driver."),
    ("follow", "", "Full name of a node that sets the pace, such as /xsvggt; none is lost then."),
    ("namespace", "", "Namespace of the node."),
    ("log_level", "info", "debug, info, warn, error or fatal."),
)
VALUES = {
    "topic": "--topic",
    "image": "--image-topic",
    "image_transport": "--transport",
    "speed": "--speed",
    "fixed_rate": "--fixed-rate",
    "rate": "--rate",
    "frame_id": "--frame-id",
    "follow": "--follow",
}
SWITCHES = {
    "loop": "--loop",
    "paused": "--paused",
    "clock": "--clock",
    "restamp": "--restamp",
    "best_effort": "--best-effort",
}


def generate_launch_description() -> LaunchDescription:
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=text)
        for name, default, text in ARGUMENTS
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=_nodes)])


def _nodes(context: LaunchContext) -> list[Node]:
    given = {name: LaunchConfiguration(name).perform(context) for name, _, _ in ARGUMENTS}
    values = [part for name, option in VALUES.items() if given[name]
              for part in (option, given[name])]  # fmt: skip
    switches = [option for name, option in SWITCHES.items() if _switch(given, name)]
    return [
        Node(
            package="xsvggt_ros",
            executable="replay_node",
            namespace=given["namespace"],
            arguments=[given["bag"], *values, *switches],
            ros_arguments=["--log-level", given["log_level"]],
            output="screen",
            on_exit=_end,
        )
    ]


def _end(event: ProcessExited, context: LaunchContext) -> Shutdown:
    if event.returncode and not context.is_shutdown:
        # The only way to an exit code of ros2 launch that is not 0.
        raise RuntimeError(f"replay_node failed with exit code {event.returncode}")
    return Shutdown(reason="the replay is done")


def _switch(given: dict[str, str], name: str) -> bool:
    word = given[name].lower()
    if word not in ("true", "false"):
        raise ValueError(f"{name}:={given[name]} is neither true nor false")
    return word == "true"
