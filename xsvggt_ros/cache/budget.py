# SPDX-License-Identifier: Apache-2.0
"""How the tokens of a layer are divided over anchor, history and window."""

from __future__ import annotations

from dataclasses import dataclass

from xsvggt_ros.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Spans:
    """Tokens of a layer: the anchor, the history, and the newest frame's window."""

    anchor: int
    history: int
    window: int

    @property
    def total(self) -> int:
        """All tokens of the layer."""
        return self.anchor + self.history + self.window


def check_budget(budget: int, least: int) -> None:
    """Raise ConfigurationError, naming the ``least`` budget, where ``budget`` is impossible."""
    if budget < least:
        raise ConfigurationError(
            f"cache.budget_tokens is {budget}, but the special tokens of the first and of the "
            f"newest frame alone take {least}; set it to at least {least}"
        )


def shares(spans: Spans, budget: int) -> Spans:
    """Divide ``budget`` over anchor, history and window.

    Anchor and window stay whole while both fit; what is left goes to history. Where they do not
    fit, history gets nothing and the two share by halves; what one cannot use goes to the other.
    The shares depend on counts alone, so that no step has to wait for the device.
    """
    if spans.total <= budget:
        return spans
    if spans.anchor + spans.window <= budget:
        return Spans(spans.anchor, budget - spans.anchor - spans.window, spans.window)
    window = min(spans.window, max((budget + 1) // 2, budget - spans.anchor))
    return Spans(budget - window, 0, window)
