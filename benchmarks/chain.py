# SPDX-License-Identifier: Apache-2.0
"""A stream of thousands of frames in one world: joins, odometry, memory and time.

    python benchmarks/chain.py [--frames N] [--length N] [--blank]

The engine runs as it is, with the smallest network, whose answers are replaced: depth of an empty
room, its camera's poses, both with errors that are alike over the image, and its images, in another
unit for each gauge (0.2 to 5). A fixed amount of other work is timed as well, since what else
runs on a machine slows both.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import logging
from dataclasses import replace
from pathlib import Path
from time import thread_time

import numpy as np
from pose_views import Errors, camera, head_pose, noise, room_depth, room_image, walk

from xsvggt_ros.cache.kv_cache import KvCache
from xsvggt_ros.geometry.pose_covariance import USUAL_PERSISTENCE
from xsvggt_ros.geometry.rigid import Matrix, invert
from xsvggt_ros.metrics.odometry import score_poses, score_steps
from xsvggt_ros.model.checkpoint import random_network
from xsvggt_ros.model.config import PRESETS
from xsvggt_ros.stream.chain import ChainedReconstructor
from xsvggt_ros.stream.chain_settings import ChainSettings
from xsvggt_ros.stream.frame import FrameResult
from xsvggt_ros.stream.reconstructor import Arrival, Reconstructor, ReconstructorSettings

ERRORS = Errors(4.0, 0.0, along=0.05, turn=0.2, way=0.01)
SCALE_ERROR = 0.07
"""Of all depths of a frame together, as a share; like the fields of errors, it changes slowly."""
KEPT = 0.95
"""Share of an error that stays until the next frame."""
SECOND = 10**9
SIDE = 28
FIELDS = 100
"""Made-up fields of errors, drawn again and again."""
SIGMAS = 3.0
HONEST = 0.0161
"""Share of steps of which one of six components is beyond that, if errors are as they are said."""
PART = 0.1
"""Share of the frames at either end that is compared."""


class WalkedRoom:
    """Answers in the network's place."""

    def __init__(self, frames: int, *, blank: bool) -> None:
        self._random = np.random.default_rng(0)
        self._blank = blank
        self.truth = walk(self._random, frames)
        self._noise = [noise(self._random, ERRORS.length, 4) for _ in range(FIELDS)]
        self._field, self._whole = self._noise[0], 0.0
        self._gauges: dict[KvCache, tuple[float, Matrix]] = {}
        self._answered = -1
        self._run = Reconstructor._run

    def __enter__(self) -> WalkedRoom:
        """Begin to answer."""

        def answers(engine: Reconstructor, frames: list[Arrival]) -> list[FrameResult]:
            return [self._answer(engine, result) for result in self._run(engine, frames)]

        Reconstructor._run = answers  # type: ignore[assignment,method-assign]
        return self

    def __exit__(self, *_: object) -> None:
        """Let the network answer again."""
        Reconstructor._run = self._run  # type: ignore[method-assign]

    def _answer(self, engine: Reconstructor, result: FrameResult) -> FrameResult:
        pose = self.truth[result.stamp // SECOND]
        if engine._cache not in self._gauges:
            if len(self._gauges) > 2:  # only two run at a time
                self._gauges.pop(next(iter(self._gauges)))
            unit = float(np.exp(self._random.uniform(np.log(0.2), np.log(5.0))))
            self._gauges[engine._cache] = unit if self._gauges else 1.0, pose
        unit, first = self._gauges[engine._cache]
        seen = invert(first) @ head_pose(self._random, pose, ERRORS)
        seen[:3, 3] *= unit
        intrinsics = camera(4)
        if result.stamp != self._answered:
            self._answered = result.stamp
            self._image = room_image(pose, intrinsics)
            fresh = self._noise[self._random.integers(len(self._noise))]
            part = np.sqrt(1.0 - KEPT**2)
            self._field = KEPT * self._field + part * fresh
            self._whole = KEPT * self._whole + part * self._random.standard_normal()
        error = 1.0 + ERRORS.along * self._field + SCALE_ERROR * self._whole
        depth = room_depth(pose, intrinsics) * error * unit
        return replace(
            result,
            camera_to_world=seen,
            intrinsics=intrinsics,
            color=result.color if self._blank else self._image,
            depth=depth.astype(np.float32),
            confidence=np.full(depth.shape, 5.0, np.float32),
            pose_source="predicted",
            head_change=np.zeros(6),
        )


def reference_seconds() -> float:
    """Return the processor's time of a fixed amount of work."""
    work = np.arange(20_000.0)
    started = thread_time()
    for _ in range(20):
        np.sqrt(work).sum()
    return thread_time() - started


def resident_bytes() -> int:
    """Return what the process holds of the machine's memory."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    """Run the stream and print what came of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=10_000)
    parser.add_argument("--length", type=int, default=ChainSettings().length)
    parser.add_argument("--blank", action="store_true", help="black images: only depth tells steps")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    network = random_network(PRESETS["tiny"], 1).eval().requires_grad_(False)
    engine = ChainedReconstructor(
        network, ReconstructorSettings(SIDE), chain=ChainSettings(length=options.length)
    )
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    # All memory of the records is taken now: the process is to hold as much at the end as before.
    seconds, reference, held = np.full((3, options.frames), np.nan)
    steps, true_steps = np.full((2, options.frames - 1, 4, 4), np.nan)
    covariances = np.full((options.frames - 1, 6, 6), np.nan)
    joined = np.zeros(options.frames - 1, bool)
    persistences = [USUAL_PERSISTENCE] * (options.frames - 1)
    refused = 0
    with WalkedRoom(options.frames, blank=options.blank) as room:
        for index, pose in enumerate(room.truth):
            started = thread_time()
            result = engine.step(image, stamp=index * SECOND)
            seconds[index] = thread_time() - started
            reference[index] = reference_seconds()
            held[index] = resident_bytes()
            change = result.gauge_change
            refused += bool(change and change.objection)
            if index:
                assert result.motion is not None
                steps[index - 1] = result.motion.step
                true_steps[index - 1] = invert(room.truth[index - 1]) @ pose
                covariances[index - 1] = result.motion.step_covariance
                persistences[index - 1] = result.motion.persistence
                joined[index - 1] = change is not None and not change.objection
            last = result
    part = max(1, int(PART * options.frames))
    print(f"sessions {engine.session}, joins {last.joins}, refused {refused}")
    followed = steps, true_steps, covariances
    score = score_steps(*followed, "se3")
    for name, found, unit in (("mm", score.translation, 1e3), ("degrees", score.rotation, 1.0)):
        print(f"error of a step, {name}: {unit * found.rmse:.3f}, at most {unit * found.max:.3f}")
    print(f"NEES/6 of steps {score.nees.mean():.2f}, {score.coverage:.1%} in the 95 % region")
    print(
        f"largest component of a step's error {score.sigmas.max():.2f} sigma; beyond {SIGMAS:g}: "
        f"{np.mean(score.sigmas > SIGMAS):.2%} of the steps, {HONEST:.2%} by chance"
    )
    across = score.sigmas[joined]
    if len(across):
        print(
            f"across the {len(across)} joins: at most {across.max():.2f} sigma, "
            f"{np.sum(across > SIGMAS)} beyond {SIGMAS:g}"
        )
    for summed in score_poses(*followed, persistences, [np.arange(len(steps))], "se3"):
        print(
            f"NEES/6 of poses over {summed.frames} frames {summed.nees.mean():.2f}, "
            f"{summed.coverage:.1%} in the 95 % region"
        )
    relative = seconds / reference
    for name, values, scale in (
        ("ms a frame", seconds, 1e3), ("over the other work", relative, 1.0),
        ("MiB held", held, 2**-20),
    ):  # fmt: skip
        early, late = (
            scale * float(np.median(each)) for each in (values[part : 2 * part], values[-part:])
        )
        print(f"{name}: {early:.2f} early, {late:.2f} late, ratio {late / early:.3f}")


if __name__ == "__main__":
    main()
