# SPDX-License-Identifier: Apache-2.0
"""The one reader of text files with a row of words or numbers a line.

What people's files have is taken: a byte order mark, any encoding of remarks, commas, semicolons or
blanks between columns, commas as decimal points, empty cells, a header with or without ``#``, a
last line that was cut off.
"""

from __future__ import annotations

import codecs
import logging
import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from xsvggt_ros.errors import SourceError

logger = logging.getLogger(__name__)

SECOND = 1_000_000_000
"""Nanoseconds."""

UNITS = {"seconds": SECOND, "milliseconds": 1_000_000, "microseconds": 1000, "nanoseconds": 1}
"""Nanoseconds of each unit that times are written in."""

_EARLIEST, _LATEST = 946_684_800, 4_102_444_800
"""Seconds since 1970 of the years 2000 and 2100, between which a time is taken for one."""

_REMARKS = ("#", "%", "//", ";")
_REMARK_BEHIND = re.compile(r"\s#")  # Windows writes 1.#QNAN
_BETWEEN = re.compile(r"[,;]")
_DECIMAL_COMMA = re.compile(r"[+-]?[0-9]+(?:,[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_UNIT = re.compile(r"\[[^]]*\]|\([^)]*\)")
_NO_NUMBER = {
    word: float("nan")
    for word in ("", "none", "null", "na", "n/a", "nan(ind)", "-nan(ind)", "1.#qnan", "-1.#qnan",
                 "1.#ind", "-1.#ind")
}  # fmt: skip
"""What programs write where there is no number, and float() does not know."""
_PACKED = {b"\x1f\x8b": "gzip", b"PK\x03\x04": "zip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz"}
_MOST_NANOSECONDS = 2**63


class Row(NamedTuple):
    """The words of one line, and its number in the file."""

    line: int
    words: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """Rows of numbers, not converted yet, all of the same number of columns.

    Attributes:
        path: of the file.
        header: words of the line above the first row, in lower case, where there is one.
        rows: in the order of the file.
        names: of the columns, as that line gives them, without units; they need not be as many.

    """

    path: Path
    header: tuple[str, ...]
    rows: list[Row]
    names: tuple[str, ...] = ()

    @property
    def columns(self) -> int:
        """Number of columns; 0 of a table without rows."""
        return len(self.rows[0].words) if self.rows else 0

    def values(self) -> NDArray[np.float64]:
        """Return the numbers, float64 [rows, columns]; NaN and infinity are numbers."""
        table = [[_number(word) for word in row.words] for row in self.rows]
        return np.array(table, np.float64).reshape(len(self.rows), self.columns)


