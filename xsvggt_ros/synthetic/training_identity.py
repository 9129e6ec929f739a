# SPDX-License-Identifier: Apache-2.0
"""Whether a training that was saved is the one that is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, asdict, fields, is_dataclass
from typing import Any


def differences(saved: Mapping[str, Any], asked: Any) -> list[str]:
    """Return in words what was saved otherwise than it is asked for.

    What was saved before a field existed counts as saved with its default.

    Args:
        saved: what ``asdict`` made of a dataclass like ``asked``.
        asked: a dataclass of numbers, texts, tuples and dataclasses.

    """
    before = dict(_leaves(_completed(saved, asked)))
    now = dict(_leaves(asdict(asked)))
    return [
        f"{name} was {_in_words(before, name)}, is {_in_words(now, name)}"
        for name in {**before, **now}
        if before.get(name) != now.get(name)
    ]


def _completed(saved: Mapping[str, Any], asked: Any) -> dict[str, Any]:
    """Return what was saved, with the defaults of fields that it lacks, without unknown ones."""
    whole: dict[str, Any] = {}
    for each in fields(asked):
        now = getattr(asked, each.name)
        if each.name not in saved:
            whole[each.name] = _default(each)
        elif is_dataclass(now):
            whole[each.name] = _completed(saved[each.name], now)
        elif isinstance(now, tuple) and now and is_dataclass(now[0]):
            whole[each.name] = tuple(_completed(one, now[0]) for one in saved[each.name])
        else:
            whole[each.name] = saved[each.name]
    return whole


def _default(field: Field[Any]) -> Any:
    if field.default_factory is not MISSING:
        value = field.default_factory()
        return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
    return None if field.default is MISSING else field.default


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield what cannot be taken apart any more, by dotted name."""
    if isinstance(value, Mapping):
        parts: Any = value.items()
    elif isinstance(value, (tuple, list)) and value and isinstance(value[0], Mapping):
        parts = enumerate(value)
    else:
        yield name, tuple(value) if isinstance(value, list) else value
        return
    for key, part in parts:
        yield from _leaves(part, f"{name}.{key}" if name else str(key))


def _in_words(values: Mapping[str, Any], name: str) -> str:
    value = values.get(name)
    return "nothing" if value is None or value == "" else str(value)
