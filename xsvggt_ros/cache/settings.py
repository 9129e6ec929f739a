# SPDX-License-Identifier: Apache-2.0
"""How a cache is to behave: every setting with its limits and its text, declared once.

The node's parameters and the options of the command line are made from the declarations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from xsvggt_ros.declaration import declared
from xsvggt_ros.errors import ConfigurationError

if TYPE_CHECKING:  # commands tell their options without loading torch
    from xsvggt_ros.cache.layout import CacheLayout

POLICIES = (
    "xstreamvggt",
    "balanced",
    "ffn_residual",
    "value_aware",
    "key_diversity",
    "sliding_window",
    "random",
    "lingbot",
    "none",
)
AUTO = "auto"
"""The policy that suits the network: ``lingbot`` where it was trained with a window of frames."""
POLICY_CHOICES = (AUTO, *POLICIES)
DEFAULT_POLICY = "xstreamvggt"
"""What ``auto`` means for other networks: the paper's policy, which loses least of the path where
memory counts, see docs/cache.md."""

WINDOW_FRAMES = 64
"""Of the policy ``lingbot``, for a network that was trained without a window."""

DEFAULT_BUDGET_TOKENS = 8192
"""About eight frames of 518x392."""

COMPATIBILITIES = ("none", "published")
PUBLISHED_POLICIES = ("xstreamvggt", "sliding_window", "none")
WIDTHS = (2, 4, 8, 16)
ANCHOR_WIDTHS = (0, 8, 16)
WINDOW_WIDTHS = (0, 16)
INDEX_SETS = ("layer", "head")
ADAPTATIONS = ("none", "layers", "scene", "both")
MOST_MIB = 2**20
BACKENDS = ("auto", "sdpa", "flash_attn", "math")
MOST_TOKENS = 2**24
MOST_FRAMES = 4096


@dataclass(frozen=True, slots=True)
class CacheSettings:
    """Settings of a cache, checked when made.

    Attributes:
        policy: see :mod:`xsvggt_ros.cache.policies`; with ``none`` memory grows with the session.
        budget_tokens: most tokens that a layer holds after a frame; ``lingbot`` counts frames.
        budget_mib: MiB that the cache may allocate in all, scratch included and the camera head's
            memory not; the tokens that fit at the current widths and resolution replace
            ``budget_tokens``.
        key_bits: width of a cached key.
        value_bits: width of a cached value.
        anchor_bits: width of keys and values of the first frame's tokens and of all special
            tokens; no more than the other widths, or 0, means like the rest.
        window_bits: 16 stores the newest frame as it came and rounds it when the next one comes,
            for one frame more of unquantized bytes in each layer.
        adaptive: ``layers`` shares the budget out over the layers by need, ``scene`` lets it grow
            and shrink with motion and novelty, ``both`` does both, ``none`` neither.
        budget_min_tokens: where ``adaptive`` follows the scene, the budget of a scene at rest.
        pool_size: patch queries that are averaged into one for ``xstreamvggt``.
        camera_frames: frames that the camera head remembers: the first, the most recent and the
            most attended ones; without effect for ``none`` and for ``published``, which puts the
            camera head under the token budget.
        group_size: most keys that share a grid per channel; see `history_group_size`.
        index_sets: whether all heads of a layer keep the same tokens.
        seed: of the policy ``random``.
        compatibility: ``published`` reproduces the released XStreamVGGT code: its overshoot of
            small budgets, its camera cache shared by all iterations, and, where a width is below
            16, its simulated quantization, which saves no byte.
        attention_backend: see :mod:`xsvggt_ros.cache.attention`.
        anchor_frames: frames of the first pass, which attend to one another and stay.
        window_frames: for ``lingbot``, newest stored frames that stay whole.
        trajectory_frames: for ``lingbot``, frames before the window whose special tokens stay; the
            oldest are dropped first.
        keyframe_interval: see :mod:`xsvggt_ros.cache.adaptation`.

    Raises:
        ConfigurationError: a value outside its range, with the range.

    """

    policy: str = declared(
        AUTO,
        "What chooses the history that stays in the cache; none drops nothing, and memory grows. "
        "auto = lingbot for LingBot-Map, xstreamvggt for StreamVGGT.",
        choices=POLICY_CHOICES,
        live=True,
    )
    budget_tokens: int = declared(
        DEFAULT_BUDGET_TOKENS,
        "Most tokens that a layer holds after a frame, the mean over layers where adaptive shares "
        "them out; the policies none and lingbot ignore it.",
        unit="tokens",
        minimum=1,
        maximum=MOST_TOKENS,
        live=True,
    )
    budget_mib: float = declared(
        0.0,
        "Most memory that the cache allocates, without the camera head's; replaces budget_tokens "
        "by what fits at these widths and this resolution; policy none ignores it. While "
        "chain.length is above 0, two caches share it, half each. 0 = no such bound.",
        unit="MiB",
        minimum=0.0,
        maximum=MOST_MIB,
        live=True,
    )
    key_bits: int = declared(
        4,
        "Width of a cached key; 16 = as the network gives it.",
        unit="bits",
        choices=WIDTHS,
        live=True,
    )
    value_bits: int = declared(
        4,
        "Width of a cached value; 16 = as the network gives it.",
        unit="bits",
        choices=WIDTHS,
        live=True,
    )
    anchor_bits: int = declared(
        0,
        "Width of the first frame's tokens and of all special tokens, where finer than the rest; "
        "0 = like the rest.",
        unit="bits",
        choices=ANCHOR_WIDTHS,
        live=True,
    )
    window_bits: int = declared(
        0,
        "16 = the newest frame is stored as it came until the next one comes; 0 = it is rounded at "
        "the end of its own step, which saves a frame's unquantized bytes in each layer.",
        unit="bits",
        choices=WINDOW_WIDTHS,
        live=True,
    )
    adaptive: str = declared(
        "none",
        "layers shares the budget out by each layer's need, scene lets it follow motion and "
        "novelty, both does both, none neither.",
        choices=ADAPTATIONS,
        renamed={"off": "none", False: "none"},
        live=True,
    )
    budget_min_tokens: int = declared(
        0,
        "Budget of a scene at rest, where adaptive follows the scene; 0 = half of the full one.",
        unit="tokens",
        minimum=0,
        maximum=MOST_TOKENS,
        live=True,
    )
    pool_size: int = declared(
        16,
        "Queries that are averaged into one before xstreamvggt scores tokens.",
        unit="tokens",
        minimum=1,
        maximum=4096,
        live=True,
    )
    camera_frames: int = declared(
        256,
        "Most frames that the camera head remembers; policy none ignores it.",
        unit="frames",
        minimum=2,
        maximum=2**20,
        live=True,
    )
    group_size: int = declared(
        64,
        "Most keys that share a grid per channel and are evicted together; of a bounded history "
        "at most an eighth of an image's tokens, but at least 8.",
        unit="tokens",
        minimum=1,
        maximum=4096,
    )
    index_sets: str = declared(
        "layer",
        "layer = all heads of a layer keep the same tokens; head = each keeps its own.",
        choices=INDEX_SETS,
    )
    seed: int = declared(0, "Seed of the policy random.", minimum=0, maximum=2**31 - 1, live=True)
    compatibility: str = declared(
        "none",
        "published reproduces the released XStreamVGGT code, its overshoot of small budgets and "
        "its merely simulated quantization included; for comparisons.",
        choices=COMPATIBILITIES,
    )
    attention_backend: str = declared(
        "auto",
        "What computes attention over the cache; auto = a kernel of this package in half types on "
        "CUDA, else sdpa (PyTorch); flash_attn = the package of that name.",
        choices=BACKENDS,
    )
    anchor_frames: int = declared(
        0,
        "Frames of the first pass of a session, which are answered together and stay; fewer take "
        "less memory to begin. 0 = as the network was trained: 8 for LingBot-Map, 1 for "
        "StreamVGGT, which takes no other value.",
        unit="frames",
        minimum=0,
        maximum=64,
    )
    window_frames: int = declared(
        0,
        "Newest stored frames that policy lingbot keeps whole; 0 = as the network was trained: 64 "
        "for LingBot-Map.",
        unit="frames",
        minimum=0,
        maximum=MOST_FRAMES,
        live=True,
    )
    trajectory_frames: int = declared(
        256,
        "Frames before the window whose special tokens policy lingbot keeps; the oldest are "
        "dropped first.",
        unit="frames",
        minimum=0,
        maximum=MOST_FRAMES,
        live=True,
    )
    keyframe_interval: int = declared(
        0,
        "One of so many frames of each camera is stored; the others attend and leave nothing. "
        "0 = auto: every frame for StreamVGGT; for LingBot-Map every frame at first, then every "
        "second, fourth, ... as its stored frames approach the 320 that it was trained with.",
        unit="frames",
        minimum=0,
        maximum=MOST_FRAMES,
        renamed={"auto": 0},
        live=True,
    )

    def __post_init__(self) -> None:
        for each in fields(self):
            value, limits = getattr(self, each.name), each.metadata
            if value in limits.get("renamed", ()):
                value = limits["renamed"][value]
                object.__setattr__(self, each.name, value)
            _check_limits(each.name, value, limits)
        self._check_together()

    def _check_together(self) -> None:
        if self.published:
            self._check_published()
        if self.adapts and not self.bounded:
            raise ConfigurationError(
                f"cache.adaptive '{self.adaptive}' needs a budget, and policy none has none; "
                "choose another policy or set cache.adaptive to none"
            )
        if self.adapts and self.keeps_frames:
            raise ConfigurationError(
                f"cache.adaptive '{self.adaptive}' shares out a budget of tokens, and policy "
                f"{self.policy} keeps whole frames; choose another policy or set cache.adaptive to "
                "none"
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
            "adaptive": "none",
            "group_size": 64,
        }
        for name, value in released.items():
            if getattr(self, name) != value:
                raise ConfigurationError(
                    f"cache.{name} is {getattr(self, name)}, which the released code cannot do; "
                    f"with cache.compatibility published leave it at {value}"
                )

    def settled(self, layout: CacheLayout) -> CacheSettings:
        """Return the same settings with the network's choices where these leave it open.

        Raises:
            ConfigurationError: settings that do not suit the network.

        """
        policy = self.policy
        if policy == AUTO:
            policy = "lingbot" if layout.window_frames else DEFAULT_POLICY
        if policy == "lingbot" and self.adapts:
            policy = DEFAULT_POLICY  # budgets adapt in tokens
        anchors = self.anchor_frames or layout.anchor_frames
        if anchors > 1 and layout.anchor_frames == 1:
            raise ConfigurationError(
                f"cache.anchor_frames is {anchors}, but this network begins with a single frame; "
                "set it to 0"
            )
        if self.published and (layout.anchor_frames > 1 or layout.trained_frames):
            raise ConfigurationError(
                "cache.compatibility published reproduces the code for StreamVGGT, which cannot "
                "run this network; set it to none"
            )
        if anchors > 1 and self.camera_frames < anchors + 2:
            raise ConfigurationError(
                f"cache.camera_frames is {self.camera_frames}; beside {anchors} anchor frames it "
                f"must be at least {anchors + 2}"
            )
        window = self.window_frames or layout.window_frames or WINDOW_FRAMES
        return replace(self, policy=policy, anchor_frames=anchors, window_frames=window)

    @property
    def words(self) -> str:
        """Policy, budget and widths, for people."""
        widths = f"{self.key_bits}/{self.value_bits} bits"
        if not self.bounded:
            return f"everything kept, {widths}"
        if self.policy == AUTO and not self.budget_mib:
            other = self.budget_tokens != DEFAULT_BUDGET_TOKENS
            return f"policy auto, {f'{self.budget_tokens} tokens, ' if other else ''}{widths}"
        if self.keeps_frames and not self.budget_mib:
            window = f"{self.window_frames} frames" if self.window_frames else "frames"
            return f"{self.policy}, {window}, {widths}"
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
    def keeps_frames(self) -> bool:
        """Whether whole frames stay and go, instead of tokens under a budget."""
        return self.policy == "lingbot"

    @property
    def bounded(self) -> bool:
        """Whether memory is independent of the session's length."""
        return self.policy != "none"

    @property
    def adapts(self) -> bool:
        """Whether budgets change by themselves."""
        return self.adaptive != "none"

    @property
    def adapts_layers(self) -> bool:
        """Whether layers get budgets of their own."""
        return self.adaptive in ("layers", "both")

    @property
    def adapts_to_scene(self) -> bool:
        """Whether the budget follows motion and novelty."""
        return self.adaptive in ("scene", "both")


def _check_limits(name: str, value: Any, limits: Mapping[str, Any]) -> None:
    if "choices" in limits and value not in limits["choices"]:
        shown = f"'{value}'" if isinstance(value, str) else value
        raise ConfigurationError(
            f"cache.{name} {shown} is unknown; choose one of "
            f"{', '.join(map(str, limits['choices']))}"
        )
    if "minimum" in limits and value < limits["minimum"]:
        raise ConfigurationError(
            f"cache.{name} is {value}; it must be at least {limits['minimum']:g}"
        )
    if "maximum" in limits and not value <= limits["maximum"]:  # nan is in no range
        raise ConfigurationError(
            f"cache.{name} is {value}; it must be at most {limits['maximum']:.10g}"
        )
