# SPDX-License-Identifier: Apache-2.0
"""The StreamVGGT network, with tensors named as in the official checkpoint."""
