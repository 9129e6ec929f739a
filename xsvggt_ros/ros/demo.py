# SPDX-License-Identifier: Apache-2.0
"""The whole way once: images over DDS into the node in its own process, its answers kept.

Nothing is dropped: the node holds images back, and no more than IMAGES_UNDER_WAY are ever sent
without their answer having been recorded, which is fewer than any publisher's history keeps.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import rclpy
from geometry_msgs.msg import PoseWithCovarianceStamped
from numpy.typing import NDArray
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.impl.logging_severity import LoggingSeverity
from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rich.console import Console
from rich.panel import Panel
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from sensor_msgs_py import point_cloud2

from xsvggt_ros.cache.settings import CacheSettings
from xsvggt_ros.errors import SourceError
from xsvggt_ros.geometry.cameras import Intrinsics
from xsvggt_ros.geometry.files import require_writable
from xsvggt_ros.model.config import weights_in_words
from xsvggt_ros.msg import ReconstructionStatus
from xsvggt_ros.process import stop_request
from xsvggt_ros.ros.conversions import pose_matrix
from xsvggt_ros.ros.processes import ChildNode, free_domain, given_domain
from xsvggt_ros.ros.replay import ReplayNode
from xsvggt_ros.ros.replay_topics import FASTEST, MeteredSource, ReplayOptions
from xsvggt_ros.ros.topics import LARGE_DEPTH
from xsvggt_ros.stream.messages import depth_of, nanoseconds
from xsvggt_ros.stream.recording import CacheBytes, LongestSession, RecordedFrame
from xsvggt_ros.stream.sources import open_source

EVERYTHING = QoSProfile(
    depth=1, history=HistoryPolicy.KEEP_ALL, reliability=ReliabilityPolicy.RELIABLE
)
_PARTS = frozenset({"points", "depth", "camera", "pose", "status"})


class Recorder(Node):
    """Puts together points, depth, camera, pose and status of one stamp and hands them on.

    Attributes:
        recorded: what they are handed to.
        status: the newest ``~/status``, None before the first.

    """

    def __init__(
        self, recorded: LongestSession, *, of_node: str = "/xsvggt", context: Context | None = None
    ) -> None:
        super().__init__("xsvggt_recorder", context=context)
        self.recorded = recorded
        self._parts: dict[int, dict[str, Any]] = {}
        self.status: ReconstructionStatus | None = None
        topics = {
            "points": (PointCloud2, f"{of_node}/points"),
            "depth": (Image, f"{of_node}/depth/image"),
            "camera": (CameraInfo, f"{of_node}/depth/camera_info"),
            "pose": (PoseWithCovarianceStamped, f"{of_node}/pose"),
        }
        for part, (kind, topic) in topics.items():
            self.create_subscription(kind, topic, self._keeper(part), EVERYTHING)
        self.create_subscription(
            ReconstructionStatus, f"{of_node}/status", self._on_status, EVERYTHING
        )

    @property
    def ready(self) -> bool:
        """Whether the node is up and sends its results here.

        Its first status tells so: that topic was subscribed to last, and the node learns of
        subscriptions in their order.
        """
        return self.status is not None

    @property
    def refused(self) -> int:
        """Number of images that the node could not use."""
        return self.status.frames_refused if self.status else 0

    @property
    def answered(self) -> int:
        """Number of images that are done with."""
        return self.recorded.frames + self.refused

    def has_all(self, sent: int) -> bool:
        """Return whether all images sent are done with and the node says so too."""
        status = self.status
        return (
            status is not None
            and status.frames_received == sent
            and status.frames_pending == 0
            and self.answered == sent
        )

    def _keeper(self, part: str) -> Any:
        """Return the callback of one topic."""
        return lambda message: self._keep(part, message)

    def _keep(self, part: str, message: Any) -> None:
        """Keep one part of a frame; record the frame when it is complete."""
        stamp = nanoseconds(message.header.stamp)
        parts = self._parts.setdefault(stamp, {})
        parts[part] = message
        if parts.keys() == _PARTS:
            self.recorded.add(recorded_frame(**self._parts.pop(stamp)))

    def _on_status(self, message: ReconstructionStatus) -> None:
        """Take a status; only one that tells of a new frame is part of it."""
        before, self.status = self.status, message
        if message.session_frames and (before is None or _place(message) != _place(before)):
            self._keep("status", message)


def _place(status: ReconstructionStatus) -> tuple[int, int]:
    return status.session, status.session_frames


def recorded_frame(
    points: PointCloud2,
    depth: Image,
    camera: CameraInfo,
    pose: PoseWithCovarianceStamped,
    status: ReconstructionStatus,
) -> RecordedFrame:
    """Read the messages of one frame.

    Args:
        points: organised cloud in the optical frame.
        depth: 32FC1, metres.
        camera: of the depth.
        pose: of the camera in the map.
        status: of this frame.

    """
    packed = cloud_field(points, "rgb").view(np.uint32)
    color = np.stack([packed >> 16 & 0xFF, packed >> 8 & 0xFF, packed & 0xFF], axis=-1)
    return RecordedFrame(
        index=status.session_frames - 1,
        stamp=nanoseconds(points.header.stamp),
        camera_to_map=pose_matrix(pose.pose.pose),
        intrinsics=pinhole(camera),
        points=np.stack([cloud_field(points, axis) for axis in ("x", "y", "z")], axis=-1),
        depth=depth_of(depth),
        confidence=cloud_field(points, "confidence"),
        color=color.astype(np.uint8),
        cache=CacheBytes(status.cache_bytes, status.scratch_bytes, status.uncompressed_bytes),
        pose_source="held" if status.pose_source == "held" else "predicted",
        policy=status.policy,
    )


def cloud_field(points: PointCloud2, name: str) -> NDArray[np.float32]:
    """Return a float32 field of an organised cloud, [height, width]."""
    values = point_cloud2.read_points(points, [name])[name]
    return values.astype(np.float32).reshape(points.height, points.width)


def pinhole(message: CameraInfo) -> Intrinsics:
    """Return the camera of an undistorted image."""
    fx, _, cx, _, fy, cy, *_ = map(float, message.k)
    return Intrinsics(fx, fy, cx, cy, message.width, message.height)


OFFICIAL_REPOSITORY = "lch01/StreamVGGT"
NAMESPACE = "/xsvggt_demo"
NODE = f"{NAMESPACE}/xsvggt"
IMAGES_UNDER_WAY = LARGE_DEPTH - 1

Show = Callable[[int, str], None]
"""Takes the number of frames done, and what is going on."""

Progress = Callable[[int | None], AbstractContextManager[Show]]
"""Begins to show progress towards a number of frames, None where nobody knows it."""

_LOADED = b"waiting for images on"
_POLL = 0.05


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What a demo runs on; ``width`` None is the network's own.

    ``patience`` is how many seconds may pass without any progress. ``made_for_it`` says that
    the weights were made for these images, so that nobody need be warned.
    """

    source: Path
    output: Path = Path("demo_output")
    checkpoint: str = ""
    preset: str = ""
    width: int | None = None
    device: str = "auto"
    dtype: str = "auto"
    heads_dtype: str = "auto"
    weights: str = "full"
    compiled: bool = False
    threads: int = 0
    cache: CacheSettings = field(default_factory=CacheSettings)
    max_frames: int = 200
    topic: str | None = None
    patience: float = 300.0
    made_for_it: bool = False

    @property
    def weights_named(self) -> str:
        """The weights in words."""
        return weights_in_words(self.checkpoint, self.preset)

    def parameters(self) -> dict[str, object]:
        """Return the node's parameters."""
        return {
            "model.checkpoint": self.checkpoint,
            "model.preset": self.preset,
            "model.device": self.device,
            "model.dtype": self.dtype,
            "model.heads_dtype": self.heads_dtype,
            "model.weights": self.weights,
            "model.compile": self.compiled,
            "model.threads": self.threads,
            **{f"cache.{name}": value for name, value in asdict(self.cache).items()},
            "input.width": self.width or 0,
            "input.queue_policy": "all",
        }


