"""The export pipeline: convert in a child process, load in the runtime, compare with the source, move into place."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import zoo
from export.compression.pipeline import CompressionPipeline, check_formats, verify_guarantees
from export.conversion.generated_samples import generate_samples
from export.conversion.worker import convert_here, convert_in_child
from export.core.format import FormatRequest
from export.core.generate import Generator
from export.core.manifest import FACTS, MASKS, SAMPLES, write_manifest
from export.core.options import with_options
from export.core.runtime import Runtime
from export.core.samples import read_samples, write_samples
from export.source.job import ExportJob, RunJob
from export.source.source import record_path
from export.verification.artifact import Artifact, inspect_artifact
from export.verification.compared import Parity
from export.verification.parity import compare, require
from export.verification.remedies import Refusal, Refused, Remedy, list_remedies
from training.runs.environment import environment
from training.runs.run import Run
from zoo.common.disk import full_disk_hint
from zoo.common.ending import cleaned_up
from zoo.common.errors import ExportError, ParityError, UnsupportedExport, ZooError
from zoo.common.files import remove_folder, restore_all, whole_folder
from zoo.reading.files import check_inside
from zoo.reading.json_files import read_json

TEMPORARY = ".writing-"


def export_each(
    job: ExportJob,
    requests: Mapping[str, FormatRequest],
    compression: CompressionPipeline | None = None,
    attempts: Sequence[Mapping[str, Any]] = (),
) -> Iterator[tuple[str, Artifact | ZooError]]:
    """Yield the artifact or the error of each format, by the request's text; `check_request` comes first.

    `attempts` are what was refused before, for the manifest.
    """
    with job.lock(), _scratch(job.exports) as scratch:
        for name, error in _convert(job, list(requests), scratch, compression.text if compression else ""):
            found = error or _artifact_or_error(job, requests[name], scratch, compression, attempts)
            yield name, _explained(found, job, scratch) if isinstance(found, ZooError) else found


def _convert(
    job: ExportJob, formats: Sequence[str], scratch: Path, compression: str
) -> Iterator[tuple[str, ZooError | None]]:
    """Yield each format with its error as it is converted below `scratch`."""
    content = job.to_json(scratch)
    if job.here is not None:
        return convert_here(content, formats, scratch, job.here)
    return convert_in_child(content, formats, scratch, compression)


def _artifact_or_error(
    job: ExportJob,
    request: FormatRequest,
    scratch: Path,
    compression: CompressionPipeline | None,
    attempts: Sequence[Mapping[str, Any]],
) -> Artifact | ZooError:
    try:
        return _finish(job, request, scratch, compression, attempts)
    except ZooError as failure:
        return failure


def _explained(error: ZooError, job: ExportJob, scratch: Path) -> ZooError:
    """Return the error of a format, or its cause if that is a full disk or a folder that was removed."""
    if not scratch.is_dir():
        return ExportError(
            f"Expected {job.exports} to stay until its export ends. Received: a folder that was removed meanwhile. "
            "Nothing was written; export again."
        )
    # A converter that finds no space leaves a file that fails in another way.
    hint = full_disk_hint([scratch])
    return ExportError(f"{str(error).rstrip('.')}.{hint}") if hint else error


def check_request(job: ExportJob, request: FormatRequest, compression: CompressionPipeline | None = None) -> None:
    """Raise UnsupportedExport or BadOption for a format that spec, compression or options rule out."""
    if compression:
        check_formats(compression, [request.format.name])
        _check_single_output(job)
    reason = unsupported_reason(job.spec, request)
    if reason:
        raise UnsupportedExport(reason)
    request.options.check(job.metadata())
    job.check(request)


def _check_single_output(job: ExportJob) -> None:
    """Raise UnsupportedExport if a model that is to be compressed has several outputs."""
    outputs = job.metadata().get("outputs")
    if outputs:
        names = ", ".join(output["name"] for output in outputs)
        raise UnsupportedExport(
            "Compressions are trained and compared by one output. Received: a model for several targets, with the "
            f"outputs {names}. Leave out --compress, or train a run for each target."
        )


def unsupported_reason(model: Run | zoo.ModelSpec, request: FormatRequest) -> str:
    """Return why the spec of a model, or of a run's model, rules a format out; "" if it does not."""
    spec, name = zoo.spec(model.recipe.model.name) if isinstance(model, Run) else model, request.format.name
    try:
        request.format.backend(spec.task)
    except UnsupportedExport as error:
        return str(error)
    reason = dict(spec.unsupported).get(name)
    return f"{spec.name} does not export to {name}: {reason}" if reason else ""


@contextlib.contextmanager
def _scratch(exports: Path) -> Iterator[Path]:
    """Yield a temporary folder next to the artifacts; removes what a killed export left there."""
    exports.mkdir(parents=True, exist_ok=True)
    check_inside(exports)
    restore_all(exports)
    for leftover in exports.glob(f"{TEMPORARY}*"):
        shutil.rmtree(leftover, ignore_errors=True)
    folder = exports / f"{TEMPORARY}{os.getpid()}"

    def clean_up() -> None:
        remove_folder(folder)
        with contextlib.suppress(OSError):
            # Nothing was exported: leave no empty folder.
            exports.rmdir()

    try:
        with cleaned_up(clean_up, folder.mkdir):
            yield folder
    finally:
        clean_up()


