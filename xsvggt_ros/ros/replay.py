# SPDX-License-Identifier: Apache-2.0
"""Replays a recording on ROS topics, as a camera would have published it."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import fields
from itertools import chain, repeat, takewhile

import rclpy
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import remove_ros_args
from std_srvs.srv import SetBool

from xsvggt_ros.errors import ConfigurationError, XsvggtError
from xsvggt_ros.process import interruptible, leave, leave_at_signals
from xsvggt_ros.ros.log_bridge import forwarded_logging
from xsvggt_ros.ros.processes import given_domain
from xsvggt_ros.ros.replay_topics import (
    TRANSPORTS,
    Follower,
    MeteredSource,
    ReplayClock,
    ReplayOptions,
    ReplayTopics,
    require_topic_name,
)
from xsvggt_ros.ros.topics import COMPRESSED
from xsvggt_ros.stream.frame import SECOND, Frame
from xsvggt_ros.stream.sources import Source, open_source
from xsvggt_ros.stream.sources.base import CUT_TO, gap_between

_POLL = 0.05
_FLUSH = 5.0
"""Seconds."""

UNANSWERED = 2
"""Images that a node that is followed has in hand: one in the network, the next one waiting."""


class ReplayNode(Node):
    """Publishes a source from a thread of its own; the executor only answers ``~/pause``.

    Attributes:
        published: number of images published.

    """

    def __init__(
        self,
        source: Source,
        options: ReplayOptions | None = None,
        *,
        context: Context | None = None,
    ) -> None:
        """Create the topics; nothing is published before :meth:`start`."""
        self._options = options or ReplayOptions()
        rename = _remapping(self._options.image_topic)
        if self._options.follow:
            require_topic_name(self._options.follow)
        super().__init__("replay", context=context, cli_args=rename)
        self._meter = self._metered(source) if self._options.follow else None
        self._source = self._meter or source
        self.published = 0
        self._pace = ReplayClock(paused=self._options.paused)
        self._topics = ReplayTopics(self, self._options)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="replay")
        self.create_service(SetBool, "~/pause", self._pause)
        self.context.on_shutdown(self._end)

    def start(self) -> Future[int]:
        """Begin; the future holds the number of published images, or what went wrong."""
        return self._thread.submit(self._run)

    def stop(self) -> None:
        """End the replay and wait for its thread; do so before rclpy is shut down."""
        self._end()
        self._thread.shutdown()

    def _end(self) -> None:
        self._pace.stop()
        if self._meter:
            self._meter.close()

    def _metered(self, source: Source) -> MeteredSource:
        """Let the node that is followed set the pace."""
        meter = MeteredSource(source, window=UNANSWERED)
        Follower(self, self._options.follow, meter, lambda: self.published)
        return meter

    def _pause(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self._pace.pause(request.data)
        response.success = True
        response.message = "paused" if request.data else "running"
        return response

    def _run(self) -> int:
        try:
            for frame in self._paced():
                self._publish(frame)
                self.published += 1
        except RuntimeError:
            # rclpy's way to say that the context went away under a publisher.
            if self.context.ok():
                raise
        if not self._pace.stopped:
            self._finish()
        return self.published

    def _publish(self, frame: Frame) -> None:
        self._topics.tell_time(frame.stamp)
        now = self.get_clock().now().nanoseconds if self._options.restamp else frame.stamp
        self._topics.publish(frame, now)

    def _paced(self) -> Iterator[Frame]:
        """Yield each frame when it is due, until the end or until stopped."""
        self._announce()
        previous: Frame | None = None
        for frame in self._frames():
            ready = self._follow(previous, frame) if previous else self._begin(frame)
            if not ready:
                return
            yield frame
            previous = frame

    def _frames(self) -> Iterator[Frame]:
        passes = repeat(self._source) if self._options.loop else [self._source]
        return chain.from_iterable(takewhile(lambda _: not self._pace.stopped, passes))

    def _begin(self, first: Frame) -> bool:
        """Wait until the replay runs and has the listeners that it shall wait for."""
        ready = self._pace.wait(0, lambda _: self._topics.tell_time(first.stamp))
        while ready and self._topics.listeners() < self._options.wait_for:
            ready = self._pace.wait(_POLL, lambda _: self._topics.tell_time(first.stamp))
        return ready

    def _follow(self, previous: Frame, frame: Frame) -> bool:
        """Wait from one frame to the next, and let /clock run from one stamp to the other."""
        gap = max(0, frame.stamp - previous.stamp)
        seconds = self._seconds(self._distance(previous, frame))
        per_second = gap / seconds
        return self._pace.wait(
            seconds,
            lambda left: self._topics.tell_time(previous.stamp + gap - round(left * per_second)),
        )

    def _distance(self, previous: Frame, frame: Frame) -> int:
        """Return the nanoseconds between two images, 0 where they take one nominal period."""
        gap = gap_between(previous, frame, self._source.rate)
        if gap.pause and not self._options.fixed_rate:
            self.get_logger().warning(
                f"the recording pauses for {gap.pause / SECOND:.6g} s after image "
                f"{self.published}: cut to {CUT_TO:g} s; --fixed-rate sets a pace of your own"
            )
        return gap.nanoseconds

    def _seconds(self, gap: int) -> float:
        """Turn a distance of stamps into one of time; a step back takes one nominal period."""
        if self._options.fixed_rate:
            return 1 / self._options.fixed_rate
        own = gap / SECOND if gap else 1 / self._source.rate
        return own / self._options.speed

    def _announce(self) -> None:
        options, count = self._options, self._source.frame_count
        waiting = f", waiting for {options.wait_for} subscriber(s)" if options.wait_for else ""
        pause = self.resolve_service_name("~/pause")
        paused = f", paused until {pause} says false" if options.paused else ""
        followed = f", as fast as {options.follow} answers" if options.follow else ""
        self.get_logger().info(
            f"replaying {self._source.name} ({count or 'an unknown number of'} images, about "
            f"{self._source.rate:.4g} Hz) on {self._topics.names}"
            f"{followed}{waiting}{paused}"
        )

    def _finish(self) -> None:
        if not self._topics.flush(_FLUSH):
            self.get_logger().warning(
                f"a subscriber did not acknowledge the last images within {_FLUSH:.0f} s"
            )
        self.get_logger().info(f"the end of {self._source.name}: {self.published} images replayed")


def _remapping(image_topic: str) -> list[str] | None:
    """Rename the images; an argument of the node's own would hide a global remapping.

    Raises:
        ConfigurationError: ROS does not allow such a name, or it is that of compressed images.

    """
    require_topic_name(image_topic)
    if image_topic.endswith(COMPRESSED):
        raise ConfigurationError(
            f"Cannot replay: the image topic is '{image_topic}': give the name of the raw images, "
            f"'{image_topic.removesuffix(COMPRESSED)}'; compressed ones are published beside it."
        )
    renamed = image_topic != "image"
    return ["--ros-args", "--remap", f"image:={image_topic}"] if renamed else None


def replay(
    source: Source, options: ReplayOptions | None = None, *, ros_args: Sequence[str] = ()
) -> int:
    """Replay a source until it ends or somebody interrupts; return the number of images.

    Args:
        source: of the images.
        options: how they are replayed; None for the defaults.
        ros_args: arguments of ROS, such as remappings.

    Raises:
        SourceError: reading failed on the way.

    """
    with _ros(ros_args):
        node = ReplayNode(source, options)
        try:
            with forwarded_logging(node.get_logger(), lambda _: None):
                return _spin(node)
        finally:
            node.stop()
            node.destroy_node()


def _spin(node: ReplayNode) -> int:
    executor = SingleThreadedExecutor(context=node.context)
    executor.add_node(node)
    published = node.start()
    try:
        while not published.done():
            executor.spin_once(timeout_sec=_POLL)
    except (KeyboardInterrupt, ExternalShutdownException):
        node.stop()
    finally:
        executor.shutdown()
    return published.result()


@contextmanager
def _ros(args: Sequence[str]) -> Iterator[None]:
    """Use the ROS context of the process, or one of our own that outlives the publishing thread.

    rclpy's own signal handlers would shut it down under that thread.
    """
    if rclpy.ok():
        yield
        return
    given_domain()
    rclpy.init(args=list(args), signal_handler_options=SignalHandlerOptions.NO)
    try:
        with interruptible():
            yield
    finally:
        rclpy.try_shutdown()


def _parser() -> ArgumentParser:
    parser = ArgumentParser("replay_node", description=__doc__, argument_default=None)
    parser.add_argument("source", help="a directory of images, an image, a video or a bag")
    parser.add_argument("--topic", help="image topic to read, where a bag holds several")
    parser.add_argument("--frame-id", help="replaces the camera's optical frame")
    parser.add_argument("--rate", type=float, help="images per second of a directory or video")
    parser.add_argument("--speed", type=float, help="factor on the recording's pace")
    parser.add_argument("--fixed-rate", type=float, help="images per second, whatever the stamps")
    for name, text in _SWITCHES.items():
        parser.add_argument(name, action="store_true", default=None, help=text)
    parser.add_argument("--wait-for", type=int, help="subscribers to wait for (1)")
    parser.add_argument("--transport", choices=TRANSPORTS, help="image topics (both)")
    parser.add_argument("--image-topic", help="name of the raw images (image)")
    parser.add_argument("--depth", type=int, help="images kept for a slow subscriber (10)")
    parser.add_argument("--follow", help="node, such as /xsvggt, to wait for; loses no image")
    return parser


_SWITCHES = {
    "--loop": "start again at the end",
    "--paused": "start paused, until ~/pause says false",
    "--restamp": "stamp with the time of publishing",
    "--clock": "publish the recording's time on /clock",
    "--best-effort": "publish like a camera driver",
}


def main(args: Sequence[str] | None = None) -> None:
    """Run ``replay_node``; a signal before and after the replay itself ends it quietly."""
    leave_at_signals()
    words = list(sys.argv[1:] if args is None else args)
    given = vars(_parser().parse_args(remove_ros_args(words)))
    known = {field.name for field in fields(ReplayOptions)}
    chosen = {name: value for name, value in given.items() if name in known and value is not None}
    try:
        options = ReplayOptions(**chosen)
        with open_source(
            given["source"],
            rate=given["rate"],
            topic=given["topic"],
            frame_id=given["frame_id"],
        ) as source:
            replay(source, options, ros_args=words)
    except XsvggtError as error:
        sys.exit(f"replay_node: {error}")


if __name__ == "__main__":
    main()
    leave(0)
