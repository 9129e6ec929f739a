# SPDX-License-Identifier: Apache-2.0
"""Which names of coordinate frames transforms can carry."""

from __future__ import annotations


def fault_of(name: str) -> str | None:
    """Return what is wrong with a name, None where nothing is."""
    if not name:
        return "is empty"
    if name.startswith("/"):
        return "begins with a slash, which tf2 refuses"
    if any(map(str.isspace, name)):
        return "holds a blank"
    return None
