# SPDX-License-Identifier: Apache-2.0
"""rosbag2 files in SQLite, whole or not.

Messages of a recorder that was killed may still lie in the write-ahead log beside the file
(``-wal``; rosbag2's ``resilient`` preset), which a reader must be allowed to index; where it is
not, the file is copied. Of a file that lacks pages at its end, what the tree of messages still
leads to is read; SQLite's own ``.recover`` may find more.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from xsvggt_ros.stream.sources.storage.base import EMPTY_TIMES, Channel, NoBagError, kind_of

MAGIC = b"SQLite format 3\0"
_LOGS = ("-wal", "-journal")
_LANGUAGES = {"ros2msg": "msg", "ros2idl": "idl"}


class SqliteStorage:
    """An SQLite file of rosbag2."""

    def __init__(self, path: Path, scratch: Path) -> None:
        """Find topics and messages; ``scratch`` is where the file may be copied to.

        Raises:
            ValueError: it is no rosbag2 in SQLite, or its topics or first message are not whole.
            OSError: it cannot be read, or not be copied.

        """
        self.damage: str | None = None
        self._last: int | None = None
        self._index: Path | None = None
        if not path.stat().st_size:
            raise ValueError("it is empty")
        try:
            self._connection = self._opened(path, scratch)
            try:
                self.channels, self.start, self.end = self._overview()
            except BaseException:
                self.close()
                raise
        except sqlite3.Error as error:
            raise ValueError(f"its topics cannot be read ({error})") from error

    def _opened(self, path: Path, scratch: Path) -> sqlite3.Connection:
        logs = [each for suffix in _LOGS if _size(each := _beside(path, suffix))]
        if not logs:
            return _connected(path, "mode=ro&immutable=1")
        shared = _beside(path, "-shm")
        if logs == [_beside(path, "-wal")] and os.access(path.parent, os.W_OK):
            self._index = None if shared.exists() else shared
            connection = _connected(path, "mode=ro")
            try:
                connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            except sqlite3.OperationalError:
                connection.close()  # Somebody holds it, or the file system cannot share memory.
            else:
                return connection
        for each in (path, *logs):
            shutil.copy(each, scratch / each.name)
        return _connected(scratch / path.name, "mode=rw")

    def _overview(self) -> tuple[list[Channel], int, int]:
        """Return channels, and the times of the first and the last message."""
        if not self._has("topics"):
            raise NoBagError("it is a database, but none of rosbag2: it has no table of topics")
        try:
            found = self._counted("SELECT topic_id, count(*), min(timestamp), max(timestamp) "
                                  "FROM messages GROUP BY topic_id")  # fmt: skip
        except sqlite3.DatabaseError as error:
            # Else SQLite refuses a file that is shorter than its header says.
            self._connection.execute("PRAGMA writable_schema=ON")
            self.damage = str(error)
            found = self._counted_one_by_one()
            if not found:
                raise ValueError("it ends before its first whole message") from error
        definitions = self._definitions()
        channels = []
        for number, topic, kind, encoding in self._connection.execute(
            "SELECT id, name, type, serialization_format FROM topics ORDER BY id"
        ):
            count = found[number][0] if number in found else 0
            language, text = definitions.get(kind, ("", ""))
            channels.append(
                Channel(number, topic, kind_of(kind), encoding, language, text, count)
            )  # fmt: skip
        times = [EMPTY_TIMES, *(each[1:] for each in found.values())]
        return channels, min(start for start, _ in times), max(end for _, end in times)

    def _has(self, table: str) -> bool:
        """Tell whether there is a table; true where the list of tables cannot be read."""
        try:
            names = {name for (name,) in self._connection.execute("SELECT name FROM sqlite_master")}
        except sqlite3.DatabaseError:
            return True
        return table in names

    def _counted(self, query: str) -> dict[int, tuple[int, int, int]]:
        return {number: rest for number, *rest in self._connection.execute(query)}

    def _counted_one_by_one(self) -> dict[int, tuple[int, int, int]]:
        """Read messages up to the first missing page."""
        found: dict[int, tuple[int, int, int]] = {}
        rows = self._connection.execute(
            "SELECT id, topic_id, timestamp, data FROM messages ORDER BY id"
        )
        try:
            for row, number, time, _ in rows:
                count, start, end = found.get(number, (0, *EMPTY_TIMES))
                found[number] = count + 1, min(start, time), max(end, time)
                self._last = row
        except sqlite3.DatabaseError:
            pass  # Here the file ends.
        return found

    def _definitions(self) -> dict[str, tuple[Any, str]]:
        """Return language and text of each type's definition; of old bags, none."""
        try:
            rows = self._connection.execute(
                "SELECT topic_type, encoding, encoded_message_definition FROM message_definitions"
            )
            return {kind: (_LANGUAGES.get(language, ""), text) for kind, language, text in rows}
        except sqlite3.DatabaseError:
            return {}

    def messages(self, numbers: Collection[int]) -> Iterator[tuple[int, int, bytes]]:
        """Yield the messages of some channels in the order of time; of a cut file, as recorded."""
        marks = ", ".join("?" * len(numbers))
        query = f"SELECT topic_id, timestamp, data FROM messages WHERE topic_id IN ({marks})"
        values = [*numbers]
        if self._last is None:
            query += " ORDER BY timestamp, id"
        else:
            query += " AND id <= ? ORDER BY id"
            values.append(self._last)
        try:
            for number, time, data in self._connection.execute(query, values):
                yield number, time, bytes(data)
        except (sqlite3.DatabaseError, TypeError) as error:
            raise ValueError(str(error)) from error

    def close(self) -> None:
        """Close the file, and leave nothing beside it that was not there."""
        self._connection.close()
        if self._index is not None:
            self._index.unlink(missing_ok=True)


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _connected(path: Path, options: str) -> sqlite3.Connection:
    address = f"file:{quote(str(path.resolve()))}?{options}"
    return sqlite3.connect(address, uri=True, check_same_thread=False)
