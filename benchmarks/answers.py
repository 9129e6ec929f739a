# SPDX-License-Identifier: Apache-2.0
"""How fast the node answers while a picture is in the network, and how fast it leaves.

    python benchmarks/answers.py                # preset small at 448 pixels

Pictures come faster than the network takes them. Meanwhile parameters are set one call after the
other, half of them impossible, and the time to each answer is taken; then the node gets SIGINT.
Prints a table; times depend on the load of the machine, so the time of a frame is printed beside.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from statistics import median
from time import monotonic, perf_counter

os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")

import numpy as np
import rclpy
from rcl_interfaces.srv import SetParametersAtomically
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image
from xsvggt_ros.msg import CacheStatus

from xsvggt_ros.ros.child_node import ChildNode
from xsvggt_ros.ros.conversions import header, packed
from xsvggt_ros.ros.domains import free_domain

NODE = "/answers/xsvggt"
PERIOD = 20_000_000
"""Nanoseconds between two stamps."""


class Client:
    """Publishes, asks, and listens."""

    def __init__(self) -> None:
        self.node = rclpy.create_node("answers_client")
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)
        self.pictures = self.node.create_publisher(Image, "/answers/image", QoSProfile(depth=10))
        self.statuses: list[CacheStatus] = []
        self.node.create_subscription(
            CacheStatus, f"{NODE}/status", self.statuses.append, QoSProfile(depth=50)
        )
        self.parameters = self.node.create_client(
            SetParametersAtomically, f"{NODE}/set_parameters_atomically"
        )
        self._stamp = 0
        self._pixels = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)

    def publish(self) -> None:
        """Send the next picture."""
        self._stamp += PERIOD
        message = Image(header=header(self._stamp, "camera"), height=240, width=320,
                        encoding="rgb8", step=960)  # fmt: skip
        message.data = packed(self._pixels)
        self.pictures.publish(message)

    def until(self, condition, seconds: float = 120.0) -> None:
        """Keep pictures coming until something holds."""
        deadline = monotonic() + seconds
        while not condition():
            if monotonic() > deadline:
                raise SystemExit("the node did not answer")
            self.publish()
            self.executor.spin_once(timeout_sec=0.01)

    def ask(self, name: str, value: object) -> float:
        """Set a parameter; return the seconds until the answer."""
        request = SetParametersAtomically.Request(
            parameters=[Parameter(name, value=value).to_parameter_msg()]
        )
        started = perf_counter()
        future = self.parameters.call_async(request)
        while not future.done():
            self.executor.spin_once(timeout_sec=0.1)
        return perf_counter() - started

    @property
    def processed(self) -> int:
        """Frames that went through the network."""
        return int(self.statuses[-1].frames_processed) if self.statuses else 0


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="small")
    parser.add_argument("--width", type=int, default=448)
    parser.add_argument("--calls", type=int, default=100)
    options = parser.parse_args()
    domain = free_domain()
    rclpy.init(domain_id=domain)
    parameters = {"model.preset": options.preset, "input.width": options.width,
                  "model.device": "cpu", "cache.budget_tokens": 4000}  # fmt: skip
    log = Path(tempfile.mkdtemp(prefix="answers-")) / "node.log"
    environment = {"ROS_DOMAIN_ID": str(domain), "PYTHONUNBUFFERED": "1"}
    seconds: list[float] = []
    with ChildNode(parameters, namespace="/answers", log=log, environment=environment) as node:
        client = Client()
        client.until(lambda: client.processed >= 3 and client.parameters.service_is_ready(), 300)
        before = client.processed
        began = perf_counter()
        for number in range(options.calls):
            name, value = (("cache.key_bits", 3), ("points.min_confidence", 1.0 + 0.01 * number))[
                number % 2
            ]
            seconds.append(client.ask(name, value))
            client.publish()
            client.executor.spin_once(timeout_sec=0.05)
        client.until(lambda: client.processed > before)
        frame = (perf_counter() - began) / (client.processed - before)
        started = perf_counter()
        code = node.stop()
        left = perf_counter() - started
        client.executor.shutdown()
        client.node.destroy_node()
    rclpy.shutdown()
    ordered = sorted(seconds)
    print("| what | figure |\n|---|---|")
    print(f"| a frame | {frame:.2f} s |")
    print(f"| a parameter call, median | {1e3 * median(ordered):.1f} ms |")
    print(f"| the slowest in {len(ordered)} | {1e3 * ordered[-1]:.1f} ms |")
    print(f"| p95 | {1e3 * ordered[int(0.95 * len(ordered))]:.1f} ms |")
    print(f"| leaving after SIGINT, exit code | {left:.2f} s, {code} |")


if __name__ == "__main__":
    main()
