"""From a run to proven artifacts: convert in a child, reload in the real runtime, compare, move into place."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import zoo
from export.compression.pipeline import CompressionPipeline, check_formats, parse_pipeline, prove, prove_again
from export.convert_worker import convert
from export.core.format import Backend, Format, FormatRequest, Runtime, formats, parse_format
from export.core.generate import Generator
from export.core.guarantees import check_guarantees
from export.core.manifest import MASKS, NAME, SAMPLES, find_folder, read_manifest, write_manifest
from export.core.options import described
from export.core.samples import read_samples
from export.inspection.inspect import look
from export.source.origin import ExportJob, ModelRequest, RegistryJob, RunJob
from export.verification.parity import compare, require
from training.runs.run import Run, environment
from zoo.common.errors import ParityError, UnsupportedExport, ZooError
from zoo.common.files import whole_folder

HIDDEN = ".writing-"


@dataclasses.dataclass(frozen=True)
class Artifact:
    """What ships: a file (or SavedModel folder) that was compared with its source, and its manifest.

    Args:
        path: the artifact itself; of several files the folder, in which the manifest and the samples lie too.
        manifest: what the manifest beside it says.
    """

    path: Path
    manifest: dict[str, Any]

    @property
    def format(self) -> str:
        """Name of its format."""
        return self.manifest["format"]

    @property
    def name(self) -> str:
        """Name of its folder: the format, its options, and what it was made smaller by."""
        return self.folder.name

    @property
    def folder(self) -> Path:
        """The folder with its manifest."""
        return self.path.parent if self.manifest["artifact"] else self.path

    @property
    def parity(self) -> dict[str, Any]:
        """The figures of the comparison with its source."""
        return self.manifest["parity"]


def export_run(run: Run, names: Sequence[str], compress: str = "", max_drop: float | None = None) -> list[Artifact]:
    """Export a finished run; see `export.export_all`."""
    return export_origin(RunJob(run), names, parse_pipeline(compress) if compress else None, max_drop)


def export_request(
    request: ModelRequest, names: Sequence[str], out: Path, max_drop: float | None = None
) -> list[Artifact]:
    """Export a model of the registry; see `export.export_model`."""
    return export_origin(RegistryJob(request, out), names, None, max_drop)


def export_origin(
    origin: ExportJob, names: Sequence[str], chain: CompressionPipeline | None = None, max_drop: float | None = None
) -> list[Artifact]:
    """Export to several formats through one child process; those that fail do not hold up others."""
    wanted = {one.text: one for one in (parse_format(name, max_drop) for name in names)}
    for one in wanted.values():
        check_wanted(origin, one, chain)
    made = dict(export_each(origin, wanted, chain)).values()
    failures = [failure for failure in made if isinstance(failure, ZooError)]
    if failures:
        raise type(failures[0])("; ".join(map(str, failures)))
    return [artifact for artifact in made if isinstance(artifact, Artifact)]


def export_each(
    origin: ExportJob, wanted: Mapping[str, FormatRequest], chain: CompressionPipeline | None = None
) -> Iterator[tuple[str, Artifact | ZooError]]:
    """Yield what becomes of each format that `check_wanted` lets pass: an artifact, or why there is none."""
    with origin.lock(), _scratch(origin.exports) as scratch:
        for name, error in convert(origin.job(), list(wanted), scratch, chain.text if chain else ""):
            yield name, error or _finished(origin, wanted[name], scratch, chain)


def _finished(
    origin: ExportJob, wanted: FormatRequest, scratch: Path, chain: CompressionPipeline | None
) -> Artifact | ZooError:
    """Return an artifact in its place, or why there is none."""
    try:
        return _finish(origin, wanted, scratch, chain)
    except ZooError as failure:
        return failure


def check_wanted(origin: ExportJob, wanted: FormatRequest, chain: CompressionPipeline | None = None) -> None:
    """Raise UnsupportedExport for a format that spec or chain rule out, BadOption for options that do not fit."""
    if chain:
        check_formats(chain, [wanted.format.name])
    reason = ruled_out(origin.spec, wanted)
    if reason:
        raise UnsupportedExport(reason)
    wanted.options.check(origin.told())
    origin.check(wanted)


def ruled_out(model: Run | zoo.ModelSpec, wanted: FormatRequest) -> str:
    """Return why a model, or a run's, cannot be had in a format, "" if it can as far as its spec tells."""
    spec, name = zoo.spec(model.recipe.model.name) if isinstance(model, Run) else model, wanted.format.name
    try:
        wanted.format.way(spec.task)
    except UnsupportedExport as error:
        return str(error)
    reason = dict(spec.unsupported).get(name)
    return f"{spec.name} does not export to {name}: {reason}" if reason else ""


@contextlib.contextmanager
def _scratch(exports: Path) -> Iterator[Path]:
    """Give a hidden folder beside the artifacts; what a killed export left there goes too."""
    exports.mkdir(parents=True, exist_ok=True)
    for left in exports.glob(f"{HIDDEN}*"):
        shutil.rmtree(left, ignore_errors=True)
    folder = exports / f"{HIDDEN}{os.getpid()}"
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            # Nothing was exported, so that nothing stays.
            exports.rmdir()


