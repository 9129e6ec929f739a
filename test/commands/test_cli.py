# SPDX-License-Identifier: Apache-2.0
"""The command line: what it writes, and how it says that something is wrong."""

from __future__ import annotations

import importlib.util
import inspect
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import fields
from io import StringIO
from pathlib import Path
from signal import Signals
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from bags import SECOND, write_jumping_bag
from command_line import run
from present import present
from rich.console import Console
from selection import first_is_quick
from typer.testing import Result

from xsvggt_ros import doctor
from xsvggt_ros.cli import app
from xsvggt_ros.commands import terminal
from xsvggt_ros.commands.evaluate import app as evaluate
from xsvggt_ros.errors import CheckpointError
from xsvggt_ros.geometry.files import read_tum
from xsvggt_ros.installation import installation_of, version
from xsvggt_ros.model.checkpoint import load_network, read_checkpoint, save_network
from xsvggt_ros.process import SIGNALS
from xsvggt_ros.stream.reconstructor import Reconstructor
from xsvggt_ros.stream.results import OVERVIEW_SIZE

SAMPLE = Path(__file__).parents[2] / "sample" / "room"
TINY = ["--preset", "tiny", "--device", "cpu"]


def reconstruct(*arguments: object) -> Result:
    return run("reconstruct", *arguments, *TINY)


def cloud_points(path: Path) -> np.ndarray:
    body = path.read_bytes().partition(b"end_header\n")[2]
    row = np.dtype([("xyz", "<f4", 3), ("rgb", "u1", 3)])
    return np.frombuffer(body, row)["xyz"]


def test_the_sample_is_reconstructed_whole(tmp_path: Path) -> None:
    result = reconstruct(SAMPLE, "-o", tmp_path)
    assert result.exit_code == 0, result.output
    trajectory = read_tum(tmp_path / "trajectory.tum")
    assert trajectory.stamps.tolist() == [index * 100_000_000 for index in range(1, 13)]
    assert np.isfinite(trajectory.positions).all()
    np.testing.assert_allclose(np.linalg.norm(trajectory.quaternions, axis=1), 1, atol=1e-8)
    points = cloud_points(tmp_path / "cloud.ply")
    assert len(points) > 0
    assert np.isfinite(points).all()
    assert present(cv2.imread(str(tmp_path / "overview.png"))).shape[1::-1] == OVERVIEW_SIZE


def test_depth_is_written_at_the_size_of_the_images(tmp_path: Path) -> None:
    for kind in ("npy", "png"):
        directory = tmp_path / kind
        result = reconstruct(SAMPLE, "-o", directory, "--depth", kind, "--max-frames", 2)
        assert result.exit_code == 0, result.output
    exact = np.load(tmp_path / "npy" / "depth" / "000001.npy")
    file = tmp_path / "png" / "depth" / "000001.png"
    steps = present(cv2.imread(str(file), cv2.IMREAD_UNCHANGED))
    assert (exact.shape, exact.dtype) == ((384, 512), np.float32)
    assert steps.shape == (384, 512)
    assert steps.dtype == np.uint16
    np.testing.assert_allclose(steps / 1000, exact, atol=0.000501)
    table = (tmp_path / "npy" / "depth" / "cameras.csv").read_text().splitlines()
    assert len(table) == 3
    assert table[2].startswith("000001.npy,0.200000000,")
    assert table[2].endswith(",512,384")


def test_a_damaged_image_is_reported_and_left_out(tmp_path: Path) -> None:
    images = tmp_path / "images"
    shutil.copytree(SAMPLE, images)
    (images / "003.jpg").write_bytes(b"no image")
    result = reconstruct(images, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert len(read_tum(tmp_path / "out" / "trajectory.tum")) == 11


def test_images_none_of_which_is_usable_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"no image")
    assert_says(reconstruct(tmp_path, "-o", tmp_path / "out"), "no usable image")
    assert not (tmp_path / "out").exists()


def test_of_a_bag_that_jumps_back_the_longest_session_is_written(tmp_path: Path) -> None:
    result = reconstruct(write_jumping_bag(tmp_path / "bag"), "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "longest, 3 of 5 frames" in re.sub(r"\s+", " ", result.stdout)
    stamps = read_tum(tmp_path / "out" / "trajectory.tum").stamps.tolist()
    assert stamps == [SECOND, 2 * SECOND, 3 * SECOND]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_after_the_frame_in_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: Signals
) -> None:
    take = Reconstructor.take

    def take_with_signal(engine: Reconstructor, *arguments: Any, **more: Any) -> Any:
        if engine.session_frames == 3:
            signal.raise_signal(number)
        return take(engine, *arguments, **more)

    monkeypatch.setattr(Reconstructor, "take", take_with_signal)
    result = reconstruct(SAMPLE, "-o", tmp_path, "--depth", "npy")
    assert result.exit_code == 130, result.output
    assert "Interrupted: the results hold what came out of 4 frames" in result.stdout
    assert len(read_tum(tmp_path / "trajectory.tum")) == 4
    assert len(cloud_points(tmp_path / "cloud.ply")) > 0
    assert len((tmp_path / "depth" / "cameras.csv").read_text().splitlines()) == 5


