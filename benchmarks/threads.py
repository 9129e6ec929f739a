# SPDX-License-Identifier: Apache-2.0
"""What two programs on the same cores cost each other, by their threads and how these wait.

    python benchmarks/threads.py --preset demo --frames 200

Each row runs the engine on random weights in one process and then in two at once, and names the
time of the slower of the two. The last column is that time over the one of two with one thread
each. The figures mean something on an otherwise idle machine alone.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from xsvggt_ros.process import THREAD_COUNT, THREAD_WAITING, available_cores

ROOT = Path(__file__).resolve().parents[1]
WAYS = {
    "one thread": {THREAD_COUNT: "1", THREAD_WAITING: "PASSIVE"},
    "as the package sets them": {},
    "all cores, idle ones sleep": {THREAD_COUNT: str(available_cores()), THREAD_WAITING: "PASSIVE"},
    "all cores, idle ones spin": {THREAD_COUNT: str(available_cores()), THREAD_WAITING: "ACTIVE"},
}
"""What the environment says, by its name in the table."""

PROGRAM = """
import sys, time, json
sys.path.insert(0, {root!r})
from xsvggt_ros.process import wait_passively
wait_passively()
import numpy as np, torch
from xsvggt_ros.model.checkpoint import load_network
from xsvggt_ros.stream.reconstructor import Reconstructor, ReconstructorSettings
network = load_network("", preset={preset!r}, device="cpu")
engine = Reconstructor(network, ReconstructorSettings(network.config.image_size))
images = np.random.default_rng(0).integers(0, 255, (8, 480, 640, 3), dtype=np.uint8)
for image in images:
    engine.step(image)
print("ready", flush=True)
sys.stdin.readline()
started = time.perf_counter()
for index in range({frames}):
    engine.step(images[index % 8])
print(json.dumps([time.perf_counter() - started, torch.get_num_threads()]), flush=True)
"""


def measure(preset: str, frames: int, processes: int, way: dict[str, str]) -> tuple[float, int]:
    """Return the seconds of the slowest of some processes that start at once, and their threads."""
    program = PROGRAM.format(root=str(ROOT), preset=preset, frames=frames)
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("OMP_", "GOMP_", "KMP_"))
    }
    running = [
        subprocess.Popen(
            [sys.executable, "-c", program],
            env={**environment, **way},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for _ in range(processes)
    ]
    for process in running:
        assert process.stdout is not None
        if process.stdout.readline().strip() != "ready":
            raise SystemExit("a process ended before it was ready; run its program by hand")
    for process in running:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    answers = [json.loads(process.communicate()[0]) for process in running]
    return max(seconds for seconds, _ in answers), answers[0][1]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="demo")
    parser.add_argument("--frames", type=int, default=200)
    arguments = parser.parse_args()

    busy = os.getloadavg()[0]
    print(f"{available_cores()} cores, load {busy:.1f} before, preset {arguments.preset}\n")
    print("| threads | of a process | alone, s | two at once, s | over one thread each |")
    print("|---|--:|--:|--:|--:|")
    least = 0.0
    for name, way in WAYS.items():
        alone, threads = measure(arguments.preset, arguments.frames, 1, way)
        both, _ = measure(arguments.preset, arguments.frames, 2, way)
        least = least or both
        print(f"| {name} | {threads} | {alone:.1f} | {both:.1f} | {both / least:.2f} |", flush=True)


if __name__ == "__main__":
    main()
