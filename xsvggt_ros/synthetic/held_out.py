# SPDX-License-Identifier: Apache-2.0
"""The sequences that everything is measured on and nothing is trained on.

A change of rooms, motion or renderer changes these sequences: figures before and after it cannot be
compared.
"""

from __future__ import annotations

from dataclasses import dataclass

from xsvggt_ros.errors import ConfigurationError
from xsvggt_ros.synthetic.motion import MotionSettings
from xsvggt_ros.synthetic.renderer import Quality
from xsvggt_ros.synthetic.rooms import room_named
from xsvggt_ros.synthetic.sequence import SequenceSettings

FIRST_HELD_OUT_SEED = 900_000_000
"""This seed and all above it are never trained on."""


@dataclass(frozen=True)
class HeldOut:
    """One sequence: its seed, motion and number of frames."""

    name: str
    seed: int
    motion: str
    frames: int


SUITE: tuple[HeldOut, ...] = (
    HeldOut("short_drift", FIRST_HELD_OUT_SEED + 0, "drift", 10),
    HeldOut("short_walk", FIRST_HELD_OUT_SEED + 1, "walk", 10),
    HeldOut("short_drive", FIRST_HELD_OUT_SEED + 2, "drive", 10),
    HeldOut("short_handheld", FIRST_HELD_OUT_SEED + 3, "handheld", 10),
    HeldOut("medium_walk", FIRST_HELD_OUT_SEED + 10, "walk", 100),
    HeldOut("medium_drive", FIRST_HELD_OUT_SEED + 11, "drive", 100),
    HeldOut("medium_pan", FIRST_HELD_OUT_SEED + 12, "pan", 100),
    HeldOut("medium_handheld", FIRST_HELD_OUT_SEED + 13, "handheld", 100),
    HeldOut("long_loop", FIRST_HELD_OUT_SEED + 20, "loop", 300),
    HeldOut("long_walk", FIRST_HELD_OUT_SEED + 21, "walk", 300),
    HeldOut("long_stop", FIRST_HELD_OUT_SEED + 22, "stop", 300),
    HeldOut("very_long_loop", FIRST_HELD_OUT_SEED + 30, "loop", 1000),
    HeldOut("very_long_walk", FIRST_HELD_OUT_SEED + 31, "walk", 1000),
)
"""Short 10, medium 100, long 300 and very long 1000 frames; loops and pans see places again."""


LENGTHS = {"short": (10,), "medium": (10, 100), "long": (10, 100, 300)}
"""Frames of the sequences that a score up to some length is made of."""

DEFAULT_ROOM = "chart"
"""What the demo network was taught in."""

_QUALITY = {name: Quality(samples=1, shadows=False) for name in ("calm", "chart")}


def quality_for(room: str) -> Quality:
    """Return how images of a kind of room are rendered, for training and for measuring alike."""
    return _QUALITY.get(room, Quality(samples=1, shadows=True))


def held_out(
    name: str, room: str = DEFAULT_ROOM, width: int = 112, height: int = 84
) -> SequenceSettings:
    """Return the settings of a held-out sequence, for a kind of room and a size.

    Raises:
        ConfigurationError: there is no sequence of that name.

    """
    for each in SUITE:
        if each.name == name:
            return SequenceSettings(
                seed=each.seed,
                frames=each.frames,
                width=width,
                height=height,
                room=room_named(room),
                motion=MotionSettings(each.motion),
                quality=quality_for(room),
            )
    raise ConfigurationError(
        f"held-out sequence '{name}' is unknown; choose one of "
        f"{', '.join(each.name for each in SUITE)}"
    )


def training_seed(start: int, index: int) -> int:
    """Return the seed of a training sample, never one that is held out.

    Raises:
        ConfigurationError: more samples than there are seeds.

    """
    if start < 0 or index < 0:
        raise ConfigurationError(f"seed {start} and sample {index} must not be negative")
    # A Weyl step spreads runs with neighbouring seeds over the whole range.
    return (start * 611_953 + index) % FIRST_HELD_OUT_SEED
