# SPDX-License-Identifier: Apache-2.0
"""How fast the node answers while an image is in the network, and how fast it leaves.

    python benchmarks/answers.py                # preset small at 448 pixels

Images come faster than the network takes them. Meanwhile parameters are set one call after the
other, every second one to an impossible value, and the time to each answer is taken; then the node
gets SIGINT. Prints a table; times depend on the load of the machine, so the time of a frame is
printed beside. Ends with an error where the node dies, does not answer, or answers wrongly.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from time import monotonic, perf_counter
from typing import Any

os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")

import numpy as np
import rclpy
from rcl_interfaces.srv import SetParametersAtomically
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image
from xsvggt_ros.msg import ReconstructionStatus

from xsvggt_ros.errors import ConfigurationError, XsvggtError
from xsvggt_ros.ros.conversions import header, packed
from xsvggt_ros.ros.processes import ChildNode, free_domain

NODE = "/answers/xsvggt"
PERIOD = 20_000_000
"""Nanoseconds between two stamps."""
START = 300.0
PATIENCE = 120.0
"""Seconds to wait for a node that starts, and for anything else that it is to do."""


class Client:
    """Publishes, asks, and listens."""

    def __init__(self, child: ChildNode) -> None:
        self._child = child
        self.node = rclpy.create_node("answers_client")
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)
        self.images = self.node.create_publisher(Image, "/answers/image", QoSProfile(depth=10))
        self.statuses: list[ReconstructionStatus] = []
        self.node.create_subscription(
            ReconstructionStatus, f"{NODE}/status", self.statuses.append, QoSProfile(depth=50)
        )
        self.parameters: Any = self.node.create_client(
            SetParametersAtomically, f"{NODE}/set_parameters_atomically"
        )
        self._stamp = 0
        self._pixels = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)

    def publish(self) -> None:
        """Send the next image."""
        self._stamp += PERIOD
        message = Image(header=header(self._stamp, "camera"), height=240, width=320,
                        encoding="rgb8", step=960)  # fmt: skip
        message.data = packed(self._pixels)
        self.images.publish(message)

    def until(self, what: str, condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
        """Keep images coming until something holds."""

        def holds() -> bool:
            self.publish()
            return condition()

        self._wait(what, holds, seconds)

    def ask(self, name: str, value: Any) -> tuple[float, bool]:
        """Set a parameter; return the seconds until the answer, and whether it was taken."""
        request = SetParametersAtomically.Request(
            parameters=[Parameter(name, value=value).to_parameter_msg()]
        )
        started = perf_counter()
        future: Any = self.parameters.call_async(request)
        self._wait(f"an answer to {name} = {value}", future.done, PATIENCE)
        return perf_counter() - started, bool(future.result().result.successful)

    def _wait(self, what: str, condition: Callable[[], bool], seconds: float) -> None:
        deadline = monotonic() + seconds
        while not condition():
            if self._child.exit_code is not None:
                code = self._child.exit_code
                raise self._child.failure(f"the node ended with {code} before {what}")
            if monotonic() > deadline:
                raise self._child.failure(f"no {what} within {seconds:.0f} s")
            self.executor.spin_once(timeout_sec=0.01)

    @property
    def processed(self) -> int:
        """Frames that went through the network."""
        return int(self.statuses[-1].frames_processed) if self.statuses else 0


CALLS = (("cache.key_bits", lambda _: 3, False),
         ("points.min_confidence", lambda number: 1.0 + 0.01 * number, True))  # fmt: skip
"""Parameter, value of a call, and whether the node can take it."""


@contextmanager
def connected(child: ChildNode, domain: int) -> Iterator[Client]:
    """Yield a client of the node, and leave nothing of it behind."""
    rclpy.init(domain_id=domain)
    try:
        client = Client(child)
        try:
            yield client
        finally:
            client.executor.shutdown()
            client.node.destroy_node()
    finally:
        rclpy.shutdown()


def measure(client: Client, calls: int) -> tuple[list[float], list[str], float]:
    """Return the seconds of each call, which answers were wrong, and the seconds of a frame."""
    client.until(
        "frames and parameters",
        lambda: client.processed >= 3 and client.parameters.service_is_ready(),
        START,
    )
    before, began = client.processed, perf_counter()
    seconds, wrong = [], []
    for number in range(calls):
        name, value_of, possible = CALLS[number % len(CALLS)]
        taken, accepted = client.ask(name, value_of(number))
        seconds.append(taken)
        if accepted != possible:
            wrong.append(f"{name} = {value_of(number)} was {'taken' if accepted else 'refused'}")
        client.publish()
        client.executor.spin_once(timeout_sec=0.05)
    client.until("frame after the calls", lambda: client.processed > before)
    return seconds, wrong, (perf_counter() - began) / (client.processed - before)


def run(options: argparse.Namespace) -> str:
    """Start the node, measure, stop it; return the table.

    Raises:
        ConfigurationError: less than one call.
        XsvggtError: the node ended, did not answer, or answered wrongly.

    """
    if options.calls < 1:
        raise ConfigurationError(f"--calls {options.calls}: must be at least 1")
    domain = free_domain()
    parameters = {"model.preset": options.preset, "input.width": options.width,
                  "model.device": "cpu", "cache.budget_tokens": 4000}  # fmt: skip
    environment = {"ROS_DOMAIN_ID": str(domain), "PYTHONUNBUFFERED": "1"}
    with tempfile.TemporaryDirectory(prefix="answers-") as directory:
        log = Path(directory) / "node.log"
        with (
            ChildNode(parameters, namespace="/answers", log=log, environment=environment) as child,
            connected(child, domain) as client,
        ):
            seconds, wrong, frame = measure(client, options.calls)
            started = perf_counter()
            code = child.stop()
            left = perf_counter() - started
    if wrong:
        raise XsvggtError(f"{len(wrong)} of {len(seconds)} answers were wrong: {'; '.join(wrong)}")
    ordered = sorted(seconds)
    impossible = sum(not CALLS[number % len(CALLS)][2] for number in range(len(seconds)))
    return "\n".join(
        (
            "| what | figure |\n|---|---|",
            f"| a frame | {frame:.2f} s |",
            f"| a parameter call, median | {1e3 * median(ordered):.1f} ms |",
            f"| the slowest in {len(ordered)} | {1e3 * ordered[-1]:.1f} ms |",
            f"| p95 | {1e3 * ordered[int(0.95 * len(ordered))]:.1f} ms |",
            f"| refused, as they must be | {impossible} |",
            f"| leaving after SIGINT, exit code | {left:.2f} s, {code} |",
        )
    )


def main() -> None:
    """Measure as the options say."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="small")
    parser.add_argument("--width", type=int, default=448)
    parser.add_argument("--calls", type=int, default=100)
    try:
        print(run(parser.parse_args()))
    except XsvggtError as error:
        raise SystemExit(f"answers.py: {error}") from error


if __name__ == "__main__":
    main()
