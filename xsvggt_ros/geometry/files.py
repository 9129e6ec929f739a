# SPDX-License-Identifier: Apache-2.0
"""Files that are either whole or not there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from xsvggt_ros.errors import OutputError


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file beside ``path`` for writing that takes its place once the block has ended.

    When the block raises, ``path`` stays as it was. Missing folders are made.

    Raises:
        OutputError: nothing can be written there.

    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as stream:
            yield stream
        partial.replace(path)
    except OSError as error:
        raise OutputError(
            f"'{path}' cannot be written ({error.strerror or error}); choose another place, or "
            "free room and rights there"
        ) from error
    finally:
        with suppress(OSError):
            partial.unlink()


def require_writable(folder: Path) -> None:
    """Look whether files can be put into ``folder``, so that a long run does not end in vain.

    Raises:
        OutputError: it, or the folder that it would be made in, takes no files.

    """
    place = folder.absolute()
    nearest = next(each for each in (place, *place.parents) if each.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        kind = "takes no files" if nearest.is_dir() else "is no folder"
        raise OutputError(f"cannot write into '{folder}': '{nearest}' {kind}; choose another place")
