"""From a run to proven artifacts: convert in a child, reload in the real runtime, compare, move into place."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import zoo
from export._chain import Chain, check_formats, parse_chain, prove, prove_again
from export._child import convert
from export._format import Format, Runtime, Way, describe, formats, name_input
from export._generate import Writer
from export._manifest import MASKS, SAMPLES, digest_file, find_folder, read_manifest, write_manifest
from export._samples import read_samples
from export._source import facts_of
from export._verify import compare, require
from training._files import whole_folder
from training._run import Run, environment
from zoo._errors import ExportError, ParityError, UnsupportedExport, ZooError

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
        """Name of its folder: the format, and what it was made smaller by."""
        return self.folder.name

    @property
    def folder(self) -> Path:
        """The folder with its manifest."""
        return self.path.parent if self.manifest["artifact"] else self.path

    @property
    def parity(self) -> dict[str, Any]:
        """The figures of the comparison with its source."""
        return self.manifest["parity"]


def export_run(run: Run, names: Sequence[str], compress: str = "") -> list[Artifact]:
    """Export a finished run; see `export.export_all`."""
    chain = parse_chain(compress) if compress else None
    run.result()
    wanted = [formats[name] for name in dict.fromkeys(names)]
    if chain:
        check_formats(chain, [fmt.name for fmt in wanted])
    _check_supported(run, wanted)
    with run.lock(), _scratch(run) as scratch:
        failures: dict[str, ZooError] = {}
        artifacts = []
        for name, error in convert(run, [fmt.name for fmt in wanted], scratch, compress):
            try:
                if error:
                    raise ExportError(f"{name} could not be written: {error}")
                artifacts.append(_finish(run, formats[name], scratch, chain))
            except (ParityError, ExportError) as failure:
                failures[name] = failure
    if failures:
        raise type(next(iter(failures.values())))("; ".join(str(f) for f in failures.values()))
    return artifacts


def _check_supported(run: Run, wanted: Sequence[Format]) -> None:
    """Raise UnsupportedExport for a format that the model's spec rules out."""
    spec = zoo.spec(run.recipe.model.name)
    reasons = dict(spec.unsupported)
    for fmt in wanted:
        fmt.way(spec.task)
        if fmt.name in reasons:
            raise UnsupportedExport(f"{run.recipe.model.name} does not export to {fmt.name}: {reasons[fmt.name]}")


@contextlib.contextmanager
def _scratch(run: Run) -> Iterator[Path]:
    """Give a hidden folder beside the artifacts; what a killed export left there goes too."""
    run.exports.mkdir(exist_ok=True)
    for left in run.exports.glob(f"{HIDDEN}*"):
        shutil.rmtree(left, ignore_errors=True)
    folder = run.exports / f"{HIDDEN}{os.getpid()}"
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            # Nothing was exported, so that nothing stays.
            run.exports.rmdir()


def _finish(run: Run, fmt: Format, scratch: Path, chain: Chain | None = None) -> Artifact:
    """Compare a written artifact and put it into its place, or raise ParityError and leave nothing."""
    way = fmt.way(zoo.spec(run.recipe.model.name).task)
    written = scratch / fmt.name / way.file
    runtime = way.load(written)
    expected = _expected(runtime, run)
    parity = compare(runtime, read_samples(scratch / SAMPLES), way.tolerance, expected)
    require(parity, f"{fmt.name} of {run.path}")
    compression = prove(chain, fmt.name, written, scratch) if chain else None
    place = run.exports / (f"{fmt.name}-{chain.slug}" if chain else fmt.name)
    with whole_folder(place) as folder:
        _place(written, folder / way.file)
        for beside in (SAMPLES, MASKS) if chain else (SAMPLES,):
            shutil.copy(scratch / beside, folder / beside)
        facts = {"format": fmt.name, "compression": compression, "artifact": way.file, "metadata": expected}
        manifest = write_manifest(folder, {**facts, **_facts(run, runtime), "parity": parity.to_json()})
    return Artifact(place / way.file, manifest)


def _place(written: Path, target: Path) -> None:
    """Copy, not move: another format of the same export may still be made from it."""
    shutil.copytree(written, target, dirs_exist_ok=True) if written.is_dir() else shutil.copy(written, target)


def _expected(runtime: Runtime, run: Run) -> dict[str, Any]:
    """Return the metadata that the artifact must carry, from what the run says, not from what was converted."""
    spec, result, text = zoo.spec(run.recipe.model.name), run.result(), run.text()
    shape = tuple(result["input_shape"])
    given = name_input(spec.inputs[0], shape), spec.input_dtype, shape
    told = facts_of(run)
    task = told.pop("task", spec.task)
    facts = describe((runtime.metadata or {}).get("model", ""), task, given, result["labels"]) | told
    return facts | {
        "preprocessing": None if text else {**result["preprocessing"], "inside": True},
        "text": text and text.to_json(),
    }


def _facts(run: Run, runtime: Runtime) -> dict[str, Any]:
    """Return what the manifest says of an artifact beside its kind, its digests and its comparison."""
    parts = runtime.parts if isinstance(runtime, Writer) else {}
    return {
        "inputs": list(map(dataclasses.asdict, runtime.inputs)),
        "outputs": list(map(dataclasses.asdict, runtime.outputs)),
        "batch": runtime.batch,
        "parts": {
            part: {"inputs": list(map(dataclasses.asdict, given)), "outputs": list(map(dataclasses.asdict, out))}
            for part, (given, out) in parts.items()
        },
        "source": {"recipe": run.recipe.name, "run": run.path.name, "model_sha256": digest_file(run.model_path)},
        "environment": environment(),
    }


def verify_artifact(path: Path) -> Artifact:
    """Repeat the comparison of an artifact with its source; see `export.verify`."""
    folder = find_folder(path)
    manifest = read_manifest(folder)
    way, runtime = _open(folder, manifest)
    parity = compare(runtime, read_samples(folder / SAMPLES), way.tolerance, manifest["metadata"])
    require(parity, str(folder))
    made = manifest["compression"]
    again = made and prove_again(made, manifest["format"], folder / way.file, folder / MASKS)
    return Artifact(folder / way.file, manifest | {"parity": parity.to_json(), "compression": again})


def load_artifact(path: Path, threads: int | None = None) -> Runtime:
    """Load an artifact into its real runtime after checking its digests; see `export.load`."""
    folder = find_folder(path)
    return _open(folder, read_manifest(folder), threads)[1]


def _open(folder: Path, manifest: dict[str, Any], threads: int | None = None) -> tuple[Way, Runtime]:
    """Load an artifact whose manifest was checked; returns how its format keeps it too."""
    way = formats[manifest["format"]].way(manifest["metadata"].get("task", "classify"))
    return way, way.load(folder / way.file, threads=threads)


def list_artifacts(run: Run) -> list[Artifact]:
    """Return the artifacts of a run, each checked to be as it was written."""
    folders = sorted(p.parent for p in run.exports.glob("*/manifest.json") if not p.parent.name.startswith("."))
    manifests = [(folder, read_manifest(folder)) for folder in folders]
    return [Artifact(folder / m["artifact"], m) for folder, m in manifests]
