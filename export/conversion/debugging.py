"""The error that int8 adds in each layer of the source of an export."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from export.conversion.worker import open_source

if TYPE_CHECKING:
    from export.quantization.debugging import LayerError
    from export.source.job import ExportJob


def debug_job(job: ExportJob) -> list[LayerError]:
    """Return the layers of a source, those that cost most first; see `export.debug_quantization`."""
    from export.quantization.debugging import layer_errors

    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        source, _ = open_source(job.to_json(scratch), scratch, job.here)
        return layer_errors(source)
