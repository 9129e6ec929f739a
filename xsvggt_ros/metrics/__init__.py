# SPDX-License-Identifier: Apache-2.0
"""Errors of depth and trajectories, each defined once, with its alignment in its name."""
