# SPDX-License-Identifier: Apache-2.0
"""The directory of one run, ``<results>/<source>_<time>/``, and the link ``latest`` to it."""

from __future__ import annotations

import os
import re
from datetime import datetime
from pathlib import Path

from xsvggt_ros.errors import OutputError
from xsvggt_ros.geometry.files import require_writable

LATEST = "latest"


def new_directory(results: Path, source: str, now: datetime) -> Path:
    """Make a directory of its own for a run.

    Raises:
        OutputError: none can be made there.

    """
    require_writable(results)
    stem = f"{_file_name(source)}_{now:%Y-%m-%d_%H-%M-%S}"
    for attempt in range(1, 1000):
        directory = results / (stem if attempt == 1 else f"{stem}_{attempt}")
        try:
            directory.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise OutputError(
                f"'{directory}' cannot be made ({error.strerror or error}); choose another --output"
            ) from error
        return directory
    raise OutputError(f"'{results / stem}' and 998 more are taken; choose another --output")


def link_latest(directory: Path) -> Path | None:
    """Let ``latest`` beside ``directory`` point to it; None where there can be no links."""
    link = directory.parent / LATEST
    partial = directory.parent / f".{LATEST}.{os.getpid()}"
    if link.exists() and not link.is_symlink():
        return None  # somebody else's
    try:
        partial.unlink(missing_ok=True)
        partial.symlink_to(directory.name, target_is_directory=True)
        partial.replace(link)
    except OSError:
        return None
    return link


def _file_name(source: str) -> str:
    """Return the end of a source's name, fit for a directory."""
    name = re.sub(r"[^A-Za-z0-9._@+-]+", "-", Path(source).name).strip("-.")
    return name[-60:] or "source"
