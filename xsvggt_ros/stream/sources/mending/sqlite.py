# SPDX-License-Identifier: Apache-2.0
"""rosbag2 files in SQLite that lack pages at their end.

What the tree of messages still leads to is read. Where the pages at which its branches begin lie
behind the cut, nothing is; SQLite's own ``.recover`` may find more.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

_SMALL_TABLES = ("schema", "metadata", "topics", "message_definitions")


def mended_sqlite(path: Path, scratch: Path) -> Path:
    """Copy topics and messages as far as they can be read, and return the copy.

    Raises:
        ValueError: it is no rosbag2 in SQLite, or its topics or first message are not whole.

    """
    copy = scratch / path.name
    copy.unlink(missing_ok=True)
    address = f"file:{path.resolve().as_posix()}?mode=ro&immutable=1"
    try:
        with (
            closing(sqlite3.connect(address, uri=True)) as source,
            closing(sqlite3.connect(copy)) as target,
        ):
            # Else SQLite refuses a file that is shorter than its header says.
            source.execute("PRAGMA writable_schema=ON")
            _copy_small_tables(source, target)
            count = _copy_messages(source, target)
            target.commit()
    except sqlite3.DatabaseError as error:
        raise ValueError(f"its topics cannot be read ({error})") from error
    if not count:
        raise ValueError("it ends before its first whole message")
    return copy


def _copy_small_tables(source: sqlite3.Connection, target: sqlite3.Connection) -> None:
    tables = dict(source.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'"))
    for name in (*_SMALL_TABLES, "messages"):
        if name in tables:
            target.execute(tables[name])
    for name in _SMALL_TABLES:
        if name in tables:
            for row in source.execute(f"SELECT * FROM {name}"):
                marks = ", ".join("?" * len(row))
                target.execute(f"INSERT INTO {name} VALUES ({marks})", row)


def _copy_messages(source: sqlite3.Connection, target: sqlite3.Connection) -> int:
    """Copy messages in the order of their numbers up to the first missing page."""
    count = 0
    rows = source.execute("SELECT id, topic_id, timestamp, data FROM messages ORDER BY id")
    try:
        for row in rows:
            target.execute("INSERT INTO messages VALUES (?, ?, ?, ?)", row)
            count += 1
    except sqlite3.DatabaseError:
        pass  # Here the file ends.
    return count
