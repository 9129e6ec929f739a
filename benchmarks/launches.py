# SPDX-License-Identifier: Apache-2.0
"""How many operations of one frame launch work on a GPU, counted by stage on the meta device.

    python benchmarks/launches.py           # the defaults, and the network without compression
    python benchmarks/launches.py --preset lingbot
    python benchmarks/launches.py --rows    # each policy at 16/16, 4/4 and 2/2 bits
    python benchmarks/launches.py --top 12  # and which operations these are

The network has its official sizes and bfloat16 weights; nothing is computed, so any machine will
do. What is counted is a frame that is stored once the budget is full; policy lingbot has short
windows here, on which nothing depends. Views, allocations and casts that change
nothing are free; an operation of this package counts as one, as a fused kernel of PyTorch does.
Bytes are those that decoding reads and writes, by the shapes of what it is given: codes and grids
of the tokens that are held, and the tokens decoded; beside them, those of the newest frame, which
is copied behind the decoded tokens and to where it waits. No stage reads from the device: on the
meta device there is nothing to read, and whoever tries fails.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from xsvggt_ros.cache.kv_cache import KvCache
from xsvggt_ros.cache.ops import Decoding
from xsvggt_ros.cache.settings import DEFAULT_POLICY, POLICIES, CacheSettings
from xsvggt_ros.cache.token_storage import TENSORS
from xsvggt_ros.model.config import NetworkConfig, preset
from xsvggt_ros.model.network import Head, StreamVggt
from xsvggt_ros.stream.step_runner import cache_layout

STAGES = (
    "encoder", "frame blocks", "global blocks", "attend", "decode", "absorb", "end of frame",
    "camera head", "camera cache", "depth head", "point head", "between",
)  # fmt: skip
"""Where an operation may belong; ``between`` is what the aggregator does around its blocks."""

BITS = ((16, 16), (4, 4), (2, 2))
WINDOW: dict[str, Any] = {"window_frames": 4, "trajectory_frames": 2}
"""Of the policy lingbot."""

Arguments = ParamSpec("Arguments")
Answer = TypeVar("Answer")


@dataclass
class Counts:
    """Operations of one frame.

    Attributes:
        stages: how many, by stage.
        names: how many, by stage and operation.
        decoded_bytes: what decoding reads and writes.
        newest_bytes: what copying the newest frame reads and writes.

    """

    stages: Counter[str] = field(default_factory=Counter)
    names: Counter[tuple[str, str]] = field(default_factory=Counter)
    decoded_bytes: int = 0
    newest_bytes: int = 0

    @property
    def total(self) -> int:
        """Operations of the whole frame."""
        return self.stages.total()


class Launches(TorchDispatchMode):
    """Counts operations for the stage that is on top of the stack."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts = Counts()
        self.stack = ["between"]

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Run ``function`` and count it unless it is free."""
        result = function(*args, **(kwargs or {}))
        given = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
        made = [each for each in tree_leaves(result) if isinstance(each, Tensor)]
        name = function._schema.name
        if not is_free(function, given, made):
            stage = self.stack[-1]
            if name == "xsvggt::decode_layer":
                stage = "decode"
                self.counts.decoded_bytes += decoding_bytes(Decoding(*args))
            if name == "xsvggt::append_newest":
                # It reads what it writes to two places, or to one.
                self.counts.newest_bytes += sum(each.nbytes for each in given)
            self.counts.stages[stage] += 1
            self.counts.names[stage, name.removeprefix("aten::")] += 1
        if name == "aten::scaled_dot_product_attention":
            # As FlashAttention leaves it: tokens before heads, so that bringing heads together is
            # a view. The meta device knows the order of the definition alone.
            return result.transpose(1, 2).contiguous().transpose(1, 2)
        return result

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count for ``name`` meanwhile."""
        self.stack.append(name)
        yield
        self.stack.pop()

    def counted(
        self, name: str, function: Callable[Arguments, Answer]
    ) -> Callable[Arguments, Answer]:
        """Return ``function``, counted for stage ``name``."""

        def run(*arguments: Arguments.args, **named: Arguments.kwargs) -> Answer:
            with self.stage(name):
                return function(*arguments, **named)

        return run

    def watch(self, name: str, module: nn.Module) -> None:
        """Count what ``module`` does for stage ``name``."""
        module.register_forward_pre_hook(lambda *_: self.stack.append(name))
        module.register_forward_hook(lambda *_: self.stack.pop() and None)


