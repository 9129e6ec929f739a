# SPDX-License-Identifier: Apache-2.0
"""Results under duress: full disks, used directories, failed runs, runs that do not compare."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import command_line
import cv2
import datasets
import numpy as np
import pytest
from bags import SECOND, Shot, images, write_bag, write_directory
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from recordings import MemorySource, tiny_request
from rich.console import Console
from selection import examples

from xsvggt_ros.commands import terminal
from xsvggt_ros.errors import OutputError, PartlyWrittenError, SourceError
from xsvggt_ros.evaluation import provenance, runner, sweep
from xsvggt_ros.evaluation.isolated import RunFailedError
from xsvggt_ros.evaluation.results import compare, write_evaluation
from xsvggt_ros.geometry.cameras import Intrinsics
from xsvggt_ros.geometry.files import read_tum, write_each
from xsvggt_ros.stream.results import DepthFiles

TINY = ["--preset", "tiny", "--width", "28", "--device", "cpu"]


def limited(kibibytes: int, *words: object) -> subprocess.CompletedProcess[str]:
    """Run `xsvggt` where no file may be larger than some KiB, as on a disk that is nearly full."""
    program = "from xsvggt_ros.__main__ import main; main()"
    shell = f'ulimit -f {kibibytes}; exec "$@"'
    return subprocess.run(
        ["bash", "-c", shell, "bash", sys.executable, "-c", program, *map(str, words)],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2],
    )  # fmt: skip


def test_a_full_disk_leaves_the_path_and_the_numbers(tmp_path: Path) -> None:
    source = write_directory(tmp_path / "images", images(4, height=60, width=80))
    done = limited(8, "reconstruct", source, "-o", tmp_path / "out", *TINY)
    assert done.returncode == 1
    assert len(read_tum(tmp_path / "out" / "trajectory.tum")) == 4
    assert [each.name for each in (tmp_path / "out").iterdir()] == ["trajectory.tum"]
    assert re.search(r"4 +frames in the results", done.stdout)
    assert "length of the path" in done.stdout
    assert "2 of 3 files are missing" in done.stderr
    for name in ("overview.png", "cloud.ply"):
        assert f"{name}' cannot be written (File too large)" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_full_disk_ends_depth_and_nothing_else(tmp_path: Path) -> None:
    source = write_directory(tmp_path / "images", images(3, height=240, width=320))
    done = limited(64, "reconstruct", source, "-o", tmp_path / "out", "--depth", "npy", *TINY)
    assert done.returncode == 1
    assert len(read_tum(tmp_path / "out" / "trajectory.tum")) == 3
    assert "no more depth is written after 0 maps" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_full_disk_leaves_the_numbers_of_an_evaluation(tmp_path: Path) -> None:
    done = limited(
        24, "evaluate", "run", "synthetic:short_walk", "-o", tmp_path, "--max-frames", 3, *TINY
    )
    assert done.returncode == 1
    (directory,) = [each for each in tmp_path.iterdir() if each.is_dir()]
    assert json.loads((directory / "metrics.json").read_text())["frames"]["processed"] == 3
    assert (directory / "summary.md").is_file()
    assert (directory / "trajectory.tum").is_file()
    assert not (directory / "report.html").exists()
    assert "ATE, Sim(3)" in done.stdout
    assert "report.html' cannot be written" in done.stderr
    assert "Traceback" not in done.stderr


def test_looking_up_the_commit_writes_nothing_into_the_repository(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    (tmp_path / "file").write_text("content")
    subprocess.run(["git", "-C", str(tmp_path), "add", "."], check=True)
    index = tmp_path / ".git" / "index"
    os.utime(tmp_path / "file", (1, 1))  # so that git would like to refresh its index
    before = index.read_bytes()
    assert provenance._git(tmp_path, "status", "--porcelain", "-uno")
    assert index.read_bytes() == before


def test_every_file_is_tried_and_every_failure_told(tmp_path: Path) -> None:
    def fail() -> None:
        raise OutputError("no room")

    def break_down() -> None:
        raise ZeroDivisionError("division by zero")

    paths = {name: tmp_path / name for name in "abcd"}
    writers = {paths["a"]: fail, paths["b"]: paths["b"].touch, paths["c"]: break_down,
               paths["d"]: paths["d"].touch}  # fmt: skip
    with pytest.raises(PartlyWrittenError) as caught:
        write_each(writers)
    assert caught.value.written == [paths["b"], paths["d"]]
    assert str(caught.value).startswith("2 of 4 files are missing: no room; ")
    assert "unexpected ZeroDivisionError: division by zero" in str(caught.value)


def test_a_report_that_cannot_be_drawn_takes_no_number_with_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(runner, "open_source", lambda path, chosen: MemorySource(4))

    def page(evaluation: object) -> None:
        raise ValueError("no figure")

    monkeypatch.setattr("xsvggt_ros.evaluation.results.page", page)
    with pytest.raises(PartlyWrittenError, match=r"report.html': unexpected ValueError"):
        write_evaluation(runner.evaluate(tiny_request()), tmp_path)
    assert (tmp_path / "metrics.json").is_file()
    assert (tmp_path / "cloud.ply").is_file()


def test_a_bag_that_breaks_off_leaves_what_came(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shots = [Shot((n + 1) * SECOND, each) for n, each in enumerate(images(6))]
    bag = write_bag(tmp_path / "bag", shots)
    from xsvggt_ros.stream.sources.bag import BagSource

    plain = BagSource.__iter__

    def broken(self: Any) -> Iterator[Any]:
        for index, frame in enumerate(plain(self)):
            if index == 3:
                raise SourceError("Cannot read on in the bag")
            yield frame

    monkeypatch.setattr(BagSource, "__iter__", broken)
    result = command_line.run("reconstruct", bag, "-o", tmp_path / "out", *TINY)
    assert result.exit_code == 1
    assert len(read_tum(tmp_path / "out" / "trajectory.tum")) == 3
    assert "Cannot read on in the bag" in result.output


def test_how_many_images_were_refused_is_said(tmp_path: Path) -> None:
    shots = [Shot((n // 2 + 1) * SECOND, each) for n, each in enumerate(images(8))]
    bag = write_bag(tmp_path / "bag", shots)
    result = command_line.run("reconstruct", bag, "-o", tmp_path / "out", *TINY)
    assert result.exit_code == 0
    assert "4 of 8 images were refused; the first: stamp 1000000000 ns came" in result.output


@pytest.mark.parametrize("name", ["run [bold]", "run [/b]", "a[", "größe 😀", "a'b", "100%"])
def test_any_name_of_a_recording_is_said_as_it_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    monkeypatch.setattr(terminal.console, "width", 400)
    name = name.replace("/", "\u2215")
    directory = write_directory(tmp_path / name, images(3))
    result = command_line.run("reconstruct", directory, "-o", tmp_path / "out" / name, *TINY)
    assert result.exit_code == 0
    assert f"{name}/trajectory.tum" in result.output


@pytest.mark.parametrize("name", ["run [bold]", "[red]", "a["])
def test_any_name_of_an_evaluation_is_said_as_it_is(tmp_path: Path, name: str) -> None:
    directory = datasets.tum(tmp_path / name)
    result = command_line.run("evaluate", directory, "-o", tmp_path / "out[i]", *TINY)
    assert result.exit_code == 0, result.output
    assert f"{name}: 5 " in result.output
    assert "out[i]/" in result.output.replace("\n", "")


# A used directory


def depth_map(directory: Path, count: int, kind: str) -> DepthFiles:
    files = DepthFiles(directory, kind)
    for stamp in range(1, count + 1):
        files.write(stamp, np.full((4, 6), float(count), np.float32), Intrinsics(5, 5, 3, 2, 6, 4))
    files.close()
    return files


@pytest.mark.parametrize(("first", "second"), [("png", "png"), ("npy", "png"), ("png", "npy")])
def test_depth_of_an_earlier_run_goes(tmp_path: Path, first: str, second: str) -> None:
    depth_map(tmp_path, 7, first)
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "image.png").write_bytes(b"mine")
    depth_map(tmp_path, 2, second)
    names = sorted(each.name for each in tmp_path.iterdir())
    assert names == [f"000000.{second}", f"000001.{second}", "cameras.csv", "image.png",
                     "notes.txt"]  # fmt: skip
    assert len((tmp_path / "cameras.csv").read_text().splitlines()) == 3


def test_depth_of_a_run_that_was_killed_goes_too(tmp_path: Path) -> None:
    killed = DepthFiles(tmp_path, "png")
    for stamp in range(1, 6):
        killed.write(stamp, np.ones((4, 6), np.float32), Intrinsics(5, 5, 3, 2, 6, 4))
    depth_map(tmp_path, 2, "png")
    assert len(list(tmp_path.glob("*.png"))) == 2


def test_files_that_are_no_depth_of_an_earlier_run_stay(tmp_path: Path) -> None:
    (tmp_path / "000005.png").write_bytes(b"somebody's image")
    depth_map(tmp_path, 1, "png")
    assert (tmp_path / "000005.png").read_bytes() == b"somebody's image"


def test_depth_of_an_earlier_run_beside_new_results_is_said(tmp_path: Path) -> None:
    source = write_directory(tmp_path / "images", images(2))
    arguments = ["reconstruct", source, "-o", tmp_path / "out", *TINY]
    assert command_line.run(*arguments, "--depth", "png").exit_code == 0
    assert cv2.imread(str(tmp_path / "out" / "depth" / "000001.png"), -1) is not None
    result = command_line.run(*arguments)
    assert result.exit_code == 0
    assert "depth is of an earlier run" in " ".join(result.output.split())


# Failed runs, and runs that do not compare


def test_a_sweep_with_a_failed_run_is_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RunFailedError("the system killed the run")

    monkeypatch.setattr(sweep, "evaluate_isolated", fail)
    result = command_line.run("evaluate", "sweep", "synthetic:short_walk", "budget=60,80", "-o",
                              tmp_path, "--references", "none", *TINY)  # fmt: skip
    assert result.exit_code == 1
    assert "2 runs failed" in result.output


@pytest.fixture(scope="module")
def result_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("results")
    result = command_line.run("evaluate", "synthetic:short_walk", "-o", directory, "--max-frames",
                              4, "--cloud-points", 500, *TINY)  # fmt: skip
    assert result.exit_code == 0, result.output
    return (directory / "latest").resolve()


def changed(
    directory: Path,
    goal: Path,
    change: Callable[[dict[str, Any]], object],
    config: tuple[str, str] | None = None,
) -> Path:
    shutil.copytree(directory, goal)
    metrics = json.loads((goal / "metrics.json").read_text())
    change(metrics)
    (goal / "metrics.json").write_text(json.dumps(metrics))
    if config:
        text = (goal / "config.yaml").read_text()
        assert config[0] in text
        (goal / "config.yaml").write_text(text.replace(*config))
    return goal


UNLIKE: dict[str, tuple[Callable[[dict[str, Any]], object], tuple[str, str] | None, str]] = {
    "another source": (lambda m: m.update(name="other"), None, "the sources differ"),
    "cut short": (lambda m: m.update(state="truncated", reason="it broke off"), None,
                  "the second run is truncated"),
    "another length": (lambda m: m["frames"].update(scored=3), None, "they score 4 and 3 frames"),
    "live": (lambda m: m.update(live={"dropped_share": 0.5}), None, "one ran live"),
    "other steps": (lambda m: None, ("rpe_delta: 1", "rpe_delta: 2"), "scoring.rpe_delta is 1"),
    "other frames": (lambda m: None, ("stride: 1", "stride: 2"), "options.stride is 1 in one"),
}  # fmt: skip


@pytest.mark.parametrize("kind", UNLIKE)
def test_runs_that_do_not_compare_fail_a_comparison_that_judges(
    result_directory: Path, tmp_path: Path, kind: str
) -> None:
    change, config, reason = UNLIKE[kind]
    other = changed(result_directory, tmp_path / "other", change, config)
    scored = command_line.run("compare", result_directory, other, "--max-worse", 1e6)
    assert scored.exit_code == 1
    assert f"the runs do not compare: {reason}" in " ".join(scored.output.split())
    assert command_line.run("compare", result_directory, other).exit_code == 0


def test_runs_of_two_machines_compare_but_for_times(result_directory: Path, tmp_path: Path) -> None:
    other = changed(result_directory, tmp_path / "other",
                    lambda m: m["provenance"]["machine"].update(processor="another"))  # fmt: skip
    assert command_line.run("compare", result_directory, other, "--max-worse", 5).exit_code == 0
    scored = command_line.run("compare", result_directory, other, "--max-worse", 5, "--quantities",
                              "fps,ate")  # fmt: skip
    assert scored.exit_code == 1
    assert "on which fps depend" in scored.output


def test_the_same_run_compares(result_directory: Path) -> None:
    result = command_line.run("compare", result_directory, result_directory, "--max-worse", 0)
    assert result.exit_code == 0, result.output


@given(data=st.data())
@settings(max_examples=examples(60), deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
def test_damaged_results_bring_up_no_foreign_error(
    result_directory: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    goal = tmp_path_factory.mktemp("damaged")
    metrics = json.loads((result_directory / "metrics.json").read_text())
    place = metrics
    while isinstance(place, dict) and place:
        key = data.draw(st.sampled_from(sorted(place)))
        if data.draw(st.booleans()) or not isinstance(place[key], dict):
            place[key] = data.draw(st.sampled_from([None, "x", 3, [], {}, [1], -1.5]))
            break
        place = place[key]
    (goal / "metrics.json").write_text(json.dumps(metrics))
    (goal / "config.yaml").write_bytes(data.draw(st.binary(max_size=30)))
    with suppress(SourceError):
        compare(result_directory, goal)


# Reports on small screens, tables in terminals

NAMES = ["rgbd_bonn_balloon2", "rgbd_bonn_person_tracking2"]


def table_of(width: int, colored: bool) -> str:
    file = io.StringIO()
    console = Console(file=file, width=width, force_terminal=colored, color_system=None)
    table = [("sequence", *(f"a longer heading {n}" for n in range(7)))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(terminal, "console", console)
        rows = [(name, *(["0.1234"] * 7)) for name in NAMES]
        terminal.print_table(table[0], rows, words=1)
    return file.getvalue()


def test_a_pipe_gets_whole_names() -> None:
    assert all(name in table_of(80, colored=False) for name in NAMES)


@pytest.mark.parametrize("width", [80, 60])
def test_a_narrow_terminal_cuts_no_name(width: int) -> None:
    text = table_of(width, colored=True)
    assert "…" not in text
    first = "".join(line.split("  ")[0].strip() for line in text.splitlines())
    assert all(name in re.sub(r"\s", "", first) for name in NAMES)


def test_no_column_of_the_report_is_wider_than_a_telephone() -> None:
    style = Path(terminal.__file__).parent.parent / "evaluation" / "report" / "style.css"
    text = style.read_text()
    for tracks in re.findall(r"grid-template-columns:([^;]*);", text):
        for least in re.findall(r"minmax\((\d+)px", tracks):
            raise AssertionError(f"a column needs {least} px: {tracks}")
        # A track of 1fr alone is never narrower than its content.
        assert not re.search(r"repeat\([^)]*, 1fr\)", tracks)
