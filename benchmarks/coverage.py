"""Export every kind of Keras model to every format, ours and with Keras: `python benchmarks/coverage.py`.

Sources are `applications`, the models of keras.applications, and Python files with `MODELS`, builders by name, and
`inputs_of(model, rows, seed)`, which returns an array for each input; `settle(model)` may change a model once it is
built. Each cell is an export in a process of its own, with a time limit; the file is then run in its real runtime and
compared with the model. Finished cells stay in the folder, so that an interrupted run is resumed; delete the folder, or
a file in it, to repeat them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from coverage_cell import EXPORTING, FAIL, MAKERS, RESULT, STAGE, open_source  # noqa: E402
from coverage_page import Source, page  # noqa: E402
from coverage_runtimes import KERAS_FORMATS, RUNNERS  # noqa: E402
from exporting import process_tree, resident  # noqa: E402

from zoo.common.files import write_bytes, write_json  # noqa: E402
from zoo.reading.json_files import read_json  # noqa: E402

FORMATS = tuple(RUNNERS)
# Formats that a maker writes.
WRITES = {"ours": FORMATS, "keras": tuple(KERAS_FORMATS)}
KNOWN_SOURCES = {"applications": HERE / "coverage_applications.py"}
LIMIT = 180.0  # seconds of a cell
PAUSE = 0.05  # seconds between measurements of memory


def source_path(text: str) -> Path:
    """Return the file of a source: a known one by its name, any other by its path."""
    return KNOWN_SOURCES.get(text, Path(text))


def finished(folder: Path, source: str, model: str) -> dict[str, dict[str, Any]]:
    """Return the finished cells of a model, by maker and format."""
    file = folder / source_path(source).stem / f"{model}.json"
    return read_json(file) if file.is_file() else {maker: {} for maker in MAKERS}


def missing(cells: Mapping[str, Mapping[str, Any]], formats: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the maker and the format of each cell that is not finished."""
    for maker, known in WRITES.items():
        yield from ((maker, name) for name in formats if name in known and name not in cells.get(maker, {}))


def fill(folder: Path, source: str, model: str, formats: Sequence[str], limit: float) -> None:
    """Measure the cells of a model that are not finished, and save each at once."""
    cells = finished(folder, source, model)
    for maker, name in list(missing(cells, formats)):
        request = {"source": str(source_path(source)), "model": model, "format": name, "maker": maker}
        found = measured(request, limit)
        cells.setdefault(maker, {})[name] = found
        write_json(folder / source_path(source).stem / f"{model}.json", cells)
        print(f"{model} {name} {maker}: {found['state']} in {found['whole']:.0f} s {found['reason'][:150]}", flush=True)


def measured(request: Mapping[str, str], limit: float) -> dict[str, Any]:
    """Return the result of a cell in a process of its own.

    Args:
        request: see `coverage_cell.cell`.
        limit: seconds after which it and its children are ended.

    Returns:
        The result with "memory", the peak of its export above the idle process in bytes, and "whole", all seconds.
    """
    with tempfile.TemporaryDirectory() as place:
        folder, start = Path(place), time.monotonic()
        command = [sys.executable, str(HERE / "coverage_cell.py"), json.dumps(request), place]
        with (folder / "log").open("wb") as log:
            child = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        peak = watch(child, folder, start + limit)
        found = result_of(child, folder, limit)
        found |= {"memory": max(peak - found.pop("idle", peak), 0), "whole": time.monotonic() - start}
        return found


def watch(child: subprocess.Popen[bytes], folder: Path, deadline: float) -> int:
    """Wait for a process and return the peak of its resident bytes while it exports; end it at a deadline."""
    peak = 0
    try:
        while child.poll() is None and time.monotonic() < deadline:
            if (folder / STAGE).is_file() and (folder / STAGE).read_text() == EXPORTING:
                peak = max(peak, resident(child.pid))
            time.sleep(PAUSE)
    finally:
        if child.poll() is None:
            end(child)
    return peak


def end(child: subprocess.Popen[bytes]) -> None:
    """End a process and all below it."""
    for process in process_tree(child.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    child.wait()


def result_of(child: subprocess.Popen[bytes], folder: Path, limit: float) -> dict[str, Any]:
    """Return what a process wrote, or why it wrote nothing."""
    if (folder / RESULT).is_file():
        return json.loads((folder / RESULT).read_text())
    if child.returncode == -signal.SIGKILL:
        return {"state": FAIL, "reason": f"Not finished after {limit:.0f} s, or ended by the system"}
    lines = (folder / "log").read_text(errors="replace").strip().splitlines() or [""]
    return {"state": FAIL, "reason": f"The process ended with {child.returncode}: {lines[-1][-160:]}"}


def collected(folder: Path, source: str, formats: Sequence[str]) -> Source:
    """Return the rows of the models whose cells are all finished, and the names of the others."""
    module = open_source(str(source_path(source)))
    rows = {name: finished(folder, source, name) for name in module.MODELS}
    left = [name for name, cells in rows.items() if any(missing(cells, formats))]
    about = (module.__doc__ or "").strip().partition("\n")[0]
    return Source(about, {name: cells for name, cells in rows.items() if name not in left}, left)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is not finished, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sources", nargs="+", default=list(KNOWN_SOURCES), help="applications, or Python files")
    parser.add_argument("--models", nargs="+", help="names, all by default")
    parser.add_argument("--formats", nargs="+", default=FORMATS, choices=FORMATS)
    parser.add_argument("--folder", type=Path, default=Path("runs/coverage"), help="for finished cells")
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds of a cell")
    parser.add_argument("--page", action="store_true", help="write the page of what is finished, and measure nothing")
    parser.add_argument("--out", type=Path, default=Path("docs/coverage.md"))
    given = parser.parse_args(arguments)
    found = {}
    for source in given.sources:
        names = () if given.page else open_source(str(source_path(source))).MODELS
        for model in [name for name in names if name in (given.models or names)]:
            fill(given.folder, source, model, given.formats, given.limit)
        found[source_path(source).stem] = collected(given.folder, source, given.formats)
    write_bytes(given.out, page(found, given.formats, given.limit).encode())


if __name__ == "__main__":
    main()
