# SPDX-License-Identifier: Apache-2.0
"""The launch file: what can be read of it anywhere, and the real thing where launch exists."""

from __future__ import annotations

import ast
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import yaml

from xsvggt_ros.ros.parameters import specifications
from xsvggt_ros.ros.processes import free_domain

ROOT = Path(__file__).parents[2]
LAUNCH_FILE = ROOT / "launch/reconstruct.launch.py"
REPLAY_FILE = ROOT / "launch/replay.launch.py"


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 10))


TREE = _tree(LAUNCH_FILE)
FILES = pytest.mark.parametrize("path", [LAUNCH_FILE, REPLAY_FILE], ids=lambda path: path.name)


def _strings(tree: ast.AST) -> list[str]:
    constants = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    return [value for value in constants if isinstance(value, str)]


def _arguments(tree: ast.Module) -> list[tuple[str, str]]:
    """Return name and description of each argument."""
    table = next(
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "ARGUMENTS"
    )
    assert isinstance(table, ast.Tuple)
    rows = [row for row in table.elts if isinstance(row, ast.Tuple)]
    return [(ast.literal_eval(row.elts[0]), ast.literal_eval(row.elts[2])) for row in rows]


@FILES
def test_it_compiles(path: Path) -> None:
    compile(_tree(path), str(path), "exec")


@FILES
def test_every_argument_is_described_and_used(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    used = set(re.findall(r"given(?:\[|, )['\"](\w+)['\"][\])]", text))
    used |= set(re.findall(r"^    \"(\w+)\": \"--", text, re.MULTILINE))
    assert {name for name, _ in _arguments(_tree(path))} == used
    assert all(text.endswith(".") for _, text in _arguments(_tree(path)))


def test_replay_options_are_those_of_the_program() -> None:
    options = {text for text in _strings(_tree(REPLAY_FILE)) if text.startswith("--")}
    options -= {"--log-level"}
    help_text = subprocess.run(
        [sys.executable, "-m", "xsvggt_ros.ros.replay", "--help"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    ).stdout
    assert options <= set(re.findall(r"--[\w-]+", help_text))


def test_the_parameters_that_it_sets_exist() -> None:
    keys = [key for node in ast.walk(TREE) if isinstance(node, ast.Dict) for key in node.keys]
    dotted = {text for key in keys if key for text in _strings(key) if "." in text}
    assert dotted == {
        "model.checkpoint",
        "model.device",
        "input.image_transport",
        "frames.base",
        "tf.odometry",
        "lifecycle.autostart",
    }
    assert dotted <= {spec.name for spec in specifications()}


def test_the_files_that_it_names_exist() -> None:
    for name in ("default.yaml", "xsvggt.rviz"):
        assert name in _strings(TREE)
        assert yaml.safe_load((ROOT / "config" / name).read_text(encoding="utf-8"))


class _Action:
    """Stands for everything that launch offers; keeps what it was made from."""

    def __init__(self, *_: Any, **made_from: Any) -> None:
        self.made_from = made_from


class _Module(ModuleType):
    def __getattr__(self, name: str) -> Any:
        return (lambda package: str(ROOT)) if name.startswith("get_") else _Action


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, dict[str, Any]]]:
    """What the launch file makes of arguments, by executable, on a launch that only listens."""
    modules = ("launch", "launch.actions", "launch.substitutions", "launch_ros.actions")
    for name in (*modules, "launch.events.process", "ament_index_python.packages"):
        monkeypatch.setitem(sys.modules, name, _Module(name))
    return _maker(LAUNCH_FILE)


@pytest.fixture
def replays(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, dict[str, Any]]]:
    """The same of the launch file that only replays."""
    modules = ("launch", "launch.actions", "launch.substitutions", "launch_ros.actions")
    for name in (*modules, "launch.events.process"):
        monkeypatch.setitem(sys.modules, name, _Module(name))
    return _maker(REPLAY_FILE)


