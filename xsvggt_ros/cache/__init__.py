# SPDX-License-Identifier: Apache-2.0
"""The KV cache of the stream: what is attended to, what is kept, how it is stored.

Knows neither images nor networks: it is handed queries, keys and values.
"""

import xsvggt_ros.logs  # noqa: F401 - before any logger is made
