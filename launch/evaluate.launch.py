# SPDX-License-Identifier: Apache-2.0
"""Evaluate a recording with ground truth: `xsvggt evaluate` with launch arguments.

ros2 launch xsvggt_ros evaluate.launch.py bag:=... -s    tells the arguments.

No node runs and nothing is played back: the bag is read as it lies, so that no frame is dropped.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from ament_index_python.packages import get_package_prefix
from launch.actions import DeclareLaunchArgument, ExecuteProcess, OpaqueFunction, Shutdown
from launch.events.process import ProcessExited
from launch.substitutions import LaunchConfiguration

from launch import LaunchContext, LaunchDescription

PACKAGE = "xsvggt_ros"

ARGUMENTS = (
    ("bag", None, "Bag, directory of a data set, or synthetic:NAME."),
    ("truth", "", "True poses: a topic, two TF frames as map->camera, or a file."),
    ("topic", "", "Image topic, where the bag holds several."),
    ("depth_topic", "", "Depth topic, where the bag holds several."),
    ("checkpoint", "", "Weights: a file or a Hugging Face id; empty = the bundled demo model."),
    ("device", "auto", "cpu, cuda or cuda:N."),
    ("output", "results", "Directory in which each run gets a directory of its own."),
    ("realtime", "false", "true replays at the recording's pace and counts drops."),
    ("sweep", "", "Settings of the cache to try, such as 'budget=512,1024 bits=2,4'."),
    ("options", "", "More options of xsvggt evaluate, as on its command line."),
)


def generate_launch_description() -> LaunchDescription:
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=text)
        for name, default, text in ARGUMENTS
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=_evaluation)])


def _evaluation(context: LaunchContext) -> list[ExecuteProcess]:
    given = {name: LaunchConfiguration(name).perform(context) for name, _, _ in ARGUMENTS}
    program = Path(get_package_prefix(PACKAGE)) / "lib" / PACKAGE / "xsvggt"
    return [
        ExecuteProcess(
            cmd=[str(program), "evaluate", *_options(given)],
            output="screen",
            sigterm_timeout="60",  # a stopped run writes its report
            on_exit=_end,
        )
    ]


def _end(event: ProcessExited, context: LaunchContext) -> Shutdown:
    if event.returncode and not context.is_shutdown:
        # The only way to an exit code of ros2 launch that is not 0.
        raise RuntimeError(f"xsvggt evaluate failed with exit code {event.returncode}")
    return Shutdown(reason="the evaluation is done")


def _options(given: dict[str, str]) -> list[str]:
    named = ("truth", "topic", "depth_topic", "checkpoint", "device", "output")
    axes = given["sweep"].split()
    options = ["sweep", given["bag"], *axes] if axes else ["run", given["bag"]]
    for name in named:
        if given[name]:
            options += [f"--{name.replace('_', '-')}", given[name]]
    if _realtime(given["realtime"]):
        options.append("--realtime")
    return options + shlex.split(given["options"])


def _realtime(word: str) -> bool:
    if word.lower() not in ("true", "false"):
        raise ValueError(f"realtime:={word} is neither true nor false")
    return word.lower() == "true"
