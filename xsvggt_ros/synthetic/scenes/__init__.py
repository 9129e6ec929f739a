# SPDX-License-Identifier: Apache-2.0
"""Batches of worlds in which nothing is shared: rendered on a GPU or a CPU."""
