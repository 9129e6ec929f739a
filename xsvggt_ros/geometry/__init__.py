# SPDX-License-Identifier: Apache-2.0
"""Cameras, rigid motions and clouds, without any network."""

import xsvggt_ros.logs  # noqa: F401 - before any logger is made
