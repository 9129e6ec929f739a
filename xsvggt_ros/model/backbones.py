# SPDX-License-Identifier: Apache-2.0
"""The published networks that this package runs: where their weights are, and under which licence.

What a network computes is said by its :class:`NetworkConfig`; nothing here changes that.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from xsvggt_ros.errors import CheckpointError
from xsvggt_ros.model.config import LINGBOT, STREAMVGGT, NetworkConfig

BUNDLED = "demo"
"""What the bundled weights of the demo are called wherever a checkpoint is named."""

LANDMARKS = "landmarks"
"""What those are called that need their memory, for judging caches."""

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
