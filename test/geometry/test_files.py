# SPDX-License-Identifier: Apache-2.0
"""Files appear whole or not at all, and failures are sentences."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from xsvggt_ros.errors import OutputError
from xsvggt_ros.geometry.files import UNFINISHED, replacing, replacing_directory, require_writable


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "directory" / "a.bin"
    for content in (b"first", b"second"):
        with replacing(path) as stream:
            stream.write(content)
        assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left"), ValueError("odd")])
def test_what_fails_half_way_leaves_the_old_file(
    tmp_path: Path, failure: OSError | ValueError
) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"precious")
    expected = OutputError if isinstance(failure, OSError) else ValueError

    def write_half() -> None:
        with replacing(path) as stream:
            stream.write(b"half")
            raise failure

    with pytest.raises(expected, match="No space left|odd"):
        write_half()
    assert path.read_bytes() == b"precious"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with (
        pytest.raises(OutputError, match=r"a.bin' cannot be written"),
        replacing(tmp_path / "file" / "a.bin"),
    ):
        pass
    with pytest.raises(OutputError, match="is no directory; choose another place"):
        require_writable(tmp_path / "file" / "out")


def test_what_takes_no_files_is_known_before_a_run(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(OutputError, match="link' is a link to nothing; choose another"):
        require_writable(tmp_path / "link")
    with pytest.raises(OutputError, match=r"'/proc' takes no files \("):  # for root, too
        require_writable(Path("/proc/xsvggt"))


def test_looking_leaves_nothing_behind(tmp_path: Path) -> None:
    require_writable(tmp_path / "not" / "yet")
    assert list(tmp_path.iterdir()) == []


def fill(place: Path, **texts: str) -> None:
    place.mkdir()
    for name, text in texts.items():
        (place / name).write_text(text)


@pytest.mark.parametrize("there", [False, True])
def test_a_directory_is_there_whole_or_not_at_all(tmp_path: Path, there: bool) -> None:
    path = tmp_path / "bag"
    if there:
        fill(path, old="precious")
    before = path.stat().st_ino if there else None

    def fill_half() -> None:
        with replacing_directory(path) as place:
            fill(place, a="half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fill_half()
    assert sorted(tmp_path.rglob("*")) == ([path, path / "old"] if there else [])
    with replacing_directory(path) as place:
        assert place.name == "bag"
        assert not place.exists()
        fill(place, a="1", b="2")
        (place / "deep").mkdir()
        (place / "deep" / "c").write_text("3")
        assert not (path / "a").exists()
    assert sorted(each.name for each in tmp_path.rglob("*")) == ["a", "b", "bag", "c", "deep"]
    assert (path / "deep" / "c").read_text() == "3"
    if there:
        assert path.stat().st_ino == before


def test_what_a_killed_run_left_in_a_directory_goes(tmp_path: Path) -> None:
    left = tmp_path / UNFINISHED / tmp_path.name
    left.mkdir(parents=True)
    (left / "half").write_text("1")
    with replacing_directory(tmp_path) as place:
        fill(place, whole="2")
    assert [each.name for each in tmp_path.iterdir()] == ["whole"]


def test_a_directory_that_takes_nothing_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with (
        pytest.raises(OutputError, match=r"out' cannot be written"),
        replacing_directory(tmp_path / "file" / "out"),
    ):
        pass
