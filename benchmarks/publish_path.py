# SPDX-License-Identifier: Apache-2.0
"""How long decoding, packing and publishing of one 640x480 frame take on one core.

    python benchmarks/publish_path.py [--frames N] [--processor-time]

The path is published once a second; here it comes with each frame, as with the slowest of them.
The publisher is pinned to one core; a subscriber of every topic runs in a process of its own.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("ROS_DOMAIN_ID", str(10 + os.getpid() % 90))

import argparse
import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.synchronize import Event
from time import perf_counter, process_time
from typing import Any

import cv2
import numpy as np
import rclpy
import torch
from nav_msgs.msg import Odometry
from nav_msgs.msg import Path as PathMessage
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from tf2_msgs.msg import TFMessage
from xsvggt_ros.msg import ReconstructionStatus

from xsvggt_ros.cache.layout import CacheStatistics
from xsvggt_ros.geometry.cameras import Intrinsics
from xsvggt_ros.ros import topics
from xsvggt_ros.ros.conversions import (
    CloudPacker,
    confidence_image,
    depth_image,
    frame_from,
    header,
    packed,
)
from xsvggt_ros.ros.parameters import Settings
from xsvggt_ros.ros.publishers import CameraPublisher
from xsvggt_ros.ros.status import StatusPublisher
from xsvggt_ros.ros.transforms import TransformBroadcaster, TransformOwners
from xsvggt_ros.stream.frame import (
    Frame,
    FrameResult,
    FrameUpdate,
    ImageArray,
    ImageMapping,
    SessionInfo,
    Timings,
)
from xsvggt_ros.stream.health import Counters, QualityWatch

WIDTH, HEIGHT = 640, 480
REACH_MS = 15.0
WARM_UP = Settings().path.max_poses
"""Frames until the path has its full length."""
TOPICS: dict[str, type[Any]] = {
    "/xsvggt/points": PointCloud2,
    "/xsvggt/depth/image": Image,
    "/xsvggt/depth/camera_info": CameraInfo,
    "/xsvggt/confidence/image": Image,
    "/xsvggt/odometry": Odometry,
    "/xsvggt/path": PathMessage,
    "/xsvggt/status": ReconstructionStatus,
    "/tf": TFMessage,
}
Stages = dict[str, list[float]]


def main() -> None:
    """Measure and print both kinds of input."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument(
        "--processor-time",
        action="store_true",
        help="count the processor time of all threads of the publisher, for a busy machine",
    )
    arguments = parser.parse_args()
    clock = process_time if arguments.processor_time else perf_counter
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[:1])
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    rclpy.init()
    node = Node("xsvggt")
    transforms = TransformBroadcaster(node, TransformOwners())
    outputs, status = CameraPublisher(node, transforms), StatusPublisher(node)
    with subscriber(cores[-1]):
        wait_for_subscriber(node)
        for kind, frame in inputs().items():
            report(kind, measure(frame, outputs, status, arguments.frames, clock))
    rclpy.shutdown()


