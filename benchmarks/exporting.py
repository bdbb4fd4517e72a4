"""Measure the time and memory of exports: `python benchmarks/exporting.py`.

It measures the conversion alone, in processor time, which other programs disturb less. Then it measures the whole
command, `zoo export MODEL --weights random --format …` on random images: wall time and peak memory of the process and
its children, next to those of a tiny model, which are TensorFlow's own. The last part exports a tiny model repeatedly
and prints how the memory of the parent grows.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import export
import zoo

IMAGES, PIXELS = 48, 256
ROW = 50  # exports in a row
SMALL = "resnet_tiny"
PAUSE = 0.05  # seconds between measurements of memory


def images(folder: Path) -> Path:
    """Write images for calibration."""
    import numpy as np
    from PIL import Image

    draw, place = np.random.default_rng(0), folder / "images"
    place.mkdir()
    for number in range(IMAGES):
        coarse = draw.integers(0, 256, (16, 16, 3), "uint8")
        Image.fromarray(coarse).resize((PIXELS, PIXELS), Image.Resampling.BICUBIC).save(place / f"{number}.png")
    return place


def process_tree(process: int) -> list[int]:
    """Return the ids of a process and of all processes below it, itself first."""
    found, waiting = [], [process]
    while waiting:
        found.append(waiting.pop())
        with contextlib.suppress(OSError):
            for task in (Path("/proc") / str(found[-1]) / "task").iterdir():
                waiting += map(int, (task / "children").read_text().split())
    return found


def resident(process: int) -> int:
    """Return the resident bytes of a process and its children; shared memory counts for each."""
    total = 0
    for number in process_tree(process):
        with contextlib.suppress(OSError):
            pages = (Path("/proc") / str(number) / "statm").read_text().split()[1]
            total += int(pages) * os.sysconf("SC_PAGE_SIZE")
    return total


def allocated(process: int) -> int:
    """Return the resident bytes that a process and its children allocated, without pages of files such as libraries."""
    total = 0
    for number in process_tree(process):
        with contextlib.suppress(OSError):
            status = (Path("/proc") / str(number) / "status").read_text()
            total += sum(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("RssAnon:"))
    return total


def measured(command: Sequence[str]) -> tuple[float, float, str]:
    """Run a command; returns its seconds, its peak memory in megabytes, and its output."""
    start, peak, ended = time.monotonic(), 0, threading.Event()
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def watch() -> None:
        nonlocal peak
        while not ended.wait(PAUSE):
            peak = max(peak, resident(child.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    out, err = child.communicate()
    ended.set()
    watcher.join()
    if child.returncode:
        sys.exit(f"{' '.join(command)}: {err.strip()[-500:]}")
    return time.monotonic() - start, peak / 1e6, out


def convert(models: Sequence[str], folder: Path) -> None:
    """Convert models to ONNX, and print the processor time."""
    script = Path(__file__).parent.parent / "tests" / "export" / "formats" / "convert_families.py"
    wanted = [f"{model}=onnx" for model in models]
    subprocess.run([sys.executable, str(script), str(folder / "converted"), *wanted], check=True)
    for model in models:
        seconds = json.loads((folder / "converted" / model / "seconds.json").read_text())["onnx"]
        print(f"{model} onnx: converted in {seconds:.1f} s of processor time", flush=True)


def export_one(model: str, names: Sequence[str], folder: Path, calibrate: Path, base: float = 0.0) -> float:
    """Export a model to some formats, print time and memory, and return the peak memory in megabytes.

    Args:
        model: its name.
        names: the formats.
        folder: for the artifacts.
        calibrate: images.
        base: peak memory of a tiny model, megabytes.
    """
    out = folder / f"{model}-{len(names)}-{names[0]}"
    command = [sys.executable, "-m", "zoo", "export", model, "--weights", "random", "--out", str(out), "--json"]
    seconds, peak, printed = measured([*command, "--calibration", str(calibrate), "--format", *names])
    size = zoo.spec(model).params * 4 / 1e6
    files = sum(manifest["bytes"] for manifest in json.loads(printed)) / 1e6
    more = f", {peak - base:.0f} more than a tiny model ({(peak - base) / size:.1f} times the {size:.0f} MB of weights)"
    text = f"{model} {' '.join(names)}: {seconds:.1f} s, peak {peak:.0f} MB{more if base else ''}"
    print(f"{text}, {files:.1f} MB written", flush=True)
    return peak


def in_a_row(folder: Path) -> None:
    """Export a tiny model repeatedly, and print how the memory of this process grows."""
    sizes = []
    for _ in range(ROW):
        export.convert("mlp_tiny", "onnx", weights="random", out=folder / "row")
        sizes.append(resident(os.getpid()) / 1e6)
    first, tenth, last = (round(sizes[place]) for place in (0, 9, -1))
    print(f"{ROW} exports in a row: {first} MB after the first, {tenth} after ten, {last} after all")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="*", default=["resnet50", "vgg16"], help="to export to ONNX alone")
    parser.add_argument("--all", default="resnet50", help="the model to export to all formats, '' for none")
    parser.add_argument("--row", action="store_true", help="also export a tiny model repeatedly")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as place:
        calibrate = images(Path(place))
        convert(given.models, Path(place))
        base = export_one(SMALL, ["onnx"], Path(place), calibrate)
        for model in given.models:
            export_one(model, ["onnx"], Path(place), calibrate, base)
        if given.all:
            unsupported = dict(zoo.spec(given.all).unsupported)
            names = [name for name in export.list_formats() if name not in unsupported]
            base = export_one(SMALL, names, Path(place), calibrate)
            export_one(given.all, names, Path(place), calibrate, base)
        if given.row:
            in_a_row(Path(place))


if __name__ == "__main__":
    main()
