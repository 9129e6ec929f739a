# SPDX-License-Identifier: Apache-2.0
"""What the map costs: one image of 300 k points, packing 300 k voxels, and two million in memory.

    python benchmarks/map.py [--frames N]

A camera turns in an empty room of 8 x 6 x 3 m and measures depth to a centimetre. Times are of one
thread, by the clock and by the processor's time: on a busy machine only the latter means something.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import argparse
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import perf_counter, thread_time

import numpy as np
from numpy.typing import NDArray

from xsvggt_ros.cache.layout import CacheStatistics
from xsvggt_ros.geometry.cameras import Intrinsics
from xsvggt_ros.geometry.rigid import Matrix, world_to_map
from xsvggt_ros.geometry.voxel_map import VoxelMap, VoxelSettings
from xsvggt_ros.stream.frame import FrameResult, ImageMapping, Timings
from xsvggt_ros.stream.mapping import MapBuilder, MapSettings, chosen_pixels

WIDTH, HEIGHT = 640, 480
CAMERA = Intrinsics(500.0, 500.0, 320.0, 240.0, WIDTH, HEIGHT)
HALF_ROOM = np.array([4.03, 1.52, 3.01])
NOISE = 0.01
TURN = 0.05
REACH_MS, REACH_BYTES = 25.0, 200e6
POINT_BYTES = 20
MANY = 2_000_000
RANDOM = np.random.default_rng(0)


@dataclass
class Times:
    """Milliseconds of one thing, by the clock and by the processor's time."""

    clock: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)

    def run(self, action: Callable[[], None]) -> None:
        """Time one more."""
        clock, processor = perf_counter(), thread_time()
        action()
        self.processor.append(1000 * (thread_time() - processor))
        self.clock.append(1000 * (perf_counter() - clock))

    def __str__(self) -> str:
        median, p95 = np.percentile(self.processor, [50, 95])
        return f"{median:6.1f} {p95:6.1f}   (clock {np.median(self.clock):6.1f})"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=60)
    frames = parser.parse_args().frames
    print(f"{WIDTH * HEIGHT} points an image, {frames} images, processor's ms: median, p95")
    for size in (0.05, 0.025, 0.01):
        measure_room(size, frames)
    measure_scattered(frames)
    measure_many()


def measure_room(voxel_size: float, frames: int) -> None:
    """Look around in a room, without and with an eye for what moves."""
    voxels = VoxelSettings(voxel_size, 1_000_000)
    plain, filtering = MapSettings(voxels), MapSettings(voxels, clear_after=3, movers_delay=8.0)
    for name, settings in (("", plain), (", movers held back and rays cleared", filtering)):
        measure_looks(name, settings, frames)


def measure_looks(name: str, settings: MapSettings, frames: int) -> None:
    """Look around with some settings."""
    builder = MapBuilder()
    update, taken = Times(), list[int]()
    for index in range(frames):
        result = look(index)
        pose = world_to_map(result.camera_to_world)
        update.run(partial(builder.add, result, pose, settings))
        taken.append(len(chosen_pixels(result, settings)))
    assert builder.map is not None
    share = np.mean(taken) / result.depth.size
    size = settings.voxels.voxel_size
    report(f"room, voxels of {size:g} m, {share:.0%} of the points{name}", update, builder.map)


def measure_scattered(frames: int) -> None:
    """Put points into 300 k voxels in no order at all, which no camera does."""
    held = VoxelMap(VoxelSettings(1.0, 1_000_000))
    update = Times()
    colors = RANDOM.integers(0, 256, (300_000, 3), np.uint8)
    ones = np.ones(300_000, np.float32)
    for _ in range(frames):
        points = (RANDOM.random((300_000, 3)) * 66.94).astype(np.float32)
        update.run(partial(held.add, points, colors, ones))
    report("no order, voxels anywhere", update, held)