def is_free(function: torch._ops.OpOverload, given: list[Tensor], made: list[Tensor]) -> bool:
    """Return whether an operation launches nothing: it writes nothing, or allocates only."""
    schema = function._schema
    if schema.is_mutable:
        return not made and not given
    known = {each.untyped_storage()._cdata for each in given}
    viewed = all(each.untyped_storage()._cdata in known for each in made)
    return viewed or "empty" in schema.name


def decoding_bytes(given: Decoding) -> int:
    """Return the bytes that one ``decode_layer`` moves."""
    moved = 0
    for tensors, widths, out in (
        (given.key_tensors, given.key_bits, given.keys),
        (given.value_tensors, given.value_bits, given.values),
    ):
        for index, (bits, length) in enumerate(zip(widths, given.lengths, strict=True)):
            if not bits or not length:
                continue
            codes, *grids = tensors[TENSORS * index : TENSORS * (index + 1)]
            moved += codes[:, :length].nbytes + out[:, :length].nbytes
            # A table of grids is read as a whole, what stands beside a slot as far as it is taken.
            moved += sum(
                grid.nbytes * length // codes.shape[1] if grid.shape[1:2] == codes.shape[1:2]
                else grid.nbytes
                for grid in grids
            )  # fmt: skip
    return moved


class StagedMemory:
    """A cache whose methods are stages of their own."""

    def __init__(self, cache: KvCache, launches: Launches) -> None:
        self._cache = cache
        self._launches = launches

    def begin_pass(self, frames: int) -> int:
        """As the cache says."""
        return self._cache.begin_pass(frames)

    def times(self, frames: int, device: torch.device) -> Tensor:
        """As the cache says."""
        return self._cache.times(frames, device)

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attend, and count it."""
        return self._as("attend", self._cache.attend, layer, query, key, value)

    def absorb(self, layer: int, update: Tensor) -> None:
        """Absorb, and count it."""
        self._as("absorb", self._cache.absorb, layer, update)

    def attend_camera(
        self, iteration: int, block: int, query: Tensor, key: Tensor, value: Tensor
    ) -> Tensor:
        """Attend to cameras, and count it."""
        function = self._cache.attend_camera
        return self._as("camera cache", function, iteration, block, query, key, value)

    def end_frame(self) -> None:
        """End the frame, and count it."""
        self._as("end of frame", self._cache.end_frame)

    def _as(
        self,
        stage: str,
        function: Callable[Arguments, Answer],
        *arguments: Arguments.args,
        **named: Arguments.kwargs,
    ) -> Answer:
        with self._launches.stage(stage):
            return function(*arguments, **named)


def network_of(config: NetworkConfig, dtype: torch.dtype, heads_dtype: torch.dtype) -> StreamVggt:
    """Return a network for inference on the meta device."""
    with torch.device("meta"):
        network = StreamVggt(config).set_precision(dtype, heads_dtype)
    network.mark_gains_folded()
    return network.freeze()


def watch_stages(network: StreamVggt, launches: Launches) -> None:
    """Attribute what each part of ``network`` does."""
    launches.watch("encoder", network.aggregator.patch_embed)
    for name, blocks in (
        ("frame blocks", network.aggregator.frame_blocks),
        ("global blocks", network.aggregator.global_blocks),
    ):
        for block in blocks:
            launches.watch(name, block)
    launches.watch("camera head", network.camera_head)
    for name, head in network.dense_heads.items():
        stage = {"depth": "depth head", "points": "point head"}[name]
        for method in ("levels", "joined"):
            setattr(head, method, launches.counted(stage, getattr(head, method)))


@torch.inference_mode()
def count(
    settings: CacheSettings,
    *,
    config: NetworkConfig | None = None,
    size: tuple[int, int] = (392, 518),
    frames: int = 12,
    heads: tuple[Head, ...] = ("camera", "depth"),
    dtype: torch.dtype = torch.bfloat16,
    heads_dtype: torch.dtype = torch.float32,
) -> Counts:
    """Return what the last of ``frames`` frames launches.

    Args:
        settings: of the cache.
        config: sizes of the network; the official ones by default.
        size: height and width of the images.
        frames: enough of them to fill the budget.
        heads: that run.
        dtype: of the aggregator's weights.
        heads_dtype: of the heads' weights.

    """
    network = network_of(config or NetworkConfig(), dtype, heads_dtype)
    launches = Launches()
    watch_stages(network, launches)
    memory = StagedMemory(KvCache(settings, cache_layout(network)), launches)
    anchors = settings.settled(cache_layout(network)).anchor_frames
    first_pass = torch.empty(1, anchors, 3, *size, device="meta")
    for index in range(frames):
        images = first_pass[:, :1] if index else first_pass
        launches.counts = Counts()
        with launches:
            network(images, memory, heads)
            memory.end_frame()
    return launches.counts


def table(columns: dict[str, Counts]) -> str:
    """Return the counts as Markdown, a row for each stage."""
    lines = [
        "| stage | " + " | ".join(columns) + " |",
        "|---|" + "--:|" * len(columns),
    ]
    for stage in STAGES:
        row = [counts.stages[stage] for counts in columns.values()]
        if any(row):
            lines.append(f"| {stage} | " + " | ".join(f"{number}" for number in row) + " |")
    totals = " | ".join(f"**{counts.total}**" for counts in columns.values())
    decoded = " | ".join(f"{counts.decoded_bytes / 1e9:.2f}" for counts in columns.values())
    newest = " | ".join(f"{counts.newest_bytes / 1e9:.2f}" for counts in columns.values())
    return "\n".join(
        [
            *lines,
            f"| all | {totals} |",
            f"| moved by decoding, GB | {decoded} |",
            f"| moved by copying the newest frame, GB | {newest} |",
        ]
    )


def main() -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", action="store_true", help="all policies and several widths")
    parser.add_argument("--preset", default="streamvggt", help="streamvggt or lingbot")
    parser.add_argument("--budget", type=int, default=8192, help="tokens per layer")
    parser.add_argument("--top", type=int, default=0, help="operations to name for each column")
    arguments = parser.parse_args()

    budget, config = arguments.budget, preset(arguments.preset)
    chosen = [CacheSettings(budget_tokens=budget, **WINDOW)]
    if config.stream.window_frames:
        # With one anchor, as StreamVGGT has: more would not fit into the budget.
        chosen.append(CacheSettings(DEFAULT_POLICY, budget_tokens=budget, anchor_frames=1))
    if arguments.rows:
        chosen = [
            CacheSettings(
                policy=policy, budget_tokens=budget, key_bits=keys, value_bits=values, **WINDOW
            )
            for policy in POLICIES
            for keys, values in BITS
            if policy != "none" or keys == 16
        ]
    else:
        chosen.insert(0, CacheSettings(policy="none", key_bits=16, value_bits=16))
    columns = {
        f"{settings.policy} {settings.key_bits}/{settings.value_bits}": count(
            settings, config=config
        )
        for settings in chosen
    }
    sizes = f"{budget} tokens a layer, bfloat16 weights, float32 heads"
    print(f"One frame of 518x392, {arguments.preset}, {sizes}\n")
    print(table(columns))
    for name, counts in columns.items():
        for (stage, operation), number in counts.names.most_common(arguments.top):
            print(f"{name}: {number} {operation} ({stage})")


if __name__ == "__main__":
    main()
