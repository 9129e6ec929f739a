# SPDX-License-Identifier: Apache-2.0
"""How a recording is replayed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from xsvggt_ros.errors import ConfigurationError

Transport = Literal["raw", "compressed", "both"]

TRANSPORTS: tuple[Transport, ...] = ("raw", "compressed", "both")


@dataclass(frozen=True, slots=True)
class ReplayOptions:
    """Pace, stamps and topics of a replay.

    Attributes:
        speed: factor on the recording's own pace.
        fixed_rate: pictures per second instead of the recording's pace.
        loop: start again at the end. Stamps then jump back, which resets a reconstruction,
            unless ``restamp`` is set.
        paused: start paused, until the service ``~/pause`` is called with false.
        wait_for: subscribers of the pictures to wait for before the first one.
        restamp: stamp with the time of publishing, not with the recording's.
        clock: publish the recording's time on ``/clock``, for nodes with ``use_sim_time``.
        transport: which picture topics exist; each is filled only while somebody listens.
        image_topic: name of the raw pictures; ``<name>/compressed`` and the ``camera_info``
            beside it follow.
        best_effort: publish like a camera driver; lost pictures are then not sent again.
        depth: pictures kept for a slow subscriber.

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

    def __post_init__(self) -> None:
        """Raise ConfigurationError where options are impossible or contradict each other."""
        _need(self.speed > 0, f"speed is {self.speed}: give a factor above 0, such as 0.5")
        _need(
            self.fixed_rate is None or self.fixed_rate > 0,
            f"the fixed rate is {self.fixed_rate} Hz: give one above 0, such as 10",
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
        _need(self.depth >= 1, f"a depth of {self.depth} keeps no picture: give 1 or more")


def _need(fulfilled: bool, otherwise: str) -> None:
    if not fulfilled:
        raise ConfigurationError(f"Cannot replay: {otherwise}.")