def report(name: str, update: Times, held: VoxelMap) -> None:
    """Print what an image and a publication cost."""
    packing = Times()
    rows = message_rows(len(held))
    for _ in range(15):
        packing.run(partial(held.pack, rows))
    both = np.median(update.processor) + np.median(packing.processor)
    print(f"{name}: {len(held)} voxels, {held.evicted} evicted")
    print(f"  update {update}")
    print(f"  pack   {packing}")
    verdict = "holds" if both <= REACH_MS else "MISSED"
    print(f"  both   {both:6.1f}          reach <= {REACH_MS:g} ms: {verdict}")


def measure_many() -> None:
    """Fill a map with two million voxels, and go on."""
    before = resident()
    held = VoxelMap(VoxelSettings(0.05, MANY))
    update, churn = Times(), Times()
    while not held.evicted:
        update.run(partial(add, held, scattered()))
    for _ in range(40):
        churn.run(partial(add, held, scattered()))
    rows = message_rows(len(held))
    held.pack(rows)
    allocated = held.nbytes + rows.nbytes
    print(f"{MANY} voxels at most: {len(held)} held, {held.evicted} evicted")
    print(f"  100 k new voxels while it grows {update}")
    print(f"  100 k new voxels when it is full {churn}   slowest {max(churn.processor):.1f}")
    print(f"  allocated {allocated / 1e6:.0f} MB, {rows.nbytes / 1e6:.0f} of it the packed message")
    print(f"  resident  {(resident() - before) / 1e6:.0f} MB")
    verdict = "holds" if allocated <= REACH_BYTES else "MISSED"
    print(f"  reach <= {REACH_BYTES / 1e6:.0f} MB: {verdict}")


def scattered() -> NDArray[np.float32]:
    """Return points of which nearly each has a voxel of its own."""
    return (RANDOM.random((100_000, 3)) * 60).astype(np.float32)


def add(held: VoxelMap, points: NDArray[np.float32]) -> None:
    """Take points in, grey."""
    held.add(points, np.full(points.shape, 128, np.uint8), np.ones(len(points), np.float32))


def message_rows(count: int) -> NDArray[np.float32]:
    """Return the data of a message as the node packs it."""
    return np.frombuffer(array("B", bytes(count * POINT_BYTES)), np.float32).reshape(count, 5)


def look(index: int) -> FrameResult:
    """Return what the engine would make of one image of the room."""
    pose = turned(index * TURN)
    u, v = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    rays = np.stack(
        [(u - CAMERA.cx) / CAMERA.fx, (v - CAMERA.cy) / CAMERA.fy, np.ones_like(u, float)], axis=-1
    )
    world = rays @ pose[:3, :3].T
    walls = np.copysign(HALF_ROOM, world) - pose[:3, 3]
    with np.errstate(divide="ignore"):
        depth = np.min(walls / world, axis=-1)
    noisy = (depth + RANDOM.normal(0, NOISE, depth.shape)).astype(np.float32)
    return FrameResult(
        index=index,
        stamp=1 + index,
        frame_id="camera",
        camera_to_world=pose,
        intrinsics=CAMERA,
        intrinsics_source="predicted",
        depth=noisy,
        confidence=np.full(noisy.shape, 2.0, np.float32),
        color=np.broadcast_to((64 * depth)[..., None], (HEIGHT, WIDTH, 3)).astype(np.uint8),
        mapping=ImageMapping(WIDTH, HEIGHT, WIDTH, HEIGHT, HEIGHT, 0),
        cache=CacheStatistics("none", 0, 1, 16, 16, 1, 1, 1, 1, 0, 0, (1,)),
        timings=Timings(),
    )


def turned(angle: float) -> Matrix:
    """Return the pose of a camera that looks around, 30 cm off the middle of the room."""
    pose = np.eye(4)
    cosine, sine = np.cos(angle), np.sin(angle)
    pose[:3, :3] = [[cosine, 0, sine], [0, 1, 0], [-sine, 0, cosine]]
    pose[:3, 3] = 0.3 * cosine, 0.0, 0.3 * sine
    return pose


def resident() -> int:
    """Return the bytes of memory that this process has."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()
