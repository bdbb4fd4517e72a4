"""The child process that converts: converters leak memory and change process-wide state, and all of it ends here.

Called as `python -m export.convert_worker JOB.json`; writes one JSON line on standard output for each format done.
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

from export.core.manifest import SAMPLES
from training.runs.run import Run
from zoo.common import errors
from zoo.common.errors import BadOption, ExportError, MissingDependency, UnsupportedExport, ZooError
from zoo.common.files import read_json, write_json


def convert(
    origin: Mapping[str, Any], formats: Sequence[str], scratch: Path, chain: str = ""
) -> Iterator[tuple[str, ZooError | None]]:
    """Write formats below `scratch` in a child process.

    Args:
        origin: what is written, as `export.source.origin.ExportJob.job` gives it.
        formats: what is wanted, as `export.core.format.FormatRequest.text` gives it.
        scratch: an existing folder; receives <slug of what is wanted>/<file>, samples.npz, and what
            `export.compression.pipeline.leave` writes.
        chain: compressions to be done before, see `export.compression.pipeline.parse_pipeline`; "" for none.

    Yields:
        (format, error) as each is done; error is None where it went well.

    Raises:
        ExportError: the child died; says during what.
        ZooError: a compression cannot be had, or went wrong.
    """
    job = scratch / "job.json"
    write_json(job, {**origin, "formats": list(formats), "chain": chain, "modules": foreign_modules()})
    with open(scratch / "log.txt", "w+b") as log:
        command = [sys.executable, "-m", "export.convert_worker", str(job)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=child_environment()) as child:
            try:
                yield from _replies(child.stdout)
            except BaseException:
                child.kill()
                raise
        if child.returncode:
            log.seek(0)
            raise ExportError(_epitaph(child.returncode, log.read().decode(errors="replace")))


def child_environment() -> dict[str, str]:
    """Return the environment of a process that converts, or runs what was converted."""
    return {
        **os.environ,
        # Converters take TensorFlow's graphs, whatever the network was trained on.
        "KERAS_BACKEND": "tensorflow",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
    }


def foreign_modules() -> dict[str, str]:
    """Return name and file of the modules outside our packages that registered something in this process."""
    from export.core.compression import compressions
    from export.core.format import formats
    from training.data.dataset import datasets
    from zoo.specs.registry import models

    origins = models.origins() | datasets.origins() | formats.origins() | compressions.origins()
    unsupported = {name for name in origins if name.partition(".")[0] not in ("zoo", "training", "export")}
    return {name: _file_of(name) for name in sorted(unsupported)}


def _file_of(module: str) -> str:
    """Return the file of a module, or raise ExportError where there is none, as in an interactive session."""
    file = getattr(sys.modules[module], "__file__", None)
    if not file:
        raise ExportError(
            f"The converting process must import what {module!r} registered. Received: a module without a file. "
            "Put the registration into a .py file and import it."
        )
    return str(Path(file).resolve())


def _import_modules(modules: dict[str, str]) -> None:
    """Import what registered something in the parent; a script not as __main__, so that it only defines."""
    for name, file in modules.items():
        if name == "__main__" or importlib.util.find_spec(name.partition(".")[0]) is None:
            runpy.run_path(file, run_name="__zoo_child__")
        else:
            importlib.import_module(name)


def _replies(lines: Any) -> Iterator[tuple[str, ZooError | None]]:
    """Yield what the child reports; anything else that a converter prints is passed over."""
    for line in lines:
        if line.startswith(b'{"zoo":'):
            reply = json.loads(line)["zoo"]
            error = getattr(errors, reply["kind"])(reply["error"]) if reply["error"] else None
            if error and not reply["format"]:
                raise error
            yield reply["format"], error


def _epitaph(code: int, log: str) -> str:
    """Say in one line how the child ended."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
    return f"The converting process {how}. Its last words: {(lines or ['none'])[-1][:300]}"


def _main(job: Path) -> None:
    """Convert in this process."""
    from export.core.samples import write_samples

    content, scratch = read_json(job), job.parent
    _import_modules(content["modules"])
    try:
        source, samples = _open(content, scratch)
    except ZooError as error:
        _reply("", error)
        raise
    write_samples(samples, scratch / SAMPLES)
    for name, refusal in [(name, _refusal(source, name)) for name in content["formats"]]:
        _reply(name, refusal or _attempt(source, name))
        # Graphs refer to themselves in circles; a large one would stay until the next has been made beside it.
        gc.collect()


def _open(content: dict[str, Any], scratch: Path) -> tuple[Any, dict[str, Any]]:
    """Return what is written, and the examples it is compared on."""
    if "model" in content:
        from export.source.origin import ModelRequest
        from export.source.registry_source import open_model

        return open_model(ModelRequest(**content["model"]), scratch)
    from export.source.source import open_source

    return open_source(Run.open(content["run"]), scratch, _compression(content, scratch))


def _compression(content: dict[str, Any], scratch: Path) -> Any:
    """Return what makes the network smaller, `change(network, pipeline)`; None if nothing does."""
    if not content["chain"]:
        return None
    from export.compression.pipeline import compress, leave, parse_pipeline

    def change(network: Any, pipeline: Any) -> Any:
        made = compress(network, parse_pipeline(content["chain"]), Run.open(content["run"]), pipeline)
        leave(made, scratch)
        return made

    return change


def _refusal(source: Any, text: str) -> ZooError | None:
    """Return why a format is known to fail, before anything is converted."""
    from export.core.format import parse_format
    from export.core.precheck import check

    try:
        check(source, parse_format(text))
    except ZooError as error:
        return error
    return None


def _attempt(source: Any, text: str) -> ZooError | None:
    """Write a format; return None or, in one line, what a converter complained of, and the other formats go on."""
    from export.core.format import parse_format

    try:
        wanted = parse_format(text)
        source.shared(wanted.format.name, wanted.options)
    except Exception as error:
        # Converters raise whatever their dependencies raise; the line names it.
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"
        kind = type(error) if isinstance(error, (UnsupportedExport, BadOption, MissingDependency)) else ExportError
        return kind(f"{text} could not be written: {reason}")
    return None


def _reply(name: str, error: ZooError | None) -> None:
    """Report on a format; without a name, that none can be written."""
    kind = type(error).__name__ if type(error).__module__ == errors.__name__ else ExportError.__name__
    reply = {"format": name, "kind": kind, "error": " ".join(str(error or "").split())}
    print(json.dumps({"zoo": reply}), flush=True)


if __name__ == "__main__":
    try:
        _main(Path(sys.argv[1]))
    except ZooError as failure:
        sys.exit(f"{' '.join(str(failure).split())}")
