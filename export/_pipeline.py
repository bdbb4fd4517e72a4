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
from export._child import convert
from export._format import Format, Runtime, formats
from export._manifest import SAMPLES, digest_file, find_folder, read_manifest, write_manifest
from export._verify import Parity, compare, read_samples, require
from training._files import whole_folder
from training._run import Run, environment
from zoo._errors import ExportError, ParityError, UnsupportedExport, ZooError

HIDDEN = ".writing-"


@dataclasses.dataclass(frozen=True)
class Artifact:
    """What ships: a file (or SavedModel folder) that was compared with its source, and its manifest.

    Args:
        path: the artifact itself.
        manifest: what the manifest beside it says.
    """

    path: Path
    manifest: dict[str, Any]

    @property
    def format(self) -> str:
        """Name of its format."""
        return self.manifest["format"]

    @property
    def parity(self) -> dict[str, Any]:
        """The figures of the comparison with its source."""
        return self.manifest["parity"]


def export_run(run: Run, names: Sequence[str]) -> list[Artifact]:
    """Export a finished run; see `export.export_all`."""
    run.result()
    wanted = [formats[name] for name in dict.fromkeys(names)]
    _check_supported(run, wanted)
    with run.lock(), _scratch(run) as scratch:
        failures: dict[str, ZooError] = {}
        artifacts = []
        for name, error in convert(run, [fmt.name for fmt in wanted], scratch):
            try:
                if error:
                    raise ExportError(f"{name} could not be written: {error}")
                artifacts.append(_finish(run, formats[name], scratch))
            except (ParityError, ExportError) as failure:
                failures[name] = failure
    if failures:
        raise type(next(iter(failures.values())))("; ".join(str(f) for f in failures.values()))
    return artifacts


def _check_supported(run: Run, wanted: Sequence[Format]) -> None:
    """Raise UnsupportedExport for a format that the model's spec rules out."""
    reasons = dict(zoo.spec(run.recipe.model.name).unsupported)
    for fmt in wanted:
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


def _finish(run: Run, fmt: Format, scratch: Path) -> Artifact:
    """Compare a written artifact and put it into its place, or raise ParityError and leave nothing."""
    written = scratch / fmt.name / fmt.file
    runtime = fmt.load(written)
    result = run.result()
    expected = _expected(runtime, result)
    parity = compare(runtime, read_samples(scratch / SAMPLES), fmt.tolerance, expected)
    require(parity, f"{fmt.name} of {run.path}")
    with whole_folder(run.exports / fmt.name) as folder:
        _place(written, folder / fmt.file)
        shutil.copy(scratch / SAMPLES, folder / SAMPLES)
        manifest = write_manifest(folder, _facts(run, fmt, runtime, expected, parity))
    return Artifact(run.exports / fmt.name / fmt.file, manifest)


def _place(written: Path, target: Path) -> None:
    """Copy, not move: another format of the same export may still be made from it."""
    shutil.copytree(written, target) if written.is_dir() else shutil.copy(written, target)


def _expected(runtime: Runtime, result: dict[str, Any]) -> dict[str, Any]:
    """Return the metadata that the artifact must carry, from what the run says, not from what was converted."""
    carried = runtime.metadata or {}
    facts = {
        "labels": result["labels"],
        "shape": result["input_shape"],
        "preprocessing": {**result["preprocessing"], "inside": True},
        "input": "image" if len(result["input_shape"]) == 3 else "features",
        "output": "logits",
    }
    return {**carried, **facts}


def _facts(run: Run, fmt: Format, runtime: Runtime, expected: dict[str, Any], parity: Parity) -> dict[str, Any]:
    """Return what the manifest says beside the digests."""
    return {
        "format": fmt.name,
        "compression": None,
        "artifact": fmt.file,
        "metadata": expected,
        "inputs": [dataclasses.asdict(t) for t in runtime.inputs],
        "outputs": [dataclasses.asdict(t) for t in runtime.outputs],
        "batch": runtime.batch,
        "source": {"recipe": run.recipe.name, "run": run.path.name, "model_sha256": digest_file(run.model_path)},
        "environment": environment(),
        "parity": parity.to_json(),
    }


def verify_artifact(path: Path) -> Artifact:
    """Repeat the comparison of an artifact with its source; see `export.verify`."""
    folder = find_folder(path)
    manifest = read_manifest(folder)
    fmt = formats[manifest["format"]]
    runtime = fmt.load(folder / fmt.file)
    parity = compare(runtime, read_samples(folder / SAMPLES), fmt.tolerance, manifest["metadata"])
    require(parity, str(folder))
    return Artifact(folder / fmt.file, manifest | {"parity": parity.to_json()})


def load_artifact(path: Path, threads: int | None = None) -> Runtime:
    """Load an artifact into its real runtime after checking its digests; see `export.load`."""
    folder = find_folder(path)
    fmt = formats[read_manifest(folder)["format"]]
    return fmt.load(folder / fmt.file, threads=threads)


def list_artifacts(run: Run) -> list[Artifact]:
    """Return the artifacts of a run, each checked to be as it was written."""
    folders = sorted(p.parent for p in run.exports.glob("*/manifest.json") if not p.parent.name.startswith("."))
    manifests = [(folder, read_manifest(folder)) for folder in folders]
    return [Artifact(folder / m["artifact"], m) for folder, m in manifests]
