# SPDX-License-Identifier: Apache-2.0
"""Files appear whole or not at all, and failures are sentences."""

import errno

import pytest

from xsvggt_ros.errors import OutputError
from xsvggt_ros.geometry.files import replacing, require_writable


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "new" / "folder" / "a.bin"
    for content in (b"first", b"second"):
        with replacing(path) as stream:
            stream.write(content)
        assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left"), ValueError("odd")])
def test_what_fails_half_way_leaves_the_old_file(tmp_path, failure):
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


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with (
        pytest.raises(OutputError, match=r"a.bin' cannot be written"),
        replacing(tmp_path / "file" / "a.bin"),
    ):
        pass
    with pytest.raises(OutputError, match="is no folder; choose another place"):
        require_writable(tmp_path / "file" / "out")


def test_looking_leaves_nothing_behind(tmp_path):
    require_writable(tmp_path / "not" / "yet")
    assert list(tmp_path.iterdir()) == []
