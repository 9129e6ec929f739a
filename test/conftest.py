# SPDX-License-Identifier: Apache-2.0
"""Settings for every test."""

import os

# Small tensors gain nothing from threads, and on a busy machine these wait for each other. Set
# before torch is there, and inherited by the nodes that tests start, so that all sum alike.
os.environ["OMP_NUM_THREADS"] = "1"

from hypothesis import settings

# A deadline is a timing assertion: it fails on a busy machine.
settings.register_profile("steady", deadline=None, print_blob=True)
settings.load_profile("steady")
