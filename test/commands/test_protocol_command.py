# SPDX-License-Identifier: Apache-2.0
"""`xsvggt evaluate protocol`: rows, failures, interruptions; what it honours and refuses."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import command_line
import datasets
import numpy as np
import pytest
from typer.testing import Result

from xsvggt_ros.errors import ConfigurationError, EvaluationError
from xsvggt_ros.evaluation.protocols import SPECIFICATIONS, specification_of
from xsvggt_ros.evaluation.protocols.base import (
    Column,
    ProtocolOptions,
    ProtocolRow,
    Specification,
    each_row,
)
from xsvggt_ros.stream.reconstructor import Reconstructor

TINY = ["--preset", "tiny", "--width", "28", "--device", "cpu"]


class MadeUp(Specification):
    """Two frames a sequence; sequences named bad fail, one named signal is interrupted."""

    name = "made_up"
    datasets = ("numbers", "letters")
    columns = (
        Column("frames", "frames seen", 1),
        Column("share", "share", 1, "%"),
        Column("x", "x"),
    )

    def check(self, options: ProtocolOptions) -> None:
        options.refuse(self.name, "stride", "prediction", "annotations")

    def names(self, options: ProtocolOptions) -> list[str]:
        names = [each for each in options.root.name.split("_") if each]
        if not names:
            raise EvaluationError("there are no sequences")
        return names

    def rows(self, engine: Reconstructor, options: ProtocolOptions) -> Iterator[ProtocolRow]:
        def measure(name: str) -> ProtocolRow:
            engine.reset()
            for index in range(options.frames or 2):
                engine.step(np.zeros((28, 28, 3), np.uint8), stamp=index)
                if name == "signal":
                    signal.raise_signal(signal.SIGINT)
            if name == "bad":
                raise EvaluationError("no pixel has a truth")
            seen = float(engine.session_frames)
            return ProtocolRow(name, int(seen), {"frames": seen, "share": 0.5})

        return each_row(self.names(options), measure)

    def notes(self, options: ProtocolOptions) -> tuple[str, ...]:
        return ("one scale for a <sequence>",)


@pytest.fixture(autouse=True)
def made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SPECIFICATIONS, "made_up", MadeUp())


def run(*arguments: object) -> Result:
    return command_line.run("evaluate", "protocol", *arguments, *TINY)


def asked(tmp_path: Path, names: str, dataset: str = "numbers") -> list[str | Path]:
    return ["made_up", dataset, tmp_path / names]


def test_a_protocol_leaves_a_table_where_output_says(tmp_path: Path) -> None:
    result = run(*asked(tmp_path, "one_two"), "-o", tmp_path / "out", "--max-frames", 3)
    assert result.exit_code == 0, result.output
    directory = (tmp_path / "out" / "latest").resolve()
    assert directory.name.startswith("made_up_numbers_")
    held = json.loads((directory / "protocol.json").read_text())
    assert [(row["sequence"], row["metrics"]["frames"]) for row in held["rows"]] == [
        ("one", 3.0), ("two", 3.0),
    ]  # fmt: skip
    assert held["mean"]["metrics"] == {"frames": 3.0, "share": 0.5}
    assert held["settings"]["options"]["frames"] == 3
    assert held["provenance"]["software"]["torch"]
    assert held["provenance"]["weights"]["random"] is True
    page = (directory / "report.html").read_text()
    assert "one scale for a &lt;sequence&gt;" in page
    assert "src=" not in page
    lines = (directory / "sequences.csv").read_text().splitlines()
    assert lines == ["sequence,error,frames,weight,frames,share", "one,,3,1.0,3.0,0.5",
                     "two,,3,1.0,3.0,0.5"]  # fmt: skip
    assert "| mean | 3.0 | 50.0 | 6 |" in (directory / "summary.md").read_text()


def test_a_published_table_runs_from_the_command_line(tmp_path: Path) -> None:
    datasets.sintel(tmp_path / "sintel")
    arguments = ["video_depth", "sintel", tmp_path / "sintel"]
    result = run(*arguments, "--max-frames", 2, "--budget", 60, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    held = json.loads((tmp_path / "out" / "latest" / "protocol.json").read_text())
    (row,) = held["rows"]
    assert (row["sequence"], row["frames"], row["error"]) == ("alley_1", 2, None)
    assert row["metrics"]["abs_rel_l1"] > 0
    assert "a long table, not the paper's" in held["notes"][0]


def test_a_failed_sequence_is_a_row_and_exit_code_1(tmp_path: Path) -> None:
    result = run(*asked(tmp_path, "bad_one"), "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert "1 of 2 sequences failed; the mean is over the rest" in result.output
    directory = tmp_path / "out" / "latest"
    assert "no pixel has a truth" in (directory / "report.html").read_text()
    assert json.loads((directory / "protocol.json").read_text())["mean"]["metrics"]["frames"] == 2


def test_a_protocol_whose_sequences_all_fail_has_no_mean(tmp_path: Path) -> None:
    result = run(*asked(tmp_path, "bad"), "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert json.loads((tmp_path / "out/latest/protocol.json").read_text())["mean"] is None


def test_a_signal_leaves_the_rows_that_are_done(tmp_path: Path) -> None:
    result = run(*asked(tmp_path, "one_signal_two"), "-o", tmp_path / "out")
    assert result.exit_code == 130
    held = json.loads((tmp_path / "out" / "latest" / "protocol.json").read_text())
    assert [row["sequence"] for row in held["rows"]] == ["one"]
    assert held["interrupted"] is True
    assert "stopped after 1 of 3 sequences" in (tmp_path / "out/latest/summary.md").read_text()


@pytest.mark.parametrize(
    "options",
    [
        ["--speed", "2"],
        ["--realtime"],
        ["--rpe-delta", "3"],
        ["--max", "fps=1"],
        ["--sequence", "one"],
    ],
)
def test_what_a_protocol_cannot_honour_is_no_option(tmp_path: Path, options: list[str]) -> None:
    result = run(*asked(tmp_path, "one"), "-o", tmp_path / "out", *options)
    assert result.exit_code == 2
    assert "No such option" in result.output
    assert not (tmp_path / "out").exists()


def test_what_a_protocol_needs_is_asked_for(tmp_path: Path) -> None:
    for arguments, code, words in (
        (["made_up"], 2, "Missing argument 'DATASET'"),
        (["made_up", "numbers"], 2, "Missing argument 'ROOT'"),
        (["mine", "x", tmp_path], 1, "'mine' is unknown"),
        (asked(tmp_path, "one", "words"), 1, "choose one of numbers, letters"),
        (asked(tmp_path, "_"), 1, "there are no sequences"),
        ([*asked(tmp_path, "one"), "--stride", "2"], 1, "knows no --stride (2)"),
    ):
        result = run(*arguments, "-o", tmp_path / "out")
        assert result.exit_code == code
        assert words.lower() in " ".join(result.output.split()).lower()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("protocol", "dataset", "options", "words"),
    [
        ("mono_depth", "bonn", {"frames": 9}, "knows no --max-frames"),
        ("video_depth", "bonn", {"prediction": "points"}, "knows no --prediction"),
        ("mv_recon", "seven_scenes", {"stride": 2}, "add --max-frames"),
        ("mv_recon", "seven_scenes", {"prediction": "best"}, "points or projection"),
        ("relpose", "co3d", {}, "needs --annotations"),
        ("relpose", "sintel14", {"frames": 9}, "knows no --max-frames"),
        ("relpose", "tum", {"annotations": "x"}, "knows no --annotations"),
    ],
)
def test_sampling_that_a_protocol_does_not_know_is_refused(
    tmp_path: Path, protocol: str, dataset: str, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigurationError, match=words):
        specification_of(protocol, ProtocolOptions(dataset, tmp_path, **options))


def test_the_point_head_runs_only_where_it_is_judged(tmp_path: Path) -> None:
    scenes = ProtocolOptions("seven_scenes", tmp_path)
    found = specification_of("mv_recon", scenes)
    assert found.needs_points(scenes)
    assert not found.needs_points(
        ProtocolOptions("seven_scenes", tmp_path, prediction="projection")
    )
    bonn = ProtocolOptions("bonn", tmp_path)
    assert not specification_of("video_depth", bonn).needs_points(bonn)


def test_every_protocol_says_what_it_is(tmp_path: Path) -> None:
    for name, found in SPECIFICATIONS.items():
        for dataset in found.datasets:
            options = ProtocolOptions(dataset, tmp_path)
            assert found.name == name
            assert all(found.notes(options))