def read_text(path: Path) -> str:
    """Return what a text file holds; what is not UTF-8 is taken for Latin-1.

    Raises:
        SourceError: it cannot be read, is packed, or holds zeros as no text does.

    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror}") from error
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", "replace")
    if packed := next((kind for magic, kind in _PACKED.items() if data.startswith(magic)), ""):
        raise SourceError(f"{path} is packed ({packed}): unpack it first")
    if b"\0" in data:
        raise SourceError(f"{path} is no text: it holds zeros; was it copied as a whole?")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def read_rows(path: Path) -> list[Row]:
    """Return the words of each line that is neither empty nor a remark.

    Raises:
        SourceError: the file cannot be read.

    """
    return [Row(row.line, _without_last_gap(row.words)) for row in _lines(read_text(path))[0]]


def read_table(path: Path, columns: Collection[int] | None = None) -> Table:
    """Return a table of numbers.

    Args:
        path: of the file.
        columns: numbers of columns that are allowed; None = any.

    Raises:
        SourceError: the file cannot be read, or a line holds something else; it is named.

    """
    table = read_cells(path)
    require_numbers(table)
    if columns is not None and table.rows and table.columns not in columns:
        expected = " or ".join(map(str, sorted(columns)))
        raise SourceError(
            f"line {table.rows[0].line} of {path} has {table.columns} columns of numbers; "
            f"{expected} columns are needed"
        )
    return table


def read_cells(path: Path) -> Table:
    """Return a table whose cells may hold words beside numbers.

    Raises:
        SourceError: the file cannot be read, or its lines have different numbers of columns.

    """
    text = read_text(path)
    rows, header = _lines(text)
    while rows and _is_header(rows[0].words):
        header = rows.pop(0).words
    names = tuple(_UNIT.sub("", " ".join(word.split())).strip().lower() for word in header)
    rows = _split_by_blanks(rows)
    if rows and not text.endswith(("\n", "\r")) and _is_cut(rows):
        logger.warning("%s: its last line is cut off and left out", path)
        rows.pop()
    if all(not row.words[-1] for row in rows):
        rows = [Row(row.line, _without_last_gap(row.words)) for row in rows]
    wanted = _width(rows)
    whole = []
    for row in rows:
        words = row.words if len(row.words) == wanted else _without_last_gap(row.words)
        if len(words) != wanted:
            raise SourceError(
                f"line {row.line} of {path} has {len(words)} columns, and others have {wanted}"
            )
        whole.append(Row(row.line, words))
    words = tuple(word for cell in header for word in cell.lower().split())
    return Table(path, words, whole, names if len(names) == wanted else _names(words))


def require_numbers(table: Table) -> None:
    """Raise SourceError for the first cell that holds no number; its line is named."""
    for row in table.rows:
        wrong = next((word for word in row.words if not _is_number(word)), None)
        if wrong is not None:
            raise SourceError(
                f"line {row.line} of {table.path} holds '{wrong[:40]}', which is no number"
            )


def nanoseconds_of(table: Table, usual: str = "seconds") -> list[int]:
    """Return the times in the first column; their unit is told by their size.

    Args:
        table: with times in its first column.
        usual: unit of this kind of file, which counts where times are not since 1970.

    Raises:
        SourceError: a time that is not finite, or out of all range; its line is named.

    """
    words = [row.words[0] for row in table.rows]
    values = []
    for row, word in zip(table.rows, words, strict=True):
        value = _decimal(word)
        if not value.is_finite() or abs(value) >= _MOST_NANOSECONDS:
            raise SourceError(f"line {row.line} of {table.path}: '{word[:40]}' is no time")
        values.append(value)
    unit = _unit(values, usual)
    if unit != usual:
        logger.warning("%s: its times are taken for %s", table.path, unit)
    stamps = [int(value * UNITS[unit]) for value in values]
    for row, stamp in zip(table.rows, stamps, strict=True):
        if abs(stamp) >= _MOST_NANOSECONDS:
            raise SourceError(f"line {row.line} of {table.path}: '{row.words[0]}' is no time")
    return stamps


def time_unit(values: Sequence[Decimal]) -> str | None:
    """Return the unit in which all values are times between 2000 and 2100; None where none is."""
    if not values:
        return None
    least, most = min(values), max(values)
    for unit, length in UNITS.items():
        scale = Decimal(SECOND // length)
        if _EARLIEST * scale <= least and most < _LATEST * scale:
            return unit
    return None


def _unit(values: Sequence[Decimal], usual: str) -> str:
    """Return the unit of some times; the usual one where they count from elsewhere than 1970.

    More whole seconds than there were since 1970 are nanoseconds, and fractions of nanoseconds
    are seconds.
    """
    fractions = any(int(value.as_tuple().exponent) < 0 for value in values)
    most = max(values, default=Decimal(0))
    if usual == "nanoseconds" and not fractions and most < _EARLIEST * 1000:
        return usual  # Whole numbers of seconds are too coarse for the stamps of a camera.
    if unit := time_unit(values):
        return unit
    if most >= _LATEST and not fractions:
        return "nanoseconds"
    return "seconds" if usual == "nanoseconds" and fractions else usual


def _lines(text: str) -> tuple[list[Row], tuple[str, ...]]:
    """Return the cells of each row, and those of the last remark above the first of them."""
    rows: list[Row] = []
    header: tuple[str, ...] = ()
    for number, line in enumerate(re.split(r"\r\n|\r|\n", text), start=1):
        content = line.strip()
        if content.startswith(_REMARKS):
            if not rows:
                header = _cells(content.lstrip("#%/; "))
            continue
        cells = _cells(_REMARK_BEHIND.split(content)[0])
        if any(cells):
            rows.append(Row(number, cells))
    return rows, header


def _cells(text: str) -> tuple[str, ...]:
    """Split a line at semicolons, else at tabs or commas that stand between, else at blanks.

    Commas that stand within numbers are decimal points.
    """
    for between in (";", "\t", None):
        cells = text.split(between)
        if "," in text and _is_decimal(cells):
            return tuple(_bare(cell).replace(",", ".") for cell in cells)
        if between in (";", "\t") and between in text and "," not in text:
            return tuple(map(_bare, cells))
    return tuple(map(_bare, _BETWEEN.split(text) if _BETWEEN.search(text) else text.split()))


def _bare(cell: str) -> str:
    return cell.strip().strip("\"'").strip()


def _is_decimal(words: Sequence[str]) -> bool:
    """Tell whether words are numbers whose decimal point is a comma."""
    return len(words) > 1 and all(_DECIMAL_COMMA.fullmatch(each.strip()) for each in words)


def _split_by_blanks(rows: list[Row]) -> list[Row]:
    """Split cells of several numbers: some files have commas and blanks between columns."""
    return [
        Row(row.line, tuple(word for cell in row.words for word in cell.split() or [""]))
        for row in rows
    ]


def _without_last_gap(words: tuple[str, ...]) -> tuple[str, ...]:
    """Return the cells of a line without the empty one behind a last comma."""
    return words[:-1] if len(words) > 1 and not words[-1] else words


def _names(words: Sequence[str]) -> tuple[str, ...]:
    """Return the names of columns that blanks part."""
    return tuple(_UNIT.sub("", " ".join(words)).split())


def _is_header(words: Sequence[str]) -> bool:
    """Tell whether a line names columns: hardly any of its words is a number."""
    filled = [part for word in words for part in word.split()]
    numbers = sum(map(_is_number, filled))
    return not _is_number(filled[0]) and 2 * numbers <= len(filled)


def _number(word: str) -> float:
    """Return the number that a word is; ValueError where it is none."""
    if "_" in word:
        raise ValueError(word)  # which Python would read
    known = _NO_NUMBER.get(word.lower())
    return float(word) if known is None else known


def _is_number(word: str) -> bool:
    try:
        _number(word)
    except ValueError:
        return False
    return True


def _decimal(word: str) -> Decimal:
    try:
        return Decimal(word)
    except InvalidOperation:
        return Decimal("nan")


def _is_cut(rows: Sequence[Row]) -> bool:
    """Tell whether the last of some rows has fewer numbers than the others."""
    last = rows[-1].words
    others = _width(rows[:-1])
    return bool(others) and (len(last) < others or not all(map(_is_number, last)))


def _width(rows: Sequence[Row]) -> int:
    counts = Counter(len(row.words) for row in rows)
    return counts.most_common(1)[0][0] if counts else 0
