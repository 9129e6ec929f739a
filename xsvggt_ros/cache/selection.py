# SPDX-License-Identifier: Apache-2.0
"""Which tokens stay when a layer holds more than its budget."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from xsvggt_ros.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Spans:
    """How the tokens of a layer lie: anchor first, then history, then the newest frame's window."""

    anchor: int
    history: int
    window: int

    @property
    def total(self) -> int:
        """All tokens of the layer."""
        return self.anchor + self.history + self.window


def smallest_budget(special: int) -> int:
    """Return the least budget that holds the special tokens of anchor and window."""
    return 2 * special


def check_budget(budget: int, special: int) -> None:
    """Raise ConfigurationError, naming the smallest budget, where ``budget`` is impossible."""
    least = smallest_budget(special)
    if budget < least:
        raise ConfigurationError(
            f"cache.budget_tokens is {budget}, but the special tokens of the first and of the "
            f"newest frame alone take {least}; set it to at least {least}"
        )


def shares(spans: Spans, budget: int, special: int) -> Spans:
    """Divide ``budget`` over anchor, history and window.

    Anchor and window stay whole while both fit; what is left goes to history. Where they do not
    fit, history gets nothing and the two share what remains beyond their special tokens: half
    each, and what one cannot use goes to the other. The shares depend on counts alone, so that no
    step has to wait for the device.
    """
    if spans.total <= budget:
        return spans
    if spans.anchor + spans.window <= budget:
        return Spans(spans.anchor, budget - spans.anchor - spans.window, spans.window)
    window = min(spans.window, max((budget + 1) // 2, budget - spans.anchor))
    return Spans(budget - window, 0, window)


def select(scores: Tensor, spans: Spans, budget: int, special: int) -> tuple[Tensor, Spans]:
    """Choose what stays: the best-scored tokens of each share, special tokens before all others.

    Args:
        scores: float [tokens], the higher the rather kept.
        spans: how the tokens lie now.
        budget: most tokens to keep; at least :func:`smallest_budget`.
        special: special tokens at the head of anchor and window.

    Returns:
        Sorted indices int64 [kept] with kept <= budget, and how the kept tokens lie.

    """
    kept = shares(spans, budget, special)
    window_start = spans.anchor + spans.history
    parts = [
        _best(scores, 0, spans.anchor, kept.anchor, special),
        _best(scores, spans.anchor, spans.history, kept.history, 0),
        _best(scores, window_start, spans.window, kept.window, special),
    ]
    return torch.cat(parts), kept


def _best(scores: Tensor, start: int, count: int, keep: int, special: int) -> Tensor:
    if keep == count:
        return torch.arange(start, start + count, device=scores.device)
    protected = min(special, keep)
    patches = scores[start + protected : start + count]
    chosen = patches.topk(keep - protected, sorted=False).indices.sort().values
    return torch.cat(
        [
            torch.arange(start, start + protected, device=scores.device),
            chosen + (start + protected),
        ]
    )
