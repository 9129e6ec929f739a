# SPDX-License-Identifier: Apache-2.0
"""Settings for every test."""

import os
from collections.abc import Iterator

# Small tensors gain nothing from threads, and on a busy machine these wait for each other. Set
# before torch is there, and inherited by the nodes that tests start, so that all sum alike.
os.environ["OMP_NUM_THREADS"] = "1"

import pytest
from hypothesis import settings

from xsvggt_ros.ros.shared_memory import remove_abandoned

# A deadline is a timing assertion: it fails on a busy machine.
settings.register_profile("steady", deadline=None, print_blob=True)
settings.load_profile("steady")


@pytest.fixture(autouse=True, scope="session")
def no_shared_memory_left() -> Iterator[None]:
    """Remove what processes left that were killed, as some tests do on purpose."""
    yield
    remove_abandoned()
