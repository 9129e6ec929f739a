# SPDX-License-Identifier: Apache-2.0
"""When another gauge of the network takes over; needs neither PyTorch nor numpy."""

from __future__ import annotations

from dataclasses import dataclass

from xsvggt_ros.declaration import declared
from xsvggt_ros.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class ChainSettings:
    """When another gauge takes over.

    Attributes:
        length: frames after which it is due; 0 = never, not for low confidence either.
        overlap: frames that both gauges see, of each camera.
        min_confidence: share of the usual confidence (above its floor of 1) below which a new gauge
            is due, too; 0 = never.
        retry: frames after a refused join before the next attempt.

    Raises:
        ConfigurationError: a value out of range.

    """

    length: int = declared(
        300,
        "Frames after which the network starts from a new first frame, by which it measures all "
        "others; world, map and unit go on. Both caches exist during the overlap. 0 = never.",
        unit="frames",
        minimum=0,
        maximum=1_000_000,
        live=True,
    )
    overlap: int = declared(
        4,
        "Frames of each camera that are reconstructed from both first frames, to join the two.",
        unit="frames",
        minimum=2,
        maximum=64,
        live=True,
    )
    min_confidence: float = declared(
        0.45,
        "Share of the usual confidence below which, three frames in a row, a new first frame is "
        "due as well; 0 = never.",
        minimum=0.0,
        maximum=0.99,
        live=True,
    )
    retry: int = declared(
        30,
        "Frames before the next attempt where a join was refused because the two do not agree.",
        unit="frames",
        minimum=1,
        maximum=100_000,
        live=True,
    )

    def __post_init__(self) -> None:
        from xsvggt_ros.geometry.joining import LEAST_FRAMES  # --help needs no numpy

        if not self.overlap >= LEAST_FRAMES:
            raise ConfigurationError(
                f"chain.overlap is {self.overlap}; two gauges are joined by {LEAST_FRAMES} frames "
                "or more, 4 are usual"
            )
        if self.length and self.length < 2 * self.overlap:
            raise ConfigurationError(
                f"chain.length is {self.length}; it must be 0 (never) or at least twice "
                f"chain.overlap, {2 * self.overlap}"
            )
        if not 0.0 <= self.min_confidence < 1.0:
            raise ConfigurationError(
                f"chain.min_confidence is {self.min_confidence}; it is a share from 0 to below 1"
            )
        if self.retry < 1:
            raise ConfigurationError(f"chain.retry is {self.retry}; it must be 1 or more")


def caches_of(chain: ChainSettings) -> int:
    """Return how many caches live at once, at most."""
    return 2 if chain.length else 1
