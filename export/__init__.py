"""Verified exports: every artifact is compared with its source model in the runtime that will run it.

import export
(artifact,) = export.convert(run, "tflite_int8")  # raises ParityError, and leaves no file, if it is out of tolerance
logits = export.load(artifact.path)(images)       # one callable for every format
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.compression.batch_norm_folding import fold as _fold
from export.compression.own_training import pruned_fit
from export.compression.pipeline import parse_pipeline
from export.compression.pruning import Pruning
from export.conversion.attempts import export_job
from export.conversion.debugging import debug_job
from export.conversion.opening import open_job
from export.core.compression import Compression
from export.core.compression import compressions as _compressions
from export.core.compression import register as register_compression
from export.core.format import Backend, Format
from export.core.format import formats as _formats
from export.core.format import register as register_format
from export.core.options import Options
from export.core.runtime import Runtime, Tensor
from export.core.tolerance import Tolerance
from export.inspection.inspect import Inspection
from export.inspection.inspect import inspect as _inspect
from export.publishing.pull import local_artifact
from export.publishing.push import Pushed, PushOptions, push_source
from export.quantization.debugging import LayerError
from export.reporting.content import Report, report_runs
from export.reporting.pick import Limits, Pick, pick_artifact
from export.source.job import RunJob
from export.source.rows import encode_table_rows
from export.verification.artifact import Artifact, load_artifact, verify_artifact
from training.learning.evaluation import check_data
from training.runs.run import Run
from zoo.common.errors import BadOption

if TYPE_CHECKING:
    import keras
    import numpy as np

__all__ = [
    "Artifact",
    "Backend",
    "Compression",
    "Format",
    "Inspection",
    "LayerError",
    "Options",
    "Pick",
    "Pushed",
    "Report",
    "Runtime",
    "Tensor",
    "Tolerance",
    "convert",
    "debug_quantization",
    "encode_rows",
    "fold_batch_norm",
    "inspect",
    "list_compressions",
    "list_formats",
    "load",
    "pick",
    "pruning",
    "push",
    "register_compression",
    "register_format",
    "report",
    "verify",
]

PathLike = str | os.PathLike[str]


def convert(  # noqa: PLR0913 - one keyword per argument of the command
    source: Run | PathLike | keras.Model,
    formats: str | Sequence[str],
    *,
    compress: str = "",
    weights: PathLike | None = None,
    calibration: Any = None,
    labels: Sequence[str] | PathLike | None = None,
    out: PathLike | None = None,
    max_drop: float | None = None,
    options: Mapping[str, Any] | None = None,
    auto: Callable[[str], Any] | bool = False,
    changed_data: str = "",
    private: bool = False,
) -> list[Artifact]:
    """Export a model to one or more formats through one child process, and verify each artifact.

    A format that fails does not stop the others; the error is raised after the last one, and has their artifacts as
    `completed`.

    Args:
        source: a finished run or its directory; the name of a registry model, with `weights`; or any built keras.Model,
            or the path of its .keras or .h5 file. Nothing of a model is changed.
        formats: one or more names of `export.list_formats()`, optionally with options: "tflite_int8:batch=4".
        compress: of a run: the compression pipeline to apply first, such as "structured:0.5 | prune:0.8 | qat"; see
            `export.list_compressions()`.
        weights: of a registry model: as for `zoo.get`, "imagenet", a path and so on; "random" for a trial.
        calibration: of a registry model: the examples to calibrate int8 formats and to compare artifacts on: a folder
            of images (JPEG, PNG, …; sub-folders too), or a .npy or .csv file. Seeded noise by default, which calibrates
            models of token ids only. Of a Keras model: as for `fit`, an array, a list or dictionary of arrays, a
            tf.data.Dataset or a generator of batches, each also in a pair with labels: numbers of classes, one-hot
            rows, 0 or 1 for each output, or numbers; the loss of accuracy, or of R², is measured on them then; or a
            folder of images for a model of one image, a .npy file, or a .npz file with an array for each input.
        labels: of a Keras model: names of its classes, or a text file with a name a line.
        out: of a registry or Keras model: folder for the artifacts, `exports/MODEL` by default.
        max_drop: accuracy in points that a format may lose, instead of its own tolerance; float formats ignore it.
        options: of a registry model: options of `zoo.get`, such as {"classes": 10, "input_shape": (64, 64, 3)}, and
            "preprocessing" for weights whose file does not state it. Of a Keras model: "input_range", the smallest and
            largest value of float inputs, for noise without calibration data; "input_shape", sizes for free ones;
            "task", "classify" if its output are scores of classes, "binary" if each says whether a label applies,
            "numeric" if they are numbers; "custom", addresses "module:Class" of its layers.
        auto: try what may help if a quantized artifact is refused, in the order of the message, until one passes: other
            options, compressions of a run, and other formats of the same runtime. A function receives a line for each
            attempt. The manifest has them under "attempts".
        changed_data: of a run: "refuse" raises DataError if files of its data were added, removed or changed; else a
            warning says so, and the files that the run knows are used.
        private: leave the examples of the data, which artifacts have to be verified again, out of them. `verify` can
            then prove that an artifact is unchanged and computes what it did, not that this is right.

    Returns:
        The artifacts, in RUN/exports/FORMAT or OUT/FORMAT. The folder's name has "+OPTION=VALUE" for each option that
        differs from its default, and "-COMPRESSION".

    Raises:
        UnknownName: no such format, compression or model.
        BadOption: the source is not supported, or an option or a compression does not apply.
        UnsupportedExport: a format does not support the model.
        ParityError: an artifact is out of tolerance; none of its files is left.
        ExportError: a converter failed.
        DataError: the calibration data cannot be read, or see `changed_data`.
        RunError: the run is unfinished, in use or cannot be written.
    """
    names = [formats] if isinstance(formats, str) else list(formats)
    if not names:
        raise BadOption(f"formats must name one or more of {', '.join(list_formats())}. Received: formats={formats!r}")
    job = open_job(source, weights=weights, calibration=calibration, labels=labels, out=out, options=options)
    if compress and not isinstance(job, RunJob):
        raise BadOption(f"compress applies to trained runs alone. Received: compress={compress!r}. Leave it out.")
    if isinstance(job, RunJob):
        check_data(job.run, changed_data)
    job.private = private
    report = (auto if callable(auto) else str) if auto else None
    return export_job(job, names, parse_pipeline(compress) if compress else None, max_drop, report)


def pruning(
    model: keras.Model,
    sparsity: float = 0.8,
    *,
    pattern: tuple[int, int] | None = None,
    block: tuple[int, int] | None = None,
    scope: str = "layer",
    skip: Sequence[str] = (),
    ramp: float = 0.6,
    steps: int | None = None,
) -> contextlib.AbstractContextManager[keras.callbacks.Callback]:
    """Prune any compiled Keras model while its own `fit` runs.

    The sparsity rises during training (Zhu and Gupta 2017, arXiv:1710.01878), and the smallest weights are held at
    exactly zero. The model has no other layers afterwards::

        with export.pruning(model, 0.8) as callback:
            model.fit(x, y, epochs=5, callbacks=[callback])

    Args:
        model: a compiled model; its kernels are changed by `fit`.
        sparsity: fraction of zeros in each kernel, at least 0 and below 1; `pattern` overrides it.
        pattern: (n, m) to keep n of each m consecutive input channels, such as (2, 4).
        block: (inputs, units) of the blocks of dense kernels that become zero together, such as (1, 4).
        scope: "layer" for the same sparsity in each kernel, "global" to compare the magnitudes of all kernels.
        skip: layers that stay dense, as names with the wildcards * and ?.
        ramp: fraction of the training after which the sparsity is reached; the rest recovers accuracy.
        steps: optimizer steps of the whole training, for data of unknown length or several calls of `fit`.

    Returns:
        A context manager; it returns the callback for `fit`.

    Raises:
        BadOption: an option is invalid, the model is not compiled, or a kernel does not fit the pattern.
        ExportError: at the end of the block, `fit` took too few steps to reach the sparsity.
        UnsupportedExport: Keras does not run on TensorFlow.
    """
    return pruned_fit(model, Pruning(sparsity, scope, pattern, block, tuple(skip), ramp), steps)


def fold_batch_norm(model: keras.Model) -> keras.Model:
    """Return a functional model without batch normalization that computes the same in inference.

    Args:
        model: a functional model, which is not changed.

    Raises:
        UnsupportedExport: it is not functional, or a batch normalization cannot be folded, which the message names.
    """
    return _fold(model)


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


def inspect(path: PathLike) -> Inspection:
    """Inspect a model file without running it.

    Args:
        path: a .tflite, .onnx or .keras file, OpenVINO's .xml, a SavedModel folder, or the folder of an artifact.

    Raises:
        DataError: the path is none of these, or the file cannot be read.
    """
    return _inspect(Path(path))


def verify(path: PathLike, *, changed_data: str = "") -> Artifact:
    """Repeat an artifact's comparison with its source model, from the samples in its folder.

    Args:
        path: the artifact or its folder, or an address as for `load`.
        changed_data: of an artifact in its run: "refuse" raises DataError if files of the run's data were added,
            removed or changed, which a warning says otherwise.

    Raises:
        RunError: no artifact there.
        ParityError: a byte was changed, or the artifact is out of tolerance.
        DataError: it cannot be downloaded, or see `changed_data`.
    """
    artifact = verify_artifact(local_artifact(path))
    folder = artifact.folder.absolute().parents[1]
    if (folder / "recipe.json").is_file():
        check_data(Run.open(folder), changed_data)
    return artifact


def push(
    source: Run | PathLike,
    to: str,
    *,
    private: bool | None = None,
    revision: str = "",
    create_pr: bool = False,
    license_name: str = "",
) -> Pushed:
    """Push a run or artifacts to a repository of the Hugging Face hub, with a model card.

    The weights of a run are pushed as `model.safetensors` with a `config.json`, for `zoo.get(to)`, and artifacts with
    their manifests and samples (up to 1,000 examples of the test split), for `export.load(to)`. Nothing is uploaded
    unless the pushed weights give the model back.

    Args:
        source: a finished run or its directory; an artifact; or a folder of artifacts.
        to: "hf://user/repository"; it is created if needed.
        private: whether a new repository is private; None for the hub's default.
        revision: a branch, which is created if needed; "main" by default.
        create_pr: open a pull request instead of a commit.
        license_name: identifier of the license, such as "apache-2.0"; that of the weights by default.

    Raises:
        BadOption: `to` is no such address, the model has several outputs, or the license of the weights forbids
            commercial use and is not accepted or kept.
        DataError: the hub refuses the upload, or cannot be reached.
        RunError: no run and no artifact there, or the run is unfinished.
        ParityError: an artifact was changed, or the pushed weights would not give the model back.
    """
    return push_source(source, to, PushOptions(private, revision, create_pr, license_name))


def debug_quantization(
    source: Run | PathLike | keras.Model,
    *,
    weights: PathLike | None = None,
    calibration: Any = None,
    options: Mapping[str, Any] | None = None,
) -> list[LayerError]:
    """Return the layers of a model by the error that int8 adds in each of them alone, the worst first.

    Exclude the first ones: "tflite_int8:exclude=LAYER+LAYER".

    Args:
        source: as for `convert`.
        weights: as for `convert`.
        calibration: as for `convert`.
        options: as for `convert`.

    Raises:
        BadOption: the source is not supported, or an option does not apply.
        UnsupportedExport: the model is not functional, or has a batch normalization that cannot be folded.
        DataError: the calibration data cannot be read.
    """
    return debug_job(open_job(source, weights=weights, calibration=calibration, options=options))


def load(path: PathLike, threads: int | None = None) -> Runtime:
    """Load an artifact into its runtime.

    Args:
        path: the artifact or its folder; or "hf://user/repository", "hf://user/repository@revision/NAME" for one of
            several.
        threads: threads of the runtime; its own default if None.

    Returns:
        A callable from raw values (n, *shape), pixels in [0, 255], or int32 token ids (n, length), to float32 logits
        (n, classes) or (n, length, classes), or values (n, targets) in the data's units. A sequence-to-sequence model
        takes "source" and "target", and has `generate`, from source ids to generated ids.

    Raises:
        RunError: no artifact there.
        ParityError: a byte was changed.
        DataError: it cannot be downloaded.
    """
    return load_artifact(local_artifact(path), threads)


def encode_rows(path: PathLike, rows: Sequence[Mapping[str, Any]] | PathLike) -> np.ndarray:
    """Encode rows of a table for an artifact, `export.load(path)(export.encode_rows(path, rows))`.

    Args:
        path: an artifact of a tabular model, or its folder.
        rows: values by column name, None for a missing one; or a CSV or Parquet file. Unknown columns are ignored.

    Returns:
        float32 (n, features), raw: the artifact normalizes them itself. The manifest describes each value under
        "metadata", "tabular", "features".

    Raises:
        RunError: no artifact there, or one without columns.
        DataError: a column is missing, or a value is invalid.
        ParityError: a byte of the artifact was changed.
    """
    return encode_table_rows(Path(path), rows)


def report(run: Run | PathLike, *more: Run | PathLike, measure: bool = True, out: PathLike | None = None) -> Report:
    """Write report.json and report.html.

    Args:
        run: a finished run or its directory; or a folder of artifacts without a run.
        more: others, to compare.
        measure: measure latency, cold start, memory and throughput of each artifact, in turns, on this machine.
        out: the folder to write to; the first run's by default.

    Returns:
        The content of report.json.

    Raises:
        RunError: no such run, or it is unfinished.
        ParityError: an artifact was changed.
        ExportError: a runtime failed.
    """
    return report_runs(_places(run, *more), measured=measure, out=None if out is None else Path(out))


def pick(  # noqa: PLR0913 - one keyword per limit
    run: Run | PathLike,
    *more: Run | PathLike,
    max_drop: float | None = None,
    max_mb: float | None = None,
    max_ms: float | None = None,
    max_memory: float | None = None,
    threads: int | None = None,
    runtime: str | None = None,
    gzip: bool = False,
    prefer: str = "speed",
) -> Pick:
    """Select the best artifact under accuracy, size and latency limits; None is no limit.

    Measurements of the first run's report are used if they are of this machine and these files; else they are repeated.

    Args:
        run: a finished run or its directory; or a folder of artifacts without a run.
        more: others, to select among all.
        max_drop: accuracy (or the task's metric) in points that it may lose against the best trained model of the runs;
            without labels, the percentage of examples with another prediction.
        max_mb: size in megabytes (10^6 bytes).
        max_ms: median latency in milliseconds.
        max_memory: memory in megabytes, without what the runtime's import takes.
        threads: threads of the latency; the number of processors by default.
        runtime: a format, or the prefix of several ("tflite").
        gzip: limit the compressed size instead.
        prefer: which artifact within the limits: the best by "speed", "size" or "accuracy".

    Raises:
        BadOption: no artifact is within the limits, or a limit is invalid; the message names the nearest miss.
        RunError: there is no artifact.
    """
    limits = Limits(max_drop, max_mb, max_ms, max_memory, threads, runtime, gzip, prefer)
    return pick_artifact(_places(run, *more), limits)


def _places(*runs: Run | PathLike) -> list[Run | Path]:
    return [run if isinstance(run, Run) else Path(run) for run in runs]
