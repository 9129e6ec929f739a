# SPDX-License-Identifier: Apache-2.0
"""What has been set up already, so that an interrupted set-up goes on where it stopped."""

from __future__ import annotations

import json

from layout import RECORD


class Record:
    """Finished stages and the hashes of what they were made from; kept inside the environment."""

    def __init__(self) -> None:
        self._entries: dict[str, str] = _read()

    def get(self, name: str) -> str:
        """Return what was recorded under a name, or an empty text."""
        return self._entries.get(name, "")

    def matches(self, stages: dict[str, str]) -> bool:
        """Say whether every stage was finished from exactly these inputs."""
        return all(self._entries.get(name) == value for name, value in stages.items())

    def put(self, name: str, value: str) -> None:
        """Record a finished stage at once."""
        self._entries[name] = value
        self._write()

    def forget(self, name: str) -> None:
        """Mark a stage as unfinished before it is done again."""
        if self._entries.pop(name, None) is not None:
            self._write()

    def clear(self) -> None:
        """Forget everything: the environment is made again."""
        self._entries.clear()

    def _write(self) -> None:
        partial = RECORD.with_suffix(".partial")
        partial.write_text(json.dumps(self._entries, indent=1) + "\n", encoding="utf-8")
        partial.replace(RECORD)


def _read() -> dict[str, str]:
    try:
        entries = json.loads(RECORD.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {str(name): str(value) for name, value in entries.items()}
