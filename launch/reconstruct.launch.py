# SPDX-License-Identifier: Apache-2.0
"""Reconstruct from a camera topic, or from a recording that is replayed beside the node.

ros2 launch xsvggt_ros reconstruct.launch.py -s    tells the arguments.
"""

from __future__ import annotations

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch.actions import DeclareLaunchArgument, OpaqueFunction, Shutdown
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from launch import LaunchContext, LaunchDescription

PACKAGE = "xsvggt_ros"
CONFIG = Path(get_package_share_directory(PACKAGE)) / "config"
OUTPUTS = ("points", "depth/image", "confidence/image", "odometry", "path", "status")

ARGUMENTS = (
    ("image", "image", "Topic of the pictures, without /compressed."),
    ("camera_info", "", "Topic of the camera_info; empty = the one beside the pictures."),
    ("image_transport", "", "raw or compressed; empty = as in params_file."),
    ("checkpoint", "", "Weights: a file or a Hugging Face id; empty = as in params_file."),
    ("device", "", "cpu, cuda or cuda:N; empty = as in params_file."),
    ("params_file", str(CONFIG / "default.yaml"), "Parameters; those given here go before them."),
    ("source", "", "Folder of pictures, video or bag to replay; empty = a live camera."),
    ("use_sim_time", "", "true or false; empty = true where a source is replayed."),
    ("namespace", "", "Namespace of all nodes."),
    ("log_level", "info", "debug, info, warn, error or fatal."),
    ("rviz", "false", "true starts RViz with a view of the outputs."),
)


def generate_launch_description() -> LaunchDescription:
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=text)
        for name, default, text in ARGUMENTS
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=_nodes)])


def _nodes(context: LaunchContext) -> list[Node]:
    given = {name: LaunchConfiguration(name).perform(context) for name, _, _ in ARGUMENTS}
    nodes = [_reconstruct(given)]
    if given["source"]:
        nodes.append(_replay(given))
    if given["rviz"] == "true":
        nodes.append(_rviz(given))
    return nodes


def _reconstruct(given: dict[str, str]) -> Node:
    remappings = [("image", given["image"])]
    if given["camera_info"]:
        remappings.append(("camera_info", given["camera_info"]))
    return Node(
        package=PACKAGE,
        executable="reconstruct_node",
        name="xsvggt",
        namespace=given["namespace"],
        parameters=[given["params_file"], _overrides(given)],
        remappings=remappings,
        ros_arguments=["--log-level", given["log_level"]],
        output="screen",
        on_exit=Shutdown(),
    )


def _overrides(given: dict[str, str]) -> dict[str, str | bool]:
    named = {
        "model.checkpoint": given["checkpoint"],
        "model.device": given["device"],
        "input.image_transport": given["image_transport"],
    }
    chosen: dict[str, str | bool] = {name: value for name, value in named.items() if value}
    return {**chosen, "use_sim_time": _simulated(given)}


def _simulated(given: dict[str, str]) -> bool:
    return given["use_sim_time"] == "true" or bool(given["source"] and not given["use_sim_time"])


def _replay(given: dict[str, str]) -> Node:
    clock = ["--clock"] if _simulated(given) else []
    return Node(
        package=PACKAGE,
        executable="replay_node",
        namespace=given["namespace"],
        arguments=[given["source"], "--image-topic", given["image"], *clock],
        ros_arguments=["--log-level", given["log_level"]],
        output="screen",
    )


def _rviz(given: dict[str, str]) -> Node:
    prefix = f"/{given['namespace']}".rstrip("/")
    return Node(
        package="rviz2",
        executable="rviz2",
        arguments=["-d", str(CONFIG / "xsvggt.rviz")],
        parameters=[{"use_sim_time": _simulated(given)}],
        remappings=[(f"/xsvggt/{topic}", f"{prefix}/xsvggt/{topic}") for topic in OUTPUTS],
    )
