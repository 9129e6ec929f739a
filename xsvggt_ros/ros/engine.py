# SPDX-License-Identifier: Apache-2.0
"""The engine that the parameters ask for; PyTorch is first needed here."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from xsvggt_ros.errors import EnvironmentMissingError
from xsvggt_ros.process import ask_for_threads
from xsvggt_ros.ros.parameters import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from xsvggt_ros.stream.chain import ChainedReconstructor
    from xsvggt_ros.stream.pipeline import PipelineHooks
    from xsvggt_ros.stream.reconstructor import Reconstructor
    from xsvggt_ros.stream.worker import FrameQueue, Worker


def import_engine() -> None:
    """Import the engine, which takes seconds the first time.

    Raises:
        EnvironmentMissingError: there is no PyTorch.

    """
    try:
        import xsvggt_ros.model.checkpoint
        import xsvggt_ros.stream.chain
        import xsvggt_ros.stream.worker  # noqa: F401 - for those who import it next
    except ImportError as error:
        raise EnvironmentMissingError(
            f"PyTorch cannot be imported by {sys.executable} ({error}); install it with: "
            f"{sys.executable} -m pip install torch"
        ) from error


def build_reconstructor(settings: Settings) -> ChainedReconstructor:
    """Load the weights, build the engine, and warm it up.

    Raises:
        EnvironmentMissingError: there is no PyTorch.
        CheckpointError: the weights cannot be had.
        ConfigurationError: parameters that do not fit each other, the weights, the device or its
            free memory.

    """
    ask_for_threads(settings.model.threads)
    import_engine()
    from xsvggt_ros.model.checkpoint import load_network
    from xsvggt_ros.stream.chain import ChainedReconstructor
    from xsvggt_ros.stream.chain_settings import caches_of
    from xsvggt_ros.stream.memory import check_memory, warm_up
    from xsvggt_ros.stream.reconstructor import ReconstructorSettings

    model = settings.model
    network = load_network(
        model.checkpoint,
        preset=model.preset or None,
        device=model.device,
        dtype=model.dtype,
        heads_dtype=model.heads_dtype,
        weights=model.weights,
        compiled=model.compile,
        seed=model.seed,
    )
    width = settings.input.width or network.config.image_size
    cache = settings.cache
    engine = ChainedReconstructor(
        network,
        ReconstructorSettings(
            width=width,
            cache=cache,
            calibration=settings.input.calibration,
            cuda_graphs=model.cuda_graphs,
        ),
        chain=settings.chain,
        refinement=settings.pose.refinement,
    )
    check_memory(network, width, cache, caches=caches_of(settings.chain))
    warm_up(engine, width)
    return engine


def release_device() -> None:
    """Give back the device memory of an engine that nobody holds any more."""
    import gc

    gc.collect()  # modules and their hooks refer to each other
    from xsvggt_ros.model.device import release_cached_memory

    release_cached_memory()


def build_worker(
    reconstructor: Reconstructor,
    hooks: PipelineHooks,
    queue: FrameQueue,
    on_room: Callable[[], None],
) -> Worker:
    """Return the thread that owns the engine, not started.

    Args:
        reconstructor: the engine.
        hooks: what the node adds to the way of a frame.
        queue: that the worker takes frames from.
        on_room: called on the worker's thread whenever a frame has left the queue.

    """
    from xsvggt_ros.stream.pipeline import FramePipeline
    from xsvggt_ros.stream.worker import Worker

    return Worker(FramePipeline(reconstructor, hooks), queue, on_room=on_room)