def _finish(
    origin: ExportJob, wanted: FormatRequest, scratch: Path, chain: CompressionPipeline | None = None
) -> Artifact:
    """Compare a written artifact and put it into its place, or raise ParityError and leave nothing."""
    fmt = wanted.format
    way = fmt.way(origin.spec.task)
    written = scratch / wanted.slug / way.file
    runtime = way.load(written)
    expected = described(origin.expected((runtime.metadata or {}).get("model", "")), wanted.options)
    allowed = way.tolerance.within(wanted.max_drop)
    parity = compare(runtime, read_samples(scratch / SAMPLES), allowed, expected)
    require(parity, f"{wanted.text} of {origin.title}")
    interface = _facts(runtime)
    # Else the weights of a large network would be held twice while it is inspected.
    del runtime
    compression = prove(chain, wanted, written, scratch) if chain else None
    place = origin.exports / (f"{wanted.slug}-{chain.slug}" if chain else wanted.slug)
    with whole_folder(place) as folder:
        _place(written, folder / way.file)
        for beside in (SAMPLES, MASKS) if chain else (SAMPLES,):
            shutil.copy(scratch / beside, folder / beside)
        facts = {"format": fmt.name, "options": dataclasses.asdict(wanted.options), "compression": compression}
        facts |= {"artifact": way.file, "metadata": expected, "max_drop": wanted.max_drop}
        facts |= {"inspection": _inspected(fmt, folder / way.file, facts), **interface}
        facts |= {"samples": origin.samples, "source": origin.facts(), "environment": environment()}
        manifest = write_manifest(folder, {**facts, "parity": parity.to_json()})
    return Artifact(place / way.file, manifest)


def _inspected(fmt: Format, path: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an artifact is, read from its file, or raise ParityError if that is not what it is called."""
    found = look(path)
    check_guarantees(found.stored, fmt.guarantees, manifest)
    return found.to_json()


def _place(written: Path, target: Path) -> None:
    """Copy, not move: another format of the same export may still be made from it."""
    if written.is_dir():
        shutil.copytree(written, target, dirs_exist_ok=True)
        return
    # Weights that are too large for the file lie beside it, as NAME.data.
    for file in (written, *written.parent.glob(f"{written.name}.*")):
        shutil.copy(file, target.with_name(file.name))


def _facts(runtime: Runtime) -> dict[str, Any]:
    """Return what the manifest says of the interface of an artifact."""
    parts = runtime.parts if isinstance(runtime, Generator) else {}
    return {
        "inputs": list(map(dataclasses.asdict, runtime.inputs)),
        "outputs": list(map(dataclasses.asdict, runtime.outputs)),
        "batch": runtime.batch,
        "needs": list(runtime.needs),
        "parts": {
            part: {"inputs": list(map(dataclasses.asdict, given)), "outputs": list(map(dataclasses.asdict, out))}
            for part, (given, out) in parts.items()
        },
    }


def verify_artifact(path: Path) -> Artifact:
    """Repeat the comparison of an artifact with its source; see `export.verify`."""
    folder = find_folder(path)
    manifest = read_manifest(folder)
    way, runtime = _open(folder, manifest)
    allowed = way.tolerance.within(manifest.get("max_drop"))
    parity = compare(runtime, read_samples(folder / SAMPLES), allowed, manifest["metadata"])
    require(parity, str(folder))
    made = manifest["compression"]
    again = made and prove_again(made, manifest["format"], folder / way.file, folder / MASKS)
    found = _inspected(formats[manifest["format"]], folder / way.file, manifest)
    _check_inspection(found, manifest["inspection"], folder)
    return Artifact(folder / way.file, manifest | {"parity": parity.to_json(), "compression": again})


def _check_inspection(found: Mapping[str, Any], stated: Mapping[str, Any], folder: Path) -> None:
    """Raise ParityError if a manifest states what is not found; other builds of zlib pack a little otherwise."""
    for key in found:
        if key != "gzip" and found[key] != stated.get(key):
            raise ParityError(
                f"{folder / NAME} states {key} to be {str(stated.get(key))[:100]}. Received: {str(found[key])[:100]} "
                "in the artifact"
            )


def load_artifact(path: Path, threads: int | None = None) -> Runtime:
    """Load an artifact into its real runtime after checking its digests; see `export.load`."""
    folder = find_folder(path)
    return _open(folder, read_manifest(folder), threads)[1]


def _open(folder: Path, manifest: dict[str, Any], threads: int | None = None) -> tuple[Backend, Runtime]:
    """Load an artifact whose manifest was checked; returns how its format keeps it too."""
    way = formats[manifest["format"]].way(manifest["metadata"].get("task", "classify"))
    try:
        return way, way.load(folder / way.file, threads=threads)
    except ZooError:
        raise
    except Exception as error:
        # Runtimes raise classes of their own for files that they cannot read.
        reason = " ".join(str(error).split())[:200]
        name = manifest["format"]
        raise ParityError(f"The runtime of {name} cannot load {folder}: {reason}. Export again.") from error
