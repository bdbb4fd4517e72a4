"""What ships: artifacts in the formats of phones and servers, each compared with its source in its real runtime.

import export
artifact = export.export(run, "tflite_int8")    # raises ParityError, and leaves no file, if it is not equal
export.load(artifact.path)(images)              # any format, one callable; ids of texts
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.core.compression import Compression
from export.core.compression import compressions as _compressions
from export.core.compression import register as register_compression
from export.core.format import Format, Runtime, Tensor, Tolerance
from export.core.format import formats as _formats
from export.core.format import register as register_format
from export.core.options import Options
from export.inspection.inspect import inspect as inspect_file
from export.pipeline import Artifact, export_request, export_run, load_artifact, verify_artifact
from export.source.origin import ModelRequest
from export.source.rows import encode_rows
from training.runs.run import Run
from zoo.common.errors import BadOption, did_you_mean

if TYPE_CHECKING:
    import numpy as np

    from export.reporting.pick import Pick

__all__ = [
    "Artifact",
    "Compression",
    "Format",
    "Options",
    "Runtime",
    "Tensor",
    "Tolerance",
    "export",
    "export_all",
    "export_model",
    "inspect",
    "list_compressions",
    "list_formats",
    "load",
    "pick",
    "register_compression",
    "register_format",
    "report",
    "vectors",
    "verify",
]

PathLike = str | os.PathLike[str]


def export(run: Run | PathLike, fmt: str, compress: str = "", *, max_drop: float | None = None) -> Artifact:
    """Export a finished run to one format.

    Args:
        run: a run or its directory.
        fmt: a name of `export.list_formats()`, with options if wanted: "tflite_int8:batch=4,input=uint8".
        compress: what makes it smaller before, such as "structured:0.5 | prune:0.8 | qat"; names are those of
            `export.list_compressions()`.
        max_drop: how many points of accuracy a format that is not exact may lose, instead of what it states.

    Returns:
        The artifact, at RUN/exports/FORMAT, with "+OPTION=VALUE" for each option that is not the default, and with
        "-COMPRESSION" if it was made smaller.

    Raises:
        UnknownName: no such format or compression.
        BadOption: a compression cannot be had, or options cannot be.
        UnsupportedExport: the model's spec rules this format out.
        ParityError: the artifact is not equal to its source; nothing of it is left.
        ExportError: the converter failed.
        RunError: the run is unfinished, in use or cannot be written.
    """
    return export_all(run, [fmt], compress, max_drop=max_drop)[0]


def export_all(
    run: Run | PathLike, names: Sequence[str], compress: str = "", *, max_drop: float | None = None
) -> list[Artifact]:
    """Export a finished run to several formats through one child process; those that fail do not hold up others."""
    return export_run(run if isinstance(run, Run) else Run.open(run), names, compress, max_drop)


def export_model(
    model: str,
    fmt: str | Sequence[str],
    *,
    weights: PathLike,
    calibrate: PathLike | None = None,
    out: PathLike | None = None,
    max_drop: float | None = None,
    **options: Any,
) -> list[Artifact]:
    """Export a model of the registry that was not trained here.

    Nobody knows the right answers, so that it is judged by how far its own differ from its source's, and accuracies are
    None. Images are prepared as the spec states; see `zoo.spec(model).preprocessing`.

    Args:
        model: a name of `zoo.names()`.
        fmt: a format, or several, as for `export`.
        weights: as for `zoo.get`: "imagenet", a path and so on; "random" for a trial.
        calibrate: what int8 formats are calibrated and all are compared on: a folder of images (JPEG, PNG, …; those in
            its folders too), or a .npy or .csv file of examples. Seeded noise is what they are compared on by default,
            and calibrated on if they take token ids; the manifest states it.
        out: folder for the artifacts, `exports/MODEL` by default.
        max_drop: as for `export`; of answers that nobody knows, how many points of them may differ more.
        options: those of `zoo.get`, such as classes=10 or input_shape=(64, 64, 3).

    Returns:
        The artifacts, at OUT/FORMAT.

    Raises:
        UnknownName: no such model or format.
        BadOption: no weights, weights that do not fit, or a format that is calibrated on examples without any.
        DataError: the examples cannot be read.
        UnsupportedExport, ParityError, ExportError: as for `export`.
    """
    names = [fmt] if isinstance(fmt, str) else list(fmt)
    examples = "" if calibrate is None else os.fspath(calibrate)
    request = ModelRequest(model, os.fspath(weights), examples, options)
    return export_request(request, names, Path(out or Path("exports") / model), max_drop)


def list_formats(*patterns: str, exclude: str | Iterable[str] = ()) -> list[str]:
    """Return the names of the export formats in natural order.

    Args:
        *patterns: shell wildcards, any of which must match; none for all names.
        exclude: a wildcard or several that must not match.
    """
    return _formats.names(*patterns, exclude=exclude)


def list_compressions(*patterns: str, exclude: str | Iterable[str] = ()) -> list[str]:
    """Return the names of the compression methods in natural order; for the arguments see `list_formats`."""
    return _compressions.names(*patterns, exclude=exclude)


def inspect(path: PathLike) -> dict[str, Any]:
    """Say what stands in a model, anyone's, of which nothing is run.

    Args:
        path: a .tflite, .onnx or .keras file, OpenVINO's .xml, the folder of a SavedModel, or one of ours.

    Returns:
        What `export.inspection.inspect.Inspection.to_json` returns.

    Raises:
        DataError: it is none of these, or cannot be read.
    """
    return inspect_file(Path(path))


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
    return encode_rows(Path(path), rows)


def report(
    run: Run | PathLike, *more: Run | PathLike, measure: bool = True, out: PathLike | None = None
) -> dict[str, Any]:
    """Write report.json and report.html.

    Args:
        run: a finished run or its directory; or a folder of artifacts that belong to no run.
        more: others, to compare.
        measure: measure latency, cold start, memory and throughput of each artifact, in turns, now and here.
        out: where to write; into the first run by default.

    Returns:
        The content of report.json.

    Raises:
        RunError: there is no such run, or it is unfinished.
        ParityError: an artifact is not as it was written.
        ExportError: a runtime failed.
    """
    from export.reporting.content import report_runs

    return report_runs(_places(run, *more), measured=measure, out=None if out is None else Path(out))


def pick(run: Run | PathLike, *more: Run | PathLike, **limits: Any) -> Pick:
    """Choose the artifact to ship.

    What the report of the first run measured here, of these very files, is used; else it is measured now.

    Args:
        run: a finished run or its directory; or a folder of artifacts that belong to no run.
        more: others, to choose among all.
        limits: the fields of `export.reporting.pick.Limits`, such as `max_drop=0.5, max_mb=2, max_ms=5`.

    Raises:
        BadOption: nothing fits, or a limit cannot be; the message names the nearest miss and what to relax.
        RunError: there is no artifact to choose from.
    """
    from export.reporting.pick import Limits, pick_artifact

    known = {field.name for field in dataclasses.fields(Limits)}
    for name in limits.keys() - known:
        raise BadOption(f"Expected a limit. Received: {name}={limits[name]!r}. {did_you_mean(name, known)}")
    return pick_artifact(_places(run, *more), Limits(**limits))


def _places(*runs: Run | PathLike) -> list[Run | Path]:
    return [run if isinstance(run, Run) else Path(run) for run in runs]
