# SPDX-License-Identifier: Apache-2.0
"""The cache's operations in Triton, for CUDA; `ops.py` has what they are held to."""
