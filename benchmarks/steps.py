# SPDX-License-Identifier: Apache-2.0
"""Whether steps in odom are as wrong as their covariances say, on rooms that decide the constants.

    python benchmarks/steps.py [--rooms N] [--motions NAME ...] [--frames N]

The demo network walks through rooms that it was not trained on and that are not held out either;
constants of `geometry/step_covariance.py` are such that the mean NEES/6 over them is 1.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import logging
from functools import partial

import numpy as np

from xsvggt_ros.evaluation.odometry import AFTERWARDS, OdometryEvaluator
from xsvggt_ros.evaluation.sources.base import FrameTruth
from xsvggt_ros.metrics.odometry import StepScore
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


def measure(network: StreamVggt, settings: SequenceSettings) -> StepScore:
    """Return the score of the steps of one sequence, scaled by Sim(3)."""
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
    return evaluator.scores([]).steps[AFTERWARDS]


def main() -> None:
    """Print a line for each sequence, and the mean."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rooms", type=int, default=3, help="of each motion")
    parser.add_argument("--motions", nargs="+", default=list(MOTIONS))
    parser.add_argument("--frames", type=int, default=100)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    network, found = load_network(BUNDLED), []
    print(
        "| motion | seed | NEES/6 | within 95 % | error, mm | degrees |\n|---|---|---|---|---|---|"
    )
    for room in range(options.rooms):
        for place, motion in enumerate(options.motions):
            seed = FIRST_SEED + room * len(options.motions) + place
            score = measure(network, settings_of(motion, seed, options.frames))
            found.append(float(score.nees.mean()))
            print(
                f"| {motion} | {seed} | {found[-1]:.2f} | {score.coverage:.1%} | "
                f"{1e3 * score.translation.rmse:.1f} | {score.rotation.rmse:.3f} |",
                flush=True,
            )
    print(f"mean NEES/6 {np.mean(found):.2f}")


if __name__ == "__main__":
    main()