def inputs() -> dict[str, Frame]:
    """Return one image as both kinds of message."""
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3), np.uint8)
    image = cv2.resize(noise, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    top = header(1, "camera")
    raw = Image(header=top, height=HEIGHT, width=WIDTH, encoding="rgb8", step=3 * WIDTH)
    raw.data = packed(image)
    _, jpeg = cv2.imencode(".jpg", image)
    compressed = CompressedImage(header=top, format="jpeg")
    compressed.data = packed(jpeg)
    return {"raw rgb8": frame_from(raw), "JPEG": frame_from(compressed)}


def measure(
    frame: Frame,
    outputs: CameraPublisher,
    status: StatusPublisher,
    frames: int,
    clock: Callable[[], float],
) -> Stages:
    """Return milliseconds of each stage for each frame, by a clock of seconds."""
    stages: Stages = {}
    packer, quality = CloudPacker(), QualityWatch()
    for index in range(WARM_UP + frames):
        stopwatch = Stopwatch(stages if index >= WARM_UP else {}, clock)
        measure_frame(stopwatch, frame, index, outputs, status, packer, quality)
    return stages


def measure_frame(
    clock: Stopwatch,
    frame: Frame,
    index: int,
    outputs: CameraPublisher,
    status: StatusPublisher,
    packer: CloudPacker,
    quality: QualityWatch,
) -> None:
    """Take one frame the way of the node, then pack its large messages once more, apart."""
    settings, counters, top = Settings(), Counters(1, 1, 0, 0, 0), header(1, "camera")
    image = clock.time("decode", frame.decode)
    result = result_of(image, index)
    update = FrameUpdate(frame, result, SessionInfo(1, 1))
    clock.time("pack and publish", lambda: outputs.publish(update, settings))
    faults = clock.time("quality", lambda: quality.faults_of(result))
    clock.time(
        "status",
        lambda: status.show_update(replace(update, faults=faults), counters),
    )
    clock.time("path", outputs.publish_path)
    clock.total()
    clock.time("  of which pack points", lambda: packer.pack(top, result, settings.points))
    clock.time("  of which pack depth", lambda: depth_image(top, result.depth, "32FC1"))
    clock.time("  of which pack confidence", lambda: confidence_image(top, result.confidence))


class Stopwatch:
    """Times the stages of one frame."""

    def __init__(self, stages: Stages, clock: Callable[[], float]) -> None:
        self._stages = stages
        self._clock = clock
        self._sum = 0.0

    def time(self, stage: str, action: Callable[[], Any]) -> Any:
        """Run ``action`` and note its milliseconds."""
        started = self._clock()
        answer = action()
        self._note(stage, 1000 * (self._clock() - started))
        return answer

    def total(self) -> None:
        """Note the sum of what was timed so far."""
        self._note("total", self._sum)

    def _note(self, stage: str, milliseconds: float) -> None:
        self._sum += milliseconds
        self._stages.setdefault(stage, []).append(milliseconds)


def result_of(image: ImageArray, index: int) -> FrameResult:
    """Return what the engine would make of an image, some of it unknown."""
    depth = np.linspace(0.5, 5.0, HEIGHT * WIDTH, dtype=np.float32).reshape(HEIGHT, WIDTH)
    depth[:10] = np.nan
    return FrameResult(
        index=index,
        stamp=1 + index,
        frame_id="camera",
        camera_to_world=np.eye(4),
        intrinsics=Intrinsics(500.0, 500.0, 320.0, 240.0, WIDTH, HEIGHT),
        intrinsics_source="predicted",
        depth=depth,
        confidence=np.flipud(depth) + 1.0,
        color=image,
        mapping=ImageMapping(WIDTH, HEIGHT, WIDTH, HEIGHT, HEIGHT, 0),
        cache=CacheStatistics("xstreamvggt", 8192, 8192, 16, 16, 1, 1, 1, 1, 0, 0, (8192,) * 24),
        timings=Timings(),
    )


@contextmanager
def subscriber(core: int) -> Iterator[None]:
    """Keep a process that takes everything."""
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    process = context.Process(target=subscribe, args=(core, stop))
    process.start()
    try:
        yield
    finally:
        stop.set()
        process.join()


def subscribe(core: int, stop: Event) -> None:
    """Take every message of every topic until told to stop."""
    os.sched_setaffinity(0, {core})
    rclpy.init()
    node = Node("listener")
    for topic, message_type in TOPICS.items():
        node.create_subscription(message_type, topic, lambda _: None, topics.RESULTS)
    while not stop.is_set():
        rclpy.spin_once(node, timeout_sec=0.1)
    rclpy.shutdown()


def wait_for_subscriber(node: Node) -> None:
    """Return when every topic has a subscriber."""
    while any(node.count_subscribers(topic) == 0 for topic in TOPICS):
        rclpy.spin_once(node, timeout_sec=0.1)


def report(kind: str, stages: Stages) -> None:
    """Print medians and 95th percentiles."""
    print(f"{kind}, {WIDTH}x{HEIGHT}, one core, ms: median, p95")
    for stage, milliseconds in stages.items():
        median, p95 = np.percentile(milliseconds, [50, 95])
        print(f"  {stage:28s} {median:7.2f} {p95:7.2f}")
    verdict = "holds" if np.median(stages["total"]) < REACH_MS else "MISSED"
    print(f"  reach < {REACH_MS:g} ms: {verdict}\n")


if __name__ == "__main__":
    main()