def _maker(path: Path) -> Callable[..., dict[str, dict[str, Any]]]:
    space = runpy.run_path(str(path))

    class Configuration:
        def __init__(self, name: str) -> None:
            self.name = name

        def perform(self, context: SimpleNamespace) -> str:
            return str(context.launch_configurations[self.name])

    space["_nodes"].__globals__["LaunchConfiguration"] = Configuration

    def make(**given: str) -> dict[str, dict[str, Any]]:
        values = {name: default for name, default, _ in space["ARGUMENTS"]} | given
        context = SimpleNamespace(launch_configurations=values)
        made = [node.made_from for node in space["_nodes"](context)]
        return {node["executable"]: node for node in made}

    return make


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {}),
        ({"use_sim_time": "True"}, {"use_sim_time": True}),
        ({"use_sim_time": "false"}, {"use_sim_time": False}),
        ({"bag": "a.mcap"}, {"use_sim_time": True}),
        ({"bag": "a.mcap", "use_sim_time": "FALSE"}, {"use_sim_time": False}),
        ({"checkpoint": "w.pth"}, {"model.checkpoint": "w.pth"}),
        (
            {"base_frame": "base_link", "odometry": "external"},
            {"frames.base": "base_link", "tf.odometry": "external"},
        ),
    ],
)
def test_only_what_is_given_goes_before_the_parameter_file(
    nodes: Callable[..., dict[str, dict[str, Any]]],
    given: dict[str, str],
    expected: dict[str, object],
) -> None:
    made = nodes(**given, rviz="True")
    assert made["reconstruct_node"]["parameters"] == [str(ROOT / "config/default.yaml"), expected]
    simulated = {name: value for name, value in expected.items() if name == "use_sim_time"}
    assert made["rviz2"]["parameters"] == [simulated]
    if "bag" in given:
        assert ("--clock" in made["replay_node"]["arguments"]) == expected["use_sim_time"]


