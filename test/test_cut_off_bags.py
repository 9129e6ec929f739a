# SPDX-License-Identifier: Apache-2.0
"""Bags that end in the middle: read as far as they go, and never changed."""

import io
import logging
from pathlib import Path

import numpy as np
import pytest
from bags import Shot, pictures, write_bag

from xsvggt_ros.errors import SourceError
from xsvggt_ros.stream.sources import open_source
from xsvggt_ros.stream.sources.cut_off_bags import (
    CLOSING,
    MAGIC,
    end_of_whole_records,
    is_closed,
)


@pytest.fixture(scope="module")
def shots():
    return pictures(12, height=360, width=480)  # so large that they do not share a chunk


@pytest.fixture(scope="module")
def whole(shots, tmp_path_factory) -> bytes:
    records = [Shot(index + 1, shot) for index, shot in enumerate(shots)]
    folder = write_bag(tmp_path_factory.mktemp("bags") / "bag", records)
    (path,) = folder.glob("*.mcap")
    return path.read_bytes()


def cut(whole: bytes, share: float, tmp_path: Path) -> Path:
    path = tmp_path / "cut.mcap"
    path.write_bytes(whole[: round(share * len(whole))])
    return path


@pytest.mark.parametrize("share", [0.4, 0.61, 0.8])
def test_what_is_whole_is_read(whole, shots, tmp_path, share, caplog):
    path = cut(whole, share, tmp_path)
    before = path.read_bytes()
    with caplog.at_level(logging.WARNING), open_source(path) as source:
        read = [frame.decode() for frame in source]
    assert 0 < len(read) < len(shots)
    for picture, shot in zip(read, shots, strict=False):
        np.testing.assert_array_equal(picture, shot)
    assert "was cut off" in caplog.text
    assert path.read_bytes() == before


def test_more_of_the_file_is_never_less_of_the_stream(whole, tmp_path):
    counts = []
    for share in np.linspace(0.3, 1.0, 8):
        try:
            with open_source(cut(whole, share, tmp_path)) as source:
                counts.append(len(list(source)))
        except SourceError:
            counts.append(0)
    assert counts == sorted(counts)
    assert counts[-1] == 12


def test_a_closed_file_is_left_to_the_reader(whole):
    assert is_closed(io.BytesIO(whole))
    assert not is_closed(io.BytesIO(whole[:-3]))
    assert is_closed(io.BytesIO(b"no mcap at all"))


def test_half_a_record_is_left_out():
    record = b"\x05" + (4).to_bytes(8, "little") + b"abcd"
    assert end_of_whole_records(io.BytesIO(MAGIC + record + record[:-1])) == len(MAGIC + record)
    assert end_of_whole_records(io.BytesIO(MAGIC + record + CLOSING)) == len(MAGIC + record)
    assert end_of_whole_records(io.BytesIO(MAGIC)) == len(MAGIC)


def test_a_file_without_a_whole_message_is_refused(whole, tmp_path):
    with pytest.raises(SourceError):
        open_source(cut(whole, 0.02, tmp_path))
