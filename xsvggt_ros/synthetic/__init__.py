# SPDX-License-Identifier: Apache-2.0
"""Procedural rooms and camera motion with exact ground truth."""
