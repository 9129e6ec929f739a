# SPDX-License-Identifier: Apache-2.0
"""Whether steps and poses are as wrong as they say, on rooms that decide the constants.

    python benchmarks/steps.py [--rooms N] [--motions NAME ...] [--frames N] [--first-seed N]

The demo network walks through rooms that it was not trained on and that are not held out either.
Constants of `geometry/step_covariance.py` are such that about 95 % of the steps through 20 rooms of
100 frames (`--rooms 5`) lie within the 95 % region, and as many of those of `chain.py`. How long
errors are taken to last until the images have shown it, in `geometry/pose_covariance.py`, is such
that NEES/6 is near 1 for poses over 10, 50 and 200 frames, over 18 rooms of 300. On rooms from
`--first-seed 800001000` no constant was fitted.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import logging
from functools import partial

import numpy as np
from intervals import mean_of

from xsvggt_ros.evaluation.odometry import AFTERWARDS, OdometryEvaluator, OdometryScores
from xsvggt_ros.evaluation.sources.base import FrameTruth
from xsvggt_ros.metrics.odometry import SPANS
from xsvggt_ros.model.checkpoint import load_network
from xsvggt_ros.model.config import BUNDLED
from xsvggt_ros.model.network import StreamVggt
from xsvggt_ros.stream.chain import ChainedReconstructor
from xsvggt_ros.stream.frame import Frame, FrameUpdate
from xsvggt_ros.stream.pipeline import FramePipeline, PipelineHooks
from xsvggt_ros.stream.reconstructor import ReconstructorSettings
from xsvggt_ros.synthetic.motion import MotionSettings
from xsvggt_ros.synthetic.sequence import (
    DEFAULT_ROOM,
    Sequence,
    SequenceSettings,
    held_out,
)

FIRST_SEED = 800_000_000
"""Training has used none of the seeds from here to the held-out ones."""
MOTIONS = ("walk", "drive", "pan", "handheld")


def settings_of(motion: str, seed: int, frames: int) -> SequenceSettings:
    """Return a sequence like the held-out ones, of another room."""
    like = held_out("medium_walk", DEFAULT_ROOM)
    return SequenceSettings(
        seed=seed, frames=frames, width=like.width, height=like.height, room=like.room,
        motion=MotionSettings(motion), quality=like.quality,
    )  # fmt: skip


def measure(network: StreamVggt, settings: SequenceSettings) -> OdometryScores:
    """Return the scores of one sequence."""
    engine = ChainedReconstructor(network, ReconstructorSettings(network.config.image_size))
    updates: list[FrameUpdate] = []
    pipeline = FramePipeline(engine, PipelineHooks(report=updates.append))
    evaluator = OdometryEvaluator("auto")
    for frame in Sequence(settings):
        pipeline.process(Frame(frame.stamp, "camera", partial(np.asarray, frame.color)))
        truth = FrameTruth(frame.camera_to_world, frame.depth, frame.intrinsics)
        while updates:
            update = updates.pop(0)
            evaluator.add(update.result, truth, lost=update.degraded)
    return evaluator.scores([])


def main() -> None:
    """Print a line for each sequence, and the mean."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rooms", type=int, default=3, help="of each motion")
    parser.add_argument("--motions", nargs="+", default=list(MOTIONS))
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    network = load_network(BUNDLED)
    found: list[list[float]] = []
    over = ["in the map", *(f"over {frames} frames" for frames in SPANS)]
    columns = ["motion", "seed", "NEES/6", "within 95 %", "largest, sigma", "error, mm", "degrees"]
    print("| " + " | ".join([*columns, *over]) + " |")
    print("|---" * (len(columns) + len(over)) + "|")
    for room in range(options.rooms):
        for place, motion in enumerate(options.motions):
            seed = options.first_seed + room * len(options.motions) + place
            scores = measure(network, settings_of(motion, seed, options.frames))
            score = scores.steps[AFTERWARDS]
            poses = {each.frames: float(each.nees.mean()) for each in scores.poses[AFTERWARDS]}
            nees, sigmas = float(score.nees.mean()), float(score.sigmas.max())
            in_map = float(scores.map_poses[AFTERWARDS].nees.mean())
            of_poses = [in_map, *(poses.get(each, np.nan) for each in SPANS)]
            found.append([nees, score.coverage, sigmas, *of_poses])
            shown = " | ".join(f"{each:.2f}" for each in of_poses)
            print(
                f"| {motion} | {seed} | {nees:.2f} | {score.coverage:.1%} | {sigmas:.1f} | "
                f"{1e3 * score.translation.rmse:.1f} | {score.rotation.rmse:.3f} | {shown} |",
                flush=True,
            )
    print(f"means over {len(found)} rooms, 95 % intervals from resampled rooms:")
    names = ("NEES/6", "share within 95 %", "largest, sigma", *(f"NEES/6 {each}" for each in over))
    for name, values in zip(names, np.array(found).T, strict=True):
        there = values[np.isfinite(values)]
        shown = mean_of(there).show() if len(there) else "no room is long enough"
        print(f"  {name}: {shown}")


if __name__ == "__main__":
    main()
