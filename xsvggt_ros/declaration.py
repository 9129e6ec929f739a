# SPDX-License-Identifier: Apache-2.0
"""How a setting is declared, once: parameters of the node and options of commands follow."""

from __future__ import annotations

from dataclasses import field
from typing import Any


def declared(default: Any, text: str, **rest: Any) -> Any:
    """Return a dataclass field with its declaration as metadata.

    Args:
        default: its value where nobody sets it.
        text: for people, one or two sentences.
        **rest: what :class:`xsvggt_ros.ros.parameter_spec.Spec` has beside these: ``choices``, all
            legal values, or ``minimum`` and ``maximum``, both legal; ``unit``; ``live``, whether a
            running node may change it; ``renamed``, former values and what they are called now.

    """
    return field(default=default, metadata={"default": default, "text": text, **rest})