@pytest.mark.parametrize("name", ["rviz", "use_sim_time"])
def test_other_words_than_true_and_false_are_refused(
    nodes: Callable[..., dict[str, dict[str, Any]]], name: str
) -> None:
    with pytest.raises(ValueError, match=f"{name}:=yes is neither true nor false"):
        nodes(**{name: "yes"})


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("params_file", "robot.yaml", "params_file:=robot.yaml is no file"),
        ("respawn_delay", "soon", "respawn_delay:=soon is no number of seconds"),
        ("respawn_delay", "nan", "respawn_delay:=nan is no number of seconds"),
        ("respawn_delay", "-1", "respawn_delay:=-1 is no number of seconds"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_runs(
    nodes: Callable[..., dict[str, dict[str, Any]]], name: str, value: str, told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        nodes(**{name: value})


@pytest.mark.parametrize(
    ("text", "namespace", "fits"),
    [
        ("xsvggt: {ros__parameters: {}}", "", True),
        ("/xsvggt: {ros__parameters: {}}", "", True),
        ("/**: {ros__parameters: {}}", "/robot/left", True),
        ("/*/xsvggt: {ros__parameters: {}}", "robot", True),
        ("/**/xsvggt: {ros__parameters: {}}", "", True),
        ("robot: {xsvggt: {ros__parameters: {}}}", "/robot/", True),
        ("camera: {ros__parameters: {}}\n/robot/xsvggt: {ros__parameters: {}}", "robot", True),
        ("", "", True),
        ("- no mapping", "", True),
        ("{broken", "", True),
        ("/: {xsvggt: {ros__parameters: {}}}", "", True),
        ("xsvggt: {ros__parameters: {a: 2024-99-99, b: 0x_}}", "", True),
        ("r: {xsvggt: {ros__parameters: {}}}\nr: {camera: {ros__parameters: {}}}", "r", True),
        ("ros__parameters: {}", "", True),
        ("a+b: {ros__parameters: {}}", "", False),
        ("reconstruct_node: {ros__parameters: {}}", "", False),
        ("xsvggt: {ros__parameters: {}}", "robot", False),
        ("/*/xsvggt: {ros__parameters: {}}", "", False),
        ("/robot/xsvggt: {ros__parameters: {}}", "", False),
    ],
)
def test_a_file_without_parameters_of_this_node_is_refused(
    nodes: Callable[..., dict[str, dict[str, Any]]],
    tmp_path: Path,
    text: str,
    namespace: str,
    fits: bool,
) -> None:
    """ROS passes over them in silence, and the node would run with its defaults."""
    file = tmp_path / "robot.yaml"
    file.write_text(text, encoding="utf-8")
    if fits:
        assert nodes(params_file=str(file), namespace=namespace)
        return
    name = "/robot/xsvggt" if namespace else "/xsvggt"
    with pytest.raises(ValueError, match=rf"none of {name}; name them /\*\*: or {name}:"):
        nodes(params_file=str(file), namespace=namespace)


@pytest.mark.parametrize(
    ("pushed", "namespace", "name"),
    [
        ("robot", "", "/robot/xsvggt"),
        ("/robot", "left", "/robot/left/xsvggt"),
        ("robot/", "/left", "/left/xsvggt"),
    ],
)
def test_a_file_is_compared_with_the_name_below_a_pushed_namespace(
    nodes: Callable[..., dict[str, dict[str, Any]]],
    tmp_path: Path,
    pushed: str,
    namespace: str,
    name: str,
) -> None:
    file = tmp_path / "robot.yaml"
    given = {"params_file": str(file), "namespace": namespace, "ros_namespace": pushed}
    file.write_text(f"{name}: {{ros__parameters: {{}}}}", encoding="utf-8")
    made = nodes(**given, rviz="true")
    assert ("/xsvggt/points", f"{name}/points") in made["rviz2"]["remappings"]
    file.write_text("/xsvggt: {ros__parameters: {}}", encoding="utf-8")
    with pytest.raises(ValueError, match=f"none of {name};"):
        nodes(**given)


def test_a_tilde_in_a_path_is_the_home_directory(
    nodes: Callable[..., dict[str, dict[str, Any]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "robot.yaml").write_text("xsvggt: {ros__parameters: {}}", encoding="utf-8")
    made = nodes(params_file="~/robot.yaml")["reconstruct_node"]
    assert made["parameters"][0] == str(tmp_path / "robot.yaml")
    with pytest.raises(ValueError, match="params_file:=~nobody-of-that-name/x is no file"):
        nodes(params_file="~nobody-of-that-name/x")


def test_what_is_started_is_what_was_asked_for(
    nodes: Callable[..., dict[str, dict[str, Any]]],
) -> None:
    assert set(nodes(rviz="FALSE")) == {"reconstruct_node"}
    replay = nodes(bag="a.mcap", topic="/left/image", image="/camera")["replay_node"]
    expected = ["a.mcap", "--image-topic", "/camera", "--clock", "--topic", "/left/image"]
    assert replay["arguments"] == expected


@pytest.mark.parametrize(
    ("given", "topic"),
    [
        ({}, "image"),
        ({"camera_name": "/front"}, "/front/image_raw"),
        ({"camera_name": "front/"}, "front/image_raw"),
        ({"image": "/eye", "camera_name": "/front"}, "/eye"),
    ],
)
def test_the_camera_names_the_topic_unless_the_topic_is_given(
    nodes: Callable[..., dict[str, dict[str, Any]]], given: dict[str, str], topic: str
) -> None:
    made = nodes(**given, bag="a.mcap")
    assert made["reconstruct_node"]["remappings"] == [("image", topic)]
    assert made["replay_node"]["arguments"][1:3] == ["--image-topic", topic]


@pytest.mark.parametrize(
    ("namespace", "topic"),
    [
        ("", "/xsvggt/points"),
        ("/", "/xsvggt/points"),
        ("robot", "/robot/xsvggt/points"),
        ("/robot/", "/robot/xsvggt/points"),
        ("/fleet/robot", "/fleet/robot/xsvggt/points"),
    ],
)
def test_rviz_looks_into_the_namespace_of_the_node(
    nodes: Callable[..., dict[str, dict[str, Any]]], namespace: str, topic: str
) -> None:
    made = nodes(rviz="true", namespace=namespace)
    assert ("/xsvggt/points", topic) in made["rviz2"]["remappings"]


def test_measured_depth_and_odometry_are_remapped_where_they_are_given(
    nodes: Callable[..., dict[str, dict[str, Any]]],
) -> None:
    remappings = nodes(depth="/d", odom="/o")["reconstruct_node"]["remappings"]
    assert remappings == [("image", "image"), ("depth", "/d"), ("odom", "/o")]


class _Exit:
    def __init__(self, returncode: int) -> None:
        self.returncode = returncode


class _Context:
    def __init__(self, is_shutdown: bool) -> None:
        self.is_shutdown = is_shutdown


@pytest.mark.parametrize("program", ["reconstruct_node", "replay_node"])
def test_a_program_that_fails_ends_the_launch_with_an_error(
    nodes: Callable[..., dict[str, dict[str, Any]]], program: str
) -> None:
    on_exit = nodes(bag="a.mcap")[program]["on_exit"]
    with pytest.raises(RuntimeError, match=f"{program} failed with exit code 3"):
        on_exit(_Exit(3), _Context(False))
    assert isinstance(on_exit(_Exit(-2), _Context(True)), _Action)
    # A recording that has ended leaves the node, whose map somebody may want to save.
    ends = isinstance(on_exit(_Exit(0), _Context(False)), _Action)
    assert ends == (program == "reconstruct_node")


def test_a_node_that_respawns_ends_nothing(
    nodes: Callable[..., dict[str, dict[str, Any]]],
) -> None:
    made = nodes(respawn="true", respawn_delay="5")["reconstruct_node"]
    assert (made["respawn"], made["respawn_delay"], made["on_exit"]) == (True, 5.0, None)


def test_without_rviz_nothing_starts(
    nodes: Callable[..., dict[str, dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(_: str) -> str:
        raise LookupError

    packages = sys.modules["ament_index_python.packages"]
    monkeypatch.setattr(packages, "get_package_prefix", missing, raising=False)
    globals_of_file = nodes.__closure__[0].cell_contents["_nodes"].__globals__  # type: ignore[index]
    monkeypatch.setitem(globals_of_file, "get_package_prefix", missing)
    with pytest.raises(RuntimeError, match="rviz:=true needs RViz, .*apt-get install"):
        nodes(rviz="true")
    assert nodes()


def test_autostart_is_left_to_the_parameter_file_unless_given(
    nodes: Callable[..., dict[str, dict[str, Any]]],
) -> None:
    made = nodes(autostart="false")["reconstruct_node"]
    assert made["parameters"][1] == {"lifecycle.autostart": False}


def test_a_replay_is_what_was_asked_for(
    replays: Callable[..., dict[str, dict[str, Any]]],
) -> None:
    assert replays(bag="a.mcap")["replay_node"]["arguments"] == [
        "a.mcap", "--image-topic", "image", "--transport", "both", "--clock"
    ]  # fmt: skip
    given = {"bag": "a", "clock": "false", "loop": "TRUE", "speed": "0.5", "follow": "/xsvggt"}
    arguments = replays(**given)["replay_node"]["arguments"]
    assert arguments[-5:] == ["--speed", "0.5", "--follow", "/xsvggt", "--loop"]
    with pytest.raises(ValueError, match="loop:=2 is neither true nor false"):
        replays(bag="a", loop="2")


NEEDS_LAUNCH = "needs ROS 2's launch and the built package: source a workspace that holds it"


def test_it_starts_the_node_and_ends_with_it() -> None:
    pytest.importorskip("launch_ros", reason=NEEDS_LAUNCH)
    packages = pytest.importorskip("ament_index_python.packages", reason=NEEDS_LAUNCH)
    try:
        packages.get_package_share_directory("xsvggt_ros")
    except LookupError:
        pytest.skip(NEEDS_LAUNCH)
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from launch import LaunchService;"
            "from launch.actions import IncludeLaunchDescription as Include;"
            "from launch import LaunchDescription;"
            "from launch.launch_description_sources import PythonLaunchDescriptionSource as File;"
            "service = LaunchService();"
            "service.include_launch_description(LaunchDescription([Include(File(sys.argv[1]),"
            "launch_arguments=[('checkpoint', '/nowhere/weights.pth')])]));"
            "sys.exit(service.run())",
            str(LAUNCH_FILE),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
        env={**os.environ, "ROS_DOMAIN_ID": str(free_domain())},
    )
    assert "/nowhere/weights.pth" in done.stdout + done.stderr
