# SPDX-License-Identifier: Apache-2.0
"""Streaming 3D reconstruction with a compressed KV cache.

Holds nothing but this line: run from a checkout, the package then also finds the messages that
were generated into an installed copy of it (``xsvggt_ros.msg``).
"""

__path__ = __import__("pkgutil").extend_path(__path__, __name__)
