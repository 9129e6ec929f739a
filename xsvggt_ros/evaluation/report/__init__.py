# SPDX-License-Identifier: Apache-2.0
"""What a person reads of a run: one page that opens offline, and a summary in Markdown."""