def test_a_second_signal_ends_the_run_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def signals(*_: object, **__: object) -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        pytest.fail("the second one was ignored")

    monkeypatch.setattr(Reconstructor, "take", signals)
    result = reconstruct(SAMPLE, "-o", tmp_path / "out")
    assert (result.exit_code, result.stderr.strip()[-19:]) == (130, "xsvggt: interrupted")
    assert not (tmp_path / "out").exists()


def test_signals_are_handled_as_before_after_a_run(tmp_path: Path) -> None:
    before = [signal.getsignal(each) for each in SIGNALS]
    reconstruct(SAMPLE, "-o", tmp_path, "--max-frames", 1)
    assert [signal.getsignal(each) for each in SIGNALS] == before


def assert_says(result: Result, *words: str) -> None:
    assert result.exit_code == 1, result.output
    said = re.sub(r"\s+", " ", result.stderr)
    assert "Traceback" not in said
    for word in words:
        assert word in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], ["nowhere", "does not exist"]),
        ([SAMPLE, "--width", "57"], ["57", "multiple", "14"]),
        ([SAMPLE, "--policy", "best"], ["best", "xstreamvggt"]),
        ([SAMPLE, "--budget", "0"], ["budget_tokens is 0"]),
        ([SAMPLE, "--dtype", "int8"], ["int8", "bfloat16"]),
        ([SAMPLE, "--depth", "tiff"], ["tiff", "png or npy"]),
        ([SAMPLE, "--topic", "image"], ["no topic 'image'"]),
        ([SAMPLE, "--checkpoint", "nowhere.pth"], ["nowhere.pth", ".safetensors"]),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(
    tmp_path: Path, arguments: list[str] | list[Path | str], words: list[str]
) -> None:
    assert_says(reconstruct(*arguments, "-o", tmp_path / "out"), *words)
    assert not (tmp_path / "out").exists()


def test_a_budget_of_nothing_is_refused() -> None:
    result = run("demo", "--budget", 0)
    assert result.exit_code == 2
    assert "--budget" in result.output


def test_a_place_that_takes_no_files_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for command in ("reconstruct", "demo"):
        result = run(command, SAMPLE, "--preset", "tiny", "-o", tmp_path / "file" / "out")
        assert_says(result, "cannot write into", "is no directory; choose another place")


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    result = run("--debug", "convert", tmp_path / "nowhere.pth", tmp_path / "out.safetensors")
    assert isinstance(result.exception, CheckpointError)


def test_convert_keeps_every_weight(tmp_path: Path) -> None:
    network = load_network("", preset="tiny", seed=3)
    torch.save(network.state_dict(), tmp_path / "tiny.pth")
    target = tmp_path / "tiny.safetensors"
    result = run("convert", tmp_path / "tiny.pth", target, "--preset", "tiny")
    assert result.exit_code == 0, result.output
    read = load_network(str(target)).state_dict()
    for name, tensor in network.state_dict().items():
        assert torch.equal(read[name], tensor), name


def test_average_lies_between(tmp_path: Path) -> None:
    files = []
    for seed in (1, 2):
        network = load_network("", preset="tiny", seed=seed)
        files.append(save_network(network.half(), tmp_path / f"{seed}.safetensors"))
    target = tmp_path / "between.safetensors"
    result = run("average", *files, target, "--share", "0.25")
    assert result.exit_code == 0, result.output
    one, other = (load_network(str(file)).state_dict() for file in files)
    found = read_checkpoint(str(target)).tensors
    assert found.keys() == one.keys()
    for name, tensor in found.items():
        assert tensor.dtype == torch.float16
        expected = 0.75 * one[name] + 0.25 * other[name]
        torch.testing.assert_close(tensor, expected.half(), atol=1e-3, rtol=1e-3)


def test_average_takes_the_sizes_of_the_one_that_carries_them(tmp_path: Path) -> None:
    network = load_network("", preset="tiny")
    torch.save(network.state_dict(), tmp_path / "bare.pth")
    sized = save_network(network, tmp_path / "sized.safetensors")
    for pair in ((sized, tmp_path / "bare.pth"), (tmp_path / "bare.pth", sized)):
        result = run("average", *pair, tmp_path / "out.safetensors")
        assert result.exit_code == 0, result.output