class Demo:
    """Runs a demo and says on a console how it goes.

    Attributes:
        recorded: what the node answered.
        interrupted: whether a signal ended it early.

    """

    def __init__(
        self,
        options: DemoOptions,
        console: Console,
        progress: Progress,
        listeners: Sequence[Callable[[RecordedFrame], None]] = (),
    ) -> None:
        self._options = options
        self._console = console
        self._progress = progress
        self._pace = Pace()
        self.recorded = LongestSession(self._pace.note, *listeners)
        self.interrupted = False
        self._patience = Patience(options.patience)

    @property
    def rate(self) -> float:
        """Frames per second from the first answer to the last, NaN of fewer than two."""
        return self._pace.rate

    def run(self) -> None:
        """Record all images; after a signal what has come by then.

        Raises:
            KeyboardInterrupt: a signal came before the first frame was recorded.
            XsvggtError: the source cannot be read, the node ended or went silent; with the end of
                the node's log.

        """
        options = self._options
        os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
        domain = domain_id()
        require_writable(options.output)
        parameters = options.parameters()
        if not (options.checkpoint or options.made_for_it):
            self._console.print(weights_notice(options.weights_named))
        with ExitStack() as stack:
            source = stack.enter_context(open_source(options.source, topic=options.topic))
            images = MeteredSource(source, window=IMAGES_UNDER_WAY, limit=options.max_frames)
            node = stack.enter_context(_node(parameters, options.output, domain))
            context = stack.enter_context(_ros(domain))
            self._stream(images, node, context)
            if not self.interrupted:
                _stop(node)
        self._tell(images)
        if self.recorded.left_out:
            self._warn(self.recorded.left_out)

    def _stream(self, images: MeteredSource, node: ChildNode, context: Context) -> None:
        """Send images as fast as they are answered and record the answers, until a signal."""
        replay = ReplayNode(
            images,
            ReplayOptions(fixed_rate=FASTEST, transport="raw", image_topic=f"{NAMESPACE}/image"),
            context=context,
        )
        replay.get_logger().set_level(LoggingSeverity.WARN)
        recorder = Recorder(self.recorded, of_node=NODE, context=context)
        executor = SingleThreadedExecutor(context=context)
        executor.add_node(replay)
        executor.add_node(recorder)
        try:
            with stop_request() as stop, self._progress(images.frame_count) as show:
                sent = replay.start()
                while not (stop.is_set() or (sent.done() and recorder.has_all(sent.result()))):
                    executor.spin_once(timeout_sec=_POLL)
                    self._watch(images, node, recorder, show)
                self.interrupted = stop.is_set()
        finally:
            images.close()
            replay.stop()
            executor.shutdown()

    def _watch(
        self, images: MeteredSource, node: ChildNode, recorder: Recorder, show: Show
    ) -> None:
        """Let the next images go; raise where the node has ended or makes no progress."""
        if node.exit_code is not None:
            raise node.failure(f"the node ended with exit code {node.exit_code}")
        recorded = recorder.recorded.frames
        if recorder.ready:
            images.allow(recorder.answered)
            show(recorded, "reconstructing")
        else:
            show(0, "the node loads its weights")
        loading = 0 if recorder.ready else _loaded_so_far(node.log)
        if self._patience.lost((images.sent, recorder.answered, recorder.ready, loading)):
            raise node.failure(
                f"no progress for {self._patience.seconds:g} s: {images.sent} images sent, "
                f"{recorded} answers recorded, {recorder.refused} refused; give --patience more "
                "seconds if the machine is that slow"
            )

    def _tell(self, images: MeteredSource) -> None:
        """Say what is not in the result; raise where nothing is."""
        frames = self.recorded.frames
        if self.interrupted:
            if not frames:
                raise KeyboardInterrupt
            self._warn(f"Interrupted: the results hold what came out of {frames} frames.")
            return
        if not frames:
            raise SourceError(
                f"{images.name} holds no usable image: {images.sent} were sent and refused, "
                f"{images.left_out} could not be decoded; give another source"
            )
        if missing := images.left_out + images.sent - frames:
            self._warn(f"{missing} unusable images were left out.")
        if images.cut:
            self._warn(
                f"Only the first {self._options.max_frames} images were taken; --max-frames "
                "takes more."
            )

    def _warn(self, text: str) -> None:
        self._console.print(text, style="yellow", markup=False)


