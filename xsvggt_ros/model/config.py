# SPDX-License-Identifier: Apache-2.0
"""Which networks there are: sizes, presets that have a name, and those whose weights are published.

What a network computes is said by its :class:`NetworkConfig`; where its weights are, and under
which licence, changes nothing in that.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal

from xsvggt_ros.errors import CheckpointError, ConfigurationError


@dataclass(frozen=True, slots=True)
class EncoderConfig:
    """The DINOv2 vision transformer that turns patches into tokens."""

    depth: int = 24
    num_heads: int = 16
    mlp_ratio: float = 4.0
    num_registers: int = 4


@dataclass(frozen=True, slots=True)
class CameraHeadConfig:
    """The iterative pose regressor."""

    depth: int = 4
    num_heads: int = 16
    mlp_ratio: float = 4.0
    iterations: int = 4


@dataclass(frozen=True, slots=True)
class DenseHeadConfig:
    """A DPT head; ``layers`` are the four aggregator layers that it reads."""

    features: int = 256
    out_channels: tuple[int, int, int, int] = (256, 512, 1024, 1024)
    layers: tuple[int, int, int, int] = (4, 11, 17, 23)


@dataclass(frozen=True, slots=True)
class StreamConfig:
    """What a network was trained to attend to while it streams.

    Attributes:
        anchor_frames: frames of the first pass, which attend to one another without a mask.
        window_frames: newest frames whose tokens are all attended to; 0 = every frame.
        trained_frames: most stored frames of a training sequence; 0 = frames are not counted.

    """

    anchor_frames: int = 1
    window_frames: int = 0
    trained_frames: int = 0


PoseConvention = Literal["world_to_camera", "camera_to_world"]
HEADS = ("camera", "depth", "points", "track")


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """All choices and sizes of a network; the defaults are those of the official StreamVGGT.

    Attributes:
        patch_size: pixels along a side of a patch; image sides are multiples of it.
        image_size: image side, in pixels, that the positional embedding was made for.
        embed_dim: channels of a token; ``embed_dim / num_heads`` must be divisible by 4 (2-D RoPE).
        num_registers: register tokens per frame beside the camera token.
        scale_token: whether a frame has a scale token behind its registers.
        rope_base: of the frame blocks' rotary embedding.
        rope_time: channels of a head that turn with time, row and column in the global blocks;
            empty = these turn with row and column, as the frame blocks do.
        rope_time_base: of the global blocks' rotary embedding where it knows time.
        pose_convention: of the encodings that the camera head gives.
        heads: that the weights have. ``track`` is left aside, see `weight_files.py`.
        stream: what the network attends to while it streams.

    Raises:
        ConfigurationError: sizes that do not fit each other.

    """

    patch_size: int = 14
    image_size: int = 518
    embed_dim: int = 1024
    depth: int = 24
    num_heads: int = 16
    mlp_ratio: float = 4.0
    num_registers: int = 4
    rope_base: float = 100.0
    scale_token: bool = False
    rope_time: tuple[int, ...] = ()
    rope_time_base: float = 10000.0
    pose_convention: PoseConvention = "world_to_camera"
    heads: tuple[str, ...] = HEADS
    stream: StreamConfig = field(default_factory=StreamConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    camera: CameraHeadConfig = field(default_factory=CameraHeadConfig)
    dense: DenseHeadConfig = field(default_factory=DenseHeadConfig)

    def __post_init__(self) -> None:
        self._check_numbers()
        self._require(self.embed_dim % self.num_heads == 0, "num_heads", self.num_heads)
        self._require(self.head_dim % 4 == 0, "embed_dim", self.embed_dim)
        self._require(self.embed_dim % self.encoder.num_heads == 0, "encoder.num_heads",
                      self.encoder.num_heads)  # fmt: skip
        self._require(2 * self.embed_dim % self.camera.num_heads == 0, "camera.num_heads",
                      self.camera.num_heads)  # fmt: skip
        self._require(all(0 <= i < self.depth for i in self.dense.layers), "dense.layers",
                      self.dense.layers)  # fmt: skip
        self._require(self.image_size % self.patch_size == 0, "image_size", self.image_size)
        self._require(all(c % 4 == 0 for c in (*self.dense.out_channels, self.dense.features // 2)),
                      "dense.out_channels", self.dense.out_channels)  # fmt: skip
        self._check_choices()

    def _check_choices(self) -> None:
        turned = sum(self.rope_time)
        even = all(channels % 2 == 0 for channels in self.rope_time)
        if self.rope_time and (len(self.rope_time) != 3 or turned != self.head_dim or not even):
            raise ConfigurationError(
                f"network: rope_time is {self.rope_time}; it must be three even numbers whose sum "
                f"is the head size {self.head_dim}, or empty"
            )
        if self.pose_convention not in ("world_to_camera", "camera_to_world"):
            raise ConfigurationError(
                f"network: pose_convention is {self.pose_convention!r}; choose world_to_camera or "
                "camera_to_world"
            )
        if not {"camera", "depth"} <= set(self.heads) <= set(HEADS):
            raise ConfigurationError(
                f"network: heads is {self.heads}; it must have camera and depth, and may have "
                "points and track"
            )

    def _check_numbers(self) -> None:
        groups = {"": self, "encoder.": self.encoder, "camera.": self.camera, "dense.": self.dense,
                  "stream.": self.stream}  # fmt: skip
        for prefix, group in groups.items():
            for name, value in _numbers(group):
                may_be_zero = ("num_registers", "window_frames", "trained_frames")
                least = 0 if name in may_be_zero or name.startswith("layers") else 1
                whole = name not in ("mlp_ratio", "rope_base", "rope_time_base")
                good = isinstance(value, int) if whole else isinstance(value, (int, float))
                if not good or not (value >= least if whole else value > 0):
                    raise ConfigurationError(
                        f"network: {prefix}{name} is {value!r}; it must be a "
                        f"{f'whole number of at least {least}' if whole else 'positive number'}"
                    )
        if len(self.dense.layers) != 4 or len(self.dense.out_channels) != 4:
            raise ConfigurationError(
                f"network: dense.layers {self.dense.layers} and dense.out_channels "
                f"{self.dense.out_channels} must be four numbers each"
            )

    def _require(self, holds: bool, name: str, value: object) -> None:
        if not holds:
            raise ConfigurationError(
                f"network: {name}={value} does not fit embed_dim={self.embed_dim}, "
                f"num_heads={self.num_heads}, depth={self.depth}, patch_size={self.patch_size}: "
                "heads must divide channels (head size a multiple of 4), dense layers must exist, "
                "dense channels must be multiples of 4"
            )

    @property
    def head_dim(self) -> int:
        """Channels of one attention head of the aggregator."""
        return self.embed_dim // self.num_heads

    @property
    def special_tokens(self) -> int:
        """Tokens of a frame that belong to no patch: camera, registers, scale."""
        return 1 + self.num_registers + self.scale_token

    def tokens_per_frame(self, height: int, width: int) -> int:
        """Tokens of a ``height`` x ``width`` image, special ones included."""
        return (height // self.patch_size) * (width // self.patch_size) + self.special_tokens

    def to_json(self) -> str:
        """Return the sizes as JSON, as kept in the metadata of our safetensors files."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> NetworkConfig:
        """Read what :meth:`to_json` wrote; raise ConfigurationError for anything else."""
        try:
            values = _with_tuples(json.loads(text))
            dense = values.pop("dense")
            return cls(
                encoder=EncoderConfig(**values.pop("encoder")),
                camera=CameraHeadConfig(**values.pop("camera")),
                dense=DenseHeadConfig(dense["features"], dense["out_channels"], dense["layers"]),
                # Files of version 0.1 are StreamVGGT's, whose choices are the defaults.
                stream=StreamConfig(**values.pop("stream", {})),
                **values,
            )
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ConfigurationError(
                f"network sizes cannot be read ({error!r}); the file was written by another "
                "version: convert the original weights again with `xsvggt convert`"
            ) from error


