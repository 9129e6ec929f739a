# SPDX-License-Identifier: Apache-2.0
"""Thousands of images through the live node, with faults thrown in: what leaks, and what slows.

    python benchmarks/soak.py                   # 10 000 images, tiny network
    python benchmarks/soak.py --frames 1000 --preset demo --width 224

New first frames take over every hundred images. Each image is answered in ~/status before the next
one is sent. Writes `summary.md`, `samples.csv`, `figure.png` and the node's log to --output; exits
with 1 where a limit is broken.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")

import matplotlib as mpl
import numpy as np
import rclpy
from geometry_msgs.msg import TransformStamped
from numpy.typing import NDArray
from rcl_interfaces.srv import SetParametersAtomically
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from tf2_msgs.msg import TFMessage
from xsvggt_ros.msg import ReconstructionStatus

from xsvggt_ros.ros.conversions import header, packed
from xsvggt_ros.ros.processes import ChildNode, free_domain
from xsvggt_ros.stream.messages import nanoseconds

mpl.use("Agg")
from matplotlib import pyplot as plt

PERIOD = 100_000_000
"""Nanoseconds between the stamps of two images."""
PATIENCE = 120.0
"""Seconds after which an answer is taken never to come."""
MIB = 2**20

STEEPEST = 1.0
"""MiB of resident memory per 1000 images, after the first fifth."""
SLOWEST = 1.2
"""p99 latency of the last tenth against that of the second one."""
VIEWER = 2
"""Descriptors that a viewer who happens to be there may take."""
ENOUGH = 5000
"""Images from which on slopes and percentiles say something."""

FAULTS = (
    "garbled", "repeated", "gap", "jump back", "resized", "storm", "churn", "outlier", "deep",
    "dark", "owner", "camera info",
)  # fmt: skip
"""outlier: one more image, of a wrong stamp. deep: 10 bits of 16. owner: another node broadcasts
a transform of ours. camera info: its publisher comes or goes, each with another QoS."""
CAMERA_INFOS = [
    QoSProfile(depth=1, reliability=reliability, durability=durability)
    for reliability in (ReliabilityPolicy.BEST_EFFORT, ReliabilityPolicy.RELIABLE)
    for durability in (DurabilityPolicy.VOLATILE, DurabilityPolicy.TRANSIENT_LOCAL)
]
CALM = 40
"""Images before the first fault."""


@dataclass(frozen=True)
class Sample:
    """The node's process after an image; latency in seconds, processor time since its start."""

    frame: int
    latency: float
    processor: float
    resident_mib: float
    threads: int
    descriptors: int


@dataclass
class Counts:
    """What was sent and what came back."""

    sent: int = 0
    processed: int = 0
    refused: int = 0
    unanswered: int = 0
    parameters: int = 0
    parameters_refused: int = 0
    sessions: int = 0
    joins: int = 0


