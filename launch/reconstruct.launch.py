# SPDX-License-Identifier: Apache-2.0
"""Reconstruct from a camera topic, or from a recording that is replayed beside the node.

ros2 launch xsvggt_ros reconstruct.launch.py -s    tells the arguments.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import yaml
from ament_index_python.packages import get_package_prefix, get_package_share_directory
from launch.actions import DeclareLaunchArgument, OpaqueFunction, Shutdown
from launch.events.process import ProcessExited
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from launch import LaunchContext, LaunchDescription

PACKAGE = "xsvggt_ros"
CONFIG = Path(get_package_share_directory(PACKAGE)) / "config"
OUTPUTS = ("points", "map", "depth/image", "confidence/image", "odometry", "path", "status")

ARGUMENTS = (
    ("image", "", "Topic of the images, without /compressed; empty = that of camera_name."),
    ("camera_name", "", "Camera whose images are on <camera_name>/image_raw; empty = image."),
    ("camera_info", "", "Topic of the camera_info; empty = the one beside the images."),
    ("depth", "", "Topic of measured depth, for scale.source depth; empty = depth."),
    ("odom", "", "Topic of an odometry, for scale.source odometry; empty = odom."),
    ("image_transport", "", "raw or compressed; empty = as in params_file."),
    ("checkpoint", "", "Weights: a file or a Hugging Face id; empty = as in params_file."),
    ("device", "", "cpu, cuda or cuda:N; empty = as in params_file."),
    (
        "params_file",
        str(CONFIG / "default.yaml"),
        "Parameters; the arguments given here override them.",
    ),
    ("bag", "", "Bag, video or directory of images to replay; empty = a live camera."),
    ("topic", "", "Image topic to replay, if the bag holds several."),
    ("base_frame", "", "Frame of the robot, such as base_link; empty = as in params_file."),
    ("odometry", "", "own or external: who publishes odom to base; empty = as in params_file."),
    ("use_sim_time", "", "true or false; empty = true with bag, else as in params_file."),
    ("autostart", "", "false = wait for a lifecycle manager; empty = as in params_file."),
    ("respawn", "false", "true restarts the node when it dies, instead of ending the launch."),
    ("respawn_delay", "2.0", "Seconds before the restart."),
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
    # Not by Path, which raises where nobody knows that home.
    given["params_file"] = os.path.expanduser(given["params_file"])  # noqa: PTH111
    # Errors in the arguments must come before the first process starts.
    if not Path(given["params_file"]).is_file():
        # launch itself would only warn, and the node would run with its defaults.
        raise ValueError(f"params_file:={given['params_file']} is no file; give its whole path")
    name = f"{_namespace(context, given)}/xsvggt"
    _check_parameters(given["params_file"], name)
    rviz = [_rviz(given, name)] if _switch(given, "rviz") else []
    replay = [_replay(given)] if given["bag"] else []
    return [_reconstruct(given), *replay, *rviz]


def _namespace(context: LaunchContext, given: dict[str, str]) -> str:
    """Return the namespace that launch_ros gives the node, below one that was pushed."""
    parts = [given["namespace"]]
    if not given["namespace"].startswith("/"):
        parts.insert(0, context.launch_configurations.get("ros_namespace", ""))
    return "".join(f"/{part}" for part in "/".join(parts).split("/") if part)


def _check_parameters(file: str, node: str) -> None:
    """Refuse a file with parameters of other nodes only: ours would run with its defaults."""
    try:
        content = yaml.compose(Path(file).read_text(encoding="utf-8"), yaml.SafeLoader)
    except (yaml.YAMLError, UnicodeDecodeError):
        return  # the node says what is wrong with it
    names = [name for name in _node_names(content) if name]
    if names and not any(re.fullmatch(_expression(name), node) for name in names):
        raise ValueError(
            f"params_file:={file} has parameters of {', '.join(names)} and none of {node}; "
            f"name them /**: or {node}:"
        )


def _node_names(content: yaml.Node | None, above: str = "") -> Iterator[str]:
    """Yield the nodes that a parameter file names, with wildcards."""
    for key, value in content.value if isinstance(content, yaml.MappingNode) else ():
        if key.value == "ros__parameters":
            yield above
        else:
            parts = [part for part in str(key.value).split("/") if part]
            yield from _node_names(value, "/".join([above, *parts]))


def _expression(name: str) -> str:
    """Return the regular expression that rcl makes of a name in a parameter file."""
    parts = {"**": r"(/\w+)*", "*": r"/\w+"}
    return "".join(parts.get(part, f"/{re.escape(part)}") for part in name.split("/")[1:])


def _image(given: dict[str, str]) -> str:
    """Return the topic of the images."""
    camera = given["camera_name"].rstrip("/")
    return given["image"] or (f"{camera}/image_raw" if camera else "image")


def _reconstruct(given: dict[str, str]) -> Node:
    topics = {
        "camera_info": given["camera_info"],
        "depth": given["depth"],
        "odom": given["odom"],
    }
    respawn = bool(_switch(given, "respawn"))
    return Node(
        package=PACKAGE,
        executable="reconstruct_node",
        name="xsvggt",
        namespace=given["namespace"],
        parameters=[given["params_file"], _overrides(given)],
        remappings=[("image", _image(given)), *((n, t) for n, t in topics.items() if t)],
        ros_arguments=["--log-level", given["log_level"]],
        output="screen",
        respawn=respawn,
        respawn_delay=_seconds(given, "respawn_delay"),
        on_exit=None if respawn else _end_with_node,
    )


def _end_with_node(event: ProcessExited, context: LaunchContext) -> Shutdown:
    return _end(event, context, "reconstruct_node")


def _end_with_failed_replay(event: ProcessExited, context: LaunchContext) -> Shutdown | None:
    """End the launch if the recording cannot be replayed: the node would wait for ever."""
    return _end(event, context, "replay_node") if event.returncode else None


def _end(event: ProcessExited, context: LaunchContext, name: str) -> Shutdown:
    if event.returncode and not context.is_shutdown:
        # The only way to an exit code of ros2 launch that is not 0.
        raise RuntimeError(f"{name} failed with exit code {event.returncode}")
    return Shutdown(reason=f"{name} has ended")


def _overrides(given: dict[str, str]) -> dict[str, str | bool]:
    named = {
        "model.checkpoint": given["checkpoint"],
        "model.device": given["device"],
        "input.image_transport": given["image_transport"],
        "frames.base": given["base_frame"],
        "tf.odometry": given["odometry"],
        "lifecycle.autostart": _switch(given, "autostart"),
    }
    said = {name: value for name, value in named.items() if value not in ("", None)}
    return {**said, **_time(given)}


def _time(given: dict[str, str]) -> dict[str, bool]:
    """Return use_sim_time as a parameter, where there is something to say."""
    simulated = _switch(given, "use_sim_time")
    if simulated is None and given["bag"]:
        simulated = True
    return {} if simulated is None else {"use_sim_time": simulated}


def _switch(given: dict[str, str], name: str) -> bool | None:
    """Return the value of an argument that is true or false, None where it is empty."""
    word = given[name].lower()
    if word not in ("true", "false", ""):
        raise ValueError(f"{name}:={given[name]} is neither true nor false")
    return word == "true" if word else None


def _seconds(given: dict[str, str], name: str) -> float:
    """Return the value of an argument that is a time."""
    try:
        seconds = float(given[name])
    except ValueError:
        seconds = -1.0
    if not 0.0 <= seconds < float("inf"):
        raise ValueError(f"{name}:={given[name]} is no number of seconds, such as 2.0")
    return seconds


def _replay(given: dict[str, str]) -> Node:
    options = ["--clock"] if _time(given)["use_sim_time"] else []
    if given["topic"]:
        options += ["--topic", given["topic"]]
    return Node(
        package=PACKAGE,
        executable="replay_node",
        namespace=given["namespace"],
        arguments=[given["bag"], "--image-topic", _image(given), *options],
        ros_arguments=["--log-level", given["log_level"]],
        output="screen",
        on_exit=_end_with_failed_replay,
    )


def _rviz(given: dict[str, str], node: str) -> Node:
    try:
        get_package_prefix("rviz2")
    except LookupError as error:
        raise RuntimeError(
            "rviz:=true needs RViz, which is not installed: sudo apt-get install "
            "ros-$ROS_DISTRO-rviz2, or leave it out and look with Foxglove or Rerun"
        ) from error
    return Node(
        package="rviz2",
        executable="rviz2",
        arguments=["-d", str(CONFIG / "xsvggt.rviz")],
        parameters=[_time(given)],
        remappings=[(f"/xsvggt/{topic}", f"{node}/{topic}") for topic in OUTPUTS],
    )
