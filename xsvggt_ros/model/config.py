# SPDX-License-Identifier: Apache-2.0
"""Sizes of the network, and the presets that have a name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields, is_dataclass

from xsvggt_ros.errors import ConfigurationError


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
class NetworkConfig:
    """All sizes of a network; the defaults are those of the official StreamVGGT.

    Attributes:
        patch_size: pixels along a side of a patch; image sides are multiples of it.
        image_size: image side, in pixels, that the positional embedding was made for.
        embed_dim: channels of a token; ``embed_dim / num_heads`` must be divisible by 4 (2-D RoPE).
        num_registers: register tokens per frame beside the camera token.

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

    def _check_numbers(self) -> None:
        groups = {"": self, "encoder.": self.encoder, "camera.": self.camera, "dense.": self.dense}
        for prefix, group in groups.items():
            for name, value in _numbers(group):
                least = 0 if name == "num_registers" or name.startswith("layers") else 1
                whole = name not in ("mlp_ratio", "rope_base")
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
        """Tokens of a frame that belong to no patch: camera and registers."""
        return 1 + self.num_registers

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
            values = json.loads(text)
            dense = values.pop("dense")
            return cls(
                encoder=EncoderConfig(**values.pop("encoder")),
                camera=CameraHeadConfig(**values.pop("camera")),
                dense=DenseHeadConfig(
                    features=dense["features"],
                    out_channels=tuple(dense["out_channels"]),
                    layers=tuple(dense["layers"]),
                ),
                **values,
            )
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ConfigurationError(
                f"network sizes cannot be read ({error!r}); the file was written by another "
                "version: convert the original weights again with `xsvggt convert`"
            ) from error


def _numbers(group: object) -> Iterator[tuple[str, float]]:
    for entry in fields(group):  # type: ignore[arg-type]
        value = getattr(group, entry.name)
        if isinstance(value, tuple):
            yield from ((f"{entry.name}[{i}]", item) for i, item in enumerate(value))
        elif not is_dataclass(value):
            yield entry.name, value


PRESETS: dict[str, NetworkConfig] = {
    "streamvggt": NetworkConfig(),
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
    "tiny": NetworkConfig(
        image_size=56,
        embed_dim=64,
        depth=2,
        num_heads=1,
        mlp_ratio=1.0,
        encoder=EncoderConfig(depth=1, num_heads=1, mlp_ratio=1.0),
        camera=CameraHeadConfig(depth=1, num_heads=1, mlp_ratio=1.0, iterations=2),
        dense=DenseHeadConfig(features=16, out_channels=(8, 8, 16, 16), layers=(0, 0, 1, 1)),
    ),
}
"""Named sizes: the official network, one for a CPU, those that are trained on made-up worlds
(`synthetic/`: `demo` in rooms, the other ones where memory is needed), one for tests."""


def preset(name: str) -> NetworkConfig:
    """Return the sizes called ``name``; raise ConfigurationError where there are none."""
    if name not in PRESETS:
        raise ConfigurationError(f"preset '{name}' is unknown; choose one of {', '.join(PRESETS)}")
    return PRESETS[name]
