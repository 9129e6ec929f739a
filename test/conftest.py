# SPDX-License-Identifier: Apache-2.0
"""Settings for every test."""

from hypothesis import settings

# A deadline is a timing assertion: it fails on a busy machine.
settings.register_profile("steady", deadline=None, print_blob=True)
settings.load_profile("steady")
