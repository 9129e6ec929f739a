# SPDX-License-Identifier: Apache-2.0
"""How a cache is to behave."""

from __future__ import annotations

from dataclasses import dataclass

from xsvggt_ros.errors import ConfigurationError

POLICIES = ("xstreamvggt", "sliding_window", "none")
COMPATIBILITIES = ("none", "published")


@dataclass(frozen=True, slots=True)
class CacheSettings:
    """Settings of a cache, checked when made.

    Attributes:
        policy: what chooses the history: ``xstreamvggt`` (pooled-query importance),
            ``sliding_window`` (the newest tokens, the anchor kept) or ``none`` (nothing is ever
            dropped; memory then grows with the session).
        budget_tokens: most tokens a layer holds after a frame; without effect for ``none``.
        pool_size: patch queries that are averaged into one for ``xstreamvggt``.
        camera_frames: frames that the camera head remembers: the first and the most recent ones;
            without effect for ``none`` and for ``published``, which puts the camera head under
            the token budget.
        compatibility: ``published`` reproduces the released XStreamVGGT code, its overshoot of
            small budgets and its camera cache shared by all iterations included.

    Raises:
        ConfigurationError: a value outside its range, with the range.

    """

    policy: str = "xstreamvggt"
    budget_tokens: int = 8192
    pool_size: int = 16
    camera_frames: int = 256
    compatibility: str = "none"

    def __post_init__(self) -> None:
        self._one_of("policy", POLICIES)
        self._one_of("compatibility", COMPATIBILITIES)
        self._at_least("budget_tokens", 1)
        self._at_least("pool_size", 1)
        self._at_least("camera_frames", 2)

    @property
    def published(self) -> bool:
        """Whether the released code is to be reproduced."""
        return self.compatibility == "published"

    @property
    def bounded(self) -> bool:
        """Whether memory is independent of the session's length."""
        return self.policy != "none"

    def _one_of(self, name: str, choices: tuple[str, ...]) -> None:
        value = getattr(self, name)
        if value not in choices:
            raise ConfigurationError(
                f"cache.{name} '{value}' is unknown; choose one of {', '.join(choices)}"
            )

    def _at_least(self, name: str, least: int) -> None:
        value = getattr(self, name)
        if value < least:
            raise ConfigurationError(f"cache.{name} is {value}; it must be at least {least}")
