# SPDX-License-Identifier: Apache-2.0
"""Triton kernels of the network. Importing one needs Triton; `model/operators.py` does it late."""
