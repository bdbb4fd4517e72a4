"""The child process that converts: converters leak memory and change process-wide state, and all of it ends here.

Called as `python -m export._child JOB.json`; writes one JSON line on standard output for each format done.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import runpy
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from training._files import read_json, write_json
from training._run import Run
from zoo._errors import ExportError, ZooError

# Samples kept beside an artifact: at most so many, and at most so many bytes as 8-bit values.
SAMPLES, SAMPLE_BYTES = 1000, 32 << 20


def convert(run: Run, formats: Sequence[str], scratch: Path) -> Iterator[tuple[str, str]]:
    """Write formats of a run below `scratch` in a child process.

    Args:
        run: a finished run.
        formats: names of formats.
        scratch: an existing folder; receives <format>/<file>, and samples.npz.

    Yields:
        (format, error) as each is done; error is empty where it went well.

    Raises:
        ExportError: the child died; says during what.
    """
    job = scratch / "job.json"
    write_json(job, {"run": str(run.path.resolve()), "formats": list(formats), "modules": _foreign_modules()})
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    with open(scratch / "log.txt", "w+b") as log:
        command = [sys.executable, "-m", "export._child", str(job)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=environment) as child:
            try:
                yield from _replies(child.stdout)
            except BaseException:
                child.kill()
                raise
        if child.returncode:
            log.seek(0)
            raise ExportError(_epitaph(child.returncode, log.read().decode(errors="replace")))


def _foreign_modules() -> dict[str, str]:
    """Return name and file of the modules outside our packages that registered something in this process."""
    from export._format import formats
    from training._data import datasets
    from zoo._registry import models

    origins = models.origins() | datasets.origins() | formats.origins()
    foreign = {name for name in origins if name.partition(".")[0] not in ("zoo", "training", "export")}
    return {name: _file_of(name) for name in sorted(foreign)}


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


def _replies(lines: Any) -> Iterator[tuple[str, str]]:
    """Yield what the child reports; anything else that a converter prints is passed over."""
    for line in lines:
        if line.startswith(b'{"zoo":'):
            reply = json.loads(line)["zoo"]
            yield reply["format"], reply["error"]


def _epitaph(code: int, log: str) -> str:
    """Say in one line how the child ended."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
    return f"The converting process {how}. Its last words: {(lines or ['none'])[-1][:300]}"


def _main(job: Path) -> None:
    """Convert in this process."""
    from export._source import open_source

    content, scratch = read_json(job), job.parent
    _import_modules(content["modules"])
    run = Run.open(content["run"])
    size = math.prod(run.result()["input_shape"])
    source, samples = open_source(run, scratch, most=max(16, min(SAMPLES, SAMPLE_BYTES // size)))
    _write_samples(samples, scratch / "samples.npz")
    for name in content["formats"]:
        _reply(name, _attempt(source, name))


def _attempt(source: Any, name: str) -> str:
    """Write a format; return "" or, in one line, what a converter complained of, and the other formats go on."""
    try:
        source.shared(name)
    except Exception as error:
        # Converters raise whatever their dependencies raise; the line names it.
        return f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"
    return ""


def _reply(name: str, error: str) -> None:
    print(json.dumps({"zoo": {"format": name, "error": error}}), flush=True)


def _write_samples(samples: dict[str, Any], path: Path) -> None:
    """Write test examples with the source's logits; pixels as uint8, which they are."""
    import numpy as np

    inputs = samples["inputs"]
    np.savez_compressed(path, **{**samples, "inputs": inputs.astype("uint8") if inputs.ndim == 4 else inputs})


if __name__ == "__main__":
    try:
        _main(Path(sys.argv[1]))
    except ZooError as failure:
        sys.exit(f"{' '.join(str(failure).split())}")