class Camera:
    """Makes images with rising stamps, some of them faulty."""

    def __init__(self, seed: int, width: int, height: int, every: int) -> None:
        """Make a camera of which one image in ``every`` has a fault."""
        self._every = every
        self._generator = np.random.default_rng(seed)
        self._size = (height, width)
        self._scene = self._generator.integers(0, 256, (height, 2 * width, 3), np.uint8)
        self._stamp = 1000 * PERIOD
        self._count = 0
        self._last = ""

    def fault(self) -> str:
        """Return the next fault, mostly none."""
        if self._count < CALM or self._generator.random() * self._every >= 1:
            self._last = ""
            return ""
        fault = str(self._generator.choice(FAULTS))
        # The stamp of an image that was refused may come again.
        self._last = "gap" if (self._last, fault) == ("garbled", "repeated") else fault
        return self._last

    def image(self, fault: str) -> Image:
        """Return the next image."""
        self._count += 1
        self._stamp += {"repeated": 0, "gap": 300 * PERIOD, "jump back": -500 * PERIOD}.get(
            fault, PERIOD
        )
        height, width = self._size
        shift = self._count % width
        pixels = np.ascontiguousarray(self._scene[:, shift : shift + width])
        if fault == "resized":
            pixels = np.ascontiguousarray(pixels[: height // 2])
        if fault == "dark":
            pixels = np.zeros_like(pixels)
        encoding = "rgb8"
        if fault == "deep":
            encoding, pixels = "mono16", 4 * np.ascontiguousarray(pixels[..., 0]).astype("<u2")
        message = _message(self._stamp, encoding, pixels)
        return self._garbled(message) if fault == "garbled" else message

    def outlier(self) -> Image:
        """Return an image whose stamp alone is wrong; it takes no place among the others."""
        wrong = (0, self._stamp + 50 * PERIOD, self._stamp + 2**32 * 1000)
        width = self._size[1]
        stamp = wrong[self._generator.integers(len(wrong))]
        return _message(stamp, "rgb8", np.ascontiguousarray(self._scene[:, :width]))

    def _garbled(self, message: Image) -> Image:
        kind = self._generator.integers(4)
        if kind == 0:
            message.encoding = "rgb99"
        elif kind == 1:
            message.step = 3
        elif kind == 2:
            message.encoding = "16UC1"  # a depth map
        else:
            message.data = message.data[: len(message.data) // 2]
        return message


def _message(stamp: int, encoding: str, pixels: NDArray[Any]) -> Image:
    message = Image(
        header=header(stamp, "camera_optical"),
        height=pixels.shape[0],
        width=pixels.shape[1],
        encoding=encoding,
        step=pixels.strides[0],
    )
    message.data = packed(pixels)
    return message


class Tester:
    """Sends, waits, and looks at the node's process."""

    def __init__(self, pid: int, counts: Counts) -> None:
        self._pid = pid
        self._counts = counts
        self._node = Node("soak")
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self._node)
        self._images = self._node.create_publisher(Image, "/soak/image", QoSProfile(depth=10))
        self._statuses: list[ReconstructionStatus] = []
        self._node.create_subscription(
            ReconstructionStatus, "/soak/xsvggt/status", self._statuses.append, QoSProfile(depth=50)
        )
        self._client: Any = self._node.create_client(
            SetParametersAtomically, "/soak/xsvggt/set_parameters_atomically"
        )
        self._viewers: list[Any] = []
        self._infos: list[Any] = []
        self._info_count = 0
        self._transforms = self._node.create_publisher(TFMessage, "/tf", QoSProfile(depth=10))

    def close(self) -> None:
        """Leave the graph."""
        self._executor.shutdown()
        self._node.destroy_node()

    def wait_for_node(self) -> None:
        """Wait until the node listens and is heard."""
        ready = self._wait(
            lambda: (
                bool(self._statuses)
                and self._images.get_subscription_count() > 0
                and self._client.service_is_ready()
            )
        )
        if not ready:
            raise SystemExit("the node did not come up")

    def send(self, message: Image, before: Image | None = None) -> ReconstructionStatus | None:
        """Send an image; return what ~/status says of it, None where nothing comes.

        One ``before`` it is sent without waiting, because only the next one proves it wrong.
        """
        done = _done(self._statuses[-1])
        self._statuses[:] = self._statuses[-1:]
        if before is not None:
            self._images.publish(before)
            self._counts.sent += 1
            done += 1
        self._images.publish(message)
        self._counts.sent += 1
        stamp = nanoseconds(message.header.stamp)
        if not self._wait(lambda: self._answer(stamp, done) is not None):
            self._counts.unanswered += 1
            return None
        return self._answer(stamp, done)

    def _answer(self, stamp: int, done: int) -> ReconstructionStatus | None:
        for status in self._statuses:
            if nanoseconds(status.header.stamp) == stamp and _done(status) > done:
                return status
        return None

    def set_parameters(self, **values: Any) -> None:
        """Set parameters of the node; ``__`` in a name stands for a dot."""
        request = SetParametersAtomically.Request(
            parameters=[
                Parameter(name.replace("__", "."), value=value).to_parameter_msg()
                for name, value in values.items()
            ]
        )
        future = self._client.call_async(request)
        self._counts.parameters += 1
        if not self._wait(future.done):
            self._counts.unanswered += 1
        elif not future.result().result.successful:
            self._counts.parameters_refused += 1

    def churn(self) -> None:
        """Let a viewer of clouds come, or go."""
        if self._viewers:
            self._node.destroy_subscription(self._viewers.pop())
            return
        viewer = self._node.create_subscription(
            PointCloud2, "/soak/xsvggt/points", lambda _: None, QoSProfile(depth=5)
        )
        self._viewers.append(viewer)

    def own_transform(self) -> None:
        """Broadcast what the node broadcasts, as AMCL would."""
        link = TransformStamped(header=header(PERIOD, "map"), child_frame_id="odom")
        link.transform.rotation.w = 1.0
        self._transforms.publish(TFMessage(transforms=[link]))

    def camera_info(self) -> None:
        """Let a publisher of uncalibrated camera_info come, or go; each offers another QoS."""
        if self._infos:
            self._node.destroy_publisher(self._infos.pop())
            return
        offer = CAMERA_INFOS[self._info_count % len(CAMERA_INFOS)]
        self._info_count += 1
        publisher = self._node.create_publisher(CameraInfo, "/soak/camera_info", offer)
        publisher.publish(CameraInfo(width=64, height=48))
        self._infos.append(publisher)

    def sample(self, frame: int, latency: float) -> Sample:
        """Look at the node's process."""
        process = Path(f"/proc/{self._pid}")
        pages = int((process / "statm").read_text(encoding="ascii").split()[1])
        # The name in parentheses may hold blanks; user and system time follow as 12th and 13th.
        times = (process / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[11:13]
        return Sample(
            frame,
            latency,
            sum(map(int, times)) / os.sysconf("SC_CLK_TCK"),
            pages * os.sysconf("SC_PAGE_SIZE") / MIB,
            len(list((process / "task").iterdir())),
            len(list((process / "fd").iterdir())),
        )

    def _wait(self, condition: Callable[[], bool]) -> bool:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > deadline:
                return False
            self._executor.spin_once(timeout_sec=0.05)
        return True


def _done(status: ReconstructionStatus) -> int:
    return int(status.frames_processed + status.frames_dropped + status.frames_refused)


def main() -> int:
    """Run, write what came out, and return the exit code."""
    options = _options()
    output = options.output or Path(tempfile.mkdtemp(prefix="soak-"))
    counts, faults = Counts(), Counter[str]()
    domain = free_domain()
    rclpy.init(domain_id=domain)
    parameters = {
        "model.preset": options.preset,
        "input.width": options.width,
        "input.queue_policy": "all",
        "cache.budget_tokens": options.budget,
        "chain.length": options.chain_length,
        # Full within the first fifth: a map that grows to its bound is no leak.
        "map.max_points": 20_000,
    }
    environment = {"ROS_DOMAIN_ID": str(domain), "OMP_NUM_THREADS": "1"}
    child = ChildNode(
        parameters, namespace="/soak", log=output / "node.log", environment=environment
    )
    with child:
        tester = Tester(child.pid, counts)
        tester.wait_for_node()
        samples = list(run(tester, options, counts, faults))
        exit_code = child.stop()
        tester.close()
    rclpy.try_shutdown()
    broken = [*limits(samples), *answers(counts, faults, exit_code, output / "node.log")]
    if options.chain_length and counts.sent >= ENOUGH and not counts.joins:
        broken.append("no new first frame took over")
    write(output, samples, summary(options, samples, counts, faults, broken))
    print((output / "summary.md").read_text(encoding="utf-8"))
    print(f"written to {output}")
    return 1 if broken else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=10_000)
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--width", type=int, default=56)
    parser.add_argument("--budget", type=int, default=200)
    parser.add_argument("--chain-length", type=int, default=100, help="images, 0 = no joins")
    parser.add_argument("--fault-every", type=int, default=40, help="images, on average")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path)
    return parser.parse_args()


def run(
    tester: Tester, options: argparse.Namespace, counts: Counts, faults: Counter[str]
) -> Iterator[Sample]:
    """Send all images; yield a sample for each one that was answered with a result."""
    camera, joins = Camera(options.seed, 64, 48, options.fault_every), 0
    for frame in range(options.frames):
        fault = camera.fault()
        faults[fault] += bool(fault)
        if fault == "storm":
            storm(tester, options.budget)
        if fault == "churn":
            tester.churn()
        if fault == "owner":
            tester.own_transform()
        if fault == "camera info":
            tester.camera_info()
        outlier = camera.outlier() if fault == "outlier" else None
        status = tester.send(camera.image(fault), outlier)
        if status is None:
            continue
        counts.joins += max(0, status.chain_joins - joins)
        joins = status.chain_joins
        counts.sessions = status.session
        counts.refused = status.frames_refused
        counts.processed = status.frames_processed
        if status.state != "error":
            yield tester.sample(frame, status.latency_total)


def storm(tester: Tester, budget: int) -> None:
    """Change much at once and a lot in a row, illegal values included; leave all as it was."""
    for step in range(10):
        tester.set_parameters(cache__budget_tokens=budget // 2 + step, points__stride=1 + step % 4)
        tester.set_parameters(cache__key_bits=3)
        tester.set_parameters(cache__policy=("random", "sliding_window")[step % 2])
    tester.set_parameters(
        cache__budget_tokens=budget, cache__policy="xstreamvggt", points__stride=1
    )


def limits(samples: list[Sample]) -> Iterator[str]:
    """Yield each limit of the process that is broken."""
    first, last = samples[len(samples) // 10], samples[-1]
    if last.threads > first.threads:
        yield f"threads: {first.threads}, then {last.threads}"
    if last.descriptors > first.descriptors + VIEWER:
        yield f"descriptors: {first.descriptors}, then {last.descriptors}"
    if len(samples) < ENOUGH:
        return
    slope, ratio = resident_slope(samples), latency_ratio(samples)
    if slope >= STEEPEST:
        yield f"resident memory grows by {slope:.2f} MiB per 1000 images (limit {STEEPEST})"
    if ratio > SLOWEST:
        yield f"p99 latency of the last tenth is {ratio:.2f} times the second's (limit {SLOWEST})"


def resident_slope(samples: list[Sample]) -> float:
    """Return MiB per 1000 images, after the first fifth."""
    settled = samples[len(samples) // 5 :]
    frames = [each.frame for each in settled]
    return 1000 * float(np.polyfit(frames, [each.resident_mib for each in settled], 1)[0])


def latency_ratio(samples: list[Sample]) -> float:
    """Return the p99 latency of the last tenth over that of the second."""
    tenth = len(samples) // 10
    early, late = samples[tenth : 2 * tenth], samples[-tenth:]
    return _p99(late) / _p99(early)


def processor_ratio(samples: list[Sample]) -> float:
    """Return processor time an image in the last tenth over that in the second.

    Unlike latency it does not tell of what else the machine does.
    """
    tenth = len(samples) // 10
    early, late = samples[tenth : 2 * tenth], samples[-tenth:]
    return (late[-1].processor - late[0].processor) / (early[-1].processor - early[0].processor)


def _p99(samples: list[Sample]) -> float:
    return float(np.percentile([each.latency for each in samples], 99))


def answers(counts: Counts, faults: Counter[str], exit_code: int, log: Path) -> Iterator[str]:
    """Yield whatever was sent and did not come back as it must."""
    if counts.unanswered:
        yield f"{counts.unanswered} images or parameter calls were never answered"
    expected = faults["garbled"] + faults["repeated"] + faults["outlier"]
    if counts.refused != expected:
        yield f"{counts.refused} images were refused, {expected} were bad"
    if counts.sessions != 1 + faults["jump back"]:
        yield f"{counts.sessions} sessions after {faults['jump back']} jumps back"
    if counts.parameters_refused != 10 * faults["storm"]:
        yield f"{counts.parameters_refused} parameter calls refused in {faults['storm']} storms"
    if exit_code:
        yield f"the node left with {exit_code}"
    said = log.read_text(encoding="utf-8", errors="replace")
    yield from (f"the log holds '{word}'" for word in ("Traceback", "terminate") if word in said)
    lines = {
        "garbled": "refused",
        "repeated": "came twice in a row",
        "jump back": "a new session begins",
        "resized": "the network's image changes",
        "outlier": "those around it",
        "deep": "they are read as 10-bit ones",
        "dark": "the image is dark",
        "owner": "another node broadcasts the transform from 'map' to 'odom', too",
    }
    yield from (f"no line on '{f}'" for f, line in lines.items() if faults[f] and line not in said)


def summary(
    options: argparse.Namespace,
    samples: list[Sample],
    counts: Counts,
    faults: Counter[str],
    broken: list[str],
) -> str:
    """Return the page that says how it went."""
    first, last = samples[len(samples) // 10], samples[-1]
    thrown = ", ".join(f"{name} {faults[name]}" for name in FAULTS)
    rows = {
        "images": f"{counts.sent}, {options.preset} at {options.width}, seed {options.seed}",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}",
        "processed, refused, never answered": f"{counts.processed}, {counts.refused}, "
        f"{counts.unanswered}",
        "sessions, joins, parameter calls": f"{counts.sessions}, {counts.joins}, "
        f"{counts.parameters}",
        "faults": thrown,
        "resident memory, slope per 1000 images": f"{resident_slope(samples):+.3f} MiB",
        "resident memory, after a tenth and at the end": f"{first.resident_mib:.1f}, "
        f"{last.resident_mib:.1f} MiB",
        "p99 latency, last tenth over second": f"{latency_ratio(samples):.2f}",
        "processor time an image, last tenth over second": f"{processor_ratio(samples):.2f}",
        "threads, after a tenth and at the end": f"{first.threads}, {last.threads}",
        "descriptors, after a tenth and at the end": f"{first.descriptors}, {last.descriptors}",
        "limits broken": "; ".join(broken) or "none",
    }
    lines = ["| soak | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())]
    return "\n".join([*lines, ""])


def write(output: Path, samples: list[Sample], page: str) -> None:
    """Write the page, the samples and the figure."""
    (output / "summary.md").write_text(page, encoding="utf-8")
    with (output / "samples.csv").open("w", encoding="utf-8", newline="") as stream:
        table = csv.DictWriter(stream, [each.name for each in fields(Sample)])
        table.writeheader()
        table.writerows(map(asdict, samples))
    frames = [each.frame for each in samples]
    figure, axes = plt.subplots(3, 1, sharex=True, figsize=(9, 8), layout="constrained")
    axes[0].plot(frames, [each.resident_mib for each in samples])
    axes[0].set_ylabel("resident, MiB")
    axes[1].semilogy(frames, [1000 * each.latency for each in samples], ".", markersize=1)
    axes[1].set_ylabel("latency, ms")
    axes[2].plot(frames, [each.threads for each in samples], label="threads")
    axes[2].plot(frames, [each.descriptors for each in samples], label="descriptors")
    axes[2].legend()
    axes[2].set_xlabel("image")
    figure.savefig(output / "figure.png", dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    sys.exit(main())