def _with_tuples(value: Any) -> Any:
    """Return what JSON gave with tuples for lists."""
    if isinstance(value, list):
        return tuple(value)
    if isinstance(value, dict):
        return {key: _with_tuples(item) for key, item in value.items()}
    return value


_CHOICES = ("scale_token", "pose_convention", "heads")


def _numbers(group: object) -> Iterator[tuple[str, float]]:
    for entry in fields(group):  # type: ignore[arg-type]
        value = getattr(group, entry.name)
        if entry.name in _CHOICES:
            continue
        if isinstance(value, tuple):
            yield from ((f"{entry.name}[{i}]", item) for i, item in enumerate(value))
        elif not is_dataclass(value):
            yield entry.name, value


STREAMVGGT = NetworkConfig()
"""The official StreamVGGT."""

LINGBOT = NetworkConfig(
    scale_token=True,
    rope_time=(20, 22, 22),
    pose_convention="camera_to_world",
    heads=("camera", "depth"),
    stream=StreamConfig(anchor_frames=8, window_frames=64, trained_frames=320),
)
"""The official LingBot-Map."""

_TINY = NetworkConfig(
    image_size=56,
    embed_dim=64,
    depth=2,
    num_heads=1,
    mlp_ratio=1.0,
    encoder=EncoderConfig(depth=1, num_heads=1, mlp_ratio=1.0),
    camera=CameraHeadConfig(depth=1, num_heads=1, mlp_ratio=1.0, iterations=2),
    dense=DenseHeadConfig(features=16, out_channels=(8, 8, 16, 16), layers=(0, 0, 1, 1)),
)

