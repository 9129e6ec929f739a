# SPDX-License-Identifier: Apache-2.0
"""What a cache costs and what it keeps: latency by stage, bytes, rounding error, selected tokens.

    python benchmarks/cache.py                       # one layer of the full size, a few minutes
    python benchmarks/cache.py --heads 3 --frame 197 --budgets 1024 2048   # seconds

One global layer at a time, on a stream of made-up tokens: each frame resembles the one before it,
channels have means and widths of their own, some of them large, as keys have. Writes `table.md`,
`cells.csv` and `figure.png` to --output. Times are medians over the frames after the budget is
full; compare them within a run only.
"""

from __future__ import annotations

import argparse
import csv
import math
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from time import perf_counter

import matplotlib as mpl
import torch
from torch import Tensor
from torch.nn import functional

from xsvggt_ros.cache.kv_cache import KvCache
from xsvggt_ros.cache.layer_group import GroupedLayer
from xsvggt_ros.cache.layout import CacheLayout, TokenShape
from xsvggt_ros.cache.published import PublishedCache
from xsvggt_ros.cache.quantization import encode, fit_grid
from xsvggt_ros.cache.settings import POLICIES, CacheSettings

mpl.use("Agg")
from matplotlib import pyplot as plt

SPECIAL = 5
PERSISTENCE = 0.9
PLACES = 24
"""Rows in which the figure shows where in its frame a token lies."""
BITS = ((16, 16), (8, 8), (4, 4), (2, 2))


@dataclass(frozen=True)
class Cell:
    """One configuration and what it measured; times in milliseconds a layer and frame."""

    name: str
    policy: str
    budget: int
    frames: int
    tokens: int
    kib: float
    scratch_kib: float
    bits_per_element: float
    attention: float
    decode: float
    absorb: float
    key_error: float
    value_error: float

    @property
    def step(self) -> float:
        """Attention, decoding, and absorption."""
        return self.attention + self.decode + self.absorb


class Stream:
    """Made-up tokens, the same for every configuration; any frame again at any time."""

    def __init__(self, shape: TokenShape, frame: int) -> None:
        self.shape = shape
        self.frame = frame
        generator = torch.Generator().manual_seed(1)
        channels = (shape.heads, 1, shape.channels)
        self._means = 1.5 * torch.randn(channels, generator=generator)
        self._widths = torch.exp(0.5 * torch.randn(channels, generator=generator))
        # A few channels far from zero, as keys have them.
        self._means[..., ::16] += 6.0

    def __iter__(self) -> Iterator[tuple[list[Tensor], Tensor]]:
        """Yield query, key and value [1, heads, frame, channels], and the MLP's update."""
        generator = torch.Generator().manual_seed(2)
        shape = (3, self.shape.heads, self.frame, self.shape.channels)
        content = torch.randn(shape, generator=generator)
        while True:
            query, key, value = content
            key = self._means + self._widths * key
            tensors = [t[None].to(self.shape.device, self.shape.dtype) for t in (query, key, value)]
            update = torch.randn(1, self.frame, 64, generator=generator).to(self.shape.device)
            yield tensors, update
            noise = torch.randn(shape, generator=generator)
            content = PERSISTENCE * content + math.sqrt(1 - PERSISTENCE**2) * noise


