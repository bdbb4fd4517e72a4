"""The child process that converts: converters leak memory and change process-wide state, and all of that ends with it.

Run as `python -m export.conversion.worker JOB.json`; prints one JSON line for each finished format.
"""

from __future__ import annotations

import gc
import importlib.util
import json
import os
import runpy
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from export.core.manifest import FACTS, SAMPLES
from training.runs.run import Run
from zoo.common import errors
from zoo.common.budgets import resource_error
from zoo.common.ending import child_process, end_with_parent
from zoo.common.errors import BadOption, ExportError, MissingDependency, UnsupportedExport, ZooError
from zoo.common.files import write_json
from zoo.reading.json_files import read_json


def convert_in_child(
    source: Mapping[str, Any], formats: Sequence[str], scratch: Path, compression: str = ""
) -> Iterator[tuple[str, ZooError | None]]:
    """Convert to formats below `scratch` in a child process.

    Args:
        source: the value of `export.source.job.ExportJob.to_json`.
        formats: the texts of the requests, see `export.core.format.FormatRequest.text`.
        scratch: an existing folder; receives SLUG/FILE of each request, samples.npz, facts.json, and the records of the
            compression.
        compression: the compression pipeline to apply first; "" for none.

    Yields:
        (format, error) as each format finishes; error is None on success.

    Raises:
        ExportError: the child process died; the message has its last output.
        ZooError: the compression failed.
    """
    job = scratch / "job.json"
    write_json(job, {**source, "formats": list(formats), "compression": compression, "modules": registering_modules()})
    with open(scratch / "log.txt", "w+b") as log:
        command = [sys.executable, "-m", "export.conversion.worker", str(job)]
        with child_process(command, child_environment(), stdout=subprocess.PIPE, stderr=log) as child:
            yield from _replies(child.stdout)
            child.wait()
        if child.returncode:
            log.seek(0)
            raise ExportError(_exit_message(child.returncode, log.read().decode(errors="replace")))


def convert_here(
    source: Mapping[str, Any], formats: Sequence[str], scratch: Path, model: Any
) -> Iterator[tuple[str, ZooError | None]]:
    """Convert a model that only this process can open; see `convert_in_child`."""
    yield from _converted({**source, "formats": list(formats), "compression": ""}, scratch, model)


def child_environment() -> dict[str, str]:
    """Return the environment of a process that converts or runs artifacts."""
    return {
        **os.environ,
        # Converters need TensorFlow graphs, whatever backend the model was trained on.
        "KERAS_BACKEND": "tensorflow",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
    }


def registering_modules() -> dict[str, str]:
    """Return name and file of third-party modules that registered something in this process."""
    from export.core.compression import compressions
    from export.core.format import formats
    from training.data.dataset import datasets
    from zoo.specs.registry import models

    modules = models.origins() | datasets.origins() | formats.origins() | compressions.origins()
    third_party = {name for name in modules if name.partition(".")[0] not in ("zoo", "training", "export")}
    return {name: _file_of(name) for name in sorted(third_party)}


def _file_of(module: str) -> str:
    """Return the file of a module; raises ExportError if there is none, as in an interactive session."""
    file = getattr(sys.modules[module], "__file__", None)
    if not file:
        raise ExportError(
            f"The converting process needs the file of a registering module. Received: {module!r} without a file. "
            "Put the registration into a .py file and import it."
        )
    return str(Path(file).resolve())


def import_modules(modules: dict[str, str]) -> None:
    """Import the modules that registered something in the parent; a script not as __main__, so that it only defines."""
    for name, file in modules.items():
        if name == "__main__" or importlib.util.find_spec(name.partition(".")[0]) is None:
            runpy.run_path(file, run_name="__zoo_child__")
        else:
            importlib.import_module(name)


def _replies(lines: Any) -> Iterator[tuple[str, ZooError | None]]:
    """Yield the child's replies; skips what converters print."""
    for line in lines:
        if line.startswith(b'{"zoo":'):
            reply = json.loads(line)["zoo"]
            error = getattr(errors, reply["kind"])(reply["error"]) if reply["error"] else None
            if error and not reply["format"]:
                raise error
            yield reply["format"], error


