# SPDX-License-Identifier: Apache-2.0
"""Files and directories that are either whole or not there."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO

from xsvggt_ros.errors import OutputError, PartlyWrittenError, XsvggtError

logger = logging.getLogger(__name__)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file beside ``path`` for writing that takes its place once the block has ended.

    When the block raises, ``path`` stays as it was. Missing directories are made.

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
        raise _unwritable(path, error) from error
    finally:
        with suppress(OSError):
            partial.unlink()


def write_each(writers: Mapping[Path, Callable[[], object]]) -> list[Path]:
    """Write several files, and go on where one fails; return their paths.

    Args:
        writers: what writes each path, the small files first: they still fit on a full disk.

    Raises:
        PartlyWrittenError: one or several could not be written; all others were.

    """
    written: list[Path] = []
    failures: list[str] = []
    for path, write in writers.items():
        try:
            write()
        except Exception as error:
            known = isinstance(error, XsvggtError)
            text = str(error) if known else f"'{path}': unexpected {type(error).__name__}: {error}"
            failures.append(text)
            if not known:
                logger.debug("unexpected failure while writing %s", path, exc_info=error)
        else:
            written.append(path)
    if failures:
        raise PartlyWrittenError(
            f"{len(failures)} of {len(writers)} files are missing: {'; '.join(failures)}", written
        )
    return written


def _unwritable(path: Path, error: OSError) -> OutputError:
    return OutputError(
        f"'{path}' cannot be written ({error.strerror or error}); choose another place, or free "
        "room and rights there"
    )


UNFINISHED = ".partial"
"""What a directory is called that is being filled, inside the one that it is for, or the end of its
name beside it. It can be removed."""


@contextmanager
def replacing_directory(path: Path) -> Iterator[Path]:
    """Yield a place to fill whose content is that of ``path`` once the block has ended.

    The place has the same name and is not made yet. When the block raises, ``path`` stays as it
    was. A directory that is there is filled, not exchanged: it may be where a disk is mounted, or
    where somebody stands.

    Raises:
        OutputError: nothing can be written there.

    """
    goal = path.absolute()
    there = goal.is_dir()
    shelter = goal / UNFINISHED if there else goal.with_name(f".{goal.name}{UNFINISHED}")
    try:
        shutil.rmtree(shelter, ignore_errors=True)
        shelter.mkdir(parents=True)
        yield shelter / goal.name
        if there:
            _exchange_content(goal, shelter)
        else:
            (shelter / goal.name).rename(goal)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        shutil.rmtree(shelter, ignore_errors=True)


def _exchange_content(goal: Path, shelter: Path) -> None:
    """Put what lies in the shelter's directory into ``goal``, in place of all else."""
    for each in goal.iterdir():
        if each != shelter:
            shutil.rmtree(each) if each.is_dir() and not each.is_symlink() else each.unlink()
    # What was written last lists the others, so it comes last.
    written = sorted((shelter / goal.name).iterdir(), key=lambda each: each.stat().st_mtime_ns)
    for each in written:
        each.rename(goal / each.name)


def require_writable(directory: Path) -> None:
    """Try whether files can be put into ``directory``, so that a long run does not end in vain.

    Nothing is left there; rights alone do not tell of /proc, of a read-only disk, or of a link.

    Raises:
        OutputError: it, or the directory that it would be made in, takes no files.

    """
    place = directory.absolute()
    nearest = next(each for each in (place, *place.parents) if os.path.lexists(each))
    try:
        if not nearest.is_dir():
            kind = "is a link to nothing" if nearest.is_symlink() else "is no directory"
            raise OutputError(
                f"cannot write into '{directory}': '{nearest}' {kind}; choose another place"
            )
        with TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise OutputError(
            f"cannot write into '{directory}': '{nearest}' takes no files ({error.strerror}); "
            "choose another place"
        ) from error
