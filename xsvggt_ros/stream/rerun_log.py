# SPDX-License-Identifier: Apache-2.0
"""Frames for the Rerun viewer, as they come: into its window, into a file, or both.

Each session has a world of its own, so what belongs to it is logged below ``session_0``,
``session_1``, ... on one timeline, ``stamp``::

    map                        z up, the first camera at the origin
    map/camera                 pose of the optical frame
    map/camera/image           pinhole camera
    map/camera/image/color     the image, JPEG
    map/camera/image/depth     in the model's unit
    map/points                 a sample of the frame's most confident points
    map/path                   from the last camera to this one
    map/true_path              at the end, where the truth is known, laid on the estimated one
    cache/allocated            bytes that the cache takes, scratch included
    cache/uncompressed         bytes that all tokens of the session would take as they came
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xsvggt_ros.errors import EnvironmentMissingError, OutputError
from xsvggt_ros.geometry.files import require_writable

if TYPE_CHECKING:
    from xsvggt_ros.stream.recording import RecordedFrame, TruthComparison

REQUIREMENT = "rerun-sdk>=0.41,<0.42"
"""What pip is asked for; the extra ``rerun`` says the same."""

TIMELINE = "stamp"

MOST_POINTS = 2000
"""Of one frame."""

CONFIDENT_SHARE = 0.75
"""Of a frame's points: those with the highest confidence, as in a ``Recording``."""

_APPLICATION = "xsvggt"
_PORT = 9876
_JPEG_QUALITY = 90
_FLUSH_SECONDS = 30.0


class RerunLog:
    """Hears frames and hands them to Rerun; ``close`` ends it.

    What it holds itself does not grow with the stream, but for a number per session. The viewer
    drops its oldest data when memory runs short.
    """

    def __init__(self, *, viewer: bool = False, file: Path | None = None) -> None:
        """Open the viewer; the file is begun with the first frame.

        Raises:
            EnvironmentMissingError: rerun-sdk is not installed, or there is no display for the
                viewer.
            OutputError: the file cannot be written where it was asked for.

        """
        self._rerun = _import_rerun()
        self._file = file
        self._viewer = viewer
        if file is not None:
            _require_file(file)
        if viewer:
            self._open_viewer()
        self._stream: Any = None
        self._random = np.random.default_rng(0)
        self._lengths: list[int] = []
        self._last: NDArray[np.float64] | None = None

    def log_frame(self, frame: RecordedFrame) -> None:
        """Log a frame.

        Raises:
            OutputError: it is the first one, and the file cannot be written.

        """
        if self._stream is None:
            self._stream = self._connected()
        if frame.index == 0 or not self._lengths:
            self._begin_session()
        self._lengths[-1] += 1
        self._stream.set_time(TIMELINE, timestamp=np.datetime64(frame.stamp, "ns"))
        self._log_camera(frame)
        self._log_points(frame)
        held = frame.cache.allocated + frame.cache.scratch
        self._log("cache/allocated", self._rerun.Scalars(float(held)))
        self._log("cache/uncompressed", self._rerun.Scalars(float(frame.cache.uncompressed)))

    def close(self, comparison: TruthComparison | None = None) -> list[Path]:
        """Log the true path, if any, and hand over what is still under way; return files written.

        What ``comparison`` tells belongs to the longest session. A viewer that was closed in the
        meantime is no error, so what could not be handed over is warned of.
        """
        if self._stream is None:
            return []
        longest = int(np.argmax(self._lengths))
        if comparison is not None and comparison.transform.scale > 0:
            path = true_path_in_map(comparison).astype(np.float32)
            self._log(
                "map/true_path", self._rerun.LineStrips3D([path]), static=True, session=longest
            )
        if longest != len(self._lengths) - 1:
            self._show(longest)
        try:
            self._stream.flush(timeout_sec=_FLUSH_SECONDS)
        except RuntimeError as error:
            logging.getLogger(__name__).warning("not all frames reached Rerun: %s", error)
        self._stream.disconnect()
        return [self._file] if self._file is not None else []

    def _begin_session(self) -> None:
        self._lengths.append(0)
        self._last = None
        self._stream.reset_time()
        self._log("map", self._rerun.ViewCoordinates.RIGHT_HAND_Z_UP, static=True)
        self._show(len(self._lengths) - 1)

    def _log_camera(self, frame: RecordedFrame) -> None:
        rerun, pose = self._rerun, frame.camera_to_map
        here = pose[:3, 3]
        camera = rerun.Transform3D(translation=here, mat3x3=pose[:3, :3])
        pinhole = rerun.Pinhole(
            image_from_camera=frame.intrinsics.matrix(),
            resolution=[frame.intrinsics.width, frame.intrinsics.height],
            camera_xyz=rerun.ViewCoordinates.RDF,
        )
        image = rerun.Image(frame.color).compress(jpeg_quality=_JPEG_QUALITY)
        # NaN and infinity have no place on a scale of colours; 0 lies in the camera itself.
        depth = np.nan_to_num(frame.depth, nan=0.0, posinf=0.0, neginf=0.0)
        self._log("map/camera", camera)
        self._log("map/camera/image", pinhole)
        self._log("map/camera/image/color", image)
        self._log("map/camera/image/depth", rerun.DepthImage(depth, meter=1.0))
        if self._last is not None:
            self._log("map/path", rerun.LineStrips3D([np.stack([self._last, here])]))
        self._last = here

    def _log_points(self, frame: RecordedFrame) -> None:
        points, colors = frame.known_points(CONFIDENT_SHARE)
        if len(points) > MOST_POINTS:
            chosen = self._random.choice(len(points), MOST_POINTS, replace=False)
            points, colors = points[chosen], colors[chosen]
        self._log("map/points", self._rerun.Points3D(points, colors=colors))

    def _log(
        self, name: str, what: object, *, static: bool = False, session: int | None = None
    ) -> None:
        """Log below a session, the newest one unless told."""
        number = len(self._lengths) - 1 if session is None else session
        self._stream.log(f"session_{number}/{name}", what, static=static)

    def _show(self, session: int) -> None:
        """Lay the views out for a session: what was seen of its map by the time of the cursor."""
        views = self._rerun.blueprint
        root = f"session_{session}"
        boundary = self._rerun.TimeRangeBoundary
        so_far = views.VisibleTimeRanges(
            timeline=TIMELINE, start=boundary.infinite(), end=boundary.cursor_relative()
        )
        image = f"{root}/map/camera/image"
        world = views.Spatial3DView(
            origin=f"{root}/map",
            name="map",
            overrides={f"{root}/map/points": so_far, f"{root}/map/path": so_far},
        )
        flat = (
            views.Spatial2DView(origin=image, contents=[f"{image}/{each}"], name=each)
            for each in ("color", "depth")
        )
        chart = views.TimeSeriesView(origin=f"{root}/cache", name="bytes of the cache")
        layout = views.Horizontal(world, views.Vertical(*flat, chart), column_shares=[2, 1])
        panel = views.TimePanel(timeline=TIMELINE)
        self._stream.send_blueprint(views.Blueprint(layout, panel))

    def _open_viewer(self) -> None:
        """Open the window, or find the one that listens already."""
        _require_display()
        beside = Path(sys.executable).with_name("rerun")
        program = str(beside) if beside.is_file() else shutil.which("rerun")
        try:
            self._rerun.spawn(
                port=_PORT,
                connect=False,
                hide_welcome_screen=True,
                executable_path=program,
                recording=self._rerun.RecordingStream(_APPLICATION),  # without one it does nothing
            )
        except RuntimeError as error:
            raise EnvironmentMissingError(
                f"the Rerun viewer does not start ({error}); --rerun-file FILE.rrd writes a "
                "recording for another machine's"
            ) from error

    def _connected(self) -> Any:
        """Return a stream of nothing but our timeline into window and file."""
        rerun = self._rerun
        stream = rerun.RecordingStream(_APPLICATION)
        stream.set_log_time_enabled(False)
        stream.set_log_tick_enabled(False)
        sinks = [rerun.GrpcSink(f"rerun+http://127.0.0.1:{_PORT}/proxy")] if self._viewer else []
        try:
            if self._file is not None:
                self._file.parent.mkdir(parents=True, exist_ok=True)
                sinks.append(rerun.FileSink(self._file))
            stream.set_sinks(*sinks)
        except (OSError, RuntimeError) as error:
            raise OutputError(
                f"'{self._file}' cannot be written ({error}); give --rerun-file another place"
            ) from error
        return stream


