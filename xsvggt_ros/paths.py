# SPDX-License-Identifier: Apache-2.0
"""Paths as users give them."""

from __future__ import annotations

from pathlib import Path

from xsvggt_ros.errors import ConfigurationError, first_line


def in_home(path: str | Path) -> Path:
    """Return a path with a leading ``~`` replaced by the user's home directory.

    Raises:
        ConfigurationError: nobody knows that directory.

    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ConfigurationError(
            f"'{path}' begins with '~', and {first_line(error)[0].lower()}{first_line(error)[1:]} "
            "give the whole path"
        ) from error
