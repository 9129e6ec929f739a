# SPDX-License-Identifier: Apache-2.0
"""Settings for every test, and what many of them need."""

from __future__ import annotations

import ast
import os
import signal
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

# Small tensors gain nothing from threads, and on a busy machine these wait for each other. Set
# before torch is there, and inherited by the nodes that tests start, so that all sum alike.
os.environ["OMP_NUM_THREADS"] = "1"
# Nothing of a test leaves this machine.
os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")

import pytest
from hypothesis import settings
from selection import QUICK, THOROUGH

from xsvggt_ros.ros import processes
from xsvggt_ros.ros.processes import remove_abandoned

if TYPE_CHECKING:
    from rclpy.node import Node

    from xsvggt_ros.model.network import StreamVggt

# A deadline is a timing assertion: it fails on a busy machine.
for name, count in (("quick", QUICK), ("thorough", THOROUGH)):
    settings.register_profile(name, deadline=None, print_blob=True, max_examples=count)
settings.load_profile("quick")


TESTS = Path(__file__).parent
NEEDS_GPU = (
    "needs a CUDA GPU: run scripts/test -m gpu on a machine with one, "
    "after XSVGGT_TORCH=torch==2.13.0 scripts/setup"
)
ROS_PACKAGES = ("rclpy", "ament_index_python", "launch_testing", "xsvggt_ros.msg", "xsvggt_ros.srv")


def pytest_configure(config: pytest.Config) -> None:
    """Give each worker of pytest-xdist ROS domains that no other worker uses."""
    # Under nohup and in the background of a script they are ignored, and what is ignored stays so
    # in child processes; what is handled does not.
    for number in (signal.SIGHUP, signal.SIGINT):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker is not None:
        workers = int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
        processes.CANDIDATES = processes.CANDIDATES[int(worker.removeprefix("gw")) :: workers]
        os.environ["ROS_DOMAIN_ID"] = str(processes.free_domain())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark with ``ros`` the tests of every file that imports ROS; skip ``gpu`` without a GPU."""
    for item in items:
        if _imports_ros(item.path):
            item.add_marker(pytest.mark.ros)
    on_gpu = [item for item in items if item.get_closest_marker("gpu")]
    if on_gpu:
        import torch

        if not torch.cuda.is_available():
            for item in on_gpu:
                item.add_marker(pytest.mark.skip(NEEDS_GPU))


@cache
def _imports_ros(path: Path) -> bool:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    if any(name.startswith(ROS_PACKAGES) or name.endswith("_msgs.msg") for name in names):
        return True
    helpers = [TESTS / f"{name}.py" for name in names]
    return any(helper.is_file() and _imports_ros(helper) for helper in helpers)


@pytest.fixture
def node() -> Iterator[Node]:
    """A node in a domain of its own; what it is to do, the test gives it."""
    import rclpy
    from rclpy.context import Context
    from rclpy.node import Node

    context = Context()
    rclpy.init(context=context, domain_id=processes.free_domain())
    node = Node("tested", context=context)
    yield node
    node.destroy_node()
    context.try_shutdown()


@pytest.fixture(scope="module")
def network() -> StreamVggt:
    """A tiny network with random weights."""
    from xsvggt_ros.model.checkpoint import random_network
    from xsvggt_ros.model.config import PRESETS

    return random_network(PRESETS["tiny"], 1).eval().requires_grad_(False)


@pytest.fixture(autouse=True, scope="session")
def no_shared_memory_left() -> Iterator[None]:
    """Remove what processes left that were killed, as some tests do on purpose."""
    yield
    remove_abandoned()