PRESETS: dict[str, NetworkConfig] = {
    "streamvggt": STREAMVGGT,
    "lingbot": LINGBOT,
    "small": NetworkConfig(
        image_size=224,
        embed_dim=192,
        depth=6,
        num_heads=3,
        encoder=EncoderConfig(depth=4, num_heads=3),
        camera=CameraHeadConfig(depth=2, num_heads=3),
        dense=DenseHeadConfig(features=64, out_channels=(48, 96, 192, 192), layers=(1, 2, 4, 5)),
    ),
    "demo": NetworkConfig(
        image_size=112,
        embed_dim=128,
        depth=4,
        num_heads=2,
        encoder=EncoderConfig(depth=2, num_heads=2),
        camera=CameraHeadConfig(depth=2, num_heads=4, mlp_ratio=2.0),
        dense=DenseHeadConfig(features=32, out_channels=(32, 48, 64, 64), layers=(0, 1, 2, 3)),
    ),
    "demo12": NetworkConfig(
        image_size=112,
        embed_dim=128,
        depth=12,
        num_heads=4,
        encoder=EncoderConfig(depth=2, num_heads=2),
        camera=CameraHeadConfig(depth=2, num_heads=4, mlp_ratio=2.0),
        dense=DenseHeadConfig(features=32, out_channels=(32, 48, 64, 64), layers=(2, 5, 8, 11)),
    ),
    "medium12": NetworkConfig(
        image_size=168,
        embed_dim=192,
        depth=12,
        num_heads=3,
        encoder=EncoderConfig(depth=4, num_heads=3),
        camera=CameraHeadConfig(depth=2, num_heads=6, mlp_ratio=2.0),
        dense=DenseHeadConfig(features=48, out_channels=(48, 64, 96, 96), layers=(2, 5, 8, 11)),
    ),
    "thin8": NetworkConfig(
        image_size=84,
        embed_dim=64,
        depth=8,
        num_heads=2,
        encoder=EncoderConfig(depth=2, num_heads=1),
        camera=CameraHeadConfig(depth=2, num_heads=2, mlp_ratio=2.0),
        dense=DenseHeadConfig(features=16, out_channels=(16, 16, 32, 32), layers=(1, 3, 5, 7)),
    ),
    "tiny": _TINY,
    "tiny_lingbot": replace(
        _TINY,
        scale_token=LINGBOT.scale_token,
        rope_time=LINGBOT.rope_time,
        pose_convention=LINGBOT.pose_convention,
        heads=LINGBOT.heads,
        stream=StreamConfig(anchor_frames=3, window_frames=4, trained_frames=24),
    ),
}
"""Named networks: the official ones, one for a CPU, those that are trained on made-up worlds
(`synthetic/`: `demo` in rooms, the other ones where memory is needed), two for tests."""


def preset(name: str) -> NetworkConfig:
    """Return the sizes called ``name``; raise ConfigurationError where there are none."""
    if name not in PRESETS:
        raise ConfigurationError(f"preset '{name}' is unknown; choose one of {', '.join(PRESETS)}")
    return PRESETS[name]


BUNDLED = "demo"
"""What the bundled weights of the demo are called wherever a checkpoint is named."""

LANDMARKS = "landmarks"
"""What those are called that need their memory, for comparing caches."""

