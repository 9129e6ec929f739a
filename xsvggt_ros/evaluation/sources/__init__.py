# SPDX-License-Identifier: Apache-2.0
"""One file per way in which recordings with ground truth are kept."""
