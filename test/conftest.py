# SPDX-License-Identifier: Apache-2.0
"""Settings for every test."""

import torch
from hypothesis import settings

# A deadline is a timing assertion: it fails on a busy machine.
settings.register_profile("steady", deadline=None, print_blob=True)
settings.load_profile("steady")

# Small tensors gain nothing from threads, and on a busy machine these wait for each other.
torch.set_num_threads(1)
