"""What ships: artifacts in the formats of phones and servers, each compared with its source in its real runtime.

import export
artifact = export.export(run, "tflite_int8")    # raises ParityError, and leaves no file, if it is not equal
export.load(artifact.path)(images)              # any format, one callable; ids of texts
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export._compression import Compression, compressions
from export._compression import register as register_compression
from export._format import Format, Runtime, Tensor, Tolerance, formats
from export._format import register as register_format
from export._pipeline import Artifact, export_run, load_artifact, verify_artifact
from export._vectors import vectors_of
from training._run import Run

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "Artifact",
    "Compression",
    "Format",
    "Runtime",
    "Tensor",
    "Tolerance",
    "compressions",
    "export",
    "export_all",
    "formats",
    "load",
    "register_compression",
    "register_format",
    "report",
    "vectors",
    "verify",
]

PathLike = str | os.PathLike[str]


def export(run: Run | PathLike, fmt: str, compress: str = "") -> Artifact:
    """Export a finished run to one format.

    Args:
        run: a run or its directory.
        fmt: a name of `export.formats.names()`.
        compress: what makes it smaller before, such as "structured:0.5 | prune:0.8 | qat"; names are those of
            `export.compressions.names()`.

    Returns:
        The artifact, at RUN/exports/FORMAT, or FORMAT-COMPRESSION.

    Raises:
        UnknownName: no such format or compression.
        BadOption: a compression cannot be had, or its options cannot be.
        UnsupportedExport: the model's spec rules this format out.
        ParityError: the artifact is not equal to its source; nothing of it is left.
        ExportError: the converter failed.
        RunError: the run is unfinished, in use or cannot be written.
    """
    return export_all(run, [fmt], compress)[0]


def export_all(run: Run | PathLike, names: Sequence[str], compress: str = "") -> list[Artifact]:
    """Export a finished run to several formats through one child process; those that fail do not hold up others."""
    return export_run(run if isinstance(run, Run) else Run.open(run), names, compress)


def verify(path: PathLike) -> Artifact:
    """Repeat an artifact's comparison with its source, from the samples beside it.

    Raises:
        RunError: no artifact there.
        ParityError: a byte was changed, or the artifact no longer equals its source.
    """
    return verify_artifact(Path(path))


def load(path: PathLike, threads: int | None = None) -> Runtime:
    """Load an artifact into its real runtime.

    Args:
        path: the artifact or its folder.
        threads: threads of the runtime; its own choice by default.

    Returns:
        A callable from raw values (n, *shape), pixels 0 to 255, or int32 token ids (n, length), to float32 logits (n,
        classes) or (n, length, classes), or values (n, targets) in the data's own units. One that writes sequences
        takes "source" and "target" and has `generate`, from source ids to the ids that it writes.

    Raises:
        RunError: no artifact there.
        ParityError: a byte was changed.
    """
    return load_artifact(Path(path), threads)


def vectors(path: PathLike, rows: Sequence[Mapping[str, Any]] | PathLike) -> np.ndarray:
    """Turn rows of a table into what an artifact takes, as `export.load(path)(export.vectors(path, rows))`.

    Args:
        path: an artifact of a network for tables, or its folder.
        rows: values by heading, None for one that is missing; or a CSV or Parquet file with these headings. Columns
            that the network does not know are passed over.

    Returns:
        float32 (n, features), raw: the artifact scales them itself. What each value says stands in the manifest, under
        "metadata", "tabular", "features".

    Raises:
        RunError: no artifact there, or one of no table.
        DataError: a column is missing, or a value cannot be.
        ParityError: a byte of the artifact was changed.
    """
    return vectors_of(Path(path), rows)


def report(run: Run | PathLike, *, measure: bool = True) -> dict[str, Any]:
    """Write report.json and report.html into a run.

    Args:
        run: a finished run or its directory.
        measure: measure the latency of each artifact, one after the other, now and here.

    Returns:
        The content of report.json.
    """
    from export._content import report_run

    return report_run(run if isinstance(run, Run) else Run.open(run), measure=measure)
