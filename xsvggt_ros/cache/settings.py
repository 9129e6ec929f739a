# SPDX-License-Identifier: Apache-2.0
"""How a cache is to behave."""

from __future__ import annotations

import math
from dataclasses import dataclass

from xsvggt_ros.errors import ConfigurationError

POLICIES = (
    "xstreamvggt",
    "balanced",
    "ffn_residual",
    "value_aware",
    "key_diversity",
    "sliding_window",
    "random",
    "none",
)
DEFAULT_POLICY = "xstreamvggt"
"""The paper's: it loses least of the path where memory counts, see docs/cache.md."""

DEFAULT_BUDGET_TOKENS = 8192
"""About eight frames of 518x392."""

COMPATIBILITIES = ("none", "published")
PUBLISHED_POLICIES = ("xstreamvggt", "sliding_window", "none")
WIDTHS = (2, 4, 8, 16)
ANCHOR_WIDTHS = (0, 8, 16)
WINDOW_WIDTHS = (0, 16)
INDEX_SETS = ("layer", "head")
ADAPTATIONS = ("off", "layers", "scene", "both")
MOST_MIB = 2**20
BACKENDS = ("auto", "sdpa", "flash_attn", "math")


@dataclass(frozen=True, slots=True)
class CacheSettings:
    """Settings of a cache, checked when made.

    Attributes:
        policy: what chooses the history, see :mod:`xsvggt_ros.cache.policies`; ``none`` drops
            nothing, and memory then grows with the session.
        budget_tokens: most tokens that a layer holds after a frame, the mean over layers where
            these share it out; without effect for ``none``.
        pool_size: patch queries that are averaged into one for ``xstreamvggt``.
        camera_frames: frames that the camera head remembers: the first, the most recent and the
            most attended ones; without effect for ``none`` and for ``published``, which puts the
            camera head under the token budget.
        compatibility: ``published`` reproduces the released XStreamVGGT code: its overshoot of
            small budgets, its camera cache shared by all iterations, and, where a width is below
            16, its simulated quantization, which saves no byte.
        budget_mib: MiB that the cache may allocate in all, scratch included and the camera head's
            memory not; the tokens that fit at the current widths and resolution replace
            ``budget_tokens``. 0 = no such bound; without effect for ``none``.
        key_bits: width of a cached key: 2, 4, 8, or 16 = as the network gave it.
        value_bits: the same of a cached value.
        anchor_bits: width of keys and values of the first frame's tokens and of all special
            tokens, where they are to be finer than the rest: 8 or 16; 0, or no more than the other
            widths, = like the rest.
        window_bits: 16 = the newest frame is stored as it came and rounded when the next one
            comes, for one frame more of unquantized bytes in each layer; 0 = it is rounded at the
            end of its own step.
        group_size: keys that share a grid per channel.
        index_sets: ``layer`` = all heads of a layer keep the same tokens; ``head`` = each keeps
            its own.
        adaptive: ``layers`` shares the budget out over the layers by need, ``scene`` lets it grow
            and shrink with motion and novelty, ``both`` does both, ``off`` neither.
        budget_min_tokens: where ``adaptive`` follows the scene, the budget of a scene at rest;
            0 = half of the full one.
        attention_backend: who attends, see :mod:`xsvggt_ros.cache.attention`.
        seed: of the policy ``random``.

    Raises:
        ConfigurationError: a value outside its range, with the range.

    """

    policy: str = DEFAULT_POLICY
    budget_tokens: int = DEFAULT_BUDGET_TOKENS
    pool_size: int = 16
    camera_frames: int = 256
    compatibility: str = "none"
    budget_mib: float = 0.0
    key_bits: int = 4
    value_bits: int = 4
    anchor_bits: int = 0
    window_bits: int = 0
    group_size: int = 64
    index_sets: str = "layer"
    adaptive: str = "off"
    budget_min_tokens: int = 0
    attention_backend: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        self._one_of("policy", POLICIES)
        self._one_of("compatibility", COMPATIBILITIES)
        self._one_of("key_bits", WIDTHS)
        self._one_of("value_bits", WIDTHS)
        self._one_of("anchor_bits", ANCHOR_WIDTHS)
        self._one_of("window_bits", WINDOW_WIDTHS)
        self._one_of("index_sets", INDEX_SETS)
        self._one_of("adaptive", ADAPTATIONS)
        self._one_of("attention_backend", BACKENDS)
        self._at_least("budget_tokens", 1)
        self._at_least("budget_mib", 0)
        self._at_least("budget_min_tokens", 0)
        self._at_least("pool_size", 1)
        self._at_least("group_size", 1)
        self._at_least("camera_frames", 2)
        self._check_together()

    def _check_together(self) -> None:
        if self.published:
            self._check_published()
        if self.adaptive != "off" and not self.bounded:
            raise ConfigurationError(
                f"cache.adaptive '{self.adaptive}' needs a budget, and policy none has none; "
                "choose another policy or set cache.adaptive to off"
            )
        if not math.isfinite(self.budget_mib) or self.budget_mib > MOST_MIB:
            raise ConfigurationError(
                f"cache.budget_mib is {self.budget_mib}; it must be at most {MOST_MIB}"
            )
        above = self.budget_min_tokens > self.budget_tokens and not self.budget_mib
        if self.adapts_to_scene and above:
            raise ConfigurationError(
                f"cache.budget_min_tokens is {self.budget_min_tokens}, above cache.budget_tokens "
                f"{self.budget_tokens}; set it to at most that"
            )

    def _check_published(self) -> None:
        if self.policy not in PUBLISHED_POLICIES:
            raise ConfigurationError(
                f"cache.policy '{self.policy}' is not in the released code; with "
                f"cache.compatibility published choose one of {', '.join(PUBLISHED_POLICIES)}"
            )
        released = {
            "budget_mib": 0.0,
            "anchor_bits": 0,
            "window_bits": 0,
            "index_sets": "layer",
            "adaptive": "off",
            "group_size": 64,
        }
        for name, value in released.items():
            if getattr(self, name) != value:
                raise ConfigurationError(
                    f"cache.{name} is {getattr(self, name)}, which the released code cannot do; "
                    f"with cache.compatibility published leave it at {value}"
                )

    @property
    def words(self) -> str:
        """Policy, budget and widths, for people."""
        widths = f"{self.key_bits}/{self.value_bits} bits"
        if not self.bounded:
            return f"everything kept, {widths}"
        size = f"{self.budget_mib:g} MiB" if self.budget_mib else f"{self.budget_tokens} tokens"
        return f"{self.policy}, {size}, {widths}"

    @property
    def judging(self) -> tuple[str, int, int]:
        """What a policy is made of."""
        return self.policy, self.pool_size, self.seed

    @property
    def published(self) -> bool:
        """Whether the released code is to be reproduced."""
        return self.compatibility == "published"

    @property
    def bounded(self) -> bool:
        """Whether memory is independent of the session's length."""
        return self.policy != "none"

    @property
    def adapts_layers(self) -> bool:
        """Whether layers get budgets of their own."""
        return self.adaptive in ("layers", "both")

    @property
    def adapts_to_scene(self) -> bool:
        """Whether the budget follows motion and novelty."""
        return self.adaptive in ("scene", "both")

    def _one_of(self, name: str, choices: tuple[str, ...] | tuple[int, ...]) -> None:
        value = getattr(self, name)
        if value not in choices:
            shown = f"'{value}'" if isinstance(value, str) else value
            raise ConfigurationError(
                f"cache.{name} {shown} is unknown; choose one of {', '.join(map(str, choices))}"
            )

    def _at_least(self, name: str, least: int) -> None:
        value = getattr(self, name)
        if value < least:
            raise ConfigurationError(f"cache.{name} is {value}; it must be at least {least}")
