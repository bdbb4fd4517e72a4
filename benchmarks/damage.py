"""Damage the files of a run and its artifacts, and read them: `python benchmarks/damage.py [RUN] [--cases 10000]`.

Each case changes one file of a copy of RUN, a finished run with artifacts (a new one by default), with a mutator and a
fixed seed, and reads it as the commands do. It must be refused in one line, or be read; it must not end in a traceback,
take longer than 10 s, or write a file elsewhere. The counts are printed, and the exit code is 1 if a case fails.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import json
import os
import random
import re
import shutil
import struct
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import export
import training
from export.backends.keras.file import load_file
from export.core.manifest import NAME, SAMPLES, read_manifest, write_manifest
from export.core.samples import read_samples
from training.checkpoints.files import _read as read_checkpoint
from training.runs.run import Run
from zoo.common.errors import ZooError
from zoo.reading.keras_models import open_model

LIMIT = 10.0  # seconds
SMALL = 64 << 10  # bytes of a file that text is put into
VALUES = (None, True, -1, 0, 1e308, 10**19, "", "x" * 300, [], {}, [[]], {"a": {}}, "../../etc/passwd", "\u0000", 0.5)
RAW = (
    b"NaN",
    b"-Infinity",
    b"1" * 5000,
    b"[" * 3000,
    b'{"a":' * 3000,
    b"\xff",
    b"\xef\xbb\xbf",
    b"1e999",
    b"'",
    b"\x00",
)


def flip(content: bytes, draw: random.Random) -> bytes:
    """Flip some bits."""
    changed = bytearray(content or b"\x00")
    for _ in range(draw.choice((1, 1, 1, 4, 64))):
        changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def cut(content: bytes, draw: random.Random) -> bytes:
    """Keep the start, or leave out a part."""
    first, last = sorted(draw.randrange(len(content) + 1) for _ in range(2))
    return content[:first] + (b"" if draw.random() < 0.5 else content[last:])


def overwrite(content: bytes, draw: random.Random) -> bytes:
    """Replace a part by zeros, noise, large numbers or another part."""
    first = draw.randrange(len(content) + 1)
    size = draw.choice((1, 4, 8, 64, 4096))
    other = draw.randrange(len(content) + 1)
    parts = (bytes(size), draw.randbytes(size), b"\xff" * size, struct.pack("<Q", 1 << draw.randrange(64)))
    part = draw.choice((*parts, content[other : other + size]))
    return content[:first] + part + content[first + len(part) :]


def insert(content: bytes, draw: random.Random) -> bytes:
    """Put text of hostile JSON somewhere, or at the start."""
    first = draw.choice((0, draw.randrange(len(content) + 1)))
    return content[:first] + draw.choice(RAW) + content[first:]


def replace_number(content: bytes, draw: random.Random) -> bytes:
    """Replace a number in a text."""
    found = list(re.finditer(rb"-?\d+(\.\d+)?", content[:SMALL]))
    if not found:
        return flip(content, draw)
    place = draw.choice(found)
    return content[: place.start()] + draw.choice((*RAW[:3], b"-1", b"0.5", b'"1"')) + content[place.end() :]


def edit_json(content: bytes, draw: random.Random) -> bytes:
    """Change, remove or repeat a value in JSON, at any depth; other content is flipped."""
    try:
        value = json.loads(content.splitlines()[0] if content.count(b"}\n{") else content)
    except (ValueError, IndexError):
        return flip(content, draw)
    places = list(containers(value))
    place = draw.choice(places)
    keys = list(place) if isinstance(place, dict) else list(range(len(place)))
    if not keys:
        return json.dumps([value]).encode()
    key = draw.choice(keys)
    if draw.random() < 0.3:
        del place[key]
    else:
        place[key] = draw.choice(VALUES)
    return json.dumps(value, indent=2).encode() + b"\n"


def containers(value: Any) -> Iterator[Any]:
    """Yield the objects and lists in a value."""
    if isinstance(value, (dict, list)):
        yield value
        for inner in value.values() if isinstance(value, dict) else value:
            yield from containers(inner)


MUTATORS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    flip, flip, cut, overwrite, overwrite, insert, replace_number, edit_json, edit_json,
)  # fmt: skip


def read_run(folder: Path) -> None:
    """Read what a run has in JSON."""
    run = Run.open(folder)
    run.result()
    run.environment()
    run.statistics()
    run.files()
    run.text()
    run.metrics()
    run.diagnostics()


def sign(folder: Path) -> None:
    """Give a manifest the digests of its files, if it is still one."""
    try:
        manifest = json.loads((folder / NAME).read_bytes())
        kept = {k: v for k, v in manifest.items() if k not in ("version", "bytes", "files", "digest")}
        write_manifest(folder, kept)
    except (ValueError, AttributeError, RecursionError):
        return


def checkpoint(path: Path) -> None:
    """Read a checkpoint as resuming does."""
    read_checkpoint(path)


@dataclasses.dataclass(frozen=True)
class Target:
    """A file and what reads it.

    Args:
        file: its path in the run.
        read: takes the file, or the folder if `folder` is set.
        folder: the folder to read instead, in the run; "" for the run itself.
        signed: whether the manifest is given digests that fit.
        weight: how often it is drawn.
    """

    file: str
    read: Callable[[Path], Any]
    folder: str | None = None
    signed: bool = False
    weight: int = 1


def targets(run: Path, *, verify: bool = True) -> list[Target]:
    """Return what a run offers."""
    found = [
        Target(name, read_run, "", weight=6)
        for name in ("recipe.json", "done.json", "env.json", "data.json", "metrics.jsonl", "diagnostics.jsonl")
    ]
    found.append(Target("metrics.jsonl", training.diagnose, ""))
    found.append(Target("model.keras", open_model, weight=4))
    saved = sorted((run / "checkpoints").glob("*.safetensors"))
    found += [Target(f"checkpoints/{path.name}", checkpoint, weight=4) for path in saved]
    for manifest in sorted((run / "exports").glob(f"*/{NAME}")):
        folder = manifest.parent.relative_to(run).as_posix()
        found.append(Target(f"{folder}/{NAME}", read_manifest, folder, weight=2))
        found.append(Target(f"{folder}/{NAME}", read_manifest, folder, signed=True, weight=2))
        found.append(Target(f"{folder}/{SAMPLES}", read_samples, weight=2))
        files = [p for p in manifest.parent.rglob("*") if p.is_file() and p.name not in (NAME, SAMPLES)]
        for path in files:
            name = path.relative_to(run).as_posix()
            found.append(Target(name, export.inspect, folder, weight=2))
            if path.suffix == ".keras":
                found.append(Target(name, load_file, weight=2))
            if verify:
                found.append(Target(name, export.load, folder, signed=True))
                found.append(Target(name, export.verify, folder, signed=True))
    return found


def new_run(path: Path) -> Path:
    """Train a small model and export it to every format."""
    small = {"model.name": "resnet_tiny", "epochs": 1, "schedule.warmup_epochs": 0}
    run = training.train("digits_resnet", small, run=path)
    export.convert(run, ["keras", "onnx", "openvino", "saved_model", "tflite"])
    return run.path


def attempt(target: Target, run: Path) -> str:
    """Return "read" or "refused", or what failed."""
    start = time.monotonic()
    if target.signed:
        sign(run / str(target.folder))
    try:
        target.read(run / (target.file if target.folder is None else target.folder))
        outcome = "read"
    except ZooError as error:
        text = str(error)
        outcome = "refused" if "\n" not in text and len(text) < 2000 else f"not one line: {text[:200]!r}"
    except Exception as error:  # what is looked for
        place = traceback.extract_tb(error.__traceback__)[-1]
        outcome = f"traceback: {type(error).__name__}: {str(error)[:100]} ({place.filename}:{place.lineno})"
    seconds = time.monotonic() - start
    return outcome if seconds < LIMIT else f"slow: {seconds:.1f} s"


def main(source: Path, cases: int, seed: int = 0, *, verify: bool = True) -> dict[str, int]:
    """Damage files of a run; print and return the counts of the outcomes."""
    counts: collections.Counter[str] = collections.Counter()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        run = root / "run"
        shutil.copytree(source, run, ignore=shutil.ignore_patterns("tensorboard", "report.*"))
        known, draw = targets(run, verify=verify), random.Random(seed)
        for target in known:
            target.read(run / (target.file if target.folder is None else target.folder))  # imports; must not fail
        manifests = {path: path.read_bytes() for path in run.glob(f"exports/*/{NAME}")}
        for _ in range(cases):
            target = draw.choices(known, [each.weight for each in known])[0]
            path, mutate = run / target.file, draw.choice(MUTATORS)
            whole = path.read_bytes()
            path.write_bytes(mutate(whole, draw))
            outcome = attempt(target, run)
            path.write_bytes(whole)
            for manifest, content in manifests.items():
                manifest.write_bytes(content)
            counts[outcome.partition(":")[0]] += 1
            if outcome not in ("read", "refused"):
                sys.stdout.write(f"{target.file} by {mutate.__name__} in {target.read.__name__}: {outcome}\n")
            if (left := os.listdir(root)) != ["run"]:
                counts["written elsewhere"] += 1
                sys.stdout.write(f"{target.file} by {mutate.__name__}: {left} was written\n")
    sys.stdout.write(f"{sum(counts.values())} cases: {dict(counts)}\n")
    return dict(counts)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, nargs="?")
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = main(given.run or new_run(Path(folder) / "run"), given.cases, given.seed)
    sys.exit(not set(found) <= {"read", "refused"})