def _exit_message(code: int, log: str) -> str:
    """Return one line about how the child ended."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    end = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
    return f"The converting process {end}. Its last output: {(lines or ['none'])[-1][:300]}"


def _main(job: Path) -> None:
    """Convert in this process, for another one."""
    content = read_json(job)
    import_modules(content["modules"])
    try:
        for name, error in _converted(content, job.parent):
            _reply(name, error)
    except Exception as error:
        known = error if isinstance(error, ZooError) else resource_error(error)
        if known:
            _reply("", known)
        raise


def _converted(content: Mapping[str, Any], scratch: Path, model: Any = None) -> Iterator[tuple[str, ZooError | None]]:
    """Convert to formats below `scratch`, and yield each with its error."""
    from export.core.samples import write_samples

    source, samples = open_source(content, scratch, model)
    _check_comparable(source, samples)
    write_samples(samples, scratch / SAMPLES)
    write_json(scratch / FACTS, source.facts, parents=False)
    for name, refusal in [(name, _precheck(source, name)) for name in content["formats"]]:
        yield name, refusal or _convert(source, name)
        # Graphs have reference cycles; a large one would stay in memory during the next conversion.
        gc.collect()


def open_source(content: Mapping[str, Any], scratch: Path, model: Any = None) -> tuple[Any, dict[str, Any]]:
    """Return the source model, and the samples to compare artifacts on."""
    if "keras" in content:
        from export.source.keras_model.keras_source import KerasRequest, open_keras_source

        return open_keras_source(KerasRequest(**content["keras"]), scratch, model)
    if "model" in content:
        from export.source.registry_source import open_registry_source
        from export.source.request import RegistryRequest

        return open_registry_source(RegistryRequest(**content["model"]), scratch)
    from export.source.run_source import open_run_source

    return open_run_source(Run.open(content["run"]), scratch, _compression(content, scratch))


def _check_comparable(source: Any, samples: dict[str, Any]) -> None:
    """Raise ParityError if no artifact could be compared with a source model, before anything is converted."""
    from export.verification.comparable import check_samples, check_weights

    check_weights(source.model)
    check_samples(samples, source.metadata)


def _compression(content: Mapping[str, Any], scratch: Path) -> Any:
    """Return `compress(model, pipeline)`, or None without compression."""
    if not content.get("compression"):
        return None
    from export.compression.pipeline import compress, parse_pipeline, save_record

    def apply(model: Any, pipeline: Any) -> Any:
        compressed = compress(model, parse_pipeline(content["compression"]), Run.open(content["run"]), pipeline)
        save_record(compressed, scratch)
        return compressed

    return apply


def _precheck(source: Any, text: str) -> ZooError | None:
    """Return the error of a format that is known to fail, before anything is converted."""
    from export.core.format import parse_format
    from export.core.precheck import precheck

    try:
        request = parse_format(text)
        # What the parent could not check yet.
        request.options.check(source.metadata)
        precheck(source.for_format(request.format), request)
    except ZooError as error:
        return error
    return None


def _convert(source: Any, text: str) -> ZooError | None:
    """Convert to a format; return None, or the converter's error in one line."""
    from export.core.format import parse_format

    try:
        request = parse_format(text)
        source.artifact_path(request.format.name, request.options)
    except Exception as error:
        # Converters raise any exception of their dependencies; the line names its type.
        reason = " ".join(str(error).split())[:400]
        reason = reason if isinstance(error, ZooError) else f"{type(error).__name__}: {reason}"
        kind = type(error) if isinstance(error, (UnsupportedExport, BadOption, MissingDependency)) else ExportError
        return kind(f"{text} could not be converted: {reason}")
    return None


def _reply(name: str, error: ZooError | None) -> None:
    """Report on a format; without a name, on all of them."""
    kinds = (kind.__name__ for kind in type(error).__mro__ if kind.__module__ == errors.__name__)
    kind = next(kinds, ExportError.__name__)
    reply = {"format": name, "kind": kind, "error": " ".join(str(error or "").split())}
    print(json.dumps({"zoo": reply}), flush=True)  # noqa: T201


if __name__ == "__main__":
    end_with_parent()
    try:
        _main(Path(sys.argv[1]))
    except ZooError as failure:
        sys.exit(f"{' '.join(str(failure).split())}")
