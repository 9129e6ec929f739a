# SPDX-License-Identifier: Apache-2.0
"""The published tables, row by row: sampling, resolution, masks and alignment of the reference."""
