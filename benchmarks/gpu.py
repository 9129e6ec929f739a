# SPDX-License-Identifier: Apache-2.0
"""What a step costs on a GPU: one command for a machine that has one, at most nine minutes.

    python benchmarks/gpu.py --output results/gpu                  # the official size, on CUDA
    python benchmarks/gpu.py --device cpu --preset tiny --sizes 56x42 --frames 12   # seconds

Needs torch, triton, numpy, safetensors, OpenCV, pytest and hypothesis. Weights are random unless
--checkpoint is given: memory does not depend on them, and time hardly does. Sections (--sections
picks some of them):

- tests: those that need CUDA;
- steps: a step with a full cache, eager and as a CUDA graph: p50, p95, launches;
- compiled: the same as a CUDA graph of what ``torch.compile`` made, which takes a minute to begin;
- stages: where the time of an eager step goes;
- attention: one layer's attention over a full cache by each backend;
- runs: a stream through no compression, the released code's cache and ours: latency and memory.

Writes `gpu.json` and `gpu.md` to --output after each section, and prints the tables.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from xsvggt_ros.cache import attention
from xsvggt_ros.cache.kv_cache import KvCache
from xsvggt_ros.cache.settings import CacheSettings
from xsvggt_ros.errors import XsvggtError
from xsvggt_ros.model.checkpoint import load_network
from xsvggt_ros.model.network import Head, StreamVggt
from xsvggt_ros.stream.step_runner import StepRunner, cache_layout

SECTIONS = ("tests", "steps", "stages", "attention", "runs", "compiled")
HEADS: tuple[Head, ...] = ("camera", "depth")
TESTS = (
    "test/cache/test_kernels.py",
    "test/cache/test_cache_static.py",
    "test/model/test_precision.py",
    "test/stream/test_step_runner.py",
)
MIB = 2**20
STARTED = perf_counter()


@dataclass
class Report:
    """What has been measured so far."""

    about: dict[str, Any]
    sections: dict[str, Any] = field(default_factory=dict)

    def write(self, directory: Path) -> None:
        """Write everything measured so far."""
        directory.mkdir(parents=True, exist_ok=True)
        everything = {"about": self.about, **self.sections}
        (directory / "gpu.json").write_text(json.dumps(everything, indent=1) + "\n")
        (directory / "gpu.md").write_text(self.as_markdown())

    def as_markdown(self) -> str:
        """Return one table for each section."""
        words = ", ".join(f"{name} {value}" for name, value in self.about.items())
        parts = [f"# A step on a GPU\n\n{words}.\n"]
        for name, rows in self.sections.items():
            parts.append(f"## {name}\n\n{table(rows)}")
        return "\n".join(parts)


def table(rows: list[dict[str, Any]]) -> str:
    """Return rows of equal keys as Markdown."""
    if not rows:
        return "nothing measured\n"
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    lines += ["| " + " | ".join(shown(row.get(name, "")) for name in names) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def shown(value: Any) -> str:
    """Return a cell."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def wait(device: torch.device) -> float:
    """Wait for the device; return the time in seconds."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return perf_counter()


def images(device: torch.device, width: int, height: int) -> Iterator[Tensor]:
    """Yield noise, [1, 1, 3, height, width], for ever."""
    generator = torch.Generator(device).manual_seed(0)
    while True:
        yield torch.rand(1, 1, 3, height, width, generator=generator, device=device)


def peak(device: torch.device) -> int:
    """Return the most bytes that were allocated since the last reset; 0 on a CPU."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0


def forget(device: torch.device) -> int:
    """Free what nobody uses, and begin to watch for a new peak; return what is allocated."""
    if device.type != "cuda":
        return 0
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    return int(torch.cuda.memory_allocated(device))


class Stream:
    """A network, a cache and a stream of noise through them."""

    def __init__(
        self, network: StreamVggt, settings: CacheSettings, size: tuple[int, int], *, graphs: bool
    ) -> None:
        """Make an empty cache."""
        self.network = network
        self.device = network.device
        self.cache = KvCache(settings, cache_layout(network))
        self.runner = StepRunner(network, self.cache, HEADS, graphs=graphs)
        self.images = images(self.device, *size)
        anchors = self.cache.layout.anchor_frames
        if anchors > 1:
            together = torch.cat([next(self.images) for _ in range(anchors)], dim=1)
            self.runner.run(together)
            self.cache.end_frame()

    def step(self) -> float:
        """Run a frame; return its seconds."""
        image = next(self.images)
        started = wait(self.device)
        prediction = self.runner.run(image)
        assert prediction.pose_encodings is not None
        prediction.pose_encodings.sum().item()
        ended = wait(self.device)
        self.cache.end_frame()
        return ended - started

    def fill(self) -> int:
        """Step until nothing changes any more; return how many frames that took."""
        for frame in range(1, 400):
            before = self.cache.state
            self.step()
            if self.cache.state is not None and self.cache.state == before:
                return frame
        raise SystemExit("the budget does not fill up within 400 frames; lower --budget")


