# SPDX-License-Identifier: Apache-2.0
"""A bag that replaces the one before, whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import run

from xsvggt_ros.errors import OutputError
from xsvggt_ros.stream.sources import open_source
from xsvggt_ros.synthetic.export import IMAGE_TOPIC, write_first_frames
from xsvggt_ros.synthetic.renderer import Quality
from xsvggt_ros.synthetic.rooms import room_named
from xsvggt_ros.synthetic.sequence import Sequence, SequenceSettings


@pytest.fixture(scope="module")
def sequence() -> Sequence:
    look = room_named("calm")
    return Sequence(
        SequenceSettings(
            seed=3, frames=3, width=32, height=24, room=look, quality=Quality(1, False)
        )
    )


def stamps(bag: Path) -> list[int]:
    with open_source(bag, topic=IMAGE_TOPIC) as source:
        return [frame.stamp for frame in source]


def contents(directory: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(directory)): file.read_bytes()
        for file in directory.rglob("*")
        if file.is_file()
    }


def test_a_bag_replaces_the_one_before(sequence: Sequence, tmp_path: Path) -> None:
    bag = tmp_path / "out" / "room"
    heard: list[int] = []
    write_first_frames(sequence, 3, bag, heard.append)
    assert heard == [1, 2, 3]
    assert stamps(bag) == [sequence.stamp(index) for index in range(3)]
    write_first_frames(sequence, 1, bag)
    assert stamps(bag) == [sequence.stamp(0)]
    assert [each.name for each in bag.parent.iterdir()] == ["room"]


def test_one_that_breaks_off_leaves_the_one_before(sequence: Sequence, tmp_path: Path) -> None:
    bag = tmp_path / "room"
    write_first_frames(sequence, 1, bag)
    before = contents(tmp_path)

    def interrupted(done: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_first_frames(sequence, 3, bag, interrupted)
    assert contents(tmp_path) == before


def test_what_is_no_bag_is_not_replaced(sequence: Sequence, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(OutputError, match="is not a bag; remove it or choose another place"):
        write_first_frames(sequence, 1, tmp_path)
    with pytest.raises(OutputError, match="is not a bag"):
        write_first_frames(sequence, 1, tmp_path / "mine.txt")
    with pytest.raises(OutputError, match="cannot be written"):
        write_first_frames(sequence, 1, tmp_path / "mine.txt" / "room")
    assert contents(tmp_path) == {"mine.txt": b"keep me"}


def test_the_command_takes_no_bag_that_is_there_for_its_own(
    sequence: Sequence, tmp_path: Path
) -> None:
    bag = tmp_path / "room"
    write_first_frames(sequence, 1, bag)
    before = contents(bag)
    small = ["--frames", 2, "--width", 32, "--height", 24, "--room", "calm", "--samples", 1]
    result = run("synthesize", "-o", bag, "--format", "bag", *small)
    assert result.exit_code == 1
    assert "exists and is not empty; choose another place or remove it" in " ".join(
        result.output.split()
    )
    assert contents(bag) == before
    empty = tmp_path / "empty"
    empty.mkdir()
    assert run("synthesize", "-o", empty, "--format", "bag", *small).exit_code == 0
    assert len(stamps(empty)) == 2