def _finish(
    job: ExportJob,
    request: FormatRequest,
    scratch: Path,
    compression: CompressionPipeline | None = None,
    attempts: Sequence[Mapping[str, Any]] = (),
) -> Artifact:
    """Verify a converted artifact and move it into place, or raise ParityError and leave nothing."""
    backend = request.format.backend(job.spec.task)
    converted = scratch / request.slug / backend.file
    facts = read_json(scratch / FACTS)
    samples = _samples(job, request, scratch)
    parity, interface, metadata = _verify(job, request, converted, scratch / SAMPLES, facts)
    if not parity.passed:
        remedies = _remedies(job, request, parity, metadata, compression)
        try:
            require(parity, f"{request.text} of {job.title}", [remedy.text for remedy in remedies])
        except ParityError as error:
            raise Refused(str(error), parity, remedies) from error
    record = verify_guarantees(compression, request, converted, scratch) if compression else None
    place = job.exports / (f"{request.slug}-{compression.slug}" if compression else request.slug)
    with whole_folder(place, parents=False) as folder:
        _copy(converted, folder / backend.file)
        shutil.copy(samples, folder / SAMPLES)
        if compression:
            shutil.copy(scratch / MASKS, folder / MASKS)
        content = {
            "format": request.format.name,
            "options": dataclasses.asdict(request.options),
            "compression": record,
            "attempts": list(attempts),
            "quantization": read_json(record_path(scratch / request.slug)) or None,
            "artifact": backend.file,
            "metadata": metadata,
            "max_drop": request.max_drop,
            "private": job.private,
        }
        content["inspection"] = inspect_artifact(request.format, folder / backend.file, content)
        content |= {**interface, "samples": job.samples, "source": job.provenance(facts), "environment": environment()}
        manifest = write_manifest(folder, {**content, "parity": parity.to_json()})
    return Artifact(place / backend.file, manifest)


def _samples(job: ExportJob, request: FormatRequest, scratch: Path) -> Path:
    """Return the file of the samples that an artifact gets."""
    return scratch / (f"{request.slug}.{SAMPLES}" if job.private else SAMPLES)


def _verify(
    job: ExportJob, request: FormatRequest, converted: Path, samples: Path, facts: Mapping[str, Any]
) -> tuple[Parity, dict[str, Any], dict[str, Any]]:
    """Return the comparison with the source, interface and metadata; the runtime is gone when this returns.

    Else the weights of a large model would be in memory twice while the artifact is inspected.
    """
    backend = request.format.backend(job.spec.task)
    runtime = _load(backend, request, converted)
    name = (runtime.metadata or {}).get("model", "")
    metadata = with_options(job.expected_metadata(name, facts), request.options)
    tolerance = backend.tolerance.with_max_drop(request.max_drop)
    known = read_samples(samples)
    parity = compare(runtime, known, tolerance, metadata)
    if job.private and parity.passed:
        write_samples(generate_samples(known, runtime), _samples(job, request, samples.parent))
    return parity, _interface(runtime), metadata


def _load(backend: Any, request: FormatRequest, converted: Path) -> Runtime:
    """Return an artifact in its runtime; raises ExportError if it does not open."""
    try:
        return backend.load(converted)
    except ZooError:
        raise
    except Exception as error:
        # Runtimes raise any exception of their dependencies; the line names its type.
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"
        raise ExportError(f"{request.text} was converted, and its runtime does not open it: {reason}") from error


def _remedies(
    job: ExportJob,
    request: FormatRequest,
    parity: Parity,
    metadata: Mapping[str, Any],
    compression: CompressionPipeline | None,
) -> list[Remedy]:
    """Return what to try if an artifact is refused."""
    pipeline, unsupported = compression.text if compression else "", dict(job.spec.unsupported)
    trained, task = isinstance(job, RunJob), metadata["task"]
    return list_remedies(Refusal(request, task, parity, trained, unsupported, pipeline, metadata))


def _copy(converted: Path, target: Path) -> None:
    """Copy an artifact; other formats of the same export may be converted from the original."""
    if converted.is_dir():
        shutil.copytree(converted, target, dirs_exist_ok=True)
        return
    # Weights that are too large for the file are next to it, as NAME.data.
    for file in (converted, *converted.parent.glob(f"{converted.name}.*")):
        shutil.copy(file, target.with_name(file.name))


def _interface(runtime: Runtime) -> dict[str, Any]:
    """Return the manifest's description of an artifact's inputs and outputs."""
    parts = runtime.parts if isinstance(runtime, Generator) else {}
    return {
        "inputs": list(map(dataclasses.asdict, runtime.inputs)),
        "outputs": list(map(dataclasses.asdict, runtime.outputs)),
        "batch": runtime.batch,
        "required_modules": list(runtime.required_modules),
        "parts": {
            part: {
                "inputs": list(map(dataclasses.asdict, inputs)),
                "outputs": list(map(dataclasses.asdict, outputs)),
            }
            for part, (inputs, outputs) in parts.items()
        },
    }