def test_average_refuses_numbers_beyond_its_precision_and_keeps_what_was_there(
    tmp_path: Path,
) -> None:
    network = load_network("", preset="tiny")
    large = tmp_path / "large.pth"
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    state["aggregator.camera_token"].fill_(1e6)
    torch.save(state, large)
    half = save_network(network.half(), tmp_path / "half.safetensors")
    before = half.read_bytes()
    result = run("average", half, large, half)
    assert_says(result, "has numbers beyond torch.float16", "a wider precision first")
    assert half.read_bytes() == before


def test_average_refuses_other_sizes_and_shares(tmp_path: Path) -> None:
    tiny = save_network(load_network("", preset="tiny"), tmp_path / "tiny.safetensors")
    target = tmp_path / "out.safetensors"
    result = run("average", tiny, "demo", target)
    assert_says(result, "have different sizes", "trained on")
    result = run("average", tiny, tiny, target, "--share", "1.5")
    assert_says(result, "share is 1.5; it must be from 0 to 1")
    assert not target.exists()


def test_a_tilde_that_the_shell_left_is_the_home_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in --output=~/results, or in an argument of ros2 launch."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    result = run("synthesize", "--output=~/room", "--frames=1", "--width=56", "--height=42")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "room").is_dir()
    assert not (tmp_path / "~").exists()
    result = run("compare", "~/first", "~/second")
    assert f"'{tmp_path}/first' holds no metrics.json" in result.output
    for words in (
        ("synthesize", "--output=~nobody-of-that-name/room"),
        ("replay", "~nobody-of-that-name/bag"),
        ("evaluate", "~nobody-of-that-name/bag", "--preset=tiny"),
        ("convert", "~nobody-of-that-name/weights", "weights.safetensors"),
        ("reconstruct", str(SAMPLE), "--checkpoint=~nobody-of-that-name/weights"),
    ):
        result = run(*words)
        assert result.exit_code == 1
        assert "give the whole path" in result.output, result.output


def test_every_command_with_a_path_takes_the_tilde() -> None:
    commands = [each.callback for each in (*app.registered_commands, *evaluate.registered_commands)]
    with_paths = [
        each
        for each in commands
        if each and "pathlib" in str(inspect.signature(each, eval_str=True))
    ]
    assert len(with_paths) >= 8
    for command in with_paths:
        assert inspect.unwrap(command) is not command, command.__name__


def test_the_version_is_printed() -> None:
    result = run("--version")
    assert (result.exit_code, result.stdout.strip()) == (0, f"xsvggt {version()}")