def step_rows(network: StreamVggt, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Time steps with a full cache, eager and captured."""
    modes = ("eager", "graph") if network.device.type == "cuda" else ("eager",)
    return [
        step_row(network, arguments, size, mode, graphs=mode == "graph")
        for size in arguments.sizes
        for mode in modes
    ]


def compiled_rows(network: StreamVggt, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Time steps of a network that ``torch.compile`` has changed for good, so this comes last."""
    network.compile_parts()
    rows = []
    for size in arguments.sizes:
        started = wait(network.device)
        row = step_row(network, arguments, size, "compiled", graphs=True)
        rows.append({**row, "s in all": wait(network.device) - started})
    return rows


def step_row(
    network: StreamVggt,
    arguments: argparse.Namespace,
    size: tuple[int, int],
    mode: str,
    *,
    graphs: bool,
) -> dict[str, Any]:
    """Time steps with a full cache."""
    before = forget(network.device)
    stream = Stream(network, ours(arguments), size, graphs=graphs)
    filled = stream.fill()
    for _ in range(3):
        stream.step()
    times = [stream.step() for _ in range(arguments.repeats)]
    row = {
        "size": f"{size[0]}x{size[1]}",
        "mode": mode,
        "ran as": stream.runner.execution.mode,
        "p50 ms": 1e3 * float(np.percentile(times, 50)),
        "p95 ms": 1e3 * float(np.percentile(times, 95)),
        "kernels": kernels(stream) if network.device.type == "cuda" else "",
        "tokens": stream.cache.statistics().tokens,
        "filled after": filled,
        "cache MiB": stream.cache.nbytes / MIB,
        "scratch MiB": stream.cache.scratch_nbytes / MIB,
        "peak MiB above weights": (peak(network.device) - before) / MIB,
    }
    if stream.runner.execution.reason:
        row["why"] = stream.runner.execution.reason
    return row


def kernels(stream: Stream) -> int:
    """Return how many kernels a step launches, as the profiler counts them."""
    return sum(count for count, _ in profiled(stream).values())


def profiled(stream: Stream) -> dict[str, tuple[int, float]]:
    """Return count and milliseconds of each kernel of one step."""
    from torch._C._autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        stream.step()
    found: dict[str, tuple[int, float]] = {}
    for event in profiler.events():
        if event.device_type == DeviceType.CUDA:
            count, time = found.get(event.name, (0, 0.0))
            found[event.name] = count + 1, time + event.device_time / 1e3
    return found


def kernel_rows(network: StreamVggt, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Say which kernels take the time of a step."""
    stream = Stream(network, ours(arguments), arguments.sizes[0], graphs=False)
    stream.fill()
    found = sorted(profiled(stream).items(), key=lambda item: -item[1][1])
    total = sum(time for _, (_, time) in found)
    rows = [
        {"kernel": name[:70], "launches": count, "ms": time, "share": time / total}
        for name, (count, time) in found[:30]
    ]
    return [*rows, {"kernel": "all", "launches": sum(c for _, (c, _) in found), "ms": total,
                    "share": 1.0}]  # fmt: skip


class Stopwatch:
    """Adds up the time of modules and functions; waits for the device around each."""

    def __init__(self, device: torch.device) -> None:
        """Begin at zero."""
        self._device = device
        self.seconds: dict[str, float] = {}

    def watch(self, module: nn.Module, name: str) -> None:
        """Time a module's forward."""
        module.forward = self.timed(module.forward, name)

    def timed(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        """Return a function that is timed."""

        def run(*values: Any, **named: Any) -> Any:
            started = wait(self._device)
            result = function(*values, **named)
            self.seconds[name] = self.seconds.get(name, 0.0) + wait(self._device) - started
            return result

        return run


def stage_rows(network: StreamVggt, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Say where the time of an eager step goes; waiting makes its sum more than a step takes."""
    stream = Stream(network, ours(arguments), arguments.sizes[0], graphs=False)
    stream.fill()
    watch = Stopwatch(network.device)
    modules: dict[str, list[nn.Module]] = {
        "encoder": [network.aggregator.patch_embed],
        "frame blocks": list(network.aggregator.frame_blocks),
        "global blocks, cache included": list(network.aggregator.global_blocks),
        "camera head, cache included": [network.camera_head],
    }
    for name, parts in modules.items():
        for part in parts:
            watch.watch(part, name)
    head = network.depth_head
    for method in ("levels", "joined"):
        setattr(head, method, watch.timed(getattr(head, method), "depth head"))
    stream.cache.attend = watch.timed(  # type: ignore[method-assign]
        stream.cache.attend, "of which decode, measure, attend"
    )
    stream.cache.absorb = watch.timed(  # type: ignore[method-assign]
        stream.cache.absorb, "of which judge and round"
    )
    frames = 5
    for _ in range(frames):
        stream.step()
    for parts in modules.values():
        for part in parts:
            del part.forward
    del head.levels, head.joined
    return [
        {"stage": name, "ms": 1e3 * seconds / frames} for name, seconds in watch.seconds.items()
    ]


def attention_rows(network: StreamVggt, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Time one layer's attention over a full cache by each backend."""
    config, device = network.config, network.device
    frame = config.tokens_per_frame(*reversed(arguments.sizes[0]))
    query = torch.randn(1, config.num_heads, frame, config.head_dim, device=device)
    query = query.to(network.dtype)
    keys = query.repeat(1, 1, arguments.budget // frame + 2, 1)[:, :, : arguments.budget + frame]
    ours = attention.backend("auto")
    whole = functional.scaled_dot_product_attention
    choices: dict[str, Callable[[], Tensor]] = {
        "sdpa, PyTorch's choice": lambda: whole(query, keys, keys)
    }
    choices["ours"] = lambda: ours(query, keys, keys)
    if device.type == "cuda":
        for backend in (SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION):
            choices[f"sdpa, {backend.name.lower()}"] = partial(attend_by, backend, query, keys)
    if attention.flash_installed():
        choices["flash_attn"] = lambda: attention.attend_flash(query, keys, keys)
    operations = 4 * frame * keys.shape[2] * config.num_heads * config.head_dim
    rows = []
    for name, attend in choices.items():
        seconds = median_seconds(attend, device, arguments.repeats)
        rows.append(
            {"backend": name, "queries": frame, "keys": keys.shape[2], "ms": 1e3 * seconds,
             "TFLOP/s": operations / seconds / 1e12}
        )  # fmt: skip
    return rows


def attend_by(backend: SDPBackend, query: Tensor, keys: Tensor) -> Tensor:
    """Attend by one of PyTorch's kernels."""
    with sdpa_kernel(backend):
        return functional.scaled_dot_product_attention(query, keys, keys)


def median_seconds(function: Callable[[], Any], device: torch.device, repeats: int) -> float:
    """Return the median of a call's seconds, ten calls at a time so that launching is hidden."""
    for _ in range(3):
        function()
    times = []
    for _ in range(repeats):
        started = wait(device)
        for _ in range(10):
            function()
        times.append((wait(device) - started) / 10)
    return float(np.median(times))


def ours(arguments: argparse.Namespace) -> CacheSettings:
    """Return the settings that are measured."""
    return CacheSettings(
        budget_tokens=arguments.budget,
        key_bits=arguments.bits,
        value_bits=arguments.bits,
        keyframe_interval=1,
    )


def run_rows(network: StreamVggt, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Run a stream through three caches; ratios are against the first one, without compression."""
    budget: dict[str, Any] = {"budget_tokens": arguments.budget}
    bits: dict[str, Any] = {"key_bits": arguments.bits, "value_bits": arguments.bits}
    whole: dict[str, Any] = {"key_bits": 16, "value_bits": 16}
    caches = {
        "none": CacheSettings(policy="none", **whole),
        "ours": ours(arguments),
    }
    if network.config.stream.anchor_frames == 1:
        caches |= {
            "published, pruned only": CacheSettings(
                policy="xstreamvggt", compatibility="published", **budget, **whole
            ),
            "published, simulated quantization": CacheSettings(
                policy="xstreamvggt", compatibility="published", **budget, **bits
            ),
        }
    rows: list[dict[str, Any]] = []
    for name, settings in caches.items():
        if perf_counter() - STARTED > 60 * arguments.minutes:
            print(f"{name} is left out: {arguments.minutes:g} minutes are over")
            continue
        rows.append(run_row(network, arguments, name, settings))
        first = rows[0]
        for key in ("last frame ms", "mean ms", "peak MiB above weights", "cache MiB"):
            if rows[-1][key]:
                rows[-1][f"{key}: times"] = first[key] / rows[-1][key]
    return rows


def run_row(
    network: StreamVggt, arguments: argparse.Namespace, name: str, settings: CacheSettings
) -> dict[str, Any]:
    """Run a stream through one cache."""
    size = arguments.sizes[0]
    before = forget(network.device)
    stream = Stream(network, settings, size, graphs=True)
    times = [stream.step() for _ in range(arguments.frames)]
    statistics = stream.cache.statistics()
    last = max(1, min(5, arguments.frames // 10))
    return {
        "cache": name,
        "frames": arguments.frames,
        "size": f"{size[0]}x{size[1]}",
        "ran as": stream.runner.execution.mode,
        "last frame ms": 1e3 * float(np.median(times[-last:])),
        "mean ms": 1e3 * float(np.mean(times)),
        "slowest ms": 1e3 * max(times),
        "tokens": statistics.tokens,
        "cache MiB": statistics.nbytes / MIB,
        "scratch MiB": statistics.scratch_nbytes / MIB,
        "peak MiB above weights": (peak(network.device) - before) / MIB,
    }


def test_rows() -> list[dict[str, Any]]:
    """Run the tests that need CUDA."""
    root = Path(__file__).resolve().parent.parent
    there = [test for test in TESTS if (root / test).is_file()]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *there]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    print(done.stdout[-6000:])
    closing = done.stdout.strip().splitlines()[-1:]
    command_line = "pytest " + " ".join(there)
    return [{"command": command_line, "exit": done.returncode, "result": "".join(closing)}]


def about(network: StreamVggt, arguments: argparse.Namespace) -> dict[str, Any]:
    """Say what is measured, and where."""
    device = network.device
    words: dict[str, Any] = {"machine": platform.machine()}
    if device.type == "cuda":
        words = {"card": torch.cuda.get_device_name(device), "driver": driver()}
    return {
        **words,
        "torch": torch.__version__,
        "preset": arguments.preset,
        "dtype": str(network.dtype).removeprefix("torch."),
        "heads": str(network.camera_head.embed_pose.dtype).removeprefix("torch."),
        "policy": ours(arguments).policy,
        "budget": arguments.budget,
        "bits": f"{arguments.bits}/{arguments.bits}",
        "weights": arguments.checkpoint or "random",
    }


def driver() -> str:
    """Return the version of NVIDIA's driver."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip().splitlines()[0]


@contextmanager
def said(report: Report, directory: Path, name: str) -> Iterator[None]:
    """Say how long a section took, and write what there is."""
    started = perf_counter()
    yield
    report.write(directory)
    rows = report.sections.get(name, [])
    print(f"\n{name}, {perf_counter() - started:.0f} s\n{table(rows)}", flush=True)


def parse_size(text: str) -> tuple[int, int]:
    """Return width and height of ``518x392``."""
    width, _, height = text.partition("x")
    return int(width), int(height)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--preset", default="streamvggt")
    parser.add_argument("--checkpoint", default="")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--heads-dtype", default="float32")
    parser.add_argument("--sizes", nargs="+", type=parse_size, default=[(518, 392), (392, 294)])
    parser.add_argument("--budget", type=int, default=8192)
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--frames", type=int, default=250)
    parser.add_argument("--repeats", type=int, default=60)
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--output", type=Path, default=Path("results/gpu"))
    arguments = parser.parse_args()
    try:
        network = load_network(
            arguments.checkpoint,
            preset=arguments.preset,
            device=arguments.device,
            dtype=arguments.dtype if arguments.device == "cuda" else "float32",
            heads_dtype=arguments.heads_dtype,
        )
    except XsvggtError as error:
        raise SystemExit(str(error)) from error
    report = Report(about(network, arguments))
    print(", ".join(f"{name} {value}" for name, value in report.about.items()), flush=True)
    measure: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "steps": lambda: step_rows(network, arguments),
        "runs": lambda: run_rows(network, arguments),
        "stages": lambda: stage_rows(network, arguments),
        "kernels": lambda: kernel_rows(network, arguments),
        "attention": lambda: attention_rows(network, arguments),
        "tests": test_rows,
        "compiled": lambda: compiled_rows(network, arguments),
    }
    wanted = set(arguments.sections)
    if "stages" in wanted and network.device.type == "cuda":
        wanted.add("kernels")
    with torch.inference_mode():
        for name, rows in measure.items():
            if name not in wanted:
                continue
            if perf_counter() - STARTED > 60 * arguments.minutes:
                print(f"{name} is left out: {arguments.minutes:g} minutes are over")
                continue
            with said(report, arguments.output, name):
                report.sections[name] = rows()


if __name__ == "__main__":
    main()