BUNDLED_NOTICE = (
    "These are the weights that come with the package. They know the synthetic rooms of "
    "`xsvggt synthesize --room chart` and nothing else: of real images their depth, poses and "
    "points mean nothing."
)

_LANDMARKS_NOTICE = (
    "These weights come with the package to judge caches by. They know synthetic landmarks (the "
    "suites `landmarks_*`) and nothing else: of real images their depth, poses and points mean "
    "nothing."
)

NOTICES = {BUNDLED: BUNDLED_NOTICE, LANDMARKS: _LANDMARKS_NOTICE}
"""The weights that come with the package, and what whoever loads them must know."""


def bundled_weights(name: str = BUNDLED) -> Path:
    """Return the file of one of NOTICES.

    Raises:
        CheckpointError: this copy of the package lacks it.

    """
    path = Path(__file__).resolve().parents[1] / "weights" / f"{name}.safetensors"
    if not path.is_file():
        raise CheckpointError(
            f"this copy of the package lacks '{path}'; install it again, or name other weights"
        )
    return path


def named_weights(checkpoint: str, preset: str | None) -> str:
    """Return the name of the weights that are meant; empty = random ones of ``preset``."""
    return checkpoint or ("" if preset else BUNDLED)


def weights_in_words(checkpoint: str, preset: str | None) -> str:
    """Return which weights these are, for a heading."""
    name = named_weights(checkpoint, preset)
    if not name:
        return f"random weights ({preset}): geometry means nothing"
    return f"the bundled {name} model" if name in NOTICES else name


@dataclass(frozen=True, slots=True)
class Backbone:
    """A published network.

    Attributes:
        name: as its authors call it.
        preset: name of its configuration in this package.
        config: its configuration.
        repository: of its weights on the Hugging Face hub.
        file: which of the repository's files is meant where none is named.
        licence: what whoever loads its weights must know, a sentence or two.

    """

    name: str
    preset: str
    config: NetworkConfig
    repository: str
    file: str
    licence: str


BACKBONES = (
    Backbone(
        "StreamVGGT",
        "streamvggt",
        STREAMVGGT,
        "lch01/StreamVGGT",
        "checkpoints.pth",
        "The official StreamVGGT weights are licensed CC BY-NC-SA 4.0: non-commercial use only.",
    ),
    Backbone(
        "LingBot-Map",
        "lingbot",
        LINGBOT,
        "robbyant/lingbot-map",
        "lingbot-map-long.pt",
        "The LingBot-Map weights are declared Apache-2.0 by their authors. A question about their "
        "provenance (issue 107 of Robbyant/lingbot-map) is unanswered, and their page on Hugging "
        "Face has no licence field: judge for yourself before you sell with them.",
    ),
)


def backbone_in(repository: str) -> Backbone | None:
    """Return the network whose weights a repository holds; None = it is no official one."""
    return next((each for each in BACKBONES if each.repository == repository), None)


def backbone_with(config: NetworkConfig) -> Backbone | None:
    """Return the published network of a configuration; None = another one, such as a small one."""
    return next((each for each in BACKBONES if each.config == config), None)


def backbone_of(names: Collection[str]) -> Backbone | None:
    """Return the published network that tensors of these names are of; None = nobody's."""
    return next((each for each in BACKBONES if _suits(each.config, names)), None)


def check_backbone(config: NetworkConfig, names: Collection[str], preset: str, source: str) -> None:
    """Refuse weights of another published network.

    Args:
        config: sizes of the network that is to take the weights.
        names: of the tensors in the file.
        preset: where the sizes come from.
        source: the file, as messages call it.

    Raises:
        CheckpointError: the tensors are of a published network that ``config`` is not like.

    """
    found = backbone_of(names)
    if found is None or _suits(config, names):
        return
    raise CheckpointError(
        f"'{source}' holds weights of {found.name}, and preset '{preset}' is another network; "
        f"leave the preset out, or choose one of {found.name}, such as {found.preset}"
    )


def _suits(config: NetworkConfig, names: Collection[str]) -> bool:
    """Tell by the tensors that only some networks have."""
    marks = {
        "aggregator.scale_token": config.scale_token,
        "point_head.norm.weight": "points" in config.heads,
        "aggregator.camera_token": True,
    }
    return all((name in names) == expected for name, expected in marks.items())
