"""Converters and runtimes that talk too much."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence the progress bars, warnings and logs below errors of converters, quantizers and savers."""
    loggers = [logging.getLogger(name) for name in ("absl", "tensorflow", "tf2onnx", None)]
    levels = [logger.level for logger in loggers]
    with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
