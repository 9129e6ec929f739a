# SPDX-License-Identifier: Apache-2.0
"""The node in a process of its own, and somebody to talk to it over real DDS."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from threading import Condition, Thread
from types import TracebackType
from typing import Any

import numpy as np
import rclpy
from forked_process import ROOT, ForkedProcess
from geometry_msgs.msg import PoseWithCovarianceStamped
from nav_msgs.msg import Odometry
from nav_msgs.msg import Path as PathMessage
from numpy.typing import NDArray
from rcl_interfaces.msg import SetParametersResult
from rcl_interfaces.srv import SetParametersAtomically
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from selection import thorough
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from tf2_msgs.msg import TFMessage
from xsvggt_ros.msg import ReconstructionStatus

from xsvggt_ros.ros.conversions import header, packed
from xsvggt_ros.ros.processes import DIRECTORY, free_domain

PATIENCE = 90.0
"""Seconds after which a condition is taken never to come true, on a machine that is busy."""
ASK_AGAIN = 20.0
"""Seconds after which the answer of a service is taken to be lost."""
TINY = {"model.preset": "tiny", "input.width": 56, "cache.budget_tokens": 200}
STATUS_TOPIC = "/xsvggt/status"

OUTPUTS: dict[str, type[Any]] = {
    "/xsvggt/points": PointCloud2,
    "/xsvggt/depth/image": Image,
    "/xsvggt/depth/camera_info": CameraInfo,
    "/xsvggt/confidence/image": Image,
    "/xsvggt/odometry": Odometry,
    "/xsvggt/pose": PoseWithCovarianceStamped,
    "/xsvggt/path": PathMessage,
    "/tf": TFMessage,
    STATUS_TOPIC: ReconstructionStatus,
}

os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")


class NodeProcess:
    """The node as users start it; its output is kept line by line.

    Used as a context, it is ended with the block if it still runs. Where an environment is given,
    with ``fresh``, and where tests are thorough, the interpreter is started for it; else it is a
    `ForkedProcess`.
    """

    def __init__(
        self,
        parameters: dict[str, Any],
        *arguments: str,
        env: dict[str, str] | None = None,
        program: tuple[str, str] = ("-m", "xsvggt_ros.ros.node"),
        fresh: bool = False,
    ) -> None:
        self.domain = free_domain()
        self.lines: list[str] = []
        self._ended = False
        self._changed = Condition()
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "ROS_DOMAIN_ID": str(self.domain),
            **(env or {}),
        }
        words = _ros_arguments(parameters, arguments)
        self._process: ForkedProcess | subprocess.Popen[str]
        if fresh or env or thorough():
            self._process = subprocess.Popen(
                [sys.executable, *program, *words],
                cwd=ROOT,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        else:
            self._process = ForkedProcess(program, words, environment)
        self._reader = Thread(target=self._read)
        self._reader.start()

    def __enter__(self) -> NodeProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Asked first: a killed node leaves its shared memory behind.
        self._process.terminate()
        try:
            self._process.wait(PATIENCE)
        finally:
            self._process.kill()
            self._process.wait()
            self._reader.join()

    @property
    def output(self) -> str:
        """Everything it has said so far."""
        return "\n".join(self.lines)

    @property
    def shared_memory(self) -> list[Path]:
        """The segments of Fast DDS that it owns just now."""
        return shared_memory_of(self._process.pid)

    def said(self, pattern: str) -> bool:
        """Return whether a line matches."""
        return any(re.search(pattern, line) for line in list(self.lines))

    def wait_for_line(self, pattern: str) -> None:
        """Wait until a line matches; fail with the output otherwise."""
        with self._changed:
            self._changed.wait_for(lambda: self.said(pattern) or self._ended, PATIENCE)
        assert self.said(pattern), f"never said {pattern!r}:\n{self.output}"

    def interrupt(self, number: int = signal.SIGINT) -> int:
        """Send a signal and return the exit code."""
        self._process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Wait for the end and return the exit code."""
        code = self._process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return code

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._changed:
                self.lines.append(line.rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()


class Peer:
    """A ROS node of the test's own: sends images, keeps what comes back."""

    def __init__(self, domain: int, outputs: dict[str, type[Any]] | None = None) -> None:
        self._context = Context()
        rclpy.init(context=self._context, domain_id=domain)
        self.node = Node("peer", context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self.received: dict[str, list[Any]] = defaultdict(list)
        self._outputs = OUTPUTS if outputs is None else outputs
        for topic, message_type in self._outputs.items():
            self.node.create_subscription(
                message_type, topic, self.received[topic].append, QoSProfile(depth=200)
            )

    def __enter__(self) -> Peer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._executor.shutdown()
        self.node.destroy_node()
        self._context.try_shutdown()

    def wait_until(self, condition: Callable[[], bool], what: str = "") -> None:
        """Spin until the condition holds; fail with ``what`` otherwise."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, f"never came true: {what or condition}"
            self._executor.spin_once(timeout_sec=0.05)

    def publisher(
        self,
        topic: str = "/image",
        message_type: type[Any] = Image,
        *,
        reliability: ReliabilityPolicy = ReliabilityPolicy.RELIABLE,
        wait_for_outputs: bool = True,
    ) -> Any:
        """Return a publisher that the node has found, once its outputs come here too."""
        publisher = self.node.create_publisher(
            message_type, topic, QoSProfile(depth=200, reliability=reliability)
        )
        self.wait_until(lambda: publisher.get_subscription_count() > 0, f"subscriber of {topic}")
        if wait_for_outputs:
            self.wait_for_outputs()
        return publisher

    def wait_for_outputs(self) -> None:
        """Wait until the node sends here whatever is listened to.

        Its first status tells: that topic was subscribed to last, and a node learns of
        subscriptions in their order. To see its publishers is not enough, it must see us.
        """
        if STATUS_TOPIC in self._outputs:
            self.wait_until(lambda: bool(self.received[STATUS_TOPIC]), "a first status")

    def messages(self, topic: str) -> list[Any]:
        """Return what has come on a topic of the node, such as points, so far."""
        return self.received[topic if topic.startswith("/") else f"/xsvggt/{topic}"]

    def with_stamp(self, topic: str, stamp: int) -> Any:
        """Wait for the message that has a stamp, in nanoseconds, and return it."""
        self.wait_until(lambda: stamp in map(stamp_of, self.messages(topic)), f"{topic} {stamp}")
        return next(each for each in self.messages(topic) if stamp_of(each) == stamp)

    def wait_for_status(
        self, condition: Callable[[ReconstructionStatus], bool], what: str
    ) -> ReconstructionStatus:
        """Wait for a status that fulfils the condition, from the first on, and return it."""
        self.wait_until(lambda: any(map(condition, self.messages("status"))), what)
        found: ReconstructionStatus = next(filter(condition, self.messages("status")))
        return found

    def set_parameters(self, **values: Any) -> SetParametersResult:
        """Set parameters of the node at once; ``__`` in a name stands for a dot."""
        client: Any = self.node.create_client(
            SetParametersAtomically, "/xsvggt/set_parameters_atomically"
        )
        request = SetParametersAtomically.Request(
            parameters=[
                Parameter(name.replace("__", "."), value=value).to_parameter_msg()
                for name, value in values.items()
            ]
        )
        result: SetParametersResult = self.answer(client, request).result
        return result

    def answer(self, client: Any, request: Any) -> Any:
        """Return what a service that may be asked twice answers, once it is there.

        DDS loses an answer where the server has not discovered its reader yet, so after a while it
        is asked again.
        """
        self.wait_until(client.service_is_ready, client.srv_name)
        asked = [client.call_async(request)]
        again = time.monotonic() + ASK_AGAIN

        def answered() -> bool:
            nonlocal again
            if time.monotonic() > again:
                asked.append(client.call_async(request))
                again += ASK_AGAIN
            return any(future.done() for future in asked)

        self.wait_until(answered, f"answer of {client.srv_name}")
        return next(future.result() for future in asked if future.done())


def _ros_arguments(parameters: dict[str, Any], arguments: tuple[str, ...]) -> list[str]:
    pairs = [["-p", f"{name}:={_yaml(value)}"] for name, value in parameters.items()]
    return ["--ros-args", *arguments, *(part for pair in pairs for part in pair)]


def _yaml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"'{value}'" if isinstance(value, str) else str(value)


def shared_memory_of(process: int) -> list[Path]:
    """Return the segments of Fast DDS that a process owns: it holds the locks beside them."""
    locks = map(str.split, Path("/proc/locks").read_text(encoding="ascii").splitlines())
    held = {int(lock[5].rpartition(":")[2]) for lock in locks if lock[4] == str(process)}
    return [
        Path(file.path.removesuffix("_el"))
        for file in os.scandir(DIRECTORY)
        if re.fullmatch("fast(dds|rtps)_[0-9a-f]{16}_el", file.name) and file.inode() in held
    ]


def stamp_of(message: Any) -> int:
    """Return the stamp of a message in nanoseconds; of the first transform of a TFMessage."""
    top = message.transforms[0].header if hasattr(message, "transforms") else message.header
    return int(top.stamp.sec) * 1_000_000_000 + int(top.stamp.nanosec)


def image(seed: int = 0, width: int = 64, height: int = 48) -> NDArray[np.uint8]:
    """Return an image with some structure."""
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    return coarse.repeat(8, axis=0).repeat(8, axis=1)


def image_message(stamp: int, frame_id: str = "camera_optical", **size: int) -> Image:
    """Return an image as an rgb8 message."""
    pixels = image(stamp % 1000, **size)
    height, width, _ = pixels.shape
    message = Image(
        header=header(stamp, frame_id),
        height=height,
        width=width,
        encoding="rgb8",
        step=3 * width,
    )
    message.data = packed(pixels)
    return message
