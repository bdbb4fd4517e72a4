"""Read and encode a large table: `python benchmarks/large_table.py [FILE] [--rows 1000000] [--columns 200]`.

The CSV file is written first if it does not exist: numbers with four decimals, some of them missing, whole numbers,
categories and dates, seeded. Prints seconds, processor seconds and the peak memory of a process of its own until the
table is read and typed, until training could start (checked, split, encoded), and after the first epoch of batches.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

CHUNK = 50_000
SEED = 0


def write(path: Path, rows: int, columns: int) -> None:
    """Write the table."""
    import numpy as np
    import pyarrow as pa
    from pyarrow import csv

    rng, writer = np.random.default_rng(SEED), None
    for start in range(0, rows, CHUNK):
        chunk = pa.table(_columns(rng, min(CHUNK, rows - start), columns))
        writer = writer or csv.CSVWriter(path, chunk.schema)
        writer.write_table(chunk)
    if writer:
        writer.close()


def _columns(rng: Any, count: int, columns: int) -> dict[str, Any]:
    import numpy as np
    import pyarrow as pa

    days = np.datetime64("2019-01-01")
    makers = {
        "day": lambda: pa.array((days + rng.integers(0, 2000, count)).astype(str)),
        "kind": lambda: pa.array(rng.choice(["red", "green", "blue", "brown", "black"], count)),
        "count": lambda: pa.array(rng.integers(0, 1000, count)),
        "gaps": lambda: pa.array(np.round(rng.normal(size=count), 4), mask=rng.random(count) < 0.1),
    }
    found = {}
    for place in range(columns - 1):
        # Of each twenty columns one has dates, two categories, two whole numbers, one gaps; the others are plain.
        name = ("day", "kind", "kind", "count", "count", "gaps")[place % 20] if place % 20 < 6 else "value"
        plain = pa.array(np.round(rng.normal(size=count), 4)) if name == "value" else None
        found[f"{name}_{place}"] = plain if plain is not None else makers[name]()
    return {**found, "target": pa.array(rng.choice(["no", "yes"], count))}


def measure(path: str) -> None:
    """Print the measurements of this process."""
    import training
    import zoo
    from training.data.pipeline.opening import open_pipeline
    from training.data.readers.table_files import read_rows
    from training.recipe.recipe import resolve

    start, used = time.perf_counter(), time.process_time()

    def show(what: str) -> None:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        wall, cpu = time.perf_counter() - start, time.process_time() - used
        print(f"| {what} | {wall:.1f} | {cpu:.1f} | {peak:.2f} |", flush=True)

    rows = read_rows(path)
    show("read")
    del rows
    start, used = time.perf_counter(), time.process_time()
    options = {"data.path": path, "data.target": "target", "model.name": "mlp_tiny", "model.options": {}}
    recipe = resolve(training.get_recipe("table_mlp"), {**options, "data.batch_size": 1024}.items())
    pipeline = open_pipeline(recipe, zoo.spec("mlp_tiny"))
    show("read, checked, split, typed")
    count = sum(1 for _ in pipeline.train(0))
    show(f"and encoded, an epoch of {count} batches")


def main() -> None:
    """Write the table and measure it in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", nargs="?", type=Path)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--columns", type=int, default=200)
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        return measure(str(given.file))
    with tempfile.TemporaryDirectory() as folder:
        path = given.file or Path(folder) / "table.csv"
        if not path.exists():
            write(path, given.rows, given.columns)
        print(f"{given.rows:,} rows, {given.columns} columns, {path.stat().st_size / 1e6:,.0f} MB\n")
        print("| | seconds | processor seconds | peak GiB |\n|---|---|---|---|", flush=True)
        subprocess.run([sys.executable, __file__, str(path), "--measure"], check=True)
    return None


if __name__ == "__main__":
    main()
