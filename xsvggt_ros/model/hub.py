# SPDX-License-Identifier: Apache-2.0
"""Weights from the Hugging Face hub."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from xsvggt_ros.errors import CheckpointError, first_line
from xsvggt_ros.model.backbones import BACKBONES, backbone_in
from xsvggt_ros.model.weight_files import SUFFIXES

logger = logging.getLogger(__name__)

_HUB_ID = re.compile(r"^(?P<repository>[\w.-]+/[\w.-]+?)(?::(?P<file>[^:]+))?$")
_FILES = (*SUFFIXES, ".tar", ".zip", ".gz", ".npz", ".onnx", ".gguf")
"""Ends of the names of files, which those of repositories are not taken to have."""

_RETRYING = "huggingface_hub.utils._http"
"""Logger of what the hub's client tries again."""


def is_hub_id(source: str) -> bool:
    """Tell whether a text is ``owner/name`` or ``owner/name:file``, and not the path of a file."""
    match = _HUB_ID.match(source)
    return bool(match and not match["repository"].endswith(_FILES) and source[0] not in "./~")


def download(source: str) -> Path:
    """Return where the file of a hub id lies, after getting it where it is not there yet.

    Raises:
        CheckpointError: it cannot be had; the message says why.

    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    match = _HUB_ID.match(source)
    assert match is not None
    repository = match["repository"]
    backbone = backbone_in(repository)
    file = match["file"] or (backbone or BACKBONES[0]).file
    logger.info("getting %s from %s (kept for the next time, resumed if cut off)", file, repository)
    try:
        with _failing_at_once():
            return Path(hf_hub_download(repository, file))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise CheckpointError(
            f"checkpoint '{source}' is no local file, and '{file}' could not be had from the "
            f"Hugging Face repository '{repository}': {first_line(error)}; check the name and the "
            "network (HTTPS_PROXY names a proxy), or download the file elsewhere and give its path"
        ) from error


class _FirstFailure(logging.Filter):
    """Turns the first message on a request for a file's address that failed into an error.

    The client would try again for half a minute, and say so in twenty lines, though it has failed
    once before without a message. Downloads that break off are still taken up again.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        if "thrown while requesting HEAD" in text:
            raise ConnectionError(text.partition(" thrown while")[0].strip("'"))
        return True


@contextmanager
def _failing_at_once() -> Iterator[None]:
    talkative = logging.getLogger(_RETRYING)
    first = _FirstFailure()
    talkative.addFilter(first)
    try:
        yield
    finally:
        talkative.removeFilter(first)
