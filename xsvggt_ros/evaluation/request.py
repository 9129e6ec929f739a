# SPDX-License-Identifier: Apache-2.0
"""What is evaluated, and how: everything that decides the numbers, in one value.

The command line makes its options from these classes, so nothing heavy is imported here.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

from xsvggt_ros.cache.settings import CacheSettings
from xsvggt_ros.errors import ConfigurationError
from xsvggt_ros.stream.chain_settings import ChainSettings

if TYPE_CHECKING:
    from xsvggt_ros.model.network import StreamVggt


NO_TRUTH = "none"
"""Names the absence of a truth, so that none is looked for."""


@dataclass(frozen=True)
class SourceOptions:
    """What to take of a source; an option that does not apply to a source is refused.

    Attributes:
        kind: of a directory, where it cannot be told from the files, such as ``tum``.
        sequence: name of one sequence, where the path holds several.
        start: frames left out at the beginning.
        stride: take every nth frame.
        limit: the most frames taken; None takes all.
        topic: image topic of a bag that has several.
        depth_topic: depth topic of a bag; ``none`` leaves depth out.
        truth: where a bag's poses come from: a topic, two frames as ``map->camera``, a TUM, KITTI
            or EuRoC file, or ``none``.
        tolerance: seconds by which stamps of image and truth may differ.
        intrinsics: fx, fy, cx, cy in pixels, for recordings that do not say; a negative fy means
            that y points up there, as in ICL-NUIM.
        depth_scale: steps per metre of 16-bit depth images, where it is not what the kind says.
        room: kind of room of a synthetic sequence.
        width: of a synthetic image, pixels.
        height: of a synthetic image, pixels.

    Raises:
        ConfigurationError: a number out of range.

    """

    kind: str | None = None
    sequence: str | None = None
    start: int = 0
    stride: int = 1
    limit: int | None = None
    topic: str | None = None
    depth_topic: str | None = None
    truth: str | None = None
    tolerance: float = 0.02
    intrinsics: tuple[float, float, float, float] | None = None
    depth_scale: float | None = None
    room: str | None = None
    width: int | None = None
    height: int | None = None

    def __post_init__(self) -> None:
        least = {"start": 0, "stride": 1, "limit": 1, "width": 8, "height": 8}
        for name, smallest in least.items():
            value = getattr(self, name)
            if value is not None and value < smallest:
                raise ConfigurationError(f"{name} is {value}; it must be {smallest} or more")
        if not 0 < self.tolerance <= 10:
            raise ConfigurationError(
                f"a tolerance of {self.tolerance} s is impossible; give one above 0 and up to 10"
            )
        if self.intrinsics is not None:
            fx, fy, *_ = self.intrinsics
            if not all(map(math.isfinite, self.intrinsics)) or fx <= 0 or fy == 0:
                raise ConfigurationError(
                    f"intrinsics of {', '.join(f'{each:g}' for each in self.intrinsics)} are those "
                    "of no camera; give fx,fy,cx,cy in pixels"
                )
        if self.depth_scale is not None and not 0 < self.depth_scale < float("inf"):
            raise ConfigurationError(
                f"a depth scale of {self.depth_scale} is impossible; give steps per metre, such as "
                "1000 or 5000"
            )

    def refuse(self, source: str, *names: str) -> None:
        """Raise ConfigurationError where one of the named options is set but means nothing."""
        for name in names:
            if getattr(self, name) is not None:
                raise ConfigurationError(
                    f"{source} knows no option {name} ('{getattr(self, name)}'); leave it out"
                )


@dataclass(frozen=True)
class NetworkOptions:
    """Which network runs, where and how; see :func:`xsvggt_ros.model.checkpoint.load_network`.

    Attributes:
        checkpoint: weights; empty = the bundled ones, or random ones of a preset.
        preset: name of the sizes, None = the weights' own.
        width: of the network's input in pixels; None = the network's own.
        device: as PyTorch spells it, or ``auto``.
        dtype: of the aggregator; ``float32``, ``bfloat16``, ``float16`` or ``auto``.
        heads_dtype: the same, of the heads.
        weights: how linear layers are stored.
        compiled: whether ``torch.compile`` makes kernels of its own.

    """

    checkpoint: str = ""
    preset: str | None = None
    width: int | None = None
    device: str = "auto"
    dtype: str = "auto"
    heads_dtype: str = "auto"
    weights: str = "full"
    compiled: bool = False

    def load(self) -> StreamVggt:
        """Return the network.

        Raises:
            CheckpointError: the weights cannot be had.
            ConfigurationError: they cannot run so, or not here.

        """
        from xsvggt_ros.model.checkpoint import load_network

        return load_network(
            self.checkpoint,
            preset=self.preset,
            device=self.device,
            dtype=self.dtype,
            heads_dtype=self.heads_dtype,
            weights=self.weights,
            compiled=self.compiled,
        )

    @property
    def words(self) -> str:
        """The weights, for people."""
        from xsvggt_ros.model.config import weights_in_words

        return weights_in_words(self.checkpoint, self.preset)


ScaleSource = Literal["auto", "depth", "odometry", "none"]
"""What tells metres while a run goes on: true depth as a depth camera would, or true poses as an
odometry would; ``auto`` = depth where there is some."""


@dataclass(frozen=True)
class ScoringOptions:
    """How results are compared with the truth.

    Attributes:
        rpe_delta: frames between the two poses of a relative error.
        farthest: metres; truths beyond it are left out and aligned depth is cut off at it.
        cloud_points: the most points that the estimated and the true cloud are compared with;
            0 = clouds are not compared.
        fscore_distance: metres within which a point counts as found.
        depth_pixels: the most pixels that depth is scored on, chosen at random beyond.
        scale_source: what tells metres to the scores that end in ``se3_online``; one of
            :data:`ScaleSource`.

    Raises:
        ConfigurationError: a number out of range.

    """

    rpe_delta: int = 1
    farthest: float | None = None
    cloud_points: int = 20_000
    fscore_distance: float = 0.05
    depth_pixels: int = 300_000
    scale_source: str = "auto"

    def __post_init__(self) -> None:
        if self.scale_source not in get_args(ScaleSource):
            raise ConfigurationError(
                f"scale_source is '{self.scale_source}'; choose one of "
                f"{', '.join(get_args(ScaleSource))}"
            )
        for name, least in (("rpe_delta", 1), ("cloud_points", 0), ("depth_pixels", 1)):
            if getattr(self, name) < least:
                raise ConfigurationError(
                    f"{name} is {getattr(self, name)}; it must be at least {least}"
                )
        for name in ("farthest", "fscore_distance"):
            value = getattr(self, name)
            if value is not None and not (0 < value < math.inf):
                raise ConfigurationError(f"{name} is {value}; it must be above 0 metres")


@dataclass(frozen=True)
class LiveOptions:
    """Replay at the recording's own pace into the node's queue, instead of frame by frame.

    Attributes:
        speed: factor on the recording's pace.
        queue_policy: ``latest`` drops the oldest frame of a full queue, ``all`` holds the source
            back.
        queue_size: frames that wait.

    Raises:
        ConfigurationError: a speed that is not above 0.

    """

    speed: float = 1.0
    queue_policy: str = "latest"
    queue_size: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.speed < math.inf:
            raise ConfigurationError(f"a speed of {self.speed} is impossible; give one above 0")


@dataclass(frozen=True)
class EvaluationRequest:
    """One evaluation.

    Attributes:
        source: a path, or a name such as ``synthetic:medium_walk``.
        options: what is taken of it.
        network: which network runs.
        cache: settings of its cache.
        scoring: how results are compared with the ground truth.
        live: None = every frame, in order, none dropped.
        chain: when another gauge of the network takes over.
        refinement: what poses are fused with, see the parameter ``pose.refinement``: off, auto, on.

    """

    source: str
    options: SourceOptions = field(default_factory=SourceOptions)
    network: NetworkOptions = field(default_factory=NetworkOptions)
    cache: CacheSettings = field(default_factory=CacheSettings)
    scoring: ScoringOptions = field(default_factory=ScoringOptions)
    live: LiveOptions | None = None
    chain: ChainSettings = field(default_factory=ChainSettings)
    refinement: str = "auto"

    def resolved(self) -> dict[str, Any]:
        """Return all settings, the defaults included, in types that JSON and YAML hold."""
        return asdict(self)

    def fingerprint(self, *left_out: str) -> str:
        """Return a hash of all settings but the named groups; equal settings have equal ones."""
        settings = {key: value for key, value in self.resolved().items() if key not in left_out}
        return fingerprint(settings)


def fingerprint(settings: Mapping[str, Any]) -> str:
    """Return a hash of settings that JSON holds; equal settings have equal ones."""
    text = json.dumps(settings, sort_keys=True)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]
