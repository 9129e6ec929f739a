# SPDX-License-Identifier: Apache-2.0
"""How a setting is declared, once, and how a value for it is checked.

Parameters of the node and options of commands follow from the declarations.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from xsvggt_ros.errors import ConfigurationError

Value = bool | int | float | str


def declared(default: Any, text: str, **rest: Any) -> Any:
    """Return a dataclass field with its declaration as metadata.

    Args:
        default: its value where nobody sets it.
        text: for people, one or two sentences.
        **rest: what :class:`Spec` has beside these: ``choices``, all
            legal values, or ``minimum`` and ``maximum``, both legal; ``unit``; ``live``, whether a
            running node may change it; ``renamed``, former values and what they are called now.

    """
    return field(default=default, metadata={"default": default, "text": text, **rest})


@dataclass(frozen=True, slots=True)
class Spec:
    """What one parameter is; limits are inclusive, ``choices`` exhaustive.

    A ``live`` one may change at any time, a ``fixed`` one never, all others while the node is
    unconfigured. ``words`` may be given as a list, too. ``renamed`` maps former values, which are
    still read, to those of today.
    """

    name: str
    default: Value
    text: str
    unit: str = ""
    minimum: float | None = None
    maximum: float | None = None
    step: int = 1
    choices: tuple[str, ...] | tuple[int, ...] = ()
    live: bool = False
    fixed: bool = False
    words: bool = False
    renamed: Mapping[object, str] = field(default_factory=dict)

    @property
    def limits(self) -> str:
        """Return the legal values in words, empty where every value is legal."""
        if self.choices:
            return ", ".join(str(choice) or '""' for choice in self.choices)
        if self.minimum is None:
            return ""
        step = f" in steps of {self.step}" if self.step > 1 else ""
        return f"{self.minimum:.10g} to {self.maximum:.10g}{step}"


def checked_value(spec: Spec, value: object) -> Value:
    """Return a value as the parameter has it: what YAML makes of it may be of another type.

    An integer is taken for a float, a list for words, and a former value for that of today.

    Raises:
        ConfigurationError: a value that cannot be meant, or that is beyond its limits.

    """
    kind = type(spec.default)
    if spec.words and (value is None or _is_list(value)):
        value = " ".join(map(str, value or ()))  # type: ignore[call-overload]
    elif kind is float and type(value) is int:
        value = float(value)
    elif isinstance(value, (bool, str)) and value in spec.renamed:
        value = spec.renamed[value]
    if type(value) is not kind:
        what = "has no value (null, or an empty list)" if value is None else f"is {value!r}"
        raise ConfigurationError(
            f"parameter {spec.name} must be of type {kind.__name__}, such as {spec.default!r}, but "
            f"{what}; correct it, or leave it out"
        )
    assert isinstance(value, (bool, int, float, str))
    _check_choice(spec, value)
    _check_limits(spec, value)
    return value


def _check_choice(spec: Spec, value: Value) -> None:
    if spec.choices and value not in spec.choices:
        nearest = nearest_name(str(value), map(str, spec.choices))
        hint = f"; did you mean '{nearest}'?" if nearest else ""
        raise ConfigurationError(f"{spec.name} is '{value}', not one of {spec.limits}{hint}")


def _check_limits(spec: Spec, value: Value) -> None:
    if spec.minimum is None or spec.maximum is None or isinstance(value, str):
        return
    if not spec.minimum <= value <= spec.maximum:  # NaN is in no range
        raise ConfigurationError(
            f"{spec.name} is {value}; legal are {spec.limits} {spec.unit}".rstrip()
        )


def _is_list(value: object) -> bool:
    return isinstance(value, (list, tuple)) or type(value).__name__ in ("array", "ndarray")


def nearest_name(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that ``name`` was probably meant to be."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return matches[0] if matches else None
