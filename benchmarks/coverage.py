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
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from coverage_cell import EXPORTING, FAIL, LOG, MAKERS, RESULT, STAGE, open_source  # noqa: E402
from coverage_page import Source, page  # noqa: E402
from coverage_runtimes import KERAS_FORMATS, RUNNERS  # noqa: E402
from exporting import allocated, process_tree  # noqa: E402

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


class Cells:
    """A process with Keras and TensorFlow imported, which forks one for each cell; it starts with the first."""

    def __init__(self, limit: float) -> None:
        self.limit, self._process = limit, None

    def _ask(self, line: str) -> int:
        """Send a line, and return the id of the process that was forked."""
        if self._process is None:
            command = [sys.executable, str(HERE / "coverage_cell.py")]
            pipe = subprocess.PIPE
            self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True)
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def measured(self, request: Mapping[str, str]) -> dict[str, Any]:
        """Return the result of a cell in a process of its own.

        Args:
            request: see `coverage_cell.cell`.

        Returns:
            The result with "memory", the peak of its export above the idle process in bytes, and "whole", all seconds.
        """
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            process, start = self._ask(json.dumps([request, place])), time.monotonic()
            peak = watch(process, folder, start + self.limit, self._process.stdout)
            found = result_of(int(self._process.stdout.readline()), folder, self.limit)
            return found | {"memory": max(peak - found.pop("idle", peak), 0), "whole": time.monotonic() - start}

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.stdin.close()
            self._process.wait()


def watch(process: int, folder: Path, deadline: float, ended: IO[str]) -> int:
    """Wait until a process has ended, and return the peak of its bytes while it exports; end it at a deadline.

    Args:
        process: its id.
        folder: of its files.
        deadline: of `time.monotonic`.
        ended: can be read when it has ended.
    """
    peak = 0
    while not select.select([ended], [], [], PAUSE)[0]:
        if time.monotonic() > deadline:
            end(process)
            break
        if (folder / STAGE).is_file() and (folder / STAGE).read_text() == EXPORTING:
            peak = max(peak, allocated(process))
    return peak


def end(process: int) -> None:
    """End a process and all below it."""
    for number in process_tree(process):
        with contextlib.suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)


def result_of(code: int, folder: Path, limit: float) -> dict[str, Any]:
    """Return what a process that ended with a code wrote, or why it wrote nothing."""
    if (folder / RESULT).is_file():
        return json.loads((folder / RESULT).read_text())
    if code == -signal.SIGKILL:
        return {"state": FAIL, "reason": f"Not finished after {limit:.0f} s, or ended by the system"}
    lines = (folder / LOG).read_text(errors="replace").strip().splitlines() or [""]
    return {"state": FAIL, "reason": f"The process ended with {code}: {lines[-1][-160:]}"}


def fill(folder: Path, source: str, model: str, formats: Sequence[str], cells: Cells) -> None:
    """Measure the cells of a model that are not finished, and save each at once."""
    known = finished(folder, source, model)
    for maker, name in list(missing(known, formats)):
        request = {"source": str(source_path(source)), "model": model, "format": name, "maker": maker}
        found = cells.measured(request)
        known.setdefault(maker, {})[name] = found
        write_json(folder / source_path(source).stem / f"{model}.json", known)
        print(f"{model} {name} {maker}: {found['state']} in {found['whole']:.0f} s {found['reason'][:150]}", flush=True)


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
    found, cells = {}, Cells(given.limit)
    for source in given.sources:
        names = () if given.page else open_source(str(source_path(source))).MODELS
        for model in [name for name in names if name in (given.models or names)]:
            fill(given.folder, source, model, given.formats, cells)
        found[source if source in KNOWN_SOURCES else Path(source).stem] = collected(given.folder, source, given.formats)
    cells.close()
    write_bytes(given.out, page(found, given.formats, given.limit).encode())


if __name__ == "__main__":
    main()
