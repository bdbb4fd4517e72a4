"""Prepare a dataset of TFDS: download it, or report where to put it."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import socket
from collections.abc import Iterator
from typing import Any

from zoo.common.errors import DataError
from zoo.common.lazy import tfds


def prepare(builder: Any, name: str, local: bool) -> None:
    """Prepare the dataset unless it is; raises DataError with the folder to fill if the download fails."""
    if builder.data_path.exists():
        return
    try:
        if not local and _offline():
            # TFDS would retry for minutes.
            raise ConnectionError("no network")
        with _quiet():
            builder.download_and_prepare()
    except Exception as error:
        # Each dataset downloads and extracts in its own way and may raise any error.
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        raise DataError(
            f"The dataset {name!r} is not prepared here and cannot be downloaded. Prepare it on a machine with a "
            f"network (tfds build {name}) and put its folder at {builder.data_path} ({type(error).__name__}: {reason})"
        ) from error


def _offline() -> bool:
    """Return whether this machine has no network: names do not resolve and no proxy is set."""
    if any(name.lower() in ("http_proxy", "https_proxy", "all_proxy") for name in os.environ):
        return False
    try:
        socket.getaddrinfo("www.tensorflow.org", 443)
    except OSError:
        return True
    return False


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the progress bars, output and retry warnings of TFDS."""
    tfds.disable_progress_bar()
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)