def true_path_in_map(comparison: TruthComparison) -> NDArray[np.float64]:
    """Return where the camera was, float64 [n, 3], in the map frame and the model's unit.

    The inverse of the motion that lays the estimated path on the true one; its scale must not be 0.
    """
    motion = comparison.transform
    return (comparison.true_positions - motion.translation) @ motion.rotation / motion.scale


def _import_rerun() -> Any:
    """Return the package rerun, all of it loaded before the first frame comes."""
    try:
        import rerun
        import rerun.blueprint
    except ImportError as error:
        raise EnvironmentMissingError(
            f"--rerun and --rerun-file need rerun-sdk, which cannot be imported ({error}): "
            f"pip install '{REQUIREMENT}' (Python 3.11 or newer, numpy 2)"
        ) from error
    return rerun


def _require_file(file: Path) -> None:
    """Raise OutputError where no file of that name can be written."""
    if file.is_dir():
        raise OutputError(f"'{file}' is a directory; give --rerun-file a name such as run.rrd")
    require_writable(file.parent)


def _require_display() -> None:
    """Raise EnvironmentMissingError on a Linux machine that shows no windows.

    The viewer starts without one and ends a moment later, when nobody hears of it.
    """
    names = ("DISPLAY", "WAYLAND_DISPLAY", "WAYLAND_SOCKET")
    if sys.platform.startswith("linux") and not any(os.environ.get(name) for name in names):
        raise EnvironmentMissingError(
            "--rerun opens a window, and there is no display (neither DISPLAY nor WAYLAND_DISPLAY "
            "is set); --rerun-file FILE.rrd writes a recording for another machine's viewer"
        )
