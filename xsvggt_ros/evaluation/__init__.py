# SPDX-License-Identifier: Apache-2.0
"""Recordings with ground truth in; errors, tables and reports out."""

import xsvggt_ros.logs  # noqa: F401 - before any logger is made
