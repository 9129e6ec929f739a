# SPDX-License-Identifier: Apache-2.0
"""How a recording is replayed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from xsvggt_ros.errors import ConfigurationError

Transport = Literal["raw", "compressed", "both"]

TRANSPORTS: tuple[Transport, ...] = ("raw", "compressed", "both")

SLOWEST, FASTEST = 1e-3, 1e6
SANE = f"from {SLOWEST:g} to {FASTEST:.0f}"
MOST_KEPT = 1000


@dataclass(frozen=True, slots=True)
class ReplayOptions:
    """Pace, stamps and topics of a replay.

    Attributes:
        speed: factor on the recording's own pace.
        fixed_rate: images per second instead of the recording's pace.
        loop: start again at the end. Stamps then jump back, which resets a reconstruction,
            unless ``restamp`` is set.
        paused: start paused, until the service ``~/pause`` is called with false.
        wait_for: subscribers of the images to wait for before the first one.
        restamp: stamp with the time of publishing, not with the recording's.
        clock: publish the recording's time on ``/clock``, for nodes with ``use_sim_time``.
        transport: which image topics exist; each is filled only while somebody listens.
        image_topic: name of the raw images; ``<name>/compressed`` and the ``camera_info``
            beside it follow.
        best_effort: publish like a camera driver; lost images are then not sent again.
        depth: images kept for a slow subscriber.
        follow: name of a node of this package; images then wait until it has room for them, and
            none is lost, however slow it is.

    """

    speed: float = 1.0
    fixed_rate: float | None = None
    loop: bool = False
    paused: bool = False
    wait_for: int = 1
    restamp: bool = False
    clock: bool = False
    transport: Transport = "both"
    image_topic: str = "image"
    best_effort: bool = False
    depth: int = 10
    follow: str = ""

    def __post_init__(self) -> None:
        """Raise ConfigurationError where options are impossible or contradict each other."""
        _need(_sane(self.speed), f"speed is {self.speed}: give a factor {SANE}, such as 0.5")
        _need(
            self.fixed_rate is None or _sane(self.fixed_rate),
            f"the fixed rate is {self.fixed_rate} Hz: give one {SANE}, such as 10",
        )
        _need(
            self.fixed_rate is None or self.speed == 1,
            f"speed {self.speed} and a fixed rate of {self.fixed_rate} Hz both set the pace: "
            "leave one out",
        )
        _need(
            not (self.restamp and self.clock),
            "restamping uses the time of the machine, /clock gives that of the recording: "
            "leave one out",
        )
        _need(
            self.transport in TRANSPORTS,
            f"the transport is '{self.transport}': give one of {', '.join(TRANSPORTS)}",
        )
        _need(self.wait_for >= 0, f"cannot wait for {self.wait_for} subscribers: give 0 or more")
        _need(
            1 <= self.depth <= MOST_KEPT,
            f"the depth is {self.depth} images: give one from 1 to {MOST_KEPT}",
        )
        _need(
            not (self.follow and (self.best_effort or self.wait_for == 0)),
            f"following {self.follow} loses nothing, best effort and waiting for 0 subscribers do: "
            "leave one out",
        )


def _sane(pace: float) -> bool:
    return SLOWEST <= pace <= FASTEST  # neither holds for NaN


def _need(fulfilled: bool, otherwise: str) -> None:
    if not fulfilled:
        raise ConfigurationError(f"Cannot replay: {otherwise}.")