class Pace:
    """Tells how fast frames come."""

    def __init__(self) -> None:
        self._frames = 0
        self._first = self._last = 0.0

    def note(self, _: RecordedFrame) -> None:
        """Count a frame, and note when it came."""
        self._last = monotonic()
        if not self._frames:
            self._first = self._last
        self._frames += 1

    @property
    def rate(self) -> float:
        """Frames per second from the first to the last, NaN of fewer than two."""
        if self._frames < 2:
            return float("nan")
        return (self._frames - 1) / max(self._last - self._first, 1e-9)


class Patience:
    """Tells when nothing has changed for too long."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._seen: object = None
        self._since = monotonic()

    def lost(self, state: object) -> bool:
        """Return whether ``state`` has been the same for more than ``seconds``."""
        if state != self._seen:
            self._seen, self._since = state, monotonic()
        return monotonic() - self._since > self.seconds


def weights_notice(weights: str) -> Panel:
    """Return the notice that nothing here is to be believed."""
    return Panel(
        f"[bold]{weights}.[/] The whole path runs, from topic to cloud, but depth, poses and "
        "cloud of real images are noise: the bundled model knows only synthetic rooms. For real "
        f"ones: --checkpoint FILE, or --checkpoint {OFFICIAL_REPOSITORY} (5 GB, non-commercial "
        "licence).",
        title="[bold]no checkpoint given",
        border_style="bold yellow",
        width=80,
    )


def domain_id() -> int:
    """Return the ROS domain that is set, else one that nobody else on this machine uses."""
    given = given_domain()
    return free_domain() if given is None else given


def _loaded_so_far(log: Path) -> int:
    """Return what grows while the node loads its weights: it says so in its log.

    One that waits for images has loaded them; that it goes on to complain is no progress.
    """
    said = log.read_bytes()
    return -1 if _LOADED in said else len(said)


def _node(parameters: dict[str, object], output: Path, domain: int) -> ChildNode:
    """Return the node's process, not started."""
    environment = {"ROS_DOMAIN_ID": str(domain), "PYTHONUNBUFFERED": "1"}
    return ChildNode(
        parameters, namespace=NAMESPACE, log=output / "node.log", environment=environment
    )


@contextmanager
def _ros(domain: int) -> Iterator[Context]:
    """Keep ROS up in a context of our own; Ctrl-C stays Python's."""
    context = Context()
    rclpy.init(
        args=[], context=context, domain_id=domain, signal_handler_options=SignalHandlerOptions.NO
    )
    try:
        yield context
    finally:
        context.try_shutdown()


def _stop(node: ChildNode) -> None:
    """Stop the node; raise where it does not end as it should."""
    code = node.stop()
    if code != 0:
        raise node.failure(f"the node did not end cleanly (exit code {code})")
