# SPDX-License-Identifier: Apache-2.0
"""How many points of people get into the map, and how many of the room are lost for it.

    python benchmarks/moving_people.py [--scenes NAME ...] [--seeds N] [--held-out NAME ...]

People are a box for the legs, a cylinder for the body and one for the head. They walk through a
furnished room of 8 x 6 x 2.8 m whose depth is exact, or has errors of 2 %: of each pixel alone, or
smooth over the image and of the frame as a whole. A point of a person is in the map if its voxel is
held at the end and no point of the room fell into it; one of the room is lost if its voxel is not.
Held-out sequences show nobody: with true poses and depth, and as the demo network sees them.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import argparse
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from xsvggt_ros.cache.layout import CacheStatistics
from xsvggt_ros.errors import XsvggtError
from xsvggt_ros.geometry import voxel_table
from xsvggt_ros.geometry.cameras import Intrinsics, unproject
from xsvggt_ros.geometry.rigid import Matrix
from xsvggt_ros.geometry.voxel_map import VoxelSettings
from xsvggt_ros.model.checkpoint import load_network
from xsvggt_ros.model.config import BUNDLED
from xsvggt_ros.stream.frame import Frame, FrameResult, ImageMapping, Timings
from xsvggt_ros.stream.mapping import MapBuilder, MapSettings, chosen_pixels, points_of
from xsvggt_ros.stream.reconstructor import Reconstructor, ReconstructorSettings
from xsvggt_ros.stream.worker import reconstruct
from xsvggt_ros.synthetic.sequence import SUITE, Sequence, SyntheticFrame, held_out

WIDTH, HEIGHT = 160, 120
CAMERA = Intrinsics(110.0, 110.0, 80.0, 60.0, WIDTH, HEIGHT)
FRAMES, RATE = 80, 10
VOXEL = 0.05
ERROR = 0.02
NOISES = ("exact", "pixels", "smooth")
ROOM_LOW, ROOM_HIGH = np.array([-4.02, -3.01, 0.0]), np.array([4.02, 3.01, 2.8])
FURNITURE = (
    ((1.5, 1.9, 0.0), (2.6, 2.7, 0.75)),
    ((2.9, -2.8, 0.0), (3.8, -1.6, 1.9)),
    ((0.3, -2.6, 0.0), (0.75, -2.2, 0.45)),
)

Floats = NDArray[np.float64]
Path = Callable[[float], tuple[float, float]]


@dataclass(frozen=True)
class Scene:
    """People by their paths, and a camera by its own: metres, and radians, at a time in seconds."""

    people: tuple[Path, ...]
    camera: Callable[[float], tuple[float, float, float]]


def still(_: float) -> tuple[float, float, float]:
    """Return the pose of a camera that stands: x, y and heading."""
    return -3.4, 0.0, 0.0


def driving(seconds: float) -> tuple[float, float, float]:
    """Return the pose of a camera that drives ahead and looks around."""
    return -3.4 + 0.25 * seconds, 0.5 * np.sin(0.4 * seconds), 0.35 * np.sin(0.5 * seconds)


def crosses(y: float, speed: float, x: float) -> Path:
    """Return the path of somebody who walks across, from ``y`` on."""
    return lambda seconds: (x, y + speed * seconds)


def approaches(seconds: float) -> tuple[float, float]:
    """Return the path of somebody who comes nearer and turns aside."""
    return 2.6 - 0.45 * seconds, 0.2 * seconds


def stands_then_leaves(seconds: float) -> tuple[float, float]:
    """Return the path of somebody who stands for four seconds and walks out of the image."""
    return 1.0, 0.4 + 1.2 * max(0.0, seconds - 4)


SCENES = {
    "still": Scene((crosses(-2.6, 0.6, 0.6), crosses(2.4, -0.7, 2.0)), still),
    "driving": Scene((crosses(-2.4, 0.6, 2.2), approaches), driving),
    "stands": Scene((stands_then_leaves,), still),
    "stands, driving": Scene((stands_then_leaves,), driving),
    "nobody": Scene((), driving),
}


@dataclass(frozen=True)
class Outcome:
    """Shares of points: of people, those in the map; of the room, those lost."""

    people: float
    lost: float
    points: int

    def __str__(self) -> str:
        return f"{self.people:8.2%} {self.lost:8.2%} {self.points:9d}"


def measure(
    scene: Scene, noise: str, settings: MapSettings, seed: int = 0, unit: float = 1.0
) -> tuple[Outcome, MapBuilder]:
    """Map a scene in an ``unit`` (units per metre) and count."""
    return count(frames(scene, noise, seed, unit), settings)


def count(
    stream: Iterable[tuple[FrameResult, NDArray[np.bool_]]], settings: MapSettings
) -> tuple[Outcome, MapBuilder]:
    """Map results whose pixels are of people where told, and count."""
    builder = MapBuilder()
    keys: dict[bool, list[NDArray[np.int64]]] = {True: [], False: []}
    for result, moving in stream:
        pose = result.camera_to_world
        builder.add(result, pose, settings)
        pixels = chosen_pixels(result, settings)
        scaled = points_of(result, pixels, pose) * np.float32(1 / settings.voxels.voxel_size)
        cells = np.floor(scaled).astype(np.int64)
        is_person = moving.ravel()[pixels]
        for kind in keys:
            keys[kind].append(voxel_table.pack(cells[:, is_person == kind]))
    people, room = np.concatenate(keys[True]), np.concatenate(keys[False])
    assert builder.map is not None
    held = builder.map.keys()
    inside = np.isin(people, held) & ~np.isin(people, room)
    lost = ~np.isin(room, held)
    return Outcome(
        float(inside.mean()) if len(people) else 0.0, float(lost.mean()), len(people)
    ), builder


def frames(
    scene: Scene, noise: str, seed: int, unit: float
) -> Iterator[tuple[FrameResult, NDArray[np.bool_]]]:
    """Yield what an engine would say of each image, and which of its pixels show people."""
    random = np.random.default_rng(seed)
    for index in range(FRAMES):
        seconds = index / RATE
        pose = pose_of(*scene.camera(seconds))
        rays = unproject(np.ones((HEIGHT, WIDTH), np.float32), CAMERA).astype(float)
        rays = rays @ pose[:3, :3].T
        origin = pose[:3, 3]
        depth = room_depth(origin, rays)
        person = np.full(depth.shape, np.inf)
        for path in scene.people:
            person = np.minimum(person, person_depth(origin, rays, *path(seconds)))
        moving = person < depth
        true = np.minimum(depth, person)
        seen = (true * errors(noise, random)).astype(np.float32)
        pose[:3, 3] *= unit
        yield result_of(index, pose, seen * np.float32(unit), CAMERA), moving


def errors(noise: str, random: np.random.Generator) -> Floats:
    """Return factors on depth, [h, w]."""
    if noise == "exact":
        return np.ones((HEIGHT, WIDTH))
    if noise == "pixels":
        return 1 + random.normal(0, ERROR, (HEIGHT, WIDTH))
    coarse = random.normal(0, ERROR / np.sqrt(2), (HEIGHT // 20, WIDTH // 20))
    smooth = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    return np.asarray(1 + smooth + random.normal(0, ERROR / np.sqrt(2)))


def pose_of(x: float, y: float, heading: float) -> Matrix:
    """Return the pose of an optical frame 1.3 m above the floor, looking along its heading."""
    pose = np.eye(4)
    cosine, sine = np.cos(heading), np.sin(heading)
    pose[:3, :3] = np.array([[sine, 0, cosine], [-cosine, 0, sine], [0, -1, 0]])
    pose[:3, 3] = x, y, 1.3
    return pose


def room_depth(origin: Floats, rays: Floats) -> Floats:
    """Return depth [h, w] of the room without people."""
    with np.errstate(divide="ignore", invalid="ignore"):
        walls = np.where(rays > 0, ROOM_HIGH - origin, ROOM_LOW - origin) / rays
    depth = np.nanmin(np.where(rays == 0, np.inf, walls), axis=-1)
    for low, high in FURNITURE:
        depth = np.minimum(depth, box_depth(origin, rays, np.array(low), np.array(high)))
    return np.asarray(depth)


def person_depth(origin: Floats, rays: Floats, x: float, y: float) -> Floats:
    """Return depth [h, w] of a person whose feet are at x, y; infinity beside them."""
    legs = box_depth(
        origin, rays, np.array([x - 0.12, y - 0.2, 0.0]), np.array([x + 0.12, y + 0.2, 0.8])
    )
    body = post_depth(origin, rays, (x, y), 0.24, 0.8, 1.45)
    head = post_depth(origin, rays, (x, y), 0.11, 1.45, 1.75)
    return np.minimum(legs, np.minimum(body, head))


def box_depth(origin: Floats, rays: Floats, low: Floats, high: Floats) -> Floats:
    """Return depth [h, w] of a box along the axes."""
    with np.errstate(divide="ignore", invalid="ignore"):
        one, other = (low - origin) / rays, (high - origin) / rays
    enters = np.nanmax(np.minimum(one, other), axis=-1)
    leaves = np.nanmin(np.maximum(one, other), axis=-1)
    return np.where((enters < leaves) & (enters > 0.05), enters, np.inf)


def post_depth(
    origin: Floats, rays: Floats, foot: tuple[float, float], radius: float, low: float, high: float
) -> Floats:
    """Return depth [h, w] of the side of an upright cylinder."""
    offset = origin[:2] - np.array(foot)
    a = (rays[..., :2] ** 2).sum(-1)
    b = rays[..., :2] @ offset
    inside = b**2 - a * (offset @ offset - radius**2)
    with np.errstate(invalid="ignore", divide="ignore"):
        depth = (-b - np.sqrt(inside)) / a
        height = origin[2] + depth * rays[..., 2]
    hit = (inside > 0) & (depth > 0.05) & (height >= low) & (height <= high)
    return np.where(hit, depth, np.inf)


def result_of(
    index: int, pose: Matrix, depth: NDArray[np.float32], camera: Intrinsics
) -> FrameResult:
    """Return what the engine would make of an image."""
    height, width = depth.shape
    return FrameResult(
        index=index,
        stamp=10**9 + index * 10**9 // RATE,
        frame_id="camera",
        camera_to_world=pose,
        intrinsics=camera,
        intrinsics_source="predicted",
        depth=depth,
        confidence=np.full(depth.shape, 2.0, np.float32),
        color=np.zeros((*depth.shape, 3), np.uint8),
        mapping=ImageMapping(width, height, width, height, height, 0),
        cache=CacheStatistics("none", 0, 1, 16, 16, 1, 1, 1, 1, 0, 0, (1,)),
        timings=Timings(),
    )


def held_out_true(
    sequence: Sequence, noise: str
) -> Iterator[tuple[FrameResult, NDArray[np.bool_]]]:
    """Yield the truth of a held-out sequence, with errors of depth."""
    random = np.random.default_rng(0)
    for index, frame in enumerate(sequence):
        depth = frame.depth * cv2.resize(errors(noise, random), frame.depth.shape[::-1])
        result = result_of(index, frame.camera_to_world, depth.astype(np.float32), frame.intrinsics)
        yield result, np.zeros(depth.shape, bool)


def held_out_network(sequence: Sequence) -> Iterator[tuple[FrameResult, NDArray[np.bool_]]]:
    """Yield what the demo network makes of a held-out sequence."""
    network = load_network(BUNDLED)
    engine = Reconstructor(network, ReconstructorSettings(network.config.image_size))
    images = map(image_of, sequence)
    for result in reconstruct(images, engine, refuse):
        yield result, np.zeros(result.depth.shape, bool)


def image_of(frame: SyntheticFrame) -> Frame:
    """Return a frame as the engine takes it."""
    return Frame(frame.stamp, "camera", lambda: frame.color)


def refuse(frame: Frame, error: XsvggtError) -> None:
    """End where an image is refused."""
    raise error


def measure_held_out(name: str) -> None:
    """Print what is lost of a sequence that shows nobody."""
    sequence = Sequence(held_out(name))
    streams = {noise: list(held_out_true(sequence, noise)) for noise in NOISES}
    streams["network"] = list(held_out_network(sequence))
    for noise, stream in streams.items():
        depths = np.concatenate([result.depth.ravel() for result, _ in stream])
        voxels = VoxelSettings(VOXEL / 3 * float(np.median(depths)), 1_000_000)
        outcome, builder = count(stream, replace(settings_for(), voxels=voxels))
        points = sum(len(chosen_pixels(result, MapSettings(voxels))) for result, _ in stream)
        print(
            f"{name:16} {noise:7} on     {outcome.lost:17.2%}   held back "
            f"{builder.held_back / points:.2%}, voxels cleared {builder.cleared}"
        )


def settings_for(unit: float = 1.0, *, filtering: bool = True) -> MapSettings:
    """Return the settings of the map, with the node's defaults or without looking for movers."""
    voxels = VoxelSettings(VOXEL * unit, 1_000_000)
    return (
        MapSettings(voxels, clear_after=3, movers_delay=8.0) if filtering else MapSettings(voxels)
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", nargs="*", choices=SCENES, default=list(SCENES))
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--held-out", nargs="+", default=[], choices=[each.name for each in SUITE])
    arguments = parser.parse_args()
    print(f"{FRAMES} images, voxels of {VOXEL} m; shares of points")
    print(f"{'scene':16} {'depth':7} {'filter':6} {'people':>8} {'lost':>8} {'of people':>9}")
    for name in arguments.scenes:
        for noise in NOISES:
            for filtering in (False, True):
                for seed in range(1 if noise == "exact" else arguments.seeds):
                    outcome, _ = measure(
                        SCENES[name], noise, settings_for(filtering=filtering), seed
                    )
                    print(f"{name:16} {noise:7} {'on' if filtering else 'off':6} {outcome}")
    for name in arguments.held_out:
        measure_held_out(name)


if __name__ == "__main__":
    main()