def wait(device: torch.device) -> float:
    """Wait for the device; return the time."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return perf_counter()


def measure(name: str, settings: CacheSettings, stream: Stream, frames: int) -> tuple[Cell, Tensor]:
    """Run one configuration; return its figures and the numbers of the tokens that it holds."""
    shape = stream.shape
    layout = CacheLayout(1, shape, SPECIAL, camera_blocks=0, camera_iterations=0)
    cache = KvCache(settings, layout)
    attended, absorbed, alone = [], [], []
    originals: list[tuple[Tensor, Tensor]] = []
    for _, ((query, key, value), update) in zip(range(frames), stream, strict=False):
        held = cache.layers[0].tokens
        started = wait(shape.device)
        cache.attend(0, query, key, value)
        between = wait(shape.device)
        cache.absorb(0, update)
        attended.append(between - started)
        absorbed.append(wait(shape.device) - between)
        cache.end_frame()
        originals.append((key[0].clone(), value[0].clone()))
        alone.append(attention_alone(query, held))
    steady = slice(-max(3, frames // 3), None)
    attention = median(alone[steady])
    numbers = cache.layers[0].numbers[0]
    key_error, value_error = rounding_errors(cache, originals, stream.frame)
    statistics = cache.statistics()
    elements = 2 * statistics.tokens * shape.heads * shape.channels
    cell = Cell(
        name=name,
        policy=settings.policy,
        budget=settings.budget_tokens if settings.bounded else 0,
        frames=frames,
        tokens=statistics.tokens,
        kib=statistics.nbytes / 1024,
        scratch_kib=statistics.scratch_nbytes / 1024,
        bits_per_element=8 * statistics.nbytes / elements,
        attention=1e3 * attention,
        decode=1e3 * max(0.0, median(attended[steady]) - attention),
        absorb=1e3 * median(absorbed[steady]),
        key_error=key_error,
        value_error=value_error,
    )
    return cell, numbers.cpu()


def attention_alone(query: Tensor, held: int) -> float:
    """Time attention over as many tokens that lie ready."""
    _, heads, frame, channels = query.shape
    keys, values = torch.randn(
        2, 1, heads, held + frame, channels, device=query.device, dtype=query.dtype
    )
    started = wait(query.device)
    functional.scaled_dot_product_attention(query, keys, values)
    return wait(query.device) - started


def rounding_errors(
    cache: KvCache, originals: list[tuple[Tensor, Tensor]], frame: int
) -> tuple[float, float]:
    """Return the relative RMS, about each channel's mean, of what is held against what came."""
    layer = cache.layers[0]
    numbers = layer.numbers.cpu().expand(cache.layout.token.heads, -1)
    if isinstance(layer, PublishedCache):
        stored = [layer.store.keys[0], layer.store.values[0]]
    else:
        assert isinstance(layer, GroupedLayer)
        parts = [segment.contents() for segment in layer.segments]
        stored = [torch.cat([getattr(p, n) for p in parts], 1) for n in ("keys", "values")]
    errors = []
    for kind, decoded in enumerate(stored):
        came = torch.stack(
            [
                torch.stack([originals[n // frame][kind][head, n % frame] for n in own.tolist()])
                for head, own in enumerate(numbers)
            ]
        )
        spread = came - came.mean(1, keepdim=True)
        difference = decoded.float() - came.float()
        errors.append(float((difference.square().mean() / spread.square().mean()).sqrt()))
    return errors[0], errors[1]


def hadamard(size: int) -> Tensor:
    """Return the orthonormal Hadamard matrix of a power of two."""
    matrix = torch.ones(1, 1)
    while len(matrix) < size:
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    return matrix / math.sqrt(size)


def rotation_errors(stream: Stream) -> list[tuple[str, int, float, float]]:
    """Compare keys rounded as they are with keys rotated first, by the error of their products."""
    (query, key, _), _ = next(iter(stream))
    tokens = key.shape[2] // 64 * 64
    key, query = key[0, :, :tokens].float(), query[0].float()
    outliers = key.clone()
    outliers[:, ::50] *= 5.0
    rotation = hadamard(key.shape[2]).to(key)
    rows = []
    for kind, keys in (("as made up", key), ("with outlier tokens", outliers)):
        exact = query @ keys.transpose(1, 2)
        exact = exact - exact.mean(-1, keepdim=True)
        for bits in (4, 2):
            plain = query @ rounded_in_groups(keys, bits).transpose(1, 2)
            turned = query @ rotation @ rounded_in_groups(keys @ rotation, bits).transpose(1, 2)
            error, turned_error = (
                relative(products - products.mean(-1, keepdim=True), exact)
                for products in (plain, turned)
            )
            rows.append((kind, bits, error, turned_error))
    return rows


def rounded_in_groups(keys: Tensor, bits: int) -> Tensor:
    """Round [heads, tokens, channels] per channel over runs of 64 tokens."""
    runs = keys.unflatten(1, (-1, 64))
    grid = fit_grid(runs.amin(2, keepdim=True), runs.amax(2, keepdim=True), bits)
    decoded = encode(runs, grid, bits).float() * grid.scale.float() + grid.minimum.float()
    return decoded.flatten(1, 2)


def relative(actual: Tensor, exact: Tensor) -> float:
    """Return the RMS of the difference over that of ``exact``."""
    return float(((actual - exact).square().mean() / exact.square().mean()).sqrt())


def configurations(arguments: argparse.Namespace) -> Iterator[tuple[str, CacheSettings, int]]:
    """Yield name, settings and number of frames of each cell of the table."""
    for budget in arguments.budgets:
        full = budget // arguments.frame + 1
        for length in arguments.lengths:
            for key_bits, value_bits in BITS:
                settings = CacheSettings(
                    "xstreamvggt", budget_tokens=budget, key_bits=key_bits, value_bits=value_bits
                )
                yield f"{key_bits}/{value_bits}", settings, full + length
        settings = CacheSettings("xstreamvggt", budget_tokens=budget)
        for policy in POLICIES:
            if policy not in ("none", "xstreamvggt"):
                yield "4/4", replace(settings, policy=policy), full + arguments.lengths[0]
        yield "4/4 per head", replace(settings, index_sets="head"), full + arguments.lengths[0]
        mixed = replace(settings, key_bits=2, value_bits=2, anchor_bits=8)
        yield "2/2, anchor 8", mixed, full + arguments.lengths[0]
        released = replace(settings, compatibility="published")
        yield "published, simulated 4/4", released, full + arguments.lengths[0]
        unquantized = replace(released, key_bits=16, value_bits=16)
        yield "published, 16/16", unquantized, full + arguments.lengths[0]
    everything = CacheSettings("none", key_bits=16, value_bits=16)
    longest = max(arguments.budgets) // arguments.frame + 1 + max(arguments.lengths)
    yield "uncompressed", everything, longest


def write_table(
    path: Path, cells: list[Cell], rotated: list[tuple[str, int, float, float]], head: str
) -> str:
    """Write and return the figures as Markdown."""
    lines = [
        head,
        "",
        "| bits | policy | budget | frames | tokens | KiB a layer | bits an element | attention ms "
        "| decode ms | absorb ms | step ms | key error | value error |",
        "|" + "---|" * 13,
    ]
    for c in cells:
        lines.append(
            f"| {c.name} | {c.policy} | {c.budget or 'none'} | {c.frames} | {c.tokens} "
            f"| {c.kib:.0f} | {c.bits_per_element:.2f} | {c.attention:.1f} | {c.decode:.1f} "
            f"| {c.absorb:.1f} | {c.step:.1f} | {c.key_error:.3f} | {c.value_error:.3f} |"
        )
    lines += [
        "",
        "Hadamard rotation before rounding keys: error of query-key products.",
        "",
        "| keys | bits | as they are | rotated |",
        "|---|---|---|---|",
        *("| {} | {} | {:.4f} | {:.4f} |".format(*row) for row in rotated),
    ]
    text = "\n".join(lines) + "\n"
    path.write_text(text, encoding="utf-8")
    return text


def draw(path: Path, cells: list[Cell], maps: dict[str, Tensor], frame: int) -> None:
    """Draw bytes, latency, error, and which tokens each policy holds."""
    figure, ((bytes_, time, error), (held, *_)) = plt.subplots(2, 3, figsize=(15, 8.5))
    for axes in figure.axes[3:]:
        axes.remove()
    held = figure.add_subplot(2, 1, 2)
    largest = max(cell.budget for cell in cells)
    ours = [c for c in cells if c.policy == "xstreamvggt" and "/" in c.name and c.budget == largest]
    ours = list({c.name: c for c in ours}.values())
    names = [c.name.replace(", ", ",\n") for c in ours]
    bytes_.bar(names, [c.kib / 1024 for c in ours], color="tab:blue")
    bytes_.set_title(f"allocated, one layer of {largest} tokens (MiB)")
    bottom = [0.0] * len(ours)
    for stage, color in (("attention", "0.75"), ("decode", "tab:orange"), ("absorb", "tab:green")):
        heights = [getattr(c, stage) for c in ours]
        time.bar(names, heights, bottom=bottom, label=stage, color=color)
        bottom = [low + height for low, height in zip(bottom, heights, strict=True)]
    time.set_title("a layer's cache step (ms)")
    time.legend(loc="lower right")
    error.bar(names, [c.key_error for c in ours], color="tab:blue", label="keys", width=-0.4,
              align="edge")  # fmt: skip
    error.bar(names, [c.value_error for c in ours], color="tab:orange", label="values", width=0.4,
              align="edge")  # fmt: skip
    error.set_title("rounding error against spread")
    error.set_yscale("symlog", linthresh=1e-3)
    error.legend()
    for axes in (bytes_, time, error):
        axes.tick_params(axis="x", labelrotation=45, labelsize=8)
    shares = [share_held(numbers, frame) for numbers in maps.values()]
    image = held.imshow(
        torch.cat(shares).numpy(),
        aspect="auto",
        interpolation="nearest",
        cmap="viridis",
        vmin=0,
        vmax=1,
    )
    figure.colorbar(image, ax=held, label="share held")
    held.set_yticks([(row + 0.5) * PLACES - 0.5 for row in range(len(maps))], list(maps))
    for row in range(1, len(maps)):
        held.axhline(row * PLACES - 0.5, color="white")
    held.set_xlabel("frame that a token came with (within a row, from top: its place in the frame)")
    held.set_title(f"which tokens a layer of {largest} holds at the end")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def share_held(numbers: Tensor, frame: int) -> Tensor:
    """Return the share of the tokens held, [places in a frame, frames]."""
    frames = int(numbers.max()) // frame + 1
    place = (numbers % frame) * PLACES // frame
    counts = torch.zeros(PLACES, frames)
    counts.index_put_((place, numbers // frame), torch.ones(len(numbers)), accumulate=True)
    whole = torch.bincount(torch.arange(frame) * PLACES // frame, minlength=PLACES)
    return counts / whole[:, None]


def main() -> None:
    """Measure, print, write and draw."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--budgets", type=int, nargs="+", default=[4096, 8192])
    parser.add_argument("--lengths", type=int, nargs="+", default=[6], help="frames once full")
    parser.add_argument("--frame", type=int, default=1041, help="tokens of a frame")
    parser.add_argument("--heads", type=int, default=16)
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--output", type=Path, default=Path("results/cache"))
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    shape = TokenShape(
        arguments.heads,
        arguments.channels,
        getattr(torch, arguments.dtype),
        torch.device(arguments.device),
    )
    stream = Stream(shape, arguments.frame)
    cells: list[Cell] = []
    maps: dict[str, Tensor] = {}
    with torch.inference_mode():
        for name, settings, frames in configurations(arguments):
            cell, numbers = measure(name, settings, stream, frames)
            cells.append(cell)
            if settings.budget_tokens == max(arguments.budgets) and name in ("4/4", "4/4 per head"):
                label = settings.policy if name == "4/4" else f"{settings.policy} per head"
                maps[label] = numbers
            print(f"{name} {settings.policy} {settings.budget_tokens}: {cell.step:.1f} ms")
        rotated = rotation_errors(stream)
    head = (
        f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"{arguments.device}, {arguments.dtype}; one layer of {arguments.heads} heads of "
        f"{arguments.channels}, frames of {arguments.frame} tokens"
    )
    print("\n" + write_table(arguments.output / "table.md", cells, rotated, head))
    with (arguments.output / "cells.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, asdict(cells[0]))
        writer.writeheader()
        writer.writerows(asdict(cell) for cell in cells)
    draw(arguments.output / "figure.png", cells, maps, arguments.frame)


if __name__ == "__main__":
    main()