def test_help_needs_neither_torch_nor_ros_nor_matplotlib() -> None:
    program = """
import sys
from typer.testing import CliRunner
from xsvggt_ros.cli import app
for words in ([], ["reconstruct"], ["evaluate", "run"], ["demo"]):
    assert CliRunner().invoke(app, [*words, "--help"]).exit_code == 0
print({"torch", "rclpy", "matplotlib", "cv2", "numpy"} & set(sys.modules))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


def test_paths_are_said_whole_however_narrow_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    written = StringIO()
    monkeypatch.setattr(terminal, "console", Console(width=60, file=written))
    path = f"/{'deep' * 20}/overview.png"
    terminal.print_written([Path(path)])
    lines = written.getvalue().partition("Written:\n")[2].splitlines()
    assert "".join(line.split(" ")[0] for line in lines) == path


def test_the_doctor_finds_nothing_wrong_where_these_tests_run() -> None:
    result = run("doctor", "--no-ros")
    assert result.exit_code == 0, result.output
    assert torch.__version__ in result.stdout


def test_the_doctor_names_the_remedy_for_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = doctor._import_error
    monkeypatch.setattr(doctor, "_import_error", lambda n: "gone" if n == "yaml" else absent(n))
    result = run("doctor", "--no-ros")
    assert result.exit_code == 1
    assert "PyYAML: missing (gone)" in result.stdout
    assert "pip install PyYAML" in result.stdout


def test_the_doctor_advises_on_the_extras_of_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    there = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "scipy" else there(name, *rest),
    )
    result = run("doctor", "--no-ros")
    assert result.exit_code == 0  # the node runs without
    assert "extra eval (evaluate, compare): without scipy" in result.stdout
    assert installation_of("eval") in " ".join(result.stdout.split())
    assert "extra demo (demo, reconstruct, replay, doctor): complete" in result.stdout


def test_the_doctor_names_a_domain_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROS_DOMAIN_ID", "abc")
    finding = next(each for each in doctor.examine(ros=True) if each.subject == "ROS domain")
    assert finding.fault
    assert "'abc'; set it to a number from 0 to 232" in finding.remedy


@pytest.mark.parametrize(
    ("distribution", "remedy"),
    [("", "run scripts/setup"), ("jazzy", "ROS 2 jazzy is sourced, so start this with the Python")],
)
def test_without_ros_the_doctor_says_that_and_not_all_that_follows(
    monkeypatch: pytest.MonkeyPatch, distribution: str, remedy: str
) -> None:
    absent = doctor._import_error
    monkeypatch.setattr(doctor, "_import_error", lambda n: "gone" if n == "rclpy" else absent(n))
    monkeypatch.setenv("ROS_DISTRO", distribution)
    result = run("doctor")
    assert result.exit_code == 1
    assert remedy in " ".join(result.stdout.split())
    found = {each.subject for each in doctor.examine(ros=True)}
    assert found - {each.subject for each in doctor.examine(ros=False)} == {"ROS 2 (rclpy)"}


def test_every_option_of_a_replay_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("xsvggt_ros.msg", reason="needs ROS 2: run scripts/test, which sets it up")
    from xsvggt_ros.ros import replay
    from xsvggt_ros.ros.replay_topics import ReplayOptions

    arrived = []
    monkeypatch.setattr(replay, "replay", lambda source, options, **_: arrived.append(options))
    for words, expected in REPLAY_OPTIONS:
        assert run("replay", SAMPLE, *words).exit_code == 0
        replay.main([str(each) for each in (SAMPLE, *words)])
        for options in arrived:
            assert {name: getattr(options, name) for name in expected} == expected
        assert len(arrived) == 2
        arrived.clear()
    named = {name for _, expected in REPLAY_OPTIONS for name in expected}
    assert named == {field.name for field in fields(ReplayOptions)}


REPLAY_OPTIONS: list[tuple[list[object], dict[str, object]]] = [
    (["--speed", 2, "--loop", "--paused", "--wait-for", 3, "--restamp"],
     {"speed": 2.0, "loop": True, "paused": True, "wait_for": 3, "restamp": True}),
    (["--fixed-rate", 4, "--clock", "--transport", "raw", "--image-topic", "left/image"],
     {"fixed_rate": 4.0, "clock": True, "transport": "raw", "image_topic": "left/image"}),
    (["--best-effort", "--depth", 7], {"best_effort": True, "depth": 7}),
    (["--follow", "/left/xsvggt"], {"follow": "/left/xsvggt"}),
]  # fmt: skip


@pytest.mark.parametrize("command", ["demo", "replay"])
def test_commands_that_need_ros_say_so(monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    absent = doctor._import_error
    monkeypatch.setattr(doctor, "_import_error", lambda n: "gone" if n == "rclpy" else absent(n))
    assert_says(run(command, SAMPLE), "rclpy", "missing (gone)", "xsvggt reconstruct")


@pytest.mark.parametrize("also_errors", first_is_quick([True, False]))
@pytest.mark.parametrize("rich_raises", [False, True])  # as before its version 13.8
def test_a_reader_that_leaves_ends_the_program_quietly(
    rich_raises: bool, also_errors: bool
) -> None:
    program = f"""
import sys
from rich.console import Console
def gone(console):
    raise
if {rich_raises}:
    Console.on_broken_pipe = gone
from xsvggt_ros.__main__ import main
sys.argv[1:] = ["doctor"]
main()
"""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "-c", program],
            stdout=writer,
            stderr=writer if also_errors else subprocess.PIPE,
            text=True,
        )
    finally:
        os.close(writer)
    assert done.returncode == 1
    assert not done.stderr


def test_parameters_in_a_message_are_told_as_options(tmp_path: Path) -> None:
    result = reconstruct(SAMPLE, "--budget", "3", "-o", tmp_path)
    assert_says(result, "cache.budget_tokens is 3", "(--budget sets cache.budget_tokens)")


def test_what_nobody_foresaw_is_a_sentence_and_a_traceback_only_where_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def surprise(*_: object, **__: object) -> None:
        raise KeyError("surprise")

    monkeypatch.setattr("xsvggt_ros.stream.sources.open_source", surprise)
    result = reconstruct(SAMPLE, "-o", tmp_path)
    assert_says(result, "unexpected KeyError: 'surprise'; this is a fault of the program")
    asked = run("--debug", "reconstruct", SAMPLE, "-o", tmp_path)
    assert isinstance(asked.exception, KeyError)


def test_doctor_tells_of_a_gpu_that_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    def why_not(index: int) -> str:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr("xsvggt_ros.cuda.why_not", why_not)
    finding = doctor._kernels()
    assert finding.state == "unknown: the GPU is full"
    assert finding.remedy == "free memory of the GPU, then try again"
    assert not finding.needed
