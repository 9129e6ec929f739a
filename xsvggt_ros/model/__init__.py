# SPDX-License-Identifier: Apache-2.0
"""The StreamVGGT network, with tensors named as in the official checkpoint."""

import xsvggt_ros.logs  # noqa: F401 - before any logger is made
