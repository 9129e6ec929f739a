# SPDX-License-Identifier: Apache-2.0
"""Running a protocol: rows, failures, interruptions, going on."""

from dataclasses import replace
from threading import Event

import numpy as np
import pytest

from xsvggt_ros.cache.settings import CacheSettings
from xsvggt_ros.errors import ConfigurationError, EvaluationError, SourceError
from xsvggt_ros.evaluation.protocol_run import (
    Column,
    SequenceResult,
    read_protocol,
    run_protocol,
)
from xsvggt_ros.evaluation.request import NetworkOptions

TINY = NetworkOptions(preset="tiny", width=28, device="cpu")


class Counting:
    """Two frames a sequence; the number is how many frames the session has seen."""

    name = "counting"
    dataset = "made_up"
    columns = (Column("frames", "frames", 1), Column("share", "share", 1, "%"))
    width = 518
    notes = ("nothing is measured",)

    def __init__(self, *names, failing=(), stop_in=""):
        self._names = names
        self._failing = failing
        self._stop_in = stop_in
        self.ran = []

    def sequences(self):
        if not self._names:
            raise SourceError("there are no sequences")
        return self._names

    def evaluate(self, sequence, engine, progress, stop):
        self.ran.append(sequence)
        if sequence in self._failing:
            raise EvaluationError("nothing to judge")
        for index in range(2):
            engine.step(np.zeros((28, 28, 3), np.uint8), stamp=index)
            progress(index + 1, 2, "evaluating")
            if sequence == self._stop_in:
                stop.set()
                raise KeyboardInterrupt
        return SequenceResult({"frames": float(engine.session_frames), "share": 0.5}, 2, weight=2)

    def mean(self, results):
        return {"frames": float(np.mean([each.values["frames"] for each in results]))}


def run(protocol, folder, **changes):
    told = []
    table = run_protocol(
        protocol,
        changes.pop("network", TINY),
        CacheSettings(budget_tokens=60),
        folder,
        stop=Event(),
        progress=lambda number, name: lambda *what: told.append((number, name, *what)),
    )
    return table, told


def test_each_sequence_is_a_row_in_a_session_of_its_own(tmp_path):
    table, told = run(Counting("a", "b"), tmp_path)
    assert [(row.sequence, row.state, row.frames) for row in table.rows] == [
        ("a", "complete", 2), ("b", "complete", 2),
    ]  # fmt: skip
    assert [row.values["frames"] for row in table.rows] == [2, 2]
    assert table.mean == {"frames": 2.0}
    assert told[-1] == (1, "b", 2, 2, "evaluating")
    held = read_protocol(tmp_path)
    assert held["identity"]["weights"]["random"] is True
    assert held["identity"]["software"]["torch"]
    assert held["notes"] == ["nothing is measured"]


def test_a_sequence_that_fails_is_a_row_that_says_so(tmp_path):
    table, _ = run(Counting("a", "b", failing=("a",)), tmp_path)
    assert (table.rows[0].state, table.rows[0].note) == ("failed", "nothing to judge")
    assert table.mean == {"frames": 2.0}
    assert "1 of 2 sequences failed; the mean is over the rest" in table.remarks


def test_a_stop_leaves_whole_rows_and_the_next_run_goes_on(tmp_path):
    table, _ = run(Counting("a", "b", "c", stop_in="b"), tmp_path)
    assert [row.sequence for row in table.rows] == ["a"]
    assert table.interrupted
    assert any("1 of 3 sequences ran" in each for each in table.remarks)
    again = Counting("a", "b", "c")
    table, _ = run(again, tmp_path)
    assert again.ran == ["b", "c"]
    assert [row.sequence for row in table.rows] == ["a", "b", "c"]


def test_failed_sequences_are_tried_again(tmp_path):
    run(Counting("a", "b", failing=("a",)), tmp_path)
    again = Counting("a", "b")
    table, _ = run(again, tmp_path)
    assert again.ran == ["a"]
    assert not table.failed


def test_other_settings_do_not_mix(tmp_path):
    run(Counting("a"), tmp_path)
    with pytest.raises(ConfigurationError, match="other settings"):
        run(Counting("a"), tmp_path, network=replace(TINY, dtype="bfloat16"))


def test_numbers_are_shown_as_the_column_says():
    share = Column("share", "share", 1, "%")
    assert (share.show(0.123), share.show(None)) == ("12.3", "-")
    assert Column("x", "x").show(0.5) == "0.5000"
