# SPDX-License-Identifier: Apache-2.0
"""Settings for every test, and what many of them need."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

# Small tensors gain nothing from threads, and on a busy machine these wait for each other. Set
# before torch is there, and inherited by the nodes that tests start, so that all sum alike.
os.environ["OMP_NUM_THREADS"] = "1"

import pytest
from hypothesis import settings

from xsvggt_ros.ros.shared_memory import remove_abandoned

if TYPE_CHECKING:
    from rclpy.node import Node

    from xsvggt_ros.model.network import StreamVggt

# A deadline is a timing assertion: it fails on a busy machine.
settings.register_profile("steady", deadline=None, print_blob=True)
settings.load_profile("steady")


@pytest.fixture
def node() -> Iterator[Node]:
    """A node in a domain of its own; what it is to do, the test gives it."""
    import rclpy
    from rclpy.context import Context
    from rclpy.node import Node

    from xsvggt_ros.ros.domains import free_domain

    context = Context()
    rclpy.init(context=context, domain_id=free_domain())
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
