# SPDX-License-Identifier: Apache-2.0
"""Whether steps and poses in odom are as wrong as they say, on rooms that decide the constants.

    python benchmarks/steps.py [--rooms N] [--motions NAME ...] [--frames N]

The demo network walks through rooms that it was not trained on and that are not held out either.
Constants of `geometry/step_covariance.py` are such that the mean NEES/6 of steps is 1 over 18 rooms
of 100 frames; those of lasting errors in `geometry/accumulated_error.py` such that it is near 1 for
poses over 10, 50 and 200 frames, over 18 rooms of 300.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import logging
from functools import partial

import numpy as np

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
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    network, found = load_network(BUNDLED), []
    over = " | ".join(f"over {frames}" for frames in SPANS)
    print(f"| motion | seed | NEES/6 | within 95 % | error, mm | degrees | {over} |")
    print("|---" * (6 + len(SPANS)) + "|")
    for room in range(options.rooms):
        for place, motion in enumerate(options.motions):
            seed = FIRST_SEED + room * len(options.motions) + place
            scores = measure(network, settings_of(motion, seed, options.frames))
            score = scores.steps[AFTERWARDS]
            poses = {each.frames: float(each.nees.mean()) for each in scores.poses[AFTERWARDS]}
            found.append([float(score.nees.mean()), *(poses.get(each, np.nan) for each in SPANS)])
            spans = " | ".join(f"{each:.2f}" for each in found[-1][1:])
            print(
                f"| {motion} | {seed} | {found[-1][0]:.2f} | {score.coverage:.1%} | "
                f"{1e3 * score.translation.rmse:.1f} | {score.rotation.rmse:.3f} | {spans} |",
                flush=True,
            )
    means = " ".join(f"{each:.2f}" for each in np.mean(found, axis=0))
    print(f"mean NEES/6 of steps, and of poses over {SPANS} frames: {means}")


if __name__ == "__main__":
    main()
